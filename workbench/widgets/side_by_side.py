"""Short facts one after the other, in as many rows as they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.content import Content


def in_one_row(parts: Sequence[Content], width: int, needed: int = 0, gap: str = "  ") -> Content:
    """The parts that fit into a row of `width` cells, that numbered `needed` among them; "…" where some are missing."""
    first = 0
    while True:
        row, last = Content("… " if first else ""), first
        for part in parts[first:]:
            more = Content.assemble(row, gap if last > first else "", part)
            if last > first and more.cell_length > width - (2 if last + 1 < len(parts) else 0):
                break
            row, last = more, last + 1
        if needed < last or first >= needed:
            return Content.assemble(row, " …") if last < len(parts) else row
        first += 1


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
