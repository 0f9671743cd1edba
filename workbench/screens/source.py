"""The form of what a chat looks up before it asks the model."""

from __future__ import annotations

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical

from stages.store.errors import UserError
from stages.store.specs.retrieval import Retrieval
from stages.store.workspace import Workspace
from workbench.screens.base import Dialog
from workbench.talking.grounding import absolute_source
from workbench.widgets.form import SpecForm


class SourceScreen(Dialog[Retrieval]):
    """Edits the settings; dismissed with the new ones on enter, or None."""

    CSS_PATH = ["../widgets/form.tcss", "source.tcss"]

    def __init__(self, workspace: Workspace, settings: Retrieval) -> None:
        super().__init__()
        self._workspace, self._settings = workspace, settings

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = "Answer from a source"
            box.border_subtitle = "enter takes these · esc leaves all as it was"
            yield SpecForm(Retrieval, msgspec.to_builtins(self._settings))

    @on(SpecForm.Submitted)
    def _submitted(self, event: SpecForm.Submitted) -> None:
        event.stop()
        values = event.form.read()
        if values is None:
            return
        settings = Retrieval(**values)
        try:
            if settings.source is not None:
                absolute_source(self._workspace, settings.source)
        except UserError as error:
            event.form.blame("source", error)
            return
        self.dismiss(settings)
