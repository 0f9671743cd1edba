"""Reading files as bytes, one bounded line at a time: text into documents, JSON lines into values."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from stages.data.opening import CHUNK, Advance, opened
from stages.data.trouble import Refuse, not_utf8, why_not_json
from stages.store.datasets import Problem

LONGEST_LINE = 16_000_000
"""Bytes. A longer line is reported and left out; it is never held in memory."""

LONGEST_TEXT = 4_000_000
"""Characters. A longer text file is always cut, so that memory stays bounded."""

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Scan(NamedTuple):
    """What a first look at a whole file found."""

    size: int
    sha256: str
    binary: bool
    problem: Problem | None
    """Set when the file is refused as a whole."""


def scan(path: Path, *, text: bool, advance: Advance) -> Scan:
    """Read a file once: its digest and, for `text`, whether it is binary (holds NUL) or broken UTF-8.

    What is gzip is read a second time, unpacked. Raises OSError.
    """
    digest, check, size, packed = hashlib.sha256(), _TextCheck(path), 0, False
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            packed = packed or (size == 0 and chunk.startswith(b"\x1f\x8b"))
            digest.update(chunk)
            size += len(chunk)
            advance(len(chunk))
            if text and not packed:
                check.add(chunk)
    if text and packed:
        with opened(path, lambda count: advance(0)) as unpacked:
            while (chunk := unpacked.read(CHUNK)) and not check.binary and check.problem is None:
                check.add(chunk)
    if text:
        check.end()
    return Scan(size, digest.hexdigest(), check.binary, check.problem)


def glance(path: Path, *, text: bool) -> Scan:
    """What `scan` says, judged by the file's beginning alone; without a digest."""
    check = _TextCheck(path)
    if text:
        with opened(path, lambda count: None) as file:
            check.add(file.read(CHUNK))
    return Scan(path.stat().st_size, "", check.binary, check.problem)


class _TextCheck:
    """Looks for what is not UTF-8 text in a file, chunk by chunk."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines, self._begun = path, 0, False
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.binary = False
        self.problem: Problem | None = None

    def add(self, chunk: bytes) -> None:
        if not self._begun and chunk.startswith(UTF16):
            self.problem = Problem(shown(self._path), 0, "", "This is UTF-16. Save it as UTF-8.")
        self._begun = True
        self.binary = self.binary or (self.problem is None and b"\0" in chunk)
        self._decode(chunk, final=False)

    def end(self) -> None:
        self._decode(b"", final=True)

    def _decode(self, chunk: bytes, *, final: bool) -> None:
        if self.problem is not None:
            return
        try:
            self._decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            line = self._lines + error.object[: error.start].count(b"\n") + 1
            self.problem = Problem(shown(self._path), line, "", not_utf8(error))
        self._lines += chunk.count(b"\n")


def read_lines(file: BinaryIO, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes | None, int]]:
    """Line numbers from 1, lines with their newline (None for one beyond `longest`), and bytes read. Splits at \\n."""
    number = 0
    while line := file.readline(longest + 1):
        number, read = number + 1, len(line)
        if len(line) <= longest or line.endswith(b"\n"):
            yield number, line, read
            continue
        while not line.endswith(b"\n") and (line := file.readline(CHUNK)):
            read += len(line)
        yield number, None, read


def read_text(file: BinaryIO, cut: int, refuse: Refuse) -> Iterator[str]:
    """The documents of a text file that `scan` found to be UTF-8, cut as `cut_at_blank_lines` says."""

    def lines() -> Iterator[str]:
        for number, line, read in read_lines(file):
            if line is None:
                refuse(number, "", too_long(read))
            else:
                yield line.decode()

    return cut_at_blank_lines(lines(), cut)


def read_json_lines(file: BinaryIO, refuse: Refuse) -> Iterator[tuple[int, Any]]:
    """The JSON value of each line that is not blank, with its number."""
    for number, line, read in read_lines(file):
        if line is None:
            refuse(number, "", too_long(read))
            continue
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not line.strip():
            continue
        try:
            yield number, msgspec.json.decode(line)
        except RecursionError:
            refuse(number, "", "This JSON is nested too deeply.")
        except UnicodeDecodeError as error:
            refuse(number, "", not_utf8(error))
        except msgspec.DecodeError as error:
            refuse(number, "", why_not_json(line, str(error)))


def cut_at_blank_lines(lines: Iterable[str], longest: int) -> Iterator[str]:
    """Join lines into texts of at most `longest` characters that end, where they can, after a blank line.

    Nothing is lost: the texts joined are the lines joined. A paragraph that is longer is cut at the end of a line, and
    a line that is longer within it.
    """
    held: list[str] = []
    size = boundary = 0  # characters held; lines up to and with the last blank one
    for line in lines:
        for part in _slices(line, longest):
            if held and size + len(part) > longest:
                end = boundary or len(held)
                yield "".join(held[:end])
                held, boundary = held[end:], 0
                size = sum(map(len, held))
                if held and size + len(part) > longest:
                    yield "".join(held)
                    held, size = [], 0
            held.append(part)
            size += len(part)
            if not part.strip():
                boundary = len(held)
    if held:
        yield "".join(held)


def shown(path: Path) -> str:
    """A path for messages and records: always valid Unicode."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def too_long(size: int) -> str:
    """A sentence for a line of `size` bytes."""
    return f"This line has {size / 1e6:.0f} MB and was left out; the limit is {LONGEST_LINE / 1e6:.0f} MB."


def _slices(line: str, longest: int) -> Iterator[str]:
    start = 0
    while len(line) - start > longest:
        end = start + longest
        if longest > 1 and line[end - 1] == "\r" and line[end] == "\n":
            end -= 1  # the two are one line ending
        yield line[start:end]
        start = end
    yield line[start:]
