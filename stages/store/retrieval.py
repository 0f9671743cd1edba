"""Passages of documents found by their words: an index in SQLite's FTS5, ranked by BM25.

    BM25(q, d) = Σ over words w of q: IDF(w) · f(w, d) (k₁ + 1) / (f(w, d) + k₁ (1 − b + b |d| / mean |d|))

with k₁ = 1.2 and b = 0.75. Source: Robertson and Zaragoza, The Probabilistic Relevance Framework (2009), section 3.
An index is a cache: it is brought up to date before every search, and made anew when it is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stages.store.errors import UserError, WorkFailed
from stages.store.workspace import Workspace

SCHEMA = 1
PATIENCE = 30.0
"""Seconds that one process waits for another that writes the same index."""
LONGEST = 1_000
"""Characters of a passage; longer paragraphs are cut between sentences."""
MOST_FILES = 20_000
MOST_BYTES = 16 * 2**20
"""Bytes of a file; of larger ones nothing is read."""
MOST_WORDS = 64
"""Words of a question that are looked for."""

_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+")


class Document(NamedTuple):
    """Something to find passages in. `stamp` changes when its content does; `read` gives the text, None for no text."""

    name: str
    stamp: str
    read: Callable[[], str | None]


class Chunk(NamedTuple):
    """A piece of a text with the line it begins at, counted from 1."""

    line: int
    text: str


class Passage(NamedTuple):
    """What was found: in which document, from which line, the text, and its score (higher is better)."""

    document: str
    line: int
    text: str
    score: float


class Extent(NamedTuple):
    """What an index holds; `skipped` documents have no text."""

    documents: int
    passages: int
    skipped: int


class Index:
    """One source's passages. `update` before `search`; close it when done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkFailed(f"{path.parent} cannot be created: {error.strerror}.", "Free the way to it.") from error
        self._db = self._opened()

    def close(self) -> None:
        self._db.close()

    def update(
        self, documents: Iterable[Document], check: Callable[[], None] = lambda: None, *, whole: str = ""
    ) -> Extent:
        """Take in what is new or changed, forget what is gone. `check` is called for each, and may raise to cancel.

        whole: names the content of all documents together, where that is known; while it is the same, none is looked
        at. All of it or nothing: a search never sees half an update. Raises WorkFailed for what SQLite refuses.
        """
        with _told(self.path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            before = self._db.execute("SELECT stamp FROM whole").fetchone()
            if whole and before == (whole,):
                return self.extent()
            known = dict(self._db.execute("SELECT name, stamp FROM documents"))
            for document in documents:
                check()
                if known.pop(document.name, None) != document.stamp:
                    self._forget(document.name)
                    self._take_in(document)
            for name in known:
                self._forget(name)
            self._db.execute("DELETE FROM whole")
            self._db.execute("INSERT INTO whole VALUES (?)", (whole,))
            return self.extent()

    def extent(self) -> Extent:
        """How much there is."""
        with _told(self.path):
            counts = self._db.execute("SELECT count(*), sum(skipped), sum(last - first) FROM documents").fetchone()
        documents, skipped, passages = (count or 0 for count in counts)
        return Extent(documents - skipped, passages, skipped)

    def search(self, question: str, count: int) -> list[Passage]:
        """The passages that fit a question best, the best first; none when no word of it occurs.

        The question is text: nothing in it is taken for the index's own language.
        """
        words = query(question)
        if not words or count < 1:
            return []
        found = (
            "SELECT document, line, text, -bm25(passages) FROM passages "
            "WHERE passages MATCH ? ORDER BY bm25(passages), document, rowid LIMIT ?"
        )
        with _told(self.path):
            return [Passage(*row) for row in self._db.execute(found, (words, count))]

    def _take_in(self, document: Document) -> None:
        text = document.read()
        rows = [(chunk.text, document.name, chunk.line) for chunk in chunks(text or "")]
        (last,) = self._db.execute("SELECT coalesce(max(rowid), 0) FROM passages").fetchone()
        numbered = ((number, *row) for number, row in enumerate(rows, last + 1))
        self._db.executemany("INSERT INTO passages (rowid, text, document, line) VALUES (?, ?, ?, ?)", numbered)
        values = (document.name, document.stamp, text is None, last, last + len(rows))
        self._db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", values)

    def _forget(self, name: str) -> None:
        found = self._db.execute("SELECT first, last FROM documents WHERE name = ?", (name,)).fetchone()
        if found:
            self._db.execute("DELETE FROM passages WHERE rowid > ? AND rowid <= ?", found)
            self._db.execute("DELETE FROM documents WHERE name = ?", (name,))

    def _opened(self) -> sqlite3.Connection:
        """The database with its tables; one that is damaged, or of another version, is made anew."""
        for again in (False, True):
            if again:
                self.path.unlink(missing_ok=True)
            with _told(self.path):
                db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
                try:
                    if _prepared(db):
                        return db
                except sqlite3.OperationalError:
                    db.close()
                    raise
                except sqlite3.DatabaseError:
                    pass  # no database, or a damaged one: nothing in it is worth keeping
                db.close()
        raise WorkFailed(f"{self.path} cannot be made anew.", "Remove it.")


def _prepared(db: sqlite3.Connection) -> bool:
    """Make the tables where there are none; False when they are another version's."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, SCHEMA):
        return False
    with db:
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, stamp TEXT NOT NULL, "
            "skipped INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL)"  # first < rowid <= last
        )
        db.execute("CREATE TABLE IF NOT EXISTS whole (stamp TEXT NOT NULL)")
        db.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS passages USING fts5"
            "(text, document UNINDEXED, line UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2')"
        )
        db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.execute("SELECT count(*) FROM passages").fetchone()
    return True


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """SQLite's errors as a sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if "fts5" in str(error):
            raise WorkFailed("The SQLite of this Python has no FTS5.", "Use a Python whose sqlite3 has it.") from error
        if code == sqlite3.SQLITE_FULL:
            raise WorkFailed(f"The disk that holds {path} is full.", "Free some space there.") from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            hint = "Change its permissions, or use another workspace."
            raise WorkFailed(f"{path} cannot be written.", hint) from error
        raise WorkFailed(f"The index {path} cannot be used: {error}.", "Try again, or remove the file.") from error
    except sqlite3.DatabaseError as error:
        raise WorkFailed(f"The index {path} is damaged: {error}.", "Remove the file; it is made anew.") from error


def query(question: str) -> str:
    """A question as FTS5 is asked: its different words, each quoted, any of which may occur. Nothing for no words."""
    words = dict.fromkeys(word.lower() for word in _WORD.findall(question))
    return " OR ".join(f'"{word}"' for word in list(words)[:MOST_WORDS])


def chunks(text: str) -> Iterator[Chunk]:
    """A text's paragraphs, those that are too long in pieces; a heading goes with the paragraph behind it."""
    heading: Chunk | None = None
    for paragraph in _paragraphs(text):
        if paragraph.text.startswith("#") and "\n" not in paragraph.text and heading is None:
            heading = paragraph
            continue
        first = heading or paragraph
        whole = paragraph.text if heading is None else f"{heading.text}\n{paragraph.text}"
        heading = None
        for piece in _pieces(whole):
            yield Chunk(first.line, piece)
    if heading is not None:
        yield heading


def _paragraphs(text: str) -> Iterator[Chunk]:
    """Runs of lines that are not blank."""
    lines: list[str] = []
    for number, line in enumerate([*text.replace("\r\n", "\n").split("\n"), ""], 1):
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            yield Chunk(number - len(lines), "\n".join(lines))
            lines = []


def _pieces(text: str) -> Iterator[str]:
    """At most LONGEST characters each, cut between sentences where that is possible."""
    piece = ""
    for sentence in _SENTENCE_END.split(text) if len(text) > LONGEST else [text]:
        if piece and len(piece) + 1 + len(sentence) > LONGEST:
            yield piece
            piece = ""
        piece = f"{piece} {sentence}" if piece else sentence
        while len(piece) > LONGEST:
            yield piece[:LONGEST]
            piece = piece[LONGEST:]
    if piece.strip():
        yield piece


def files_in(folder: Path) -> Iterator[Document]:
    """Every file below a folder (or the one file), by name, without hidden ones; what is no text is skipped.

    Links to folders are not followed. UserError where there is nothing, or more than MOST_FILES files.
    """
    if not folder.exists():
        raise UserError(f"There is no file or folder {folder}.", "Name a folder, a file or a dataset.")
    if not folder.is_dir():
        yield from _document(folder, folder.name)
        return
    count = 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(root) / name
            for document in _document(path, os.path.relpath(path, folder)):
                count += 1
                if count > MOST_FILES:
                    raise UserError(f"{folder} has more than {MOST_FILES:,} files.", "Choose a smaller folder.")
                yield document


def _document(path: Path, name: str) -> Iterator[Document]:
    """A regular file as a document; nothing for a pipe, a device, or what is gone already."""
    try:
        status = path.stat()
    except OSError:
        return
    if stat.S_ISREG(status.st_mode):
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        stamp = f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}"
        yield Document(shown, stamp, lambda: _text_of(path, status.st_size))


def _text_of(path: Path, size: int) -> str | None:
    """A file's text in UTF-8; None for what is too large, cannot be read, or is no text."""
    if size > MOST_BYTES:
        return None
    try:
        data = path.read_bytes()
        return None if b"\x00" in data else data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None


def index_path(workspace: Workspace, source: str) -> Path:
    """Where the index of a source is kept; `source` is a folder's absolute path or a dataset's name."""
    name = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return workspace.root / "cache" / "retrieval" / f"{name}.db"
