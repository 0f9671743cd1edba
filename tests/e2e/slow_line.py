"""A slow line: what the program writes arrives at a terminal at so many bytes a second, and the terminal's picture."""

from __future__ import annotations

import os
import re
import select
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rich.cells import get_character_cell_size

from benchmarks.ui import Terminal

RATE = 20_000
"""Bytes a second: a mobile line, or a long way with losses."""
PART = 256
"""Bytes that arrive at once."""
SEQUENCE = re.compile(r"\x1b(?:\[([0-9;?<>$]*)([A-Za-z])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[\]])")
ENDS = {"39": ["38"], "49": ["48"], "22": ["1", "2"], "23": ["3"], "24": ["4", "21"], "27": ["7"], "29": ["9"]}
"""Codes that end styles."""
DRAWN = {"4", "7", "9"}
"""Styles that show on a blank."""
UNFINISHED = re.compile(r"\x1b(?:\[[0-9;?<>$]*|\][^\x07\x1b]*\x1b?)?$")


class Picture:
    """What a terminal makes of the codes that the app sends: a character and a style for each cell."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}
        self.changes = 0
        """Cells that have become different, counted."""
        self._told = (-1, "")
        self._at = (0, 0)
        self._style: dict[str, str] = {}
        self._rest = ""

    def write(self, text: str) -> None:
        """Take text and codes; a code that is cut off waits for its rest."""
        text, at = self._rest + text, 0
        cut = UNFINISHED.search(text)
        self._rest = text[cut.start() :] if cut else ""
        text = text[: len(text) - len(self._rest)]
        while at < len(text):
            if match := SEQUENCE.match(text, at):
                self._obey(match[1] or "", match[2] or "")
                at = match.end()
            else:
                self._put(text[at])
                at += 1

    def text(self) -> str:
        """The rows, without the blanks at their ends."""
        if self._told[0] == self.changes:
            return self._told[1]
        height = max((row for row, _ in self.cells), default=-1) + 1
        width = max((column for _, column in self.cells), default=-1) + 1
        rows = (
            "".join(self.cells.get((row, column), (" ", ""))[0] for column in range(width)) for row in range(height)
        )
        self._told = (self.changes, "\n".join(map(str.rstrip, rows)))
        return self._told[1]

    def _obey(self, numbers: str, verb: str) -> None:
        row, column = self._at
        count = int(numbers) if numbers.isdecimal() else 1
        if verb == "H":
            row, column = map(int, f"{numbers or 1};1".split(";")[:2])
            self._at = (row - 1, column - 1)
        elif verb == "G":
            self._at = (row, count - 1)
        elif verb == "X":
            for place in range(column, column + count):
                self._set(row, place, (" ", self._ground()))
        elif verb == "m":
            self._restyle(iter((numbers or "0").split(";")))
        elif verb and verb in "ABCDEFJKLMPSTbd":
            raise NotImplementedError(f"ESC [ {numbers} {verb}: a picture does not know what it does")

    def _restyle(self, numbers: Iterator[str]) -> None:
        """Obey codes of styles one by one, as a terminal does."""
        for number in numbers:
            if number in ("38", "48"):
                kind = next(numbers)
                self._style[number] = ";".join([number, kind, *(next(numbers) for _ in range(1 if kind == "5" else 3))])
            elif number == "0":
                self._style.clear()
            elif number in ENDS:
                for ended in ENDS[number]:
                    self._style.pop(ended, None)
            elif 30 <= int(number) <= 37 or 90 <= int(number) <= 97:
                self._style["38"] = number
            elif 40 <= int(number) <= 47 or 100 <= int(number) <= 107:
                self._style["48"] = number
            else:
                self._style[number] = number

    def _ground(self) -> str:
        return self._style.get("48", "")

    def _put(self, char: str) -> None:
        row, column = self._at
        width = get_character_cell_size(char)
        if char < " ":
            return
        if width == 0:
            before = self.cells[row, column - 1]
            self._set(row, column - 1, (before[0] + char, before[1]))
            return
        drawn = char != " " or DRAWN & self._style.keys()
        self._set(row, column, (char, ";".join(sorted(self._style.values())) if drawn else self._ground()))
        if width == 2:
            self._set(row, column + 1, ("", ""))
        self._at = (row, column + width)

    def _set(self, row: int, column: int, cell: tuple[str, str]) -> None:
        if self.cells.get((row, column)) != cell:
            self.cells[row, column] = cell
            self.changes += 1


class SlowLine(Terminal):
    """The program's output is taken at once, as a server does, and waits for the line: `rate` bytes a second.

    Keys travel without delay: the time to an answer is that of the program and of the bytes which it sends.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        folder: Path,
        rate: int = RATE,
        *,
        compressed: bool = False,
    ) -> None:
        """`compressed`: as by `ssh -C`, zlib over all that was sent."""
        super().__init__(command, dict(environment), folder=folder)
        self.rate = rate
        self._zlib = zlib.compressobj() if compressed else None
        self.picture = Picture()
        self.arrived = 0
        """Bytes that have come to the terminal."""
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._free = 0.0
        self._rest = b""

    def shows(self, *texts: str) -> bool:
        shown = self.picture.text()
        return all(text in shown for text in texts)

    def until(self, what: Callable[[], bool], seconds: float = 120.0) -> float:
        """Run the line until something holds; the time (`time.perf_counter`) when the part arrived that made it so."""
        deadline, now = time.perf_counter() + seconds, time.perf_counter()
        if what():
            return now
        while (now := time.perf_counter()) < deadline and self.process.poll() is None:
            if self._waiting and self._waiting[0][0] <= now:
                came, part = self._waiting.popleft()
                self._arrive(part)
                if what():
                    return came
            else:
                until = self._waiting[0][0] if self._waiting else deadline
                self._take(min(until, deadline) - now)
        raise TimeoutError(f"not within {seconds} s:\n{self.picture.text()}")

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            if self._waiting and self._waiting[0][0] <= now:
                self._arrive(self._waiting.popleft()[1])
            else:
                self._take(min([end, *(when for when, _ in list(self._waiting)[:1])]) - now)

    def rest(self, seconds: float = 60.0) -> None:
        """Let time pass until next to nothing has come for a while: no more than a cursor that blinks."""
        deadline, before = time.perf_counter() + seconds, -1000
        while self.arrived - before > 100 and time.perf_counter() < deadline:
            before = self.arrived
            self.run(0.25)

    def key(self, key: str, what: Callable[[], bool], seconds: float = 120.0) -> float:
        """Seconds from a key until the picture shows what it does."""
        pressed = time.perf_counter()
        self.press(key)
        return self.until(what, seconds) - pressed

    def _take(self, seconds: float) -> None:
        """Take what the program writes within `seconds`, at most one part of it, onto the line."""
        if not select.select([self._master], [], [], max(0.0, seconds))[0]:
            return
        try:
            got = os.read(self._master, 1 << 16)
        except OSError:
            time.sleep(0.01)
            return
        packed = self._zlib.compress(got) + self._zlib.flush(zlib.Z_SYNC_FLUSH) if self._zlib else got
        seconds_a_byte = len(packed) / len(got) / self.rate
        for start in range(0, len(got), PART):
            part = got[start : start + PART]
            self._free = max(self._free, time.perf_counter()) + len(part) * seconds_a_byte
            self._waiting.append((self._free, part))

    def _arrive(self, part: bytes) -> None:
        self.arrived += len(part)
        whole = self._rest + part
        end = len(whole)
        while end > max(0, len(whole) - 4) and _is_cut(whole[:end]):
            end -= 1
        self._rest = whole[end:]
        self.picture.write(whole[:end].decode(errors="replace"))


def _is_cut(text: bytes) -> bool:
    """Whether bytes end within a character."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False
