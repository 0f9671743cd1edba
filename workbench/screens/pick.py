"""The question which one of a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from textual import on
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.widgets import OptionList, Static

from workbench.display import content, line
from workbench.screens.base import Dialog
from workbench.widgets.picklist import PickList

IMPORT = "Import a model that others made"


class Pick(Dialog[str]):
    """Lists names under a title. Dismissed with the one chosen, or None."""

    CSS_PATH = "pick.tcss"
    AUTO_FOCUS = "PickList"

    def __init__(self, title: str, names: Sequence[str]) -> None:
        super().__init__()
        self._title, self._names = title, list(names)

    def compose(self) -> ComposeResult:
        with Vertical(classes="question"):
            yield Static(content(self._title), classes="heading")
            yield PickList()
            yield Static(content("enter chooses it     esc leaves it"), classes="muted")

    def on_mount(self) -> None:
        self.query_one(PickList).show([(str(at), line(name)) for at, name in enumerate(self._names)])

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._names[int(event.option_id or 0)])


def pick_stage(app: App[Any], title: str, stages: Sequence[str], go_on: Callable[[str], object]) -> None:
    """Ask which of these training stages, or which at all when none are named, and go on with the one chosen."""
    from workbench.screens.start import TITLES

    by_title = {TITLES.get(stage, IMPORT): stage for stage in stages or TITLES}

    def chosen(text: str | None) -> None:
        if text is not None:
            go_on(by_title[text])

    app.push_screen(Pick(title, list(by_title)), chosen)
