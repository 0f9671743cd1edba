"""The line above a plot: what is drawn, which marker is whose, the latest values. Made to fit any width."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from workbench.display import displayable_line
from workbench.plots.picture import Key, Picture
from workbench.plots.plot import AXIS, Line, Span

TITLE, VALUE = -3, -4
"""Roles of words in the line above the plot."""

SHORTEST, LONGEST = 4, 40
"""Cells of a name."""


def legend(picture: Picture, width: int) -> Line:
    """Title and keys in at most `width` cells.

    Where there is no room for all, the unit goes, names become shorter, then the values go; and of keys that still
    find no room, the last are counted: `+2`.
    """
    named = middle_cut(displayable_line(picture.title), max(8, width // 3))
    title = [Span(f"{named}   ", VALUE)]
    keys = [key._replace(name=middle_cut(displayable_line(key.name), LONGEST)) for key in picture.keys]
    whole = [Span(named, VALUE), Span(f", {picture.unit}   ", AXIS), *_keys(keys, LONGEST, True)]
    if picture.unit and _cells(whole) <= width + 3:
        return whole
    longest = max((cell_len(key.name) for key in keys), default=0)
    for values in (True, False):
        for most in range(max(longest, SHORTEST), SHORTEST - 1, -1):
            line = [*title, *_keys(keys, most, values)]
            if _cells(line) <= width + 3:  # the blanks at the end need no room
                return line
    shown = _keys(keys, SHORTEST, False)
    room = len(keys)
    while room and _cells([*title, *shown]) > width - 2:
        room -= 1
        shown = _keys(keys[:room], SHORTEST, False)
    return [*title, *shown, Span(f"+{len(keys) - room}", AXIS)]


def _keys(keys: list[Key], most: int, values: bool) -> Line:
    spans: Line = []
    for key in keys:
        name = middle_cut(key.name, most)
        spans += [Span(f"{key.marker} ", key.role)] if key.marker else []
        spans += [Span(f"{name} ", TITLE), Span(f"{key.value}   ", VALUE)] if values else [Span(f"{name}   ", TITLE)]
    return spans


def middle_cut(text: str, width: int) -> str:
    """The text in at most `width` cells: its middle gives way, for runs of one series differ at the end."""
    if cell_len(text) <= width:
        return text
    head = (width - 1) // 3
    tail = text[: -4 * width : -1]
    while cell_len(tail) > width - 1 - head:
        tail = tail[:-1]
    return set_cell_size(text, head) + "…" + tail[::-1]


def _cells(line: Line) -> int:
    return sum(cell_len(span.text) for span in line)
