"""One evaluation: its table as it grows, a measure along the checkpoints, and answers to read."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import ContentSwitcher, DataTable, OptionList, Static

from stages.store.evaluations import FILE, Answer, Evaluation, Row, read_evaluation
from stages.store.lineage import ancestry
from stages.store.rundir import RunDir, RunSpec
from stages.store.specs.parents import checkpoint_roles
from workbench.board.watch import Watch
from workbench.display import content, line, shortened
from workbench.keys import SCROLL_KEYS, bind
from workbench.plots.evaluation_picture import Ancestries, has_line, is_joined, picture_of
from workbench.plots.picture import Picture
from workbench.screens.base import Dialog
from workbench.screens.check import Scrolling
from workbench.screens.run import RunScreen
from workbench.widgets.log_tail import LogTail
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.measure_table import MeasureTable
from workbench.widgets.picklist import PickList
from workbench.widgets.settings_pane import SettingsPane

NOT_HERE = frozenset(
    ("pause", "checkpoint", "learning_rate", "chat", "inside", "smoothing", "range", "whole", "zoom", "pan")
)
"""What can be done with a training run and its curves, and not with an evaluation."""

MARKS = {True: ("✓", "$text-success"), False: ("✗", "$text-error"), None: ("·", "$text-muted")}
"""By whether an answer is right; None where nobody knows."""


class EvaluationWatch(Watch):
    """The run, what it has found so far, and how the checkpoints came to be."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        self.found: Evaluation | None = None
        self.ancestries: Ancestries = {}
        self._stamp: tuple[int, int] | None = None

    def catch_up(self) -> None:
        """Read all that is new. UserError when the run is gone, or its evaluation cannot be read."""
        super().catch_up()
        try:
            status = (self.run.path / FILE).stat()
        except OSError:
            return
        if (stamp := (status.st_mtime_ns, status.st_ino)) != self._stamp:
            self.ancestries = self.ancestries or ancestries_of(self.spec)
            self.found, self._stamp = read_evaluation(self.run), stamp


class EvaluationScreen(RunScreen):
    """The cursor of the table chooses the measure on the plot and the checkpoint whose answers are listed."""

    CSS_PATH = ["run.tcss", "evaluation.tcss"]
    AUTO_FOCUS = "MeasureTable"
    PANES = ("answers", "log", "settings")
    WATCH = EvaluationWatch
    STAGE: ClassVar[str] = "evaluate"
    """Whose form `e` opens."""
    BINDINGS = [
        bind("run.evaluate", "e", "evaluate", "Evaluate again", "Open the form with these checkpoints and settings."),
    ]

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        self._shown: Evaluation | None = None
        self._in_order = False

    def compose_body(self) -> ComposeResult:
        yield Static(id="run-state")
        with Vertical(id="scores", classes="pane"):
            yield MeasureTable()
            yield Static(id="note", classes="muted")
        with Horizontal(id="run-body"):
            with Vertical(id="run-plot", classes="pane"):
                yield LossPlot()
            with Vertical(id="run-panes", classes="pane"), ContentSwitcher(initial="answers"):
                yield PickList(id="answers", empty="no answers to read")
                yield LogTail(id="log")
                yield SettingsPane(id="settings")

    def on_mount(self) -> None:
        self.query_one("#run-plot").display = False
        self.query_one("#scores").border_title = "nothing measured yet"

    @property
    def found(self) -> Evaluation | None:
        """What has been found so far."""
        return self._watch.found if isinstance(self._watch, EvaluationWatch) else None

    @property
    def ancestries(self) -> Ancestries:
        """How the checkpoints came to be, by run."""
        return self._watch.ancestries if isinstance(self._watch, EvaluationWatch) else {}

    @property
    def checkpoint(self) -> Row | None:
        """What is known of the checkpoint under the cursor."""
        rows = self.found.rows if self.found else []
        at = self.query_one(MeasureTable).cursor_coordinate.column
        return rows[at] if at < len(rows) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return False if action in NOT_HERE else super().check_action(action, parameters)

    def offers(self, action: str) -> bool:
        if action == "log_axis":
            return bool(self.query_one("#run-plot").display)
        if action == "against":
            return self.found is not None and is_joined(self.found, self.ancestries)
        return action == "evaluate" or super().offers(action)

    def action_against(self) -> None:
        """Plot a lineage against the steps made in all, or its checkpoints equally far apart."""
        self._in_order = not self._in_order
        self.plot_changed()

    def action_metric(self, by: int) -> None:
        self.query_one(MeasureTable).move(by)

    def action_evaluate(self) -> None:
        """Open the form with what this evaluation was asked."""
        if entry := self.run_in_view():
            folders = [entry.spec.parents[role].name for role in checkpoint_roles(entry.spec.parents)]
            rows = self.found.rows if self.found else []
            names = [row.checkpoint for row in rows] if len(rows) == len(folders) else folders
            dataset = entry.spec.parents.get("dataset")
            given = {"dataset": dataset.name if dataset else "", "checkpoints": ", ".join(names)}
            self.workbench.start_run(self.STAGE, {**entry.spec.settings, **given})

    def show_made(self, watch: Watch) -> None:
        """Fill the table anew when another checkpoint has been measured."""
        if self.found is None or self.found is self._shown:
            return
        self._shown = found = self.found
        self.query_one("#scores").border_title = self.heading(found)
        self.query_one("#run-plot").display = self.plots(found)
        self.query_one(MeasureTable).show(found)
        self._show_checkpoint()
        self.refresh_bindings()

    @on(DataTable.CellHighlighted)
    def _moved(self) -> None:
        self._draw()
        self._show_checkpoint()

    @on(OptionList.OptionSelected)
    def _open(self) -> None:
        chosen, row = self.query_one("#answers", PickList).chosen, self.checkpoint
        if chosen is not None and row is not None and self.found is not None:
            self.app.push_screen(AnswerScreen(self.found, row, row.answers[int(chosen)]))

    def heading(self, found: Evaluation) -> Content:
        """What stands above the table."""
        return line(f"{found.dataset}, {found.split}: {found.records:,} records of kind {found.kind}")

    def plots(self, found: Evaluation) -> bool:
        """Whether there is something to plot."""
        return has_line(found, self.ancestries)

    def picture(self, found: Evaluation, measure: str) -> Picture:
        """The plot of a measure."""
        return picture_of(found, measure, self.ancestries, log=self.look.log, in_order=self._in_order)

    def _draw(self) -> None:
        measure = self.query_one(MeasureTable).measure
        now = (self.found and len(self.found.rows), measure, self.look.log, self._in_order)
        if self.found is None or measure is None or now == self._drawn:
            return
        self._drawn = now
        self.show_picture(self.picture(self.found, measure))

    def _show_checkpoint(self) -> None:
        """List the answers of the checkpoint under the cursor, the wrong ones first, and its note."""
        row = self.checkpoint
        note = self.query_one("#note", Static)
        note.display = bool(row and row.note)
        if row is not None:
            note.update(content(row.note))
            entries = [(str(number), summary(answer)) for number, answer in enumerate(row.answers)]
            self.query_one("#answers", PickList).show(entries)
            self.query_one("#run-panes").border_subtitle = line(row.checkpoint) if entries else ""


