"""A policy run in flight: curves, lamps that light when a figure leaves its healthy band, rollouts as they come."""

from __future__ import annotations

from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import ContentSwitcher, Static
from textual.worker import get_current_worker

from stages.store.checkpoints import Checkpoint, list_checkpoints
from stages.store.errors import UserError
from stages.store.rollback import roll_back
from stages.store.rundir import RunDir
from workbench import runs
from workbench.board.outcome import about_samples, in_place_of_samples
from workbench.board.rollout_facts import is_rollout, rollout_of
from workbench.board.run_board import Entry
from workbench.board.watch import SAMPLES, Watch
from workbench.display import line
from workbench.judging import hand_check
from workbench.keys import bind
from workbench.plots.gauges import readings
from workbench.plots.picture import figure
from workbench.screens.pick import Pick
from workbench.screens.question import Ask
from workbench.screens.run import RunScreen
from workbench.widgets.lamps import Lamps
from workbench.widgets.log_tail import LogTail
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.rollouts import Rollouts
from workbench.widgets.samples import SHOWN, Samples
from workbench.widgets.settings_pane import SettingsPane

COMMON = ("evaluate", "sample", "log_axis")
"""Keys that are named where there is room: `?` names all."""

NOTED = ("val/reward", "val/accuracy", "val/loss", "val/kl", "val/length")
"""Figures by which checkpoints are told apart when one is chosen to go back to."""


