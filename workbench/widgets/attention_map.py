"""Attention of one head as a picture: a row for each token that looks, a column for each it looks at.

A line holds two rows, by half blocks in the colours of their weights; one, while all rows fit the widget. Where colours
cannot tell weights apart (the terminal's own sixteen, NO_COLOR) a line holds one row in five shades.

         0         5
  0 The capi ██▄▄
  2 tal of   ▀▀██▄▄
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from workbench.display import shortened
from workbench.widgets.flow import cells

SHADES = " ░▒▓█"
LEVELS = 24
"""Strengths of the colour."""
NAME = 6
"""Cells of a token's text beside its row, where a line holds two."""
LONG_NAME = 12
"""The same where it holds one."""
WIDTHS = (4, 2, 1)
"""Cells of a column: the widest that fits; the first only where a line holds one row."""
NUMBER = 4
RULER = 5
"""Columns between two numbers of the ruler."""


class AttentionMap(Widget):
    """Draws the part of the matrix around one row that fits; that row and its column are marked."""

    DEFAULT_CSS = "AttentionMap { height: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id)
        self._names: list[str] = []
        self._weights: Sequence[Sequence[float]] = ()
        self._at = 0
        self._styles: dict[tuple[int, int], Style] = {}

    def show(self, tokens: Sequence[str], weights: Sequence[Sequence[float]], at: int) -> None:
        """Show this matrix (T, T) of weights from 0 to 1, around row `at`. Tokens are foreign text."""
        self._names = list(tokens)
        self._weights = weights
        self.point(at)

    def point(self, at: int) -> None:
        """Mark another row."""
        self._at = min(max(0, at), max(0, len(self._names) - 1))
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()

    @property
    def shaded(self) -> bool:
        """Whether weights are told by shades rather than colours."""
        return self.app.no_color or self.app.current_theme.ansi

    @property
    def _rows_a_line(self) -> int:
        return 1 if self.shaded or len(self._names) < self.size.height else 2

    @property
    def _name_width(self) -> int:
        return LONG_NAME if self._rows_a_line == 1 else NAME

    @property
    def _margin(self) -> int:
        return NUMBER + 1 + self._rows_a_line * (self._name_width + 1)

    def _window(self) -> tuple[int, int, int, int]:
        """First row, first column, number of columns, and cells a column."""
        total, each = len(self._names), self._rows_a_line
        rows = max(each, (self.size.height - 1) * each)
        room = max(1, self.size.width - self._margin)
        wide = next((one for one in WIDTHS[each - 1 :] if total * one <= room), 1)
        columns = min(total, room // wide)
        top = 0 if total <= rows else -(-min(max(0, self._at - rows // 2), total - rows) // each) * each
        left = 0 if total <= columns else min(max(0, self._at - columns + 1 + columns // 4), total - columns)
        return top, left, columns, wide

    def render_lines(self, crop: Region) -> list[Strip]:
        return [self._line(y).crop(crop.x, crop.right) for y in range(crop.y, crop.bottom)]

    def _line(self, y: int) -> Strip:
        top, left, columns, wide = self._window()
        ground = self.rich_style
        if y == 0:
            return self._ruler(left, columns, wide).adjust_cell_length(self.size.width, ground)
        each = self._rows_a_line
        first = top + (y - 1) * each
        if first >= len(self._names):
            return Strip.blank(self.size.width, ground)
        bold, muted = ground + Style(bold=True), ground + Style(dim=True)
        parts = [Segment(f"{first:>{NUMBER}} ", muted)]
        for row in range(first, first + each):
            name = _fitted(self._names[row] if row < len(self._names) else "", self._name_width)
            parts.append(Segment(f"{name} ", bold if row == self._at else muted))
        parts += [self._cell(first, column, wide) for column in range(left, left + columns)]
        return Strip(parts).adjust_cell_length(self.size.width, ground)

    def _ruler(self, left: int, columns: int, wide: int) -> Strip:
        """Numbers of columns, and a mark over the column of the token that is looked at closely."""
        line = [" "] * (columns * wide)
        for column in range(left, left + columns):
            if column % RULER == 0:
                for place, digit in enumerate(str(column), (column - left) * wide):
                    if place < len(line):
                        line[place] = digit
        here = self._at - left
        parts = [Segment(" " * self._margin, self.rich_style)]
        text = "".join(line)
        if 0 <= here < columns:
            text = text[: here * wide] + "▼" + text[here * wide + 1 :]
        return Strip([*parts, Segment(text, self.rich_style + Style(dim=True))])

    def _cell(self, row: int, column: int, wide: int) -> Segment:
        if self.shaded:
            shade = SHADES[round(_strength(self._weight(row, column)) * (len(SHADES) - 1))]
            return Segment(shade * wide, self.rich_style)
        lower_row = row + self._rows_a_line - 1
        upper, lower = (self._level(self._weight(one, column)) for one in (row, lower_row))
        return Segment("▀" * wide, self._style(upper, lower))

    def _weight(self, row: int, column: int) -> float:
        return self._weights[row][column] if row < len(self._weights) else 0.0

    @staticmethod
    def _level(weight: float) -> int:
        return round(_strength(weight) * LEVELS)

    def _style(self, upper: int, lower: int) -> Style:
        if (upper, lower) not in self._styles:
            colours = (self._colour(level).rich_color for level in (upper, lower))
            self._styles[upper, lower] = Style(color=next(colours), bgcolor=next(colours))
        return self._styles[upper, lower]

    def _colour(self, level: int) -> Color:
        """From a ground a little off the screen's, so that the matrix has a shape, to the foreground."""
        variables = self.app.theme_variables
        ground, strong = (Color.parse(variables[name]) for name in ("surface", "primary"))
        full = Color.parse(variables["foreground"])
        share = level / LEVELS
        return ground.blend(strong, share / 0.7) if share < 0.7 else strong.blend(full, (share - 0.7) / 0.3)


def _strength(weight: float) -> float:
    """How strongly a weight is drawn: its square root, so that a tenth is still seen."""
    return min(1.0, max(0.0, weight)) ** 0.5


def _fitted(token: str, width: int) -> str:
    """A token's text in exactly `width` cells."""
    text = shortened(token.strip() or token, width)
    while cells(text) > width:
        text = text[:-1]
    return text + " " * (width - cells(text))
