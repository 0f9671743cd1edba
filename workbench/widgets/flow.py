"""Styled text wrapped into lines of cells as it grows: what stands is never wrapped again."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import get_character_cell_size

Span = tuple[str, str]
"""Text, and the name of its style."""
Line = list[Span]

PILE = 8
"""Characters a cell of width that a line may hold: piles of combining marks are cut there."""
EMOJI_STYLE = "\ufe0f"
"""Makes the character before it two cells wide in some terminals; counted as a cell, so that a line never overflows."""


class Flow:
    """Displayable text in lines of at most `width` cells. Only the last line still changes when text is added."""

    def __init__(self, width: int) -> None:
        self.width = max(1, width)
        self.lines: list[Line] = [[]]
        self._cells = 0  # of the last line
        self._characters = 0

    def add(self, text: str, style: str) -> int:
        """Append text; the number of the first line that changed."""
        changed = len(self.lines) - 1
        for number, paragraph in enumerate(text.split("\n")):
            if number:
                self._new_line([])
            for start in range(0, len(paragraph), self.width):
                self._extend(paragraph[start : start + self.width], style)
        return changed

    def _extend(self, piece: str, style: str) -> None:
        last = self.lines[-1]
        if last and last[-1][1] == style:
            last[-1] = (last[-1][0] + piece, style)
        else:
            last.append((piece, style))
        self._cells += cells(piece)
        self._characters += len(piece)
        while self._cells > self.width or self._characters > PILE * self.width:
            self._break()

    def _break(self) -> None:
        """Move what does not fit to a new line: from the last space on, or cut where no space is near."""
        last = self.lines[-1]
        text = "".join(span for span, _ in last)
        fits = _fitting(text, self.width)
        space = text.rfind(" ", 1, fits + 1)
        kept, rest = (space, space + 1) if space >= fits // 2 and text[:space].strip() else (fits, fits)
        self.lines[-1] = list(_cut(last, 0, kept))
        self._new_line(list(_cut(last, rest, len(text))))

    def _new_line(self, line: Line) -> None:
        self.lines.append(line)
        self._cells = sum(cells(span) for span, _ in line)
        self._characters = sum(len(span) for span, _ in line)


def cells(text: str) -> int:
    """Columns that `text` takes at most."""
    if text.isascii():
        return len(text)
    return sum(1 if char == EMOJI_STYLE else get_character_cell_size(char) for char in text)


def _fitting(text: str, width: int) -> int:
    """How many characters from the start go into `width` columns: at least one."""
    if text.isascii():
        return width
    used = 0
    for number, char in enumerate(text):
        used += cells(char)
        if used > width or number >= PILE * width:
            return max(1, number)
    return len(text)


def _cut(line: Line, start: int, end: int) -> Iterator[Span]:
    """The spans of `line` between two characters."""
    at = 0
    for text, style in line:
        piece = text[max(0, start - at) : max(0, end - at)]
        if piece:
            yield piece, style
        at += len(text)
