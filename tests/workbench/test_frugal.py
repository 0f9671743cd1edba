"""Only what differs is sent to the terminal, and what it then shows is what was to be shown."""

from __future__ import annotations

import io
import random

import pytest
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import LayoutUpdate
from textual.geometry import Region, Size
from textual.strip import Strip

from tests.e2e.slow_line import Picture
from workbench.terminal.frugal import FrugalUpdate, ShownCells

WIDTH, HEIGHT = 24, 4
STYLES = (
    None,
    Style(color="red"),
    Style(bgcolor="blue"),
    Style(color="red", bgcolor="blue", bold=True),
    Style(color="#102030", bold=True, dim=True),
    Style(color="color(7)", bgcolor="#405060", italic=True),
    Style(underline=True, reverse=True),
    Style(strike=True, underline2=True),
)
TEXTS = ("plain", "  ", " " * 12, "│ two │", "⢎⡱", "日本", "e\u0301", "…")


def row(chance: random.Random) -> list[Strip]:
    """A row of several strips, as widgets beside each other give it."""
    segments = [Segment(chance.choice(TEXTS), chance.choice(STYLES)) for _ in range(8)]
    whole = Strip(segments).adjust_cell_length(WIDTH)
    cut = chance.randint(1, WIDTH - 1)
    return [whole.crop(0, cut), whole.crop(cut, WIDTH)]


def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=WIDTH, height=HEIGHT)


def update(rows: list[list[Strip]]) -> LayoutUpdate:
    return LayoutUpdate([list(strips) for strips in rows], Region(0, 0, WIDTH, HEIGHT))


@pytest.mark.parametrize("terminal", ["tmux-256color", "dumb"], ids=["erasing", "not erasing"])
def test_a_terminal_shows_the_same_as_if_all_had_been_sent(terminal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, out = random.Random(1), console()
    monkeypatch.setenv("TERM", terminal)
    shown, frugal = ShownCells(), Picture()
    shown.forget(Size(WIDTH, HEIGHT))
    rows = [row(chance) for _ in range(HEIGHT)]
    for _ in range(300):
        rows[chance.randrange(HEIGHT)] = row(chance)
        frugal.write(FrugalUpdate(update(rows), shown).render_segments(out))
        full = Picture()
        for y, strips in enumerate(rows):
            full.write(f"\x1b[{y + 1};1H" + "".join(strip.render(out) for strip in strips))
        assert frugal.cells == full.cells


def test_what_is_shown_already_is_not_sent_again() -> None:
    out, shown = console(), ShownCells()
    shown.forget(Size(WIDTH, HEIGHT))
    rows = [[Strip([Segment("0123456789" * 2 + "abcd", Style(color="red"))])] for _ in range(HEIGHT)]
    assert len(FrugalUpdate(update(rows), shown).render_segments(out)) > WIDTH * HEIGHT
    assert FrugalUpdate(update(rows), shown).render_segments(out) == ""
    rows[2] = [Strip([Segment("0123456789" * 2 + "abXd", Style(color="red"))])]
    assert FrugalUpdate(update(rows), shown).render_segments(out) == "\x1b[3;23H\x1b[31mX\x1b[m"
    shown.forget()
    assert len(FrugalUpdate(update(rows), shown).render_segments(out)) > WIDTH * HEIGHT
