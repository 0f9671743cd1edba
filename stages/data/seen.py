"""Which keys have been seen: exact duplicates, in memory while they are few and on disk when they are many."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import msgspec

from stages.store.records import Record, TextRecord

IN_MEMORY = 1_000_000
"""Keys held in memory, at about 80 bytes each; those beyond go to the database."""


class Seen:
    """A set of digests that does not outgrow memory. `path` is for the database; it goes on `close`."""

    def __init__(self, path: Path, in_memory: int = IN_MEMORY) -> None:
        self._path, self._in_memory = path, in_memory
        self._held: set[bytes] = set()
        self._database: sqlite3.Connection | None = None

    def add(self, key: bytes) -> bool:
        """Whether the key was there already; it is now."""
        if key in self._held:
            return True
        if len(self._held) < self._in_memory:
            self._held.add(key)
            return False
        return not self._opened().execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount

    def __contains__(self, key: bytes) -> bool:
        if key in self._held or self._database is None:
            return key in self._held
        return self._database.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchone() is not None

    def close(self) -> None:
        """Forget everything."""
        self._held = set()
        if self._database is not None:
            self._database.close()
            self._path.unlink(missing_ok=True)

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._path.unlink(missing_ok=True)
            self._database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            for pragma in (
                "journal_mode = OFF",
                "synchronous = OFF",
                "cache_size = -64000",
                "locking_mode = EXCLUSIVE",
            ):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")
        return self._database


def digest(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def record_digest(record: Record) -> bytes:
    """16 bytes that stand for a record, whatever its source and meta. Rankings of one prompt differ by their ranks."""
    if isinstance(record, TextRecord):
        return digest(record.text)
    bare = msgspec.structs.replace(record, source="", meta={})
    return hashlib.blake2b(msgspec.json.encode(bare), digest_size=16).digest()
