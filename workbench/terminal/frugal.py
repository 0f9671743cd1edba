"""What goes to the terminal: only the cells that differ from what it shows already.

Textual repaints whole widgets and now and then the whole screen, 25 KB for 120×40, also where nothing has changed. Over
a line of 20 KB/s that is more than a second. A copy of the screen is kept here, and every update is compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from rich.cells import get_character_cell_size
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.geometry import Size
from textual.strip import Strip

from workbench.terminal.codes import Pen, Writing, erases_with_background, pen_of

GAP = 5
"""Bytes of unchanged cells that are sent between changed ones: going on behind them takes as many."""
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
        self._erases: bool | None = None

    def forget(self, size: Size | None = None) -> None:
        """Take nothing for granted: whatever is painted next is sent in full."""
        self.size = size or self.size
        self._texts = [[UNKNOWN] * self.size.width for _ in range(self.size.height)]
        self._codes = [[""] * self.size.width for _ in range(self.size.height)]

    def writing(self) -> Writing:
        """What the next frame is written with."""
        if self._erases is None:
            self._erases = erases_with_background()
        return Writing(erases=self._erases)

    def take(self, piece: Piece, console: Console, out: Writing) -> None:
        """Send what it takes for the terminal to show the piece: nothing, if it does already."""
        y, x, strip = piece
        if not (0 <= y < len(self._texts) and 0 <= x < self.size.width and strip.cell_length):
            return
        texts, codes, rendered = self._cells(strip, console)
        end = min(x + len(texts), self.size.width)
        del texts[end - x :], codes[end - x :]
        before_texts, before_codes = self._texts[y][x:end], self._codes[y][x:end]
        if before_texts == texts and before_codes == codes:
            return
        self._texts[y][x:end], self._codes[y][x:end] = texts, codes
        if rendered:
            out.strip(x, y, rendered)
            return
        anew = UNKNOWN in before_texts
        cells = range(len(texts))
        changed = [at for at in cells if anew or texts[at] != before_texts[at] or codes[at] != before_codes[at]]
        for first, last in _runs(changed, texts, codes):
            out.cells(x + first, y, texts[first : last + 1], codes[first : last + 1])

    def _cells(self, strip: Strip, console: Console) -> tuple[list[str], list[str], str]:
        """The characters and codes of a strip; where a character takes not just one cell, the strip as it is sent."""
        texts: list[str] = []
        codes: list[str] = []
        if not all(_takes_a_cell_each(segment.text) for segment in strip):
            rendered = strip.render(console)
            return [UNKNOWN] * strip.cell_length, [rendered] + [""] * (strip.cell_length - 1), rendered
        for segment in strip:
            text = segment.text
            code, blank = self._code(segment.style, console)
            texts.extend(text)
            if code == blank or " " not in text:
                codes.extend([code] * len(text))
            else:
                codes.extend([blank if char == " " else code for char in text])
        return texts, codes, ""

    def _code(self, style: Style | None, console: Console) -> tuple[str, str]:
        """The codes of a style, the same for styles that look alike; and those of a blank, whose colour nobody sees."""
        if style is None:
            return "", ""
        found = self._known.get(style)
        if found is None:
            if len(self._known) > KNOWN:
                self._known.clear()
            code = _codes(style, console)
            drawn = style.underline or style.strike or style.reverse or style.underline2 or style.overline
            blank = code if drawn else _codes(Style(bgcolor=style.bgcolor), console)
            found = self._known[style] = code, blank
        return found


class FrugalUpdate(CompositorUpdate):
    """An update of Textual's, less what is shown already."""

    def __init__(self, update: ChopsUpdate | LayoutUpdate, shown: ShownCells) -> None:
        self._update = update
        self._shown = shown

    def render_segments(self, console: Console) -> str:
        """The codes for the terminal. Called once: it takes for granted that they are written."""
        out = self._shown.writing()
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


def _runs(changed: Sequence[int], texts: Sequence[str], codes: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First and last of the runs into which the changed cells fall."""
    first = last = changed[0]
    for at in changed[1:]:
        if at - last > 1 and not _is_bridge(texts[last + 1 : at], codes[last:at]):
            yield first, last
            first = at
        last = at
    yield first, last


def _is_bridge(texts: Sequence[str], codes: Sequence[str]) -> bool:
    """Whether unchanged cells behind a changed one, whose codes come first, cost less than going on behind them."""
    if len(texts) > GAP or len("".join(texts).encode()) > GAP:
        return False
    pen = pen_of(codes[0])
    ground = Pen(back=pen.back)
    return all(
        code == codes[0] or (text == " " and pen_of(code) == ground and not pen.draws())
        for text, code in zip(texts, codes[1:], strict=True)
    )


def _takes_a_cell_each(text: str) -> bool:
    """Whether every character takes one cell, neither two nor none."""
    return text.isascii() or all(map(_is_single, set(text)))


@lru_cache(maxsize=4_096)
def _is_single(char: str) -> bool:
    return get_character_cell_size(char) == 1


def _codes(style: Style, console: Console) -> str:
    """What stands between ESC [ and m before text of a style."""
    style = style.update_link(None) if style.link else style
    return style.render("x", color_system=console._color_system).partition("x")[0][2:-1]