class AnswerScreen(Dialog[None]):
    """One answer in full, and what the other checkpoints answered to the same."""

    CSS_PATH = "evaluation.tcss"
    AUTO_FOCUS = "Scrolling"
    BINDINGS = [*SCROLL_KEYS, bind("answer.close", "enter,q", "close", "Close", "Back to the answers.")]

    def __init__(self, found: Evaluation, row: Row, answer: Answer) -> None:
        super().__init__()
        self._answer = answer
        asked = (answer.prompt, answer.wanted)
        others = [
            (other.checkpoint, same)
            for other in found.rows
            if other is not row
            for same in other.answers
            if (same.prompt, same.wanted) == asked
        ]
        self._answers = [(row.checkpoint, answer), *others]

    def compose(self) -> ComposeResult:
        parts = [Content.styled("prompt", "$text-muted"), Content("\n"), content(self._answer.prompt, tabs=4)]
        if self._answer.wanted is not None:
            parts += [Content.styled("\n\nwanted\n", "$text-muted"), content(self._answer.wanted, tabs=4)]
        for checkpoint, answer in self._answers:
            mark, style = MARKS[answer.right]
            parts += [Content("\n\n"), Content.styled(f"{mark} ", style), line(checkpoint, "$text-muted")]
            parts += [
                Content("\n"),
                content(answer.text, tabs=4) if answer.text else Content.styled("(nothing)", "dim"),
            ]
        with Vertical(id="answer") as box:
            box.border_subtitle = "j k scroll · enter closes"
            with Scrolling():
                yield Static(Content.assemble(*parts))

    def action_close(self) -> None:
        self.dismiss()


def summary(answer: Answer) -> Content:
    """An answer in one line: right or wrong, what was wanted, what was said, and to what."""
    mark, style = MARKS[answer.right]
    parts = [Content.styled(f"{mark} ", style), Content(shortened(answer.text, 60) or "(nothing)")]
    if answer.wanted is not None and answer.right is False:
        parts.append(Content.styled(f" ≠ {shortened(answer.wanted, 40)}", "$text-muted"))
    parts.append(Content.styled(f"  {shortened(answer.prompt, 80)}", "$text-muted"))
    return Content.assemble(*parts)


def ancestries_of(spec: RunSpec) -> Ancestries:
    """How the checkpoints that a run of stage evaluate looks at came to be, by the name of their run."""
    folders = [Path(spec.parents[role].name) for role in checkpoint_roles(spec.parents)]
    return {stretches[-1].name: stretches for folder in folders for stretches in [ancestry(folder)]}
