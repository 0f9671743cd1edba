"""Codes for a terminal, as few as will do: a style sends what differs from the style before, long blanks are erased.

What a terminal must understand: ECMA-48's CUP and CHA (go to), SGR (styles), and where `erases` is said, that ECH fills
with the background's colour, which terminfo calls `bce`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

ERASED = 9
"""Blanks from which on erasing, and going on behind them, takes fewer bytes than writing them."""
OFF = {"1": "22", "2": "22", "3": "23", "4": "24", "7": "27", "9": "29"}
"""What ends an attribute. The others end by a reset."""
DRAWN = {"4", "7", "9", "21", "53"}
"""Attributes that show on a blank."""


class Pen(NamedTuple):
    """A style by its codes; an empty colour is the terminal's own."""

    attributes: frozenset[str] = frozenset()
    fore: str = ""
    back: str = ""

    def draws(self) -> bool:
        """Whether it shows on a blank, beside its ground."""
        return not DRAWN.isdisjoint(self.attributes)


PLAIN = Pen()


class Writing:
    """Codes and characters for one frame, which begins and ends without a style."""

    def __init__(self, *, erases: bool) -> None:
        self._erases = erases
        self._parts: list[str] = []
        self._pen = PLAIN
        self._x = self._y = -1

    def cells(self, x: int, y: int, texts: Sequence[str], codes: Sequence[str]) -> None:
        """Cells of one row, from a place on, each with the codes of its style; a blank's are those of its ground."""
        at, end = 0, len(texts)
        while at < end:
            code, first = codes[at], at
            while at < end and codes[at] == code:
                at += 1
            self._alike(x + first, y, "".join(texts[first:at]), pen_of(code))

    def strip(self, x: int, y: int, rendered: str) -> None:
        """Text with its codes as it is, after which nobody knows where the cursor stands."""
        self._style(PLAIN)
        self._go(x, y)
        self._parts.append(rendered)
        self._y = -1

    def all(self) -> str:
        """All that was written, with no style left on."""
        self._style(PLAIN)
        return "".join(self._parts)

    def _alike(self, x: int, y: int, text: str, pen: Pen) -> None:
        """Text of one style."""
        self._go(x, y)
        blank = not pen.draws() and not text.strip(" ")
        if blank and not self._pen.draws():
            pen = self._pen._replace(back=pen.back)
        self._style(pen)
        if blank and self._erases and len(text) >= ERASED:
            self._parts.append(f"\x1b[{len(text)}X")
        else:
            self._parts.append(text)
            self._x += len(text)

    def _go(self, x: int, y: int) -> None:
        if y != self._y:
            self._parts.append(f"\x1b[{y + 1};{x + 1}H" if x else f"\x1b[{y + 1}H")
        elif x != self._x:
            self._parts.append(f"\x1b[{x + 1}G")
        self._x, self._y = x, y

    def _style(self, pen: Pen) -> None:
        if pen != self._pen:
            self._parts.append(change(self._pen, pen))
            self._pen = pen


@lru_cache(maxsize=4_096)
def pen_of(code: str) -> Pen:
    """The style of what stands between ESC [ and m, as Rich writes it: attributes, foreground, background."""
    numbers = iter(code.split(";") if code else ())
    attributes, fore, back = set[str](), "", ""
    for number in numbers:
        if number in ("38", "48"):
            kind = next(numbers)
            colour = ";".join([number, kind, *(next(numbers) for _ in range(1 if kind == "5" else 3))])
            fore, back = (colour, back) if number == "38" else (fore, colour)
        elif number in ("39", "49"):
            fore, back = ("", back) if number == "39" else (fore, "")
        elif 30 <= int(number) <= 37 or 90 <= int(number) <= 97:
            fore = number
        elif 40 <= int(number) <= 47 or 100 <= int(number) <= 107:
            back = number
        else:
            attributes.add(number)
    return Pen(frozenset(attributes), fore, back)


@lru_cache(maxsize=16_384)
def change(before: Pen, after: Pen) -> str:
    """The shortest code that leads from one style to another."""
    whole = [*sorted(after.attributes), after.fore, after.back]
    anew = ";".join(["0", *filter(None, whole)]) if after != PLAIN else ""
    gone = before.attributes - after.attributes
    if any(attribute not in OFF for attribute in gone):
        return f"\x1b[{anew}m"
    ends = {OFF[attribute] for attribute in gone}
    again = {attribute for attribute in after.attributes if OFF.get(attribute) in ends}
    parts = [*sorted(ends), *sorted(again | (after.attributes - before.attributes))]
    parts += [after.fore or "39"] * (after.fore != before.fore) + [after.back or "49"] * (after.back != before.back)
    return f"\x1b[{min(anew, ';'.join(parts), key=len)}m"


def erases_with_background() -> bool:
    """Whether this terminal fills what it erases with the background's colour: terminfo says so, and tmux does."""
    if os.environ.get("TERM", "").startswith("tmux"):
        return True
    try:
        import curses

        curses.setupterm(fd=1)
        return bool(curses.tigetflag("bce") == 1 and curses.tigetstr("ech"))
    except (ImportError, curses.error):
        return False
