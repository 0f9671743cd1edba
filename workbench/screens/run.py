"""One run: its curves as they grow, samples as they come, the log, the settings, and the controls."""

from __future__ import annotations

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.style import Style
from textual.widgets import ContentSwitcher, Static

from stages.store.errors import UserError
from stages.store.rundir import RunDir
from workbench.board.outcome import about_samples, in_place_of_a_curve, in_place_of_samples
from workbench.board.run_board import Entry
from workbench.board.watch import Watch
from workbench.display import line
from workbench.keys import bind
from workbench.plots.curves import Track
from workbench.plots.picture import groups, latest_text, unit_of
from workbench.screens.base import PlaceScreen
from workbench.screens.onward import Onward
from workbench.screens.plotting import PLOT_KEYS, Plotting
from workbench.screens.standing import last_step, state_of
from workbench.screens.steering import RunSteered, Steering
from workbench.themes import STATUS_STYLES
from workbench.widgets.log_tail import LogTail
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.samples import SHOWN, Samples
from workbench.widgets.settings_pane import SettingsPane
from workbench.widgets.side_by_side import flowed, in_one_row


class RunScreen(Onward, Plotting, Steering, PlaceScreen):
    """Watches `run` four times a second while it is on screen; the run does not notice."""

    PLACE = "runs"
    CSS_PATH = ["run.tcss"]
    PANES: ClassVar[tuple[str, ...]] = ("samples", "log", "settings")
    WATCH: ClassVar[type[Watch]] = Watch
    BINDINGS = [
        bind("run.back", "escape", "back", "Back", "To the list of runs."),
        bind("run.pause", "p", "pause", "Pause", "Pause the run, or resume it."),
        bind("run.resume", "r", "resume", "Resume", "Go on from the last checkpoint."),
        bind("run.stop", "s", "stop", "Stop", "Save a checkpoint and end the run."),
        bind("run.checkpoint", "w", "checkpoint", "Checkpoint", "Save a checkpoint now.", show=False),
        bind("run.lr", "l", "learning_rate", "Learning rate", "Change the learning rate of the run.", show=False),
        bind("run.chat", "c", "chat", "Chat", "Chat with the last checkpoint."),
        bind("run.evaluate", "e", "evaluate", "Evaluate", "Measure this run's checkpoints on a dataset."),
        bind("run.sample", "a", "sample", "Sample", "Have this run's model write completions to judge."),
        bind("run.again", "T", "again", "Again", "Do the run again: the same, or with a change.", show=False),
        bind("run.exactly", "E", "exactly", "Exactly", "Do the run again at once, exactly as it was.", show=False),
        bind("run.serve", "S", "serve", "Serve", "Serve the checkpoint to other programs.", show=False),
        bind("run.inside", "I", "inside", "Inside", "Token probabilities and attention.", show=False),
        bind("run.onward", "enter", "onward", "Go on", "What comes next; a run that ended early goes on.", show=False),
        bind("run.pane", "v", "pane(1)", "View", "Samples, log or settings."),
        *PLOT_KEYS,
    ]

    class CaughtUp(Message):
        """A thread has read what was new on disk."""

    class Gone(Message):
        """The run's folder can no longer be read."""

        def __init__(self, error: UserError) -> None:
            super().__init__()
            self.error = error

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self._run = run
        self._watch: Watch | None = None
        self._drawn: tuple[object, ...] = ()
        self._samples_drawn: tuple[int, str] | None = None
        self._told: Entry | None = None

    def compose_body(self) -> ComposeResult:
        yield Static(id="run-state")
        with Horizontal(id="run-body"):
            with Vertical(id="run-plot", classes="pane"):
                yield LossPlot()
                yield Static(id="run-metrics")
            with Vertical(id="run-panes", classes="pane"), ContentSwitcher(initial="samples"):
                yield Samples(id="samples")
                yield LogTail(id="log")
                yield SettingsPane(id="settings")

    def on_mount(self) -> None:
        self._name_pane(self.PANES[0])
        self.poll(0.25, self._catch_up)

    def run_in_view(self) -> Entry | None:
        return self._watch.entry if self._watch else None

    def plot_changed(self) -> None:
        self._drawn = ()
        for track in self.tracks():
            track.scope = self.look.scope
        self._draw()
        self._catch_up()

    def tracks(self) -> list[Track]:
        return [self._watch.track] if self._watch else []

    def action_back(self) -> None:
        self.dismiss(None)

    def action_pane(self, by: int) -> None:
        """Show the next of samples, log and settings."""
        switcher = self.query_one(ContentSwitcher)
        self._show_pane(self.PANES[(self.PANES.index(str(switcher.current)) + by) % len(self.PANES)])

    @on(CaughtUp)
    @on(RunSteered)
    def _caught_up(self) -> None:
        watch = self._watch
        if watch is None:
            return
        entry = watch.entry
        if self._told is None:
            self._arrive(entry)
        if entry != self._told:
            self._tell(entry)
        self.show_made(watch)
        self._draw()
        cleared, text = watch.take_log()
        log = self.query_one(LogTail)
        if cleared:
            log.clear()
        log.add(text)

    def show_made(self, watch: Watch) -> None:
        """Show what the run has made, when there is more of it: its samples."""
        now = watch.samples_version, in_place_of_samples(watch.entry)
        if now != self._samples_drawn:
            self._samples_drawn = now
            self.query_one(Samples).show(watch.recent_samples(SHOWN), absent=now[1], about=about_samples(watch.entry))

    @on(Gone)
    def _gone(self, event: Gone) -> None:
        self.workbench.show_error(event.error)
        self.dismiss(None)

    def on_click(self, event: Click) -> None:
        chosen, pane = event.style.meta.get("group"), event.style.meta.get("pane")
        if isinstance(chosen, str):
            self.chosen = chosen
            self.plot_changed()
        elif pane in self.PANES:
            self._show_pane(pane)

    def _catch_up(self) -> None:
        if not self.busy_with("catch-up"):
            self._read()

    @work(thread=True, group="catch-up")
    def _read(self) -> None:
        try:
            if self._watch is None:
                self._watch = self.WATCH(self._run)
            self._watch.catch_up()
        except UserError as error:
            self.post_message(self.Gone(error))
            return
        self.post_message(self.CaughtUp())

    def _arrive(self, entry: Entry) -> None:
        """The first look: say what run this is, and show first what matters most about it."""
        self.show_trail("runs", entry.spec.name)
        self.query_one(SettingsPane).show(entry)
        if entry.status in ("failed", "lost") or entry.spec.stage in ("build", "tokenizer"):
            self._show_pane("log")

    def _tell(self, entry: Entry) -> None:
        before, self._told = self._told, entry
        state = self.query_one("#run-state", Static)
        state.update(self._state(entry))
        if before is None or (before.status, before.state.result, before.state.last_checkpoint) != (
            entry.status,
            entry.state.result,
            entry.state.last_checkpoint,
        ):
            self.query_one(SettingsPane).show(entry)
            self.refresh_bindings()
            self.look_onward()

    def _state(self, entry: Entry) -> Content:
        """Where the run stands: of a live one in a line, for which the least needful gives way."""
        bar, told = _bar(entry, 24 if self.size.width >= 100 else 10), state_of(entry, "enter")
        if not entry.live:
            return Content.assemble(bar, told)
        facts = " · ".join(part for part in (entry.spec.stage, entry.state.device) if part)
        whole = Content.assemble(bar, told, line(f"   {facts}", "$text-muted") if facts else "")
        room = self.size.width - 2
        return next((one for one in (whole, Content.assemble(bar, told)) if one.cell_length <= room), told)

    def _draw(self) -> None:
        watch = self._watch
        if watch is None:
            return
        metrics = self.query_one("#run-metrics", Static)
        width = metrics.content_size.width
        now = (watch.track.version, watch.state.total, watch.status, width)
        if now == self._drawn:
            return
        self._drawn = now
        picture = self.picture_of(watch.track, end=last_step(watch.state))
        picture.unit = unit_of(picture.title, [watch.entry.spec.stage])
        picture.empty = picture.empty or in_place_of_a_curve(watch.entry)
        self.show_picture(picture)
        metrics.update(self._metrics(watch, width), layout=False)

    def _metrics(self, watch: Watch, width: int) -> Content:
        """The newest value of every group but the one that is plotted, which stands out by its name alone."""
        chosen = self.group
        parts: list[Content] = []
        found = groups(watch.curves.metrics())
        for group in found:
            latest = watch.curves.latest(group.metrics[0])
            style = "bold $primary reverse" if group == chosen else "$text-muted"
            name = line(f" {group.title} ", style)
            value = Content(f" {latest_text(group.title, latest[1])}" if latest else "")
            parts.append((name + value).stylize_before(Style.from_meta({"group": group.title})))
        if self.has_class("-tall") or width <= 0:
            return flowed(parts, width)
        return in_one_row(parts, width, found.index(chosen) if chosen in found else 0)

    def _show_pane(self, pane: str) -> None:
        self.query_one(ContentSwitcher).current = pane
        self._name_pane(pane)
        self.query_one(f"#{pane}").focus()

    def _name_pane(self, pane: str) -> None:
        names = [
            Content.styled(name, "bold $primary" if name == pane else "$text-muted").stylize_before(
                Style.from_meta({"pane": name})
            )
            for name in self.PANES
        ]
        self.query_one("#run-panes").border_title = Content(" · ").join(names)


def _bar(entry: Entry, width: int) -> Content:
    """How much is done, drawn; nothing when it is not known."""
    share = entry.share
    if share is None:
        return Content()
    done = round(share * width)
    style = STATUS_STYLES[entry.status]
    return Content.assemble(
        Content.styled("━" * done, style), Content.styled("─" * (width - done), "$text-muted"), "  "
    )
