"""What goes to the terminal: only the cells that differ from what it shows already.

Textual repaints whole widgets and now and then the whole screen, 25 KB for 120×40, also where nothing has changed. Over
a line of 20 KB/s that is more than a second. A copy of the screen is kept here, and every update is compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from rich.cells import get_character_cell_size
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.geometry import Size
from textual.strip import Strip

GAP = 8
"""Cells in a row that are sent although they are as they were: going to another place costs about as much."""
UNKNOWN = "\0"
"""Stands for a cell of which nobody knows what the terminal shows."""

KNOWN = 4_096
"""Styles whose codes are remembered."""

Piece = tuple[int, int, Strip]
"""Row, column, and what is to stand from there on."""


class ShownCells:
    """A copy of the terminal's cells: a character and the codes of its style for each."""

    def __init__(self) -> None:
        self.size = Size(0, 0)
        self._texts: list[list[str]] = []
        self._codes: list[list[str]] = []
        self._known: dict[Style, tuple[str, str]] = {}
        self.blanks: dict[str, str] = {}
        """The codes of a blank by those of its style."""

    def forget(self, size: Size | None = None) -> None:
        """Take nothing for granted: whatever is painted next is sent in full."""
        self.size = size or self.size
        self._texts = [[UNKNOWN] * self.size.width for _ in range(self.size.height)]
        self._codes = [[""] * self.size.width for _ in range(self.size.height)]

    def take(self, piece: Piece, console: Console, out: Writing) -> None:
        """Send what it takes for the terminal to show the piece: nothing, if it does already."""
        y, x, strip = piece
        if not (0 <= y < len(self._texts) and 0 <= x < self.size.width and strip.cell_length):
            return
        texts, codes, plain = self._cells(strip, console)
        end = min(x + len(texts), self.size.width)
        del texts[end - x :], codes[end - x :]
        before_texts, before_codes = self._texts[y][x:end], self._codes[y][x:end]
        if plain and before_texts == texts and before_codes == codes:
            return
        self._texts[y][x:end], self._codes[y][x:end] = texts, codes
        if not plain:
            out.strip(x, y, strip.render(console))
            return
        anew = UNKNOWN in before_texts
        cells = range(len(texts))
        changed = [at for at in cells if anew or texts[at] != before_texts[at] or codes[at] != before_codes[at]]
        for first, last in _runs(changed):
            out.cells(x + first, y, texts[first : last + 1], codes[first : last + 1])

    def _cells(self, strip: Strip, console: Console) -> tuple[list[str], list[str], bool]:
        """The characters and codes of a strip; the last is False where a character takes not just one cell."""
        texts: list[str] = []
        codes: list[str] = []
        if not all(_takes_a_cell_each(segment.text) for segment in strip):
            return [UNKNOWN] * strip.cell_length, [""] * strip.cell_length, False
        for segment in strip:
            text = segment.text
            code, blank = self._code(segment.style, console)
            texts.extend(text)
            if code == blank or " " not in text:
                codes.extend([code] * len(text))
            else:
                codes.extend([blank if char == " " else code for char in text])
        return texts, codes, True

    def _code(self, style: Style | None, console: Console) -> tuple[str, str]:
        """The codes of a style, the same for styles that look alike; and those of a blank, whose colour nobody sees."""
        if style is None:
            return "", ""
        found = self._known.get(style)
        if found is None:
            if len(self._known) > KNOWN:
                self._known.clear()
                self.blanks.clear()
            code = _codes(style, console)
            drawn = style.underline or style.strike or style.reverse or style.underline2 or style.overline
            blank = code if drawn else _codes(Style(bgcolor=style.bgcolor), console)
            found = self._known[style] = code, blank
            self.blanks[code] = blank
        return found


class Writing:
    """Codes for the terminal, with a style's codes only where the style changes. A blank is in any style of its ground.

    `blanks` are the codes of a blank by those of its style.
    """

    def __init__(self, blanks: Mapping[str, str]) -> None:
        self._blanks = blanks
        self._parts: list[str] = []
        self._code = ""

    def cells(self, x: int, y: int, texts: Sequence[str], codes: Sequence[str]) -> None:
        """Cells of one row, from a place on."""
        self._parts.append(_to(x, y))
        for text, code in zip(texts, codes, strict=True):
            if code != self._code and not (text == " " and code == self._blanks.get(self._code)):
                self._parts.append(f"\x1b[0;{code}m" if code else "\x1b[0m")
                self._code = code
            self._parts.append(text)

    def strip(self, x: int, y: int, rendered: str) -> None:
        """A strip as it is."""
        self._parts.append(f"\x1b[0m{_to(x, y)}{rendered}\x1b[0m")
        self._code = ""

    def all(self) -> str:
        """All that was written, with no style left on."""
        return "".join([*self._parts, "\x1b[0m"]) if self._parts else ""


class FrugalUpdate(CompositorUpdate):
    """An update of Textual's, less what is shown already."""

    def __init__(self, update: ChopsUpdate | LayoutUpdate, shown: ShownCells) -> None:
        self._update = update
        self._shown = shown

    def render_segments(self, console: Console) -> str:
        """The codes for the terminal. Called once: it takes for granted that they are written."""
        out = Writing(self._shown.blanks)
        for piece in pieces(self._update):
            self._shown.take(piece, console, out)
        return out.all()


def pieces(update: ChopsUpdate | LayoutUpdate) -> Iterator[Piece]:
    """The strips of an update with their places."""
    if isinstance(update, LayoutUpdate):
        left = update.region.x
        for y, strips in enumerate(update.strips, update.region.y):
            x = left
            for strip in strips:
                yield y, x, strip
                x += strip.cell_length
        return
    for y, first, last in update.spans:
        for end, (x, part) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if part is not None and x <= last and end > first:
                whole = first <= x < last and end <= last
                yield y, x, part if whole else part.crop(0, min(end, last) - x)


def _runs(changed: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of the runs into which the changed cells fall."""
    first = last = changed[0]
    for at in changed[1:]:
        if at - last > GAP:
            yield first, last
            first = at
        last = at
    yield first, last


def _takes_a_cell_each(text: str) -> bool:
    """Whether every character takes one cell, neither two nor none."""
    return text.isascii() or all(map(_is_single, set(text)))


@lru_cache(maxsize=4_096)
def _is_single(char: str) -> bool:
    return get_character_cell_size(char) == 1


def _codes(style: Style, console: Console) -> str:
    """What stands between ESC [ and m before text of a style."""
    return style.render("x", color_system=console._color_system).partition("x")[0][2:-1]


def _to(x: int, y: int) -> str:
    return f"\x1b[{y + 1};{x + 1}H"