class CockpitScreen(RunScreen):
    """Above, the plot beside the lamps; below, what the policy writes."""

    CSS_PATH = ["run.tcss", "cockpit.tcss"]
    PANES: ClassVar[tuple[str, ...]] = ("rollouts", "samples", "log", "settings")
    BINDINGS = [
        bind("cockpit.back", "b", "roll_back", "Roll back", "Go back to an earlier checkpoint at a lower rate."),
        bind("cockpit.check", "h", "check_by_hand", "By hand", "Judge fresh answers beside the reference's, blind."),
        bind("cockpit.colour", "t", "colour", "Colour", "Colour tokens by KL, advantage or probability."),
        bind("cockpit.next", "n", "rollout(1)", "Next", "The rollout before this one in time."),
        bind("cockpit.previous", "N", "rollout(-1)", "Newer", "The rollout after this one in time.", show=False),
    ]

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        self.chosen = "reward/mean"
        self._lamps_drawn: object = None

    def compose_body(self) -> ComposeResult:
        yield Static(id="run-state")
        with Horizontal(id="cockpit-figures"):
            with Vertical(id="run-plot", classes="pane"):
                yield LossPlot()
                yield Static(id="run-metrics")
            with Vertical(id="cockpit-lamps", classes="pane") as lamps:
                lamps.border_title = "health"
                yield Lamps(id="lamps")
        with Vertical(id="run-panes", classes="pane"), ContentSwitcher(initial="rollouts"):
            yield Rollouts(id="rollouts")
            yield Samples(id="samples")
            yield LogTail(id="log")
            yield SettingsPane(id="settings")

    def offers(self, action: str) -> bool:
        """Where the bar has little room, what only a cockpit has comes before what every run has."""
        return super().offers(action) and not (action in COMMON and self.has_class("-narrow"))

    def action_rollout(self, by: int) -> None:
        """Read another rollout."""
        self._show_pane("rollouts")
        self.query_one(Rollouts).move(by)

    def action_colour(self) -> None:
        """Colour the tokens by another figure."""
        self._show_pane("rollouts")
        self.query_one(Rollouts).colour_next()

    def on_screen_resume(self) -> None:
        self._look_at_verdicts()

    def action_check_by_hand(self) -> None:
        """Have the policy and its reference answer some prompts, and judge the answers when they are there."""
        if entry := self.run_in_view():
            self.notify(f"{hand_check.PROMPTS} prompts are answered by both; you judge where they differ. A moment.")
            self._check(entry)

    @work(thread=True, exclusive=True, group="hand check")
    def _check(self, entry: Entry) -> None:
        workspace, settings = self.workbench.workspace, self.workbench.settings
        worker = get_current_worker()
        try:
            sampling = hand_check.begin(workspace, entry.run, settings)
            name = hand_check.finish(workspace, sampling, settings, lambda: worker.is_cancelled)
            if name is None:
                return
            self.app.call_from_thread(self._judge, name)
            hand_check.ask_reward_model(workspace, entry.run, settings, lambda: worker.is_cancelled)
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
            return
        self.app.call_from_thread(self._look_at_verdicts)

    def _judge(self, name: str) -> None:
        from workbench.screens.judge import JudgeScreen

        if self.is_current:
            self.app.push_screen(JudgeScreen(name))
        else:
            self.notify(f"The label set {name} is ready to judge, in Rank.")

    @work(thread=True, exclusive=True, group="verdicts")
    def _look_at_verdicts(self) -> None:
        try:
            found = hand_check.verdicts(self.workbench.workspace, self._run.spec().name)
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
            return
        self.app.call_from_thread(self._show_verdicts, found)

    def _show_verdicts(self, found: list[hand_check.Verdict]) -> None:
        self.query_one("#cockpit-lamps").border_subtitle = line(_verdict(found[-1])) if found else ""

    def action_roll_back(self) -> None:
        """Ask for an earlier checkpoint and a learning rate, and go on from there."""
        entry = self.run_in_view()
        if entry is None:
            return
        if entry.live:
            self.notify(f"{entry.spec.name} is {entry.status}: pause it first, with p.")
            return
        found = [each for each in reversed(list_checkpoints(entry.run)) if not _at_the_end(entry, each)]
        names = [f"step {checkpoint.step:,}{_noted(checkpoint)}" for checkpoint in found]
        if not names:
            self.notify(f"{entry.spec.name} has no checkpoint to go back to.")
            return
        title = f"Roll {entry.spec.name} back to which checkpoint? Later ones are set aside."
        self.app.push_screen(Pick(title, names), lambda chosen: self._ask_rate(entry, chosen))

    def _ask_rate(self, entry: Entry, chosen: str | None) -> None:
        if chosen is None:
            return
        step, before = int(chosen.split()[1].replace(",", "")), runs.peak_lr(entry.run)
        ask = Ask(
            f"Peak learning rate of {entry.spec.name} from step {step:,} on",
            f"It was {figure(before)}. The same would take the same way again; half of it is filled in.",
            figure(before / 2) if before else "",
            lambda text: runs.parse_lr(entry.run, text),
        )
        self.app.push_screen(ask, lambda text: self._go_back(entry, step, text))

    def _go_back(self, entry: Entry, step: int, text: str | None) -> None:
        if text is None:
            return
        rate, width = runs.parse_lr(entry.run, text), self.workbench.settings.queue.cpu_width
        workspace = self.workbench.workspace

        def go_on(run: RunDir) -> None:
            roll_back(workspace, run, step)
            runs.start(run, cpu_width=width)
            runs.set_lr(run, rate)

        self._ask_worker(entry, go_on, f"From step {step:,} at {rate:g}:")

    def show_made(self, watch: Watch) -> None:
        """Show the rollouts and the answers to fixed prompts when there are more."""
        now = watch.samples_version, in_place_of_samples(watch.entry)
        if now == self._samples_drawn:
            return
        self._samples_drawn = now
        rows = watch.recent_samples(SAMPLES)
        self.query_one(Rollouts).show([rollout_of(row) for row in rows if is_rollout(row)])
        answers = [row for row in rows if not is_rollout(row)][:SHOWN]
        self.query_one(Samples).show(answers, absent=now[1], about=about_samples(watch.entry))

    def _draw(self) -> None:
        super()._draw()
        watch = self._watch
        now = (watch.curves.version, self.has_class("-narrow")) if watch else None
        if watch is not None and now != self._lamps_drawn:
            self._lamps_drawn = now
            self.query_one(Lamps).show(list(readings(watch.curves, watch.spec.settings)))

    def _show_pane(self, pane: str) -> None:
        super()._show_pane(pane)
        if pane == "rollouts":
            self.query_one(Rollouts).focus_text()


def _verdict(found: hand_check.Verdict) -> str:
    """How often the policy was preferred to its reference, by people and by its reward model."""
    who = (("you", found.people), ("reward model", found.model))
    shares = [f"{name} {each.value:.0%} of {each.of}" for name, each in who if each and each.value is not None]
    return f"preferred at step {found.step:,}: {', '.join(shares)}"


def _at_the_end(entry: Entry, checkpoint: Checkpoint) -> bool:
    """Whether nothing is left to do from there on."""
    return entry.status == "finished" and checkpoint.step >= entry.state.total


def _noted(checkpoint: Checkpoint) -> str:
    """What a checkpoint's own figures say of it."""
    try:
        lineage = checkpoint.lineage()
    except UserError:
        return ""
    figures = lineage.metrics if lineage else {}
    return "".join(f"   {name.removeprefix('val/')} {figures[name]:.3g}" for name in NOTED if name in figures)
