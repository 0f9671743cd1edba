"""Serving a checkpoint to other programs, from inside the app: where it listens, by which token, how it is ended."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from stages.store.checkpoints import resolve_checkpoint, step_of
from stages.store.errors import UserError
from stages.store.workspace import Workspace
from workbench.copying import copy_out
from workbench.display import line
from workbench.keys import SCROLL_KEYS, bind
from workbench.screens.base import PlaceScreen
from workbench.screens.checkpoints import CheckpointScreen, called
from workbench.talking.serving import Serving

NOTHING = (
    "Nothing is served. o chooses a checkpoint, which other programs then reach by OpenAI's API: on this machine "
    "alone, and with a token."
)
STANDS = "It goes on while the app is open, on whatever screen one is; s ends it."
INSTEAD = "r serves "
LONGER = "To serve longer than that, or to other machines:"


def command_name(workspace: Workspace, name: str, folder: Path) -> str:
    """What a command takes for a checkpoint's folder: its name, its run's id and step, or the folder. Reads files."""
    for text in (name, f"{folder.parent.parent.name}@{step_of(folder)}"):
        with contextlib.suppress(UserError):
            if resolve_checkpoint(workspace, text).path == folder:
                return text
    return str(folder)


class Said(VerticalScroll, can_focus=True):
    HELP_TITLE = "The endpoint"
    BINDINGS = [*SCROLL_KEYS]


class ServeScreen(PlaceScreen):
    """What the app's endpoint says. Leaving the screen leaves it at work; the app has one at a time.

    The checkpoint that one comes with is served at once where nothing is; what is served makes way only when asked.
    """

    PLACE = "runs"
    CSS_PATH = "serve.tcss"
    AUTO_FOCUS = "Said"
    BINDINGS = [
        bind("serve.back", "escape", "back", "Back", "To where you were; the endpoint goes on."),
        bind("serve.open", "o", "checkpoint", "Checkpoint", "Serve another checkpoint."),
        bind("serve.replace", "r", "replace", "Replace", "Serve what you came with, in place of what is served."),
        bind("serve.stop", "s", "stop", "Stop", "End the endpoint."),
        bind("serve.copy", "Y", "copy_said", "Copy", "Copy address, token and a command to try them."),
    ]

    def __init__(self, checkpoint: str = "") -> None:
        super().__init__()
        self._wanted = checkpoint
        self._other: str | None = None
        """What could take the place of what is served: the checkpoint that one came with."""
        self._told: object = None
        self._named: tuple[Serving, str] | None = None
        """What is served, and what a command calls it."""

    def compose_body(self) -> ComposeResult:
        with Vertical(id="serve", classes="pane") as pane:
            pane.border_title = "serve"
            with Said():
                yield Static(id="said")

    def on_mount(self) -> None:
        self.show_trail("serve")
        self.poll(0.25, self._show)
        if self._wanted and not self._live:
            self._serve(self._wanted)
        elif self._wanted:
            self._other = self._instead(self._wanted)
        elif self.serving is None:
            self.action_checkpoint()

    @property
    def serving(self) -> Serving | None:
        """The app's endpoint, while there is one."""
        return self.workbench.serving

    @property
    def _live(self) -> bool:
        return self.serving is not None and not self.serving.ended

    def offers(self, action: str) -> bool:
        if action in ("stop", "copy_said"):
            return self._live
        if action == "replace":
            return self._other is not None
        return super().offers(action)

    def action_back(self) -> None:
        """Leave; what is served goes on."""
        self.dismiss(None)

    def action_checkpoint(self) -> None:
        """Choose what to serve."""
        self.app.push_screen(CheckpointScreen(self.workbench.workspace, "Serve"), self._chosen)

    def action_replace(self) -> None:
        """Serve the checkpoint that one came with, in place of what is served."""
        if self._other is not None:
            self._serve(self._wanted)

    def action_stop(self) -> None:
        """End the endpoint."""
        if self._live:
            self.workbench.stop_serving()
        else:
            self.notify("Nothing is served.")

    def action_copy_said(self) -> None:
        """Copy what the endpoint has said."""
        if self.serving is not None:
            copy_out(self.app, "\n".join(self.serving.lines) + "\n")

    def _chosen(self, checkpoint: str | None) -> None:
        if checkpoint:
            self._serve(checkpoint)

    def _serve(self, checkpoint: str) -> None:
        self._other = None
        found = self._resolve(checkpoint)
        if found is not None and not (self._live and self.serving is not None and self.serving.folder == found[1]):
            self.workbench.serve(*found)
        self._show()

    def _instead(self, checkpoint: str) -> str | None:
        """How the checkpoint is called, unless it is what is served."""
        found = self._resolve(checkpoint)
        if found is None or self.serving is None or self.serving.folder == found[1]:
            return None
        name, folder = found
        return name if "@" in name else f"{name} ({folder.name})"

    def _resolve(self, checkpoint: str) -> tuple[str, Path] | None:
        """How people call it, and its folder; an error is shown."""
        workspace = self.workbench.workspace
        try:
            return called(workspace, checkpoint), resolve_checkpoint(workspace, checkpoint).path
        except UserError as error:
            self.workbench.show_error(error)
            return None

    def _by_command(self, serving: Serving) -> str:
        """What a command takes for the very folder that is served: another run may have the name by now."""
        if self._named is None or self._named[0] is not serving:
            self._named = serving, shlex.quote(command_name(self.workbench.workspace, serving.name, serving.folder))
        return self._named[1]

    def _show(self) -> None:
        serving = self.serving
        now = (serving.name, serving.standing, serving.lines, self._other) if serving is not None else None
        if now == self._told and self._told is not None:
            return
        self._told = now
        said = _said(serving, self._other, self._by_command(serving)) if serving is not None else Content(NOTHING)
        self.query_one("#said", Static).update(said)
        self.query_one("#serve").border_subtitle = serving.standing if serving is not None else ""
        self.refresh_bindings()


def _said(serving: Serving, other: str | None, by_command: str) -> Content:
    """What an endpoint has said, how it stands, and what could take its place.

    by_command: what the command calls what is served.
    """
    standing = serving.standing
    parts = [Content.assemble(line(serving.name, "bold"), f"  {standing}"), Content()]
    loading = [Content.styled("the model is loading …", "$text-muted")] if standing == "starting" else []
    parts += [line(said) for said in serving.lines] or loading
    if standing == "serving":
        parts += [Content(), Content.styled(STANDS, "$text-muted")]
    if other is not None:
        parts += [Content(), Content.assemble(INSTEAD, line(other, "bold"), " in its place.")]
    if standing != "starting":
        parts += [Content.styled(LONGER, "$text-muted"), line(f"  workbench serve {by_command}")]
    return Content("\n").join(parts)
