"""Jump mode: a letter on everything that takes the focus; typing it goes there."""

from __future__ import annotations

from string import ascii_uppercase

from textual.app import ComposeResult
from textual.events import Click, Key, Resize
from textual.geometry import Offset, Region
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

from workbench.display import content
from workbench.keys import bind

LETTERS = "asdfghjklqwertyuiopzxcvbnm" + ascii_uppercase
"""What is typed, in order: the keys under the fingers come first."""
WIDTH = 3
"""Cells of a letter with its margins."""


class Letter(Static):
    """A letter over the corner of what it stands for."""

    def __init__(self, letter: str, place: Offset) -> None:
        super().__init__(content(f" {letter} "))
        self.letter = letter
        self.styles.offset = place


class JumpScreen(ModalScreen[Widget]):
    """Letters over `screen`. Dismissed with the part whose letter was typed or clicked, or with None."""

    CSS_PATH = "jump.tcss"
    AUTO_FOCUS = ""
    BINDINGS = [
        bind("jump.leave", "escape", "dismiss(None)", "Leave", "Leave the focus where it is.", show=False),
        bind("app.jump", "ctrl+g", "dismiss(None)", "Leave", show=False),
    ]

    def __init__(self, screen: Screen[object]) -> None:
        super().__init__()
        self.places = dict(zip(LETTERS, targets(screen), strict=False))
        """What each letter stands for, and where the letter stands."""

    def compose(self) -> ComposeResult:
        for letter, (_, place) in self.places.items():
            yield Letter(letter, place)

    def on_key(self, event: Key) -> None:
        if (letter := event.character or "") in self.places:
            event.stop()
            self.dismiss(self.places[letter][0])

    def on_click(self, event: Click) -> None:
        letter = event.widget.letter if isinstance(event.widget, Letter) else ""
        self.dismiss(self.places[letter][0] if letter else None)

    def on_resize(self, event: Resize) -> None:
        """What is below moves: its letters would stand in the wrong places."""
        if self._laid_out_for not in (None, event.size):
            self.dismiss(None)
        self._laid_out_for = event.size

    _laid_out_for: object = None


def targets(screen: Screen[object]) -> list[tuple[Widget, Offset]]:
    """The parts of `screen` that take the focus and can be seen, each with a free place for its letter."""
    taken: list[Region] = []
    found = []
    for widget in screen.focus_chain:
        seen = screen.find_widget(widget).visible_region
        if not seen:
            continue
        place = Region(seen.x, seen.y, WIDTH, 1)
        while any(place.overlaps(other) for other in taken):
            place = place.translate(Offset(WIDTH, 0))
        taken.append(place)
        found.append((widget, place.offset))
    return found
