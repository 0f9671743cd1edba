"""An app whose every write to its terminal is kept and searched, and the places at which hostile text shows."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from textual._compositor import CompositorUpdate
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widget import Widget

import workbench.app
from stages.store.workspace import Workspace
from tests.workbench.payloads import in_file_name, in_json, payloads
from workbench.app import WorkbenchApp
from workbench.settings import Settings

PAYLOADS = payloads()
READABLE = [payload for payload in PAYLOADS if in_json(payload)]
SHORT = [text for text in PAYLOADS if len(text) < 150]
NAMES = sorted({name for payload in PAYLOADS if (name := in_file_name(payload))})

OWN_SEQUENCE = re.compile(
    r"\x1b\[(?!(?:[0-9;]*;)?53[;m])[0-9;]*m|\x1b\[(?!1337)\d{1,4};\d{1,3}H|\x1b\]22;[a-z]*\x07|\x1b\]52;c;[\w+/=]*\x07"
)
"""What the app itself sends: styles other than 53, the cursor to a place, the pointer's shape, the clipboard."""
ACTS = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
"""Characters that act on a terminal or hide in it. A newline is the app's own: it ends a row."""
MARKER = re.compile(r"p\d{3}")


class WatchedApp(WorkbenchApp):
    """The app, keeping what it would write to its terminal."""

    CSS_PATH = Path(workbench.app.__file__).with_name("app.tcss")

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(Settings(), workspace)
        self.acting: list[str] = []
        self.seen: set[str] = set()
        self.seen_on: dict[str, set[str]] = {}
        """Markers by the name of the screen that was on top."""
        self.frames = 0

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        if isinstance(renderable, CompositorUpdate):
            self.keep(renderable.render_segments(self.console))
        super()._display(screen, renderable)

    def watch_driver(self) -> None:
        """Keep also what goes to the terminal past the compositor: the clipboard, titles, bells."""
        assert self._driver is not None
        self._driver.write = self.keep

    def keep(self, written: str) -> None:
        self.frames += 1
        text = OWN_SEQUENCE.sub("", written)
        self.seen.update(markers := set(MARKER.findall(text)))
        self.seen_on.setdefault(type(self.screen).__name__, set()).update(markers)
        if found := ACTS.search(text):
            self.acting.append(ascii(text[max(0, found.start() - 40) : found.end() + 40]))


class Place(NamedTuple):
    """Somewhere that foreign text shows."""

    name: str
    prepare: Callable[[Workspace], object]
    visit: Callable[[Pilot[Any]], Awaitable[object]]
    expected: Sequence[str] = READABLE
    """Payloads whose marker must have been on the screen."""
    size: tuple[int, int] = (160, 100)
    screens: Sequence[str] = ()
    """Screens on which a marker must have been."""


def nothing(workspace: Workspace) -> None:
    pass


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def on_screen(pilot: Pilot[Any], items: Sequence[str]) -> Callable[[], bool]:
    """Whether the markers of `items` have been shown."""
    wanted = {item[:4] for item in items}
    return lambda: wanted <= pilot.app.seen


async def page_through(pilot: Pilot[Any], kind: type[Widget]) -> None:
    """Show all that a scrolling widget has, a page at a time."""
    widget = pilot.app.screen.query_one(kind)
    for y in range(0, widget.virtual_size.height, max(1, widget.size.height - 4)):
        widget.scroll_to(y=y, animate=False)
        await pilot.pause()
