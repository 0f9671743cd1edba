"""Runs: all of them with their live state, and the curve of the one under the cursor."""

from __future__ import annotations

from dataclasses import dataclass

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from stages.store.rundir import RunDir, RunState
from workbench.curves import Curves
from workbench.display import content, line
from workbench.keys import bind
from workbench.progress import summary
from workbench.screens.base import PlaceScreen
from workbench.screens.plotting import PLOT_KEYS, Plotting
from workbench.screens.steering import RESUMABLE, RunSteered, Steering
from workbench.themes import STATUS_STYLES, STATUS_SYMBOLS
from workbench.watch import Board, Entry
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.run_list import RunList

REMEMBERED = 8
"""Runs whose curves stay in memory, so that going back to one shows it at once."""

REST = 0.06
"""Seconds that the cursor stays on a run before its curve is drawn, so that moving on never waits for a plot."""


class RunsScreen(Plotting, Steering, PlaceScreen):
    """The list is looked at once a second, the curve in view four times."""

    PLACE = "runs"
    CSS_PATH = "runs.tcss"
    AUTO_FOCUS = "RunList"
    BINDINGS = [
        bind("runs.new", "n", "new", "New run", "Start a training run."),
        bind("runs.pause", "p", "pause", "Pause", "Pause the run, or resume it."),
        bind("runs.resume", "r", "resume", "Resume", "Go on from the last checkpoint."),
        bind("runs.stop", "s", "stop", "Stop", "Save a checkpoint and end the run."),
        bind("runs.delete", "d,delete", "delete", "Delete", "Delete the run and its checkpoints."),
        bind("runs.chat", "c", "chat", "Chat", "Chat with the run's last checkpoint."),
        *PLOT_KEYS,
    ]

    @dataclass
    class Looked(Message):
        """The workspace was looked at."""

        entries: list[Entry]

    @dataclass
    class CurvesRead(Message):
        """The curves of a run have grown, or were read for the first time."""

        run_id: str

    def __init__(self) -> None:
        super().__init__()
        self._board: Board | None = None
        self._curves: dict[str, Curves] = {}
        self._drawn: tuple[str, int] = ("", -1)
        self._rest: Timer | None = None
        self._state_lines = -1
        self._offered: object = None

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="runs-body"):
            with Vertical(id="runs-list", classes="pane"):
                yield RunList()
                yield Static(self._invitation(), id="runs-empty")
            with Vertical(id="runs-detail", classes="pane"):
                yield Static(id="runs-state")
                yield LossPlot()

    def on_mount(self) -> None:
        self._board = Board(self.workbench.workspace)
        self.query_one("#runs-list").border_title = "runs"
        self.query_one("#runs-detail").border_title = "curve"
        self.query_one("#runs-empty").display = False
        self.poll(1.0, self._look)
        self.poll(0.25, self._follow)

    def run_in_view(self) -> Entry | None:
        return self.query_one(RunList).entry

    def plot_changed(self) -> None:
        self._drawn = ("", -1)
        self._draw()

    def action_new(self) -> None:
        """Open the start form, filled with what the newest data and tokenizer are."""
        self.workbench.start_run("pretrain")

    @on(RunList.Opened)
    def _opened(self, event: RunList.Opened) -> None:
        self.workbench.open_run(event.entry.run)

    @on(RunList.Highlighted)
    def _highlighted(self) -> None:
        self._show_state()
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(REST, self._at_rest)

    def _at_rest(self) -> None:
        """The cursor has come to rest: read what is new of its run, and draw it."""
        self._follow()

    @on(RunSteered)
    def _steered(self) -> None:
        self._look()

    @on(Looked)
    def _looked(self, event: Looked) -> None:
        runs = self.query_one(RunList)
        runs.show(event.entries)
        runs.display = bool(event.entries)
        self.query_one("#runs-empty").display = not event.entries
        self.query_one("#runs-detail").display = bool(event.entries)
        live = sum(entry.live for entry in event.entries)
        self.query_one("#runs-list").border_subtitle = f"{live} at work" if live else ""
        self._show_state()

    @on(CurvesRead)
    def _curves_read(self, event: CurvesRead) -> None:
        entry = self.run_in_view()
        if entry is not None and entry.run.id == event.run_id:
            self._draw()

    def _look(self) -> None:
        if not any(worker.group == "look" and worker.is_running for worker in self.workers):
            self._look_at_runs()

    @work(thread=True, group="look")
    def _look_at_runs(self) -> None:
        if self._board is not None:
            self.post_message(self.Looked(self._board.look()))

    def _follow(self) -> None:
        entry = self.run_in_view()
        if entry is None or any(worker.group == "follow" and worker.is_running for worker in self.workers):
            return
        self._catch_up(entry.run, self._curves_of(entry.run))

    @work(thread=True, group="follow")
    def _catch_up(self, run: RunDir, curves: Curves) -> None:
        before = curves.version
        while curves.catch_up():
            pass
        if curves.version != before or self._drawn[0] != run.id:
            self.post_message(self.CurvesRead(run.id))

    def _curves_of(self, run: RunDir) -> Curves:
        curves = self._curves.pop(run.id, None) or Curves(run.metrics)
        self._curves[run.id] = curves
        while len(self._curves) > REMEMBERED:
            del self._curves[next(iter(self._curves))]
        return curves

    def _draw(self) -> None:
        entry = self.run_in_view()
        plot = self.query_one(LossPlot)
        plot.display = entry is not None
        if entry is None:
            return
        curves = self._curves_of(entry.run)
        if self._drawn == (entry.run.id, curves.version):
            return
        self._drawn = (entry.run.id, curves.version)
        picture = self.picture_of(curves, end=last_step(entry.state))
        picture.empty = "no curve yet" if entry.live else "this run logged no curve"
        plot.show(picture)

    def _show_state(self) -> None:
        entry = self.run_in_view()
        shown = Content.assemble(line(entry.spec.name, "bold"), "  ", state_of(entry)) if entry else Content()
        offered = (entry.status, entry.state.last_checkpoint is not None) if entry else None
        if offered != self._offered:
            self._offered = offered
            self.refresh_bindings()
        lines = shown.plain.count("\n")
        self.query_one("#runs-state", Static).update(shown, layout=lines != self._state_lines)
        self._state_lines = lines

    def _invitation(self) -> Content:
        return Content.assemble(
            "No runs yet.\n\n",
            Content.styled("n", "bold $accent"),
            Content.styled("  starts a training run, once there are a dataset and a tokenizer.\n", "$text-muted"),
            Content.styled("H", "bold $accent"),
            Content.styled("  begins with these, or runs the starter life.", "$text-muted"),
        )


def state_of(entry: Entry) -> Content:
    """How a run stands: its summary, and for one that ended badly why and what to do."""
    style = STATUS_STYLES[entry.status]
    parts: list[Content | str] = [
        Content.styled(f"{STATUS_SYMBOLS[entry.status]} ", style),
        line(summary(entry.state, entry.status), style),
    ]
    if entry.status == "failed" and entry.state.error is not None:
        parts += ["\n", content(entry.state.error.message, "$text-error")]
        parts += ["\n", content(entry.state.error.hint, "$text-muted")] if entry.state.error.hint else []
    elif entry.status == "lost":
        parts += ["\n", Content.styled("Its worker ended without a word. ", "$text-error"), *_offer()]
    elif entry.status in RESUMABLE:
        parts += ["  ", *_offer()]
    return Content.assemble(*parts)


def last_step(state: RunState) -> float:
    """The step at which the curve is to end; 0 while something else is counted, such as bytes that are encoded."""
    return float(state.total) if state.unit == "steps" else 0.0


def _offer() -> list[Content]:
    return [Content.styled("r", "bold $accent"), Content.styled(" resumes it.", "$text-muted")]
