"""The form of how a model is sampled."""

from __future__ import annotations

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical

from stages.store.specs.chat import Chat
from workbench.screens.base import Dialog
from workbench.widgets.form import SpecForm


class SamplingScreen(Dialog[Chat]):
    """Edits the settings; dismissed with the new ones on enter, or None."""

    CSS_PATH = ["../widgets/form.tcss", "sampling.tcss"]

    def __init__(self, settings: Chat) -> None:
        super().__init__()
        self._settings = settings

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Sampling"
            box.border_subtitle = "enter takes these · esc leaves all as it was"
            yield SpecForm(Chat, msgspec.to_builtins(self._settings))

    @on(SpecForm.Submitted)
    def _submitted(self, event: SpecForm.Submitted) -> None:
        event.stop()
        values = event.form.read()
        if values is not None:
            self.dismiss(Chat(**values))
