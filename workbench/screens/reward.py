"""A reward model's run: its curves as it learns, and its report card with the disagreements to read."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import ContentSwitcher, OptionList, Static

from stages.store.rewards import CARD, Disagreement, ReportCard, read_card
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from workbench.board.watch import Watch
from workbench.display import content, line, shortened
from workbench.judging.report_card import Ceiling, asked, ceiling, facts
from workbench.keys import SCROLL_KEYS, bind
from workbench.plots.report_picture import reliability, score_against_length
from workbench.screens.base import Dialog
from workbench.screens.check import Scrolling
from workbench.screens.run import RunScreen
from workbench.screens.steering import WRITING
from workbench.widgets.log_tail import LogTail
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.picklist import PickList
from workbench.widgets.settings_pane import SettingsPane

NOT_HERE = frozenset(WRITING)
"""What a run offers whose model writes text; this one scores it."""

CURVES, RELIABILITY, LENGTH = "curves", "reliability", "length"


class RewardWatch(Watch):
    """The run, its report card, and how far the annotators of its labels agree."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        self.card: ReportCard | None = None
        self.agreed = Ceiling(None, None)
        self._stamp: tuple[int, int] | None = None

    def catch_up(self) -> None:
        """Read all that is new. UserError when the run is gone, or its card cannot be read."""
        super().catch_up()
        try:
            status = (self.run.path / CARD).stat()
        except OSError:
            return
        if (stamp := (status.st_mtime_ns, status.st_ino)) != self._stamp:
            self.card, self._stamp = read_card(self.run), stamp
            self.agreed = ceiling(Workspace(self.run.path.parent.parent), self.card)


class RewardScreen(RunScreen):
    """The plot shows the curves, how sure the model is against how right, or score against length."""

    CSS_PATH = ["run.tcss", "reward.tcss"]
    PANES: ClassVar[tuple[str, ...]] = ("report", "log", "settings")
    WATCH = RewardWatch
    BINDINGS = [
        bind("reward.plot", "t", "turn", "Other plot", "Curves; how sure it is and how right; score against length."),
    ]

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        self._plot = CURVES
        self._shown: ReportCard | None = None

    def compose_body(self) -> ComposeResult:
        yield Static(id="run-state")
        with Horizontal(id="run-body"):
            with Vertical(id="run-plot", classes="pane"):
                yield LossPlot()
                yield Static(id="run-metrics")
            with Vertical(id="run-panes", classes="pane"), ContentSwitcher(initial="report"):
                with Vertical(id="report"):
                    with Scrolling(id="card-room"):
                        yield Static("no report card yet: it is written at the end", id="card", classes="muted")
                    yield Static(id="disagreements-title", classes="muted", markup=False)
                    yield PickList(id="disagreements", empty="no pair is ordered the other way")
                yield LogTail(id="log")
                yield SettingsPane(id="settings")

    @property
    def card(self) -> ReportCard | None:
        """What has been found."""
        return self._watch.card if isinstance(self._watch, RewardWatch) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return False if action in NOT_HERE else super().check_action(action, parameters)

    def offers(self, action: str) -> bool:
        return self.card is not None if action == "turn" else super().offers(action)

    def action_turn(self) -> None:
        """Show the next of the plots there are."""
        if self.card is not None and self._watch is not None:
            plots = [CURVES] if self._watch.curves.metrics() else []
            plots += [RELIABILITY, LENGTH]
            self._plot = plots[(plots.index(self._plot) + 1) % len(plots)] if self._plot in plots else plots[0]
            self._drawn = ()
            self._draw()

    def show_made(self, watch: Watch) -> None:
        """Show the report card when there is another."""
        if not isinstance(watch, RewardWatch) or watch.card is None or watch.card is self._shown:
            return
        self._shown = card = watch.card
        self.add_class("-carded")  # from now on the card needs the room
        told = [
            Content.assemble(Content.styled(f"{name}  ", "$text-muted"), line(value))
            for name, value in facts(card, watch.agreed).items()
        ]
        shown = self.query_one("#card", Static)
        shown.remove_class("muted")
        shown.update(Content("\n").join(told))
        entries = [(str(number), summary(one)) for number, one in enumerate(card.worst)]
        self.query_one("#disagreements", PickList).show(entries)
        said = "Pairs it orders the other way, and how sure it is. tab goes there, enter reads one." if entries else ""
        self.query_one("#disagreements-title", Static).update(said)
        if not watch.entry.live or not watch.curves.metrics():
            self._plot = RELIABILITY
        self._drawn = ()
        self.refresh_bindings()

    @on(OptionList.OptionSelected)
    def _open(self) -> None:
        chosen = self.query_one("#disagreements", PickList).chosen
        if chosen is not None and self._shown is not None:
            self.app.push_screen(DisagreementScreen(self._shown.worst[int(chosen)]))

    def _draw(self) -> None:
        curves = self._plot == CURVES or self._shown is None
        self.query_one("#run-metrics").display = curves
        if curves or self._shown is None:
            super()._draw()
            return
        if self._drawn != (self._plot,):
            self._drawn = (self._plot,)
            self.show_picture((reliability if self._plot == RELIABILITY else score_against_length)(self._shown))


class DisagreementScreen(Dialog[None]):
    """A pair in full: what was asked, what the annotator preferred, what the model did."""

    CSS_PATH = "reward.tcss"
    AUTO_FOCUS = "Scrolling"
    BINDINGS = [*SCROLL_KEYS, bind("disagreement.close", "enter,q", "close", "Close", "Back to the report card.")]

    def __init__(self, one: Disagreement) -> None:
        super().__init__()
        self._one = one

    def compose(self) -> ComposeResult:
        one, parts = self._one, list[Content]()
        for message in one.messages:
            parts += [line(message.role, "$text-muted"), Content("\n"), content(message.content, tabs=4)]
            parts.append(Content("\n\n"))
        who = one.annotator or "the annotator"
        for told, text, score in (
            (f"preferred by {who}", one.better, one.better_score),
            (f"preferred by the model, {100 * (1 - one.probability):.0f} % sure", one.worse, one.worse_score),
        ):
            parts += [line(f"{told}, score {score:+.2f}", "$text-muted"), Content("\n")]
            parts += [content(text, tabs=4) if text else Content.styled("(nothing)", "dim"), Content("\n\n")]
        with Vertical(id="answer") as box:
            box.border_subtitle = "j k scroll · enter closes"
            with Scrolling():
                yield Static(Content.assemble(*parts[:-1]))

    def action_close(self) -> None:
        self.dismiss()


def summary(one: Disagreement) -> Content:
    """A disagreement in one line: how sure the model is, and the two texts, the annotator's first."""
    return Content.assemble(
        Content.styled(f"{100 * (1 - one.probability):3.0f} % ", "$text-error"),
        Content(shortened(one.better, 40) or "(nothing)"),
        Content.styled(" before ", "$text-muted"),
        Content(shortened(one.worse, 40) or "(nothing)"),
        Content.styled(f"  {shortened(asked(one), 60)}", "$text-muted"),
    )
