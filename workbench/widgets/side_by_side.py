"""Short facts one after the other, in as many rows as they need."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content


def flowed(parts: Iterable[Content], width: int, gap: str = "  ") -> Content:
    """The parts in rows of `width` cells; none is parted from its own end. In one row where the width is not known."""
    rows = [Content()]
    for part in parts:
        if not rows[-1]:
            rows[-1] = part
        elif width <= 0 or rows[-1].cell_length + len(gap) + part.cell_length <= width:
            rows[-1] = Content.assemble(rows[-1], gap, part)
        else:
            rows.append(part)
    return Content("\n").join(rows)
