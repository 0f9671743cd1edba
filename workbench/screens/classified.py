"""The run of a model that labels: its curves as it learns, then what it takes for what, and the worst examples.

╭─ said: 1 contradiction  2 entailment … ─────╮╭─ report · log · settings ───────────╮
│                      1    2    3            ││ accuracy  93.1 % (88.0–96.2) of 173 │
│ 1 contradiction     61    ·    2            ││ macro-F1  92.8 % over 3 classes     │
│ 2 entailment         1   48    4            ││                                     │
│ 3 neutral            3    2   52            ││   2 %  neutral for entailment  The… │
╰─────────────────────────────────────────────╯╰─────────────────────────────────────╯
"""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, ScrollableContainer, Vertical
from textual.content import Content
from textual.widgets import ContentSwitcher, OptionList, Static

from stages.store.classifiers import RESULT, Classified, Example, read_classified
from stages.store.rundir import RunDir
from workbench.board.watch import Watch
from workbench.display import content, line, shortened
from workbench.keys import SCROLL_KEYS, bind
from workbench.screens.base import Dialog
from workbench.screens.check import Scrolling
from workbench.screens.run import RunScreen
from workbench.talking.classified import WIDEST, answered, asked, facts
from workbench.widgets.log_tail import LogTail
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.picklist import PickList, cell
from workbench.widgets.settings_pane import SettingsPane

NOT_HERE = frozenset(("evaluate", "sample"))
"""What a run offers whose model writes text; this one labels it."""

CURVES, MATRIX = "curves", "matrix"


