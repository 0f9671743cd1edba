"""Records out of a JSON file of any size: the elements of its list, one at a time, without holding the file.

The file is a list, an object with one list of records, one record, or records one after the other. A scanner cuts each
element out by counting brackets outside of strings; msgspec decodes it. Damage costs the record it is in: the scanner
goes on where the next record seems to begin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import msgspec

from stages.data.opening import CHUNK
from stages.data.shapes import SHAPES
from stages.data.trouble import Refuse, not_utf8, why_not_json

LONGEST = 16_000_000
"""Bytes. A longer record is reported and left out; it is never held in memory."""

DEEPEST = 10_000
"""Levels after which a value is given up as damaged; no decoder goes so deep."""

MOST_DAMAGE = 1_000
"""Damaged places in one file after which the rest is left out."""

OVERLAP = 200
"""Bytes that are kept behind us: the space before a record tells how records are indented."""

SPACE = re.compile(rb"[ \t\r\n,]*+")
INSIDE = re.compile(rb'(?:[^"\\\n]++|\\[^\n])*+', re.DOTALL)
"""The rest of a string, up to its quote; a newline in it is damage."""
DEEP = re.compile(rb'["{}\[\]]')
FLAT = re.compile(rb'["{}\[\],\n]')
"""What matters within a list or an object, and outside of all."""


def read_json(open_again: Callable[[], BinaryIO], refuse: Refuse) -> Iterator[tuple[int, Any]]:
    """The values of a JSON file that stand for records, each with the line it begins in."""
    with open_again() as file:
        scanner = Scanner(file)
        scanner.skip(b"\xef\xbb\xbf")
        if scanner.next() == b"[":
            scanner.skip(b"[")
            yield from _decoded(scanner, refuse, listed=True)
            return
        if scanner.next() != b"{":
            yield from _decoded(scanner, refuse, listed=False)
            return
        line, first = scanner.line, scanner.value()
        alone = not scanner.next()
        if not alone:
            found = _decode(line, first, refuse)
            if found is not None:
                yield line, found
            yield from _decoded(scanner, refuse, listed=False)
            return
    key: str | None = "" if first is None else _list_of_records(line, first, refuse)
    if key is None and first is not None:
        found = _decode(line, first, refuse)
        if found is not None:
            yield line, found
    elif key is not None:
        with open_again() as file:
            scanner = Scanner(file)
            if scanner.enter_list(key):
                yield from _decoded(scanner, refuse, listed=True, more=True)
            else:
                refuse(line, "", "This object is too long for a record, and holds no list of records.")


def _list_of_records(line: int, data: bytes, refuse: Refuse) -> str | None:
    """The field of the file's only object that holds the records; None when the object is a record, or damaged."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if any(shape.fits(value) for shape in SHAPES if shape.kind != "text"):
        return None
    lists = [name for name, part in value.items() if isinstance(part, list) and part and isinstance(part[0], dict)]
    if len(lists) > 1:
        refuse(line, "", f"This object holds several lists ({', '.join(lists[:8])}); put each into a file of its own.")
    return lists[0] if len(lists) == 1 else None


def _decoded(scanner: Scanner, refuse: Refuse, *, listed: bool, more: bool = False) -> Iterator[tuple[int, Any]]:
    """The values from here on: to the end of their list (`listed`; `more` may follow it), or of the file."""
    damages = 0
    while first := scanner.next():
        line = scanner.line
        if first == b"]" and listed:
            scanner.skip(b"]")
            if more or not scanner.next():
                return
            refuse(scanner.line, "", "The list ends here, but more follows.")
            data: bytes | None = b""
            value = None
        else:
            data = scanner.value()
            value = _decode(line, data, refuse)
            if value is not None:
                yield line, value
        if data is not None and value is None:
            damages += 1
            if damages > MOST_DAMAGE or not scanner.recover():
                if damages > MOST_DAMAGE:
                    refuse(scanner.line, "", "There is too much damage; the rest was left out.")
                return
    if listed:
        refuse(scanner.line, "", "The file ends within its list.")


def _decode(line: int, data: bytes | None, refuse: Refuse) -> Any:
    """The value, or None when it has been refused."""
    if data is None:
        refuse(line, "", f"This record is longer than {LONGEST / 1e6:.0f} MB and was left out.")
        return None
    problem = ""
    try:
        value = msgspec.json.decode(data)
        return {} if value is None else value
    except RecursionError:
        problem = "This JSON is nested too deeply."
    except UnicodeDecodeError as error:
        problem = not_utf8(error)
    except msgspec.DecodeError as error:
        problem = why_not_json(data, str(error))
    refuse(line, "", problem)
    return None


