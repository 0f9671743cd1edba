"""Reading files that others append to: JSON lines with rewinds, and text, a bounded part at a time."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

CHUNK = 32 * 1024
"""Bytes that one call reads at most, unless a single line is longer."""

LONGEST_LINE = 16 * 1024 * 1024
"""Bytes after which a line without an end is given up, so that memory stays bounded."""

_REWIND = b'"rewind_to"'
_decoder = msgspec.json.Decoder(dict[str, Any])


class Chunk(NamedTuple):
    """What one call has read. Apply the fields in their order."""

    restarted: bool
    """The file was replaced or cut, or `restart` was called: forget all rows."""
    rewind_to: float | None
    """Forget the rows beyond this step."""
    rows: list[dict[str, Any]]
    """New rows, without those that a rewind has taken back."""
    more: bool
    """The file has more to read now."""


class RowFollower:
    """Reads new rows of an append-only file of JSON objects.

    A line without its newline is left for later. `{"rewind_to": n}` takes back the rows before it whose `step` is
    beyond n. On a fresh start all rewinds that the file already holds are known before the first row is returned, so
    rows which no longer count are never seen. Lines that are no JSON objects are left out and counted in `unreadable`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unreadable = 0
        self._offset = 0
        self._inode: int | None = None
        self._rewinds: list[tuple[int, float]] = []
        self._fresh = False

    def restart(self) -> None:
        """Read everything again from the next call on."""
        self._offset, self._inode, self.unreadable = 0, None, 0

    def read(self, limit: int = CHUNK) -> Chunk:
        """Read up to about `limit` bytes of new rows. Never raises for a file that is missing or changes meanwhile."""
        try:
            with self.path.open("rb", buffering=0) as file:
                return self._read(file, limit)
        except OSError:
            started, self._inode, self._offset = self._inode is not None, None, 0
            return Chunk(started, None, [], more=False)

    def _read(self, file: Any, limit: int) -> Chunk:
        status = os.fstat(file.fileno())
        restarted = status.st_ino != self._inode or status.st_size < self._offset
        if restarted:
            self._inode, self._offset, self.unreadable = status.st_ino, 0, 0
            self._rewinds = _find_rewinds(file, status.st_size)
        elif status.st_size == self._offset:
            return Chunk(False, None, [], more=False)
        data = _whole_lines(file, self._offset, limit)
        self._offset += len(data)
        rewind_to, rows = self._rows(data)
        pending = [step for offset, step in self._rewinds if offset >= self._offset]
        if pending:
            rows = _up_to(rows, min(pending))
        else:
            self._rewinds = []
        return Chunk(restarted, rewind_to, rows, more=bool(data) and self._offset < status.st_size)

    def _rows(self, data: bytes) -> tuple[float | None, list[dict[str, Any]]]:
        decoded = self._decode(data)
        if _REWIND not in data:
            return None, decoded
        lowest: float | None = None
        rows: list[dict[str, Any]] = []
        for row in decoded:
            step = _number(row.get("rewind_to"))
            if step is None:
                rows.append(row)
            else:
                rows = _up_to(rows, step)
                lowest = step if lowest is None else min(lowest, step)
        return lowest, rows

    def _decode(self, data: bytes) -> list[dict[str, Any]]:
        try:
            return _decoder.decode_lines(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # one of the lines is bad: find it
        rows = []
        for line in data.split(b"\n"):
            if not line.strip():
                continue
            try:
                rows.append(_decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.unreadable += 1
        return rows


def _whole_lines(file: Any, offset: int, limit: int) -> bytes:
    """Bytes from `offset` to the end of a line: about `limit`, more for a longer line, none when no line has ended."""
    file.seek(offset)
    data = bytearray()
    while True:
        part = file.read(limit)
        data += part
        end = data.rfind(b"\n")
        if end >= 0:
            return bytes(data[: end + 1])
        if not part:
            return b""
        if len(data) >= LONGEST_LINE:
            return bytes(data)


def _find_rewinds(file: Any, size: int) -> list[tuple[int, float]]:
    """Offset and step of every rewind row in the first `size` bytes."""
    found: list[tuple[int, float]] = []
    offset = 0
    file.seek(0)
    while offset < size:
        data = _whole_lines(file, offset, 32 * CHUNK)
        if not data:
            break
        at = data.find(_REWIND)
        while at >= 0:
            start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
            end = end if end >= 0 else len(data)
            try:
                step = _number(_decoder.decode(data[start:end]).get("rewind_to"))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                step = None
            if step is not None:
                found.append((offset + start, step))
            at = data.find(_REWIND, end)
        offset += len(data)
    return found


def _up_to(rows: list[dict[str, Any]], step: float) -> list[dict[str, Any]]:
    return [row for row in rows if (number := _number(row.get("step"))) is None or number <= step]


def _number(value: Any) -> float | None:
    """`value` as a finite float, or None for all that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


class TextFollower:
    """Reads the end of a growing text file, and then what is added to it."""

    def __init__(self, path: Path, tail: int = 64 * 1024) -> None:
        self.path = path
        self.tail = tail
        self._offset = 0
        self._inode: int | None = None
        self._held = b""

    def read(self, limit: int = CHUNK) -> tuple[bool, str]:
        """(whether all text before is to be forgotten, new text). Bytes that are no UTF-8 become U+FFFD."""
        try:
            with self.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                restarted = status.st_ino != self._inode or status.st_size < self._offset
                if restarted:
                    self._inode, self._held = status.st_ino, b""
                    self._offset = max(0, status.st_size - self.tail)
                file.seek(self._offset)
                data = file.read(limit)
        except OSError:
            started, self._inode, self._offset = self._inode is not None, None, 0
            return started, ""
        begins_within = restarted and self._offset > 0
        self._offset += len(data)
        return restarted, self._text(data[data.find(b"\n") + 1 :] if begins_within else data)

    def _text(self, data: bytes) -> str:
        """Decode whole characters; up to three bytes of one that is not complete are held back."""
        data = self._held + data
        cut = len(data)
        for back in range(1, min(4, len(data)) + 1):
            byte = data[-back]
            if byte & 0xC0 != 0x80:
                need = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                cut = len(data) - back if need > back else len(data)
                break
        self._held = data[cut:]
        return data[:cut].decode("utf-8", errors="replace")