class ClassifiedWatch(Watch):
    """The run, and what its model was found to do."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        self.found: Classified | None = None
        self._stamp: tuple[int, int] | None = None

    def catch_up(self) -> None:
        """Read all that is new. UserError when the run is gone, or what it found cannot be read."""
        super().catch_up()
        try:
            status = (self.run.path / RESULT).stat()
        except OSError:
            return
        if (stamp := (status.st_mtime_ns, status.st_ino)) != self._stamp:
            self.found, self._stamp = read_classified(self.run), stamp


class Matrix(ScrollableContainer, can_focus=True):
    """Scrolls both ways."""

    BINDINGS = [
        *SCROLL_KEYS,
        bind("scroll.left", "h", "scroll_left", "Left", "Scroll to the left (also the arrow).", show=False),
        bind("scroll.right", "l", "scroll_right", "Right", "Scroll to the right (also the arrow).", show=False),
    ]


class ClassifiedScreen(RunScreen):
    """Curves or the confusion matrix at the left; figures and the worst examples at the right."""

    CSS_PATH = ["run.tcss", "classified.tcss"]
    PANES: ClassVar[tuple[str, ...]] = ("report", "log", "settings")
    WATCH = ClassifiedWatch
    BINDINGS = [
        bind("classified.turn", "t", "turn", "Other picture", "Curves, or what is taken for what."),
        bind("classified.ask", "c", "chat", "Ask", "Type a text and see what the model says of it."),
    ]

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        self._shown: Classified | None = None

    def compose_body(self) -> ComposeResult:
        yield Static(id="run-state")
        with Horizontal(id="run-body"):
            with Vertical(id="run-plot", classes="pane"), ContentSwitcher(initial=CURVES, id="pictures"):
                with Vertical(id=CURVES):
                    yield LossPlot()
                    yield Static(id="run-metrics")
                with Matrix(id=MATRIX):
                    yield Static(id="cells", markup=False)
            with Vertical(id="run-panes", classes="pane"), ContentSwitcher(initial="report", id="panes"):
                with Vertical(id="report"):
                    with Scrolling(id="figures-room"):
                        yield Static("nothing judged yet: that comes at the end", id="figures", classes="muted")
                    yield PickList(id="worst", empty="no example")
                yield LogTail(id="log")
                yield SettingsPane(id="settings")

    @property
    def found(self) -> Classified | None:
        """What has been found."""
        return self._watch.found if isinstance(self._watch, ClassifiedWatch) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return False if action in NOT_HERE else super().check_action(action, parameters)

    def offers(self, action: str) -> bool:
        return self.found is not None if action == "turn" else super().offers(action)

    def action_turn(self) -> None:
        """Show the other picture."""
        if self.found is not None:
            switcher = self.query_one("#pictures", ContentSwitcher)
            switcher.current = CURVES if switcher.current == MATRIX else MATRIX
            self._name_picture()

    def action_chat(self) -> None:
        """Ask the last checkpoint, or the one that was judged."""
        entry = self.run_in_view()
        checkpoint = entry.spec.parents.get("checkpoint") if entry and entry.spec.stage == "assess" else None
        if entry is None:
            return
        if entry.state.last_checkpoint is None and checkpoint is None:
            self.notify(f"{entry.spec.name} has no checkpoint to ask yet.")
            return
        from workbench.screens.classify import ClassifyScreen

        self.app.push_screen(ClassifyScreen(checkpoint.name if checkpoint else entry.run.id, entry.spec.name))

    def show_made(self, watch: Watch) -> None:
        """Show what was found when there is more of it."""
        if not isinstance(watch, ClassifiedWatch) or watch.found is None or watch.found is self._shown:
            return
        self._shown = found = watch.found
        told = [
            Content.assemble(Content.styled(f"{name}  ", "$text-muted"), line(value))
            for name, value in facts(found).items()
        ]
        shown = self.query_one("#figures", Static)
        shown.remove_class("muted")
        shown.update(Content("\n").join(told))
        self.query_one("#cells", Static).update(matrix(found))
        self.query_one("#worst", PickList).show([(str(n), summary(one)) for n, one in enumerate(found.worst)])
        if not watch.entry.live:
            self.query_one("#pictures", ContentSwitcher).current = MATRIX
        self._name_picture()
        self.refresh_bindings()

    @on(OptionList.OptionSelected)
    def _open(self) -> None:
        chosen = self.query_one("#worst", PickList).chosen
        if chosen is not None and self._shown is not None:
            self.app.push_screen(ExampleScreen(self._shown.worst[int(chosen)]))

    def _show_pane(self, pane: str) -> None:
        self.query_one("#panes", ContentSwitcher).current = pane
        self._name_pane(pane)
        self.query_one(f"#{pane}").focus()

    def action_pane(self, by: int) -> None:
        """Show the next of report, log and settings."""
        current = str(self.query_one("#panes", ContentSwitcher).current)
        self._show_pane(self.PANES[(self.PANES.index(current) + by) % len(self.PANES)])

    def _name_picture(self) -> None:
        matrix_shown = self.query_one("#pictures", ContentSwitcher).current == MATRIX
        title = "what is right \\ what was said" if matrix_shown else None
        self.query_one("#run-plot").border_title = title


class ExampleScreen(Dialog[None]):
    """An example in full, with what is right and what was said."""

    CSS_PATH = "classified.tcss"
    AUTO_FOCUS = "Scrolling"
    BINDINGS = [*SCROLL_KEYS, bind("example.close", "enter,q", "close", "Close", "Back to the report.")]

    def __init__(self, one: Example) -> None:
        super().__init__()
        self._one = one

    def compose(self) -> ComposeResult:
        one = self._one
        parts = _words(one) if len(one.wanted) > 1 else _texts(one)
        with Vertical(id="answer") as box:
            box.border_title = f"record {one.record + 1:,}"
            box.border_subtitle = "j k scroll · enter closes"
            with Scrolling():
                yield Static(Content("\n").join(parts), markup=False)

    def action_close(self) -> None:
        self.dismiss()


def matrix(found: Classified) -> Content:
    """The confusion matrix: a row for each label, columns by number; what is right in the diagonal."""
    most = max((count for row in found.confusion for count in row), default=0)
    width = max(len(f"{most:,}"), len(str(len(found.labels)))) + 2
    beside = max(min(WIDEST, max((len(label) for label in found.labels), default=0)), 4)
    numbers = len(str(len(found.labels)))
    head = " " * (numbers + beside + 1) + "".join(f"{n:>{width}}" for n in range(1, len(found.labels) + 1))
    rows = [Content.styled(head, "$text-muted")]
    for number, (label, counts) in enumerate(zip(found.labels, found.confusion, strict=True), 1):
        name = Content.assemble(Content.styled(f"{number:>{numbers}} ", "$text-muted"), cell(line(label), beside))
        counted = [_cell(count, width, column == number) for column, count in enumerate(counts, 1)]
        rows.append(Content.assemble(name, *counted))
    return Content("\n").join(rows)


def summary(one: Example) -> Content:
    """An example in one line: how likely the right label was, what was said, and the text."""
    style = "$text-muted" if one.right else "$text-error"
    return Content.assemble(
        Content.styled(f"{100 * one.probability:3.0f} % ", style),
        Content(shortened(answered(one), 40)),
        Content.styled(f"  {shortened(asked(one), 80)}", "$text-muted"),
    )


def _cell(count: int, width: int, right: bool) -> Content:
    style = "$text-muted" if not count else "$success" if right else "$error"
    return Content.styled(f"{count:>{width},}" if count else f"{'·':>{width}}", style)


def _texts(one: Example) -> list[Content]:
    right = "" if one.right else f", not {one.found[0] or '(no label)'}"
    told = line(f"{one.wanted[0] or '(no label)'}{right}: {100 * one.probability:.1f} % by the model", "$text-muted")
    parts = [told]
    for text in one.texts:
        parts += [Content(""), content(text, tabs=4)]
    return parts


def _words(one: Example) -> list[Content]:
    """A word a line with its label, and what was said where that is another."""
    width = min(WIDEST, max(map(len, one.texts), default=0))
    rows = []
    for word, wanted, said in zip(one.texts, one.wanted, one.found, strict=True):
        rows.append(
            Content.assemble(
                line(f"{shortened(word, width):<{width}}  "),
                line(wanted, "$text-muted"),
                line("" if wanted == said else f"  not {said}", "$text-error"),
            )
        )
    return rows
