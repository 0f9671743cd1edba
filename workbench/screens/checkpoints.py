"""The question which checkpoint: to chat with, to set against another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static

from stages.store.checkpoints import Checkpoint, list_checkpoints
from stages.store.endpoints import endpoint_in
from stages.store.errors import UserError
from stages.store.rundir import find_run, list_runs
from stages.store.workspace import Workspace
from workbench.display import content, line, shortened
from workbench.keys import bind
from workbench.messages import CheckpointChosen
from workbench.screens.base import Dialog
from workbench.widgets.picklist import PickList

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp

NAME_WIDTH = 40
NONE_YET = "There is no checkpoint yet. Train a model first: H shows the next step on Home."


class Choice(NamedTuple):
    """One checkpoint to choose. `text` is what `resolve_checkpoint` takes."""

    text: str
    name: str
    note: str


def checkpoint_choices(workspace: Workspace, endpoints: bool = False) -> list[Choice]:
    """Checkpoints of the runs, the newest run and step first, then imported models. Reads files.

    Where weights are not needed, models at `endpoints` are among them.
    """
    choices = []
    for run in list_runs(workspace):
        try:
            name = run.spec().name
        except UserError:
            continue
        for checkpoint in reversed(list_checkpoints(run)):
            choices.append(Choice(f"{run.id}@{checkpoint.step}", f"{name}@{checkpoint.step}", _note(checkpoint)))
    if workspace.models.is_dir():
        for folder in sorted(path for path in workspace.models.iterdir() if not path.name.startswith(".")):
            if (folder / "config.json").is_file():
                choices.append(Choice(folder.name, folder.name, "imported"))
            elif endpoints:
                choices += _at_endpoint(folder)
    return choices


def _at_endpoint(folder: Path) -> list[Choice]:
    try:
        endpoint = endpoint_in(folder)
    except UserError:
        return []
    return [Choice(folder.name, folder.name, f"at {urlsplit(endpoint.url).netloc}")] if endpoint else []


def called(workspace: Workspace, text: str) -> str:
    """How people call the checkpoint of a Choice: by the run's name, where its id was chosen."""
    run, at, step = text.partition("@")
    try:
        return f"{find_run(workspace, run).spec().name}{at}{step}"
    except UserError:
        return text


class CheckpointScreen(Dialog[str]):
    """Lists what there is; dismissed with the choice, or None."""

    CSS_PATH = "checkpoints.tcss"
    BINDINGS = [bind("checkpoints.home", "H", "home", "Home", "Leave it, and see on Home what the next step is.")]

    def __init__(self, workspace: Workspace, title: str = "Chat with", endpoints: bool = False) -> None:
        super().__init__()
        self._workspace, self._title, self._endpoints = workspace, title, endpoints

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = content(self._title)
            yield PickList()
            yield Static(NONE_YET, classes="muted", id="empty")
            box.border_subtitle = "enter chooses · esc closes"

    def on_mount(self) -> None:
        self._look()

    def action_home(self) -> None:
        app = cast("WorkbenchApp", self.app)
        self.dismiss(None)
        app.go("home")

    @on(CheckpointChosen)
    def _chosen_elsewhere(self, event: CheckpointChosen) -> None:
        self.dismiss(event.checkpoint)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        choices = checkpoint_choices(self._workspace, self._endpoints)
        self.app.call_from_thread(self._show, choices)

    def _show(self, choices: list[Choice]) -> None:
        found = self.query_one(PickList)
        found.show([(choice.text, _row(choice)) for choice in choices])
        found.display = bool(choices)
        self.query_one("#empty", Static).display = not choices


def _row(choice: Choice) -> Content:
    name = shortened(choice.name, NAME_WIDTH)
    return Content.assemble(line(name), " " * max(2, NAME_WIDTH + 2 - len(name)), line(choice.note, "$text-muted"))


def _note(checkpoint: Checkpoint) -> str:
    try:
        lineage = checkpoint.lineage()
    except UserError:
        return "its lineage cannot be read"
    loss = lineage.metrics.get("val/loss") if lineage else None
    return f"val/loss {loss:.3f}" if loss is not None else ""