class Scanner:
    """Goes through JSON text and cuts values out of it. `line` is that of the next byte, from 1."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._data, self._at = b"", 0
        self._start = 0  # where the last value began, while it is still held
        self._next_record: re.Pattern[bytes] | None = None
        self._indented = False
        self.line = 1

    def next(self) -> bytes:
        """The next byte that is neither space nor comma, without going past it; empty at the end."""
        while True:
            match = SPACE.match(self._data, self._at)
            assert match is not None
            self._go(match.end())
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._fill(keep=max(0, self._at - OVERLAP)):
                return b""

    def skip(self, text: bytes) -> None:
        """Go past `text` where it stands here."""
        if len(self._data) - self._at < len(text):
            self._fill(keep=self._at)
        if self._data.startswith(text, self._at):
            self._go(self._at + len(text))

    def value(self) -> bytes | None:
        """The value that begins here, damaged or whole; None when it is too long. Afterwards we stand behind it."""
        self._start, too_long = self._at, False
        if self._next_record is None:
            self._next_record = self._beginning()
        here, depth, inside, done = self._at, 0, False, False
        while True:
            here, depth, inside, done = _advance(self._data, here, depth, inside)
            if done:
                break
            if here - self._start > LONGEST:
                if self._indented and self._next_record.search(self._data, self._start + 1):
                    break  # its end is lost: other records stand in it
                too_long = True
                self._go(here)
                self._start = here
            dropped = self._start
            if not self._fill(keep=dropped):
                break
            here -= dropped
        data = self._data[self._start : here]
        self._go(here)
        return None if too_long else data

    def recover(self) -> bool:
        """Go to where the next record seems to begin after the start of the last value; False when there is none."""
        assert self._next_record is not None
        here = self._start + 1
        while (match := self._next_record.search(self._data, here)) is None:
            self._go(max(self._at, len(self._data) - OVERLAP))
            if not self._fill(keep=self._at):
                return False
            here = 0
        place = match.end() - 1
        self.line += self._data.count(b"\n", self._at, place) - self._data.count(b"\n", place, self._at)
        self._at = place
        return True

    def _beginning(self) -> re.Pattern[bytes]:
        """What the beginning of a record looks like, judged by the first one."""
        before = self._data[: self._at].rpartition(b"\n")
        self._indented = bool(before[1]) and not before[2].strip()
        return re.compile(rb"\n" + re.escape(before[2]) + rb"\{") if self._indented else re.compile(rb"\}\s*,?\s*\{")

    def enter_list(self, key: str) -> bool:
        """Go into the first list that stands under `key` in the object that begins here; any key, when it is empty."""
        self.next()
        self.skip(b"{")
        while self.next() == b'"':
            name = self.value() or b""
            while self.next() == b":":
                self.skip(b":")
            if self.next() == b"[" and (_text(name) == key if key else self._holds_objects()):
                self.skip(b"[")
                self._next_record = None
                return True
            self.value()
        return False

    def _holds_objects(self) -> bool:
        if len(self._data) - self._at < OVERLAP:
            self._fill(keep=self._at)
        return re.compile(rb"\[\s*\{").match(self._data, self._at) is not None

    def _go(self, place: int) -> None:
        self.line += self._data.count(b"\n", self._at, place)
        self._at = place

    def _fill(self, keep: int) -> bool:
        """Read on; what stands before `keep` is let go. False at the end."""
        chunk = self._file.read(CHUNK)
        self._data = self._data[keep:] + chunk
        self._at -= keep
        self._start = max(0, self._start - keep)
        return bool(chunk)


def _advance(data: bytes, here: int, depth: int, inside: bool) -> tuple[int, int, bool, bool]:
    """Go on in a value: the new place, depth, whether in a string, and whether the value has ended."""
    while here < len(data):
        if inside:
            match = INSIDE.match(data, here)
            assert match is not None
            here = match.end()
            if here >= len(data) or (data[here : here + 1] == b"\\" and here + 1 >= len(data)):
                return here, depth, True, False
            if data[here : here + 1] != b'"':
                return here, depth, True, True  # a newline in a string
            here, inside = here + 1, False
            if depth == 0:
                return here, 0, False, True
            continue
        found = (DEEP if depth else FLAT).search(data, here)
        if found is None:
            return len(data), depth, False, False
        mark, here = found[0], found.end()
        if mark == b'"':
            inside = True
        elif mark in b"{[":
            depth += 1
            if depth > DEEPEST:
                return here, depth, False, True
        elif depth == 0:
            return found.start(), 0, False, True
        else:
            depth -= 1
            if depth == 0:
                return here, 0, False, True
    return here, depth, inside, False


def _text(data: bytes) -> str | None:
    try:
        return msgspec.json.decode(data, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
