"""Opening what is to be read: counted as it is read, unpacked where it is gzip, bounded where it would not end."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from stages.store.errors import UserError

CHUNK = 1 << 18
"""Bytes read at once; between two chunks the work can be cancelled."""

GZIP = b"\x1f\x8b"

EXPANSION, FREE = 200, 200_000_000
"""A gzip file may unpack to so many times its size, and to so many bytes in any case. Text packs 3 to 20 times."""

BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)
"""What a damaged gzip file raises."""

Advance = Callable[[int], None]
"""Called with the bytes of the file that were read since the last call. It may raise, to cancel."""


class Unpacks(UserError):
    """A gzip file that unpacks to far more than a text would."""


def opened(path: Path, advance: Advance) -> BinaryIO:
    """The file's bytes, unpacked when it is gzip. Raises OSError; reading may raise Unpacks or one of BROKEN."""
    raw = path.open("rb", buffering=0)
    packed = raw.read(2) == GZIP
    raw.seek(0)
    inner: io.RawIOBase | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if packed else raw
    limit = max(FREE, EXPANSION * path.stat().st_size) if packed else None
    return cast(BinaryIO, io.BufferedReader(_Watched(inner, raw, limit, advance), CHUNK))


class _Watched(io.RawIOBase):
    """Tells how far the file underneath has been read; `limit` is the most it may unpack to."""

    def __init__(
        self, inner: io.RawIOBase | gzip.GzipFile, raw: io.FileIO, limit: int | None, advance: Advance
    ) -> None:
        self._inner, self._raw, self._limit, self._advance = inner, raw, limit, advance
        self._told = self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        count = self._inner.readinto(buffer) or 0  # type: ignore[arg-type]  # the buffer that BufferedReader passes on
        self._given += count
        if self._limit is not None and self._given > self._limit:
            raise Unpacks(f"it unpacks to more than {EXPANSION} times its size, which no text does.")
        here = self._raw.tell()
        read, self._told = here - self._told, here
        self._advance(read)
        return count

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
            self._raw.close()
        super().close()
