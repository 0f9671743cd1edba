"""Serving a checkpoint to other programs, from inside the app: where it listens, by which token, how it is ended."""

from __future__ import annotations

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError
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
LONGER = "To serve longer than that, or to other machines:"


class Said(VerticalScroll, can_focus=True):
    HELP_TITLE = "The endpoint"
    BINDINGS = [*SCROLL_KEYS]


class ServeScreen(PlaceScreen):
    """What the app's endpoint says. Leaving the screen leaves it at work; the app has one at a time."""

    PLACE = "runs"
    CSS_PATH = "serve.tcss"
    AUTO_FOCUS = "Said"
    BINDINGS = [
        bind("serve.back", "escape", "back", "Back", "To where you were; the endpoint goes on."),
        bind("serve.open", "o", "checkpoint", "Checkpoint", "Serve another checkpoint."),
        bind("serve.stop", "s", "stop", "Stop", "End the endpoint."),
        bind("serve.copy", "Y", "copy_said", "Copy", "Copy address, token and a command to try them."),
    ]

    def __init__(self, checkpoint: str = "") -> None:
        super().__init__()
        self._wanted = checkpoint
        self._told: object = None

    def compose_body(self) -> ComposeResult:
        with Vertical(id="serve", classes="pane") as pane:
            pane.border_title = "serve"
            with Said():
                yield Static(id="said")

    def on_mount(self) -> None:
        self.show_trail("serve")
        self.poll(0.25, self._show)
        if self._wanted:
            self._serve(self._wanted)
        elif self.serving is None:
            self.action_checkpoint()

    @property
    def serving(self) -> Serving | None:
        """The app's endpoint, while there is one."""
        return self.workbench.serving

    def offers(self, action: str) -> bool:
        if action in ("stop", "copy_said"):
            return self.serving is not None and not self.serving.ended
        return super().offers(action)

    def action_back(self) -> None:
        """Leave; what is served goes on."""
        self.dismiss(None)

    def action_checkpoint(self) -> None:
        """Choose what to serve."""
        self.app.push_screen(CheckpointScreen(self.workbench.workspace, "Serve"), self._chosen)

    def action_stop(self) -> None:
        """End the endpoint."""
        if self.serving is not None and not self.serving.ended:
            self._stop(self.serving)
        else:
            self.notify("Nothing is served.")

    def action_copy_said(self) -> None:
        """Copy what the endpoint has said."""
        if self.serving is not None:
            copy_out(self.app, "\n".join(self.serving.lines) + "\n")

    def _chosen(self, checkpoint: str | None) -> None:
        if checkpoint:
            self._serve(checkpoint)

    @work(exclusive=True, group="serve")
    async def _serve(self, checkpoint: str) -> None:
        workspace = self.workbench.workspace
        try:
            folder = resolve_checkpoint(workspace, checkpoint).path
        except UserError as error:
            self.workbench.show_error(error)
            return
        if self.serving is not None and not self.serving.ended and self.serving.folder == folder:
            return
        await self.workbench.serve(called(workspace, checkpoint), folder)
        self._show()

    @work(exclusive=True, group="serve")
    async def _stop(self, serving: Serving) -> None:
        await serving.stop()
        self._show()

    def _show(self) -> None:
        serving = self.serving
        now = (serving.name, serving.standing, serving.lines) if serving is not None else None
        if now == self._told and self._told is not None:
            return
        self._told = now
        self.query_one("#said", Static).update(_said(serving) if serving is not None else Content(NOTHING))
        self.query_one("#serve").border_subtitle = serving.standing if serving is not None else ""
        self.refresh_bindings()


def _said(serving: Serving) -> Content:
    standing = serving.standing
    parts = [Content.assemble(line(serving.name, "bold"), f"  {standing}"), Content()]
    parts += [line(said) for said in serving.lines] or [Content.styled("the model is loading …", "$text-muted")]
    if standing == "serving":
        parts += [Content(), Content.styled(STANDS, "$text-muted")]
    if standing != "starting":
        parts += [Content.styled(LONGER, "$text-muted"), line(f"  workbench serve {serving.name}")]
    return Content("\n").join(parts)
