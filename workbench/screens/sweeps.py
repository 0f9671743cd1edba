"""Sweeps and scaling studies: each as a sorted table of its runs, a study with its law and the plot of it.

╭ sweeps ───────────╮╭ world-scale · scale · 15 runs: 9 finished, 1 running, 5 queued ─────╮
│ world-scale  9/15 ││ L(N, D) = 1.214 + 31.2 / N^0.412 + 902 / D^0.577                    │
│ lr-sweep     4/4  ││ loss by log₁₀ of FLOP  ● 8k  ◆ 15k  ▲ 31k   ━ compute-optimal       │
│                   ││ …                                                                   │
│                   ││ run               parameters  tokens  status    val/loss  law says  │
╰───────────────────╯╰─────────────────────────────────────────────────────────────────────╯
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static

from stages.store.errors import UserError
from stages.store.groups import Group, forget_group
from stages.store.rundir import RESUMABLE
from stages.store.scaling import Fit
from workbench.display import content, line
from workbench.keys import bind
from workbench.screens.base import PlaceScreen
from workbench.screens.pick import pick_stage
from workbench.screens.question import Question
from workbench.studies import groups
from workbench.studies.board import Counted, GroupBoard
from workbench.studies.groups import Standing
from workbench.studies.study import VERB, Study, launch_next, misses, read_study
from workbench.studies.study_lines import check_line, law_lines, short, told
from workbench.studies.study_picture import study_picture
from workbench.studies.table import columns_of, row_of
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.picklist import PickList, cell
from workbench.widgets.row_table import RowTable

NAME = 24
"""Cells of a sweep's name in the list."""


class SweepsScreen(PlaceScreen):
    """What is on disk is looked at once a second; a law is fitted anew whenever another run has finished."""

    PLACE = "runs"
    CSS_PATH = "sweeps.tcss"
    AUTO_FOCUS = "PickList"
    BINDINGS = [
        bind("sweeps.new", "n", "new", "New sweep", "A sweep over settings of one stage: asks of which."),
        bind("sweeps.scale", "N", "new_scale", "New study", "A scaling study: sizes × budgets, and the law fitted."),
        bind("sweeps.next", "x", "next_size", "Next size", "Train the size after the largest, and check the forecast."),
        bind("sweeps.stop", "s", "steer('stop')", "Stop", "Save a checkpoint and end every run of the sweep."),
        bind("sweeps.pause", "p", "steer('pause')", "Pause", "Pause every run of the sweep."),
        bind("sweeps.resume", "r", "steer('resume')", "Resume", "Go on with all that has not come to its end."),
        bind("sweeps.metric", "right_square_bracket", "metric(1)", "Sort by", "Sort by the next metric."),
        bind("sweeps.metric_back", "left_square_bracket", "metric(-1)", "Metric", "By the one before.", show=False),
        bind("sweeps.log", "y", "log_axis", "Log axis", "A logarithmic axis for the losses of a study.", show=False),
        bind("sweeps.forget", "d", "forget", "Forget", "Forget that the runs belong together; they stay.", show=False),
        bind("sweeps.back", "escape", "back", "Back", "Back to where one came from."),
    ]

    @dataclass
    class Looked(Message):
        """A thread has read the groups, and the one that is shown closely."""

        groups: list[Counted]
        group: Group | None
        rows: list[Standing]
        study: Study | None
        trouble: UserError | None

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self._chosen = name
        self._metrics: dict[str, str] = {}
        self._log = False
        self._seen: SweepsScreen.Looked | None = None
        self._board: GroupBoard | None = None
        self._fits: dict[str, tuple[Any, Fit | UserError]] = {}

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="sweeps-body"):
            with Vertical(id="sweeps-list", classes="pane"):
                yield PickList(id="groups", empty="no sweep yet")
            yield Static(_invitation(), id="sweeps-empty")
            with Vertical(id="sweeps-detail", classes="pane"):
                yield Static(id="law")
                yield LossPlot()
                yield RowTable()

    def on_mount(self) -> None:
        self._board = GroupBoard(self.workbench.workspace)
        self.query_one("#sweeps-list").border_title = "sweeps"
        self.query_one("#sweeps-detail").display = False
        self.show_trail("runs", "sweeps")
        self.poll(1.0, self.look)

    @property
    def group(self) -> Group | None:
        """The group that is shown."""
        return self._seen.group if self._seen else None

    def look(self) -> None:
        """Read what is on disk, unless a thread is at it."""
        if not self.busy_with("look"):
            self._look()

    def offers(self, action: str) -> bool:
        if action == "next_size":
            return self.group is not None and self.group.kind == "scale"
        rows = self._seen.rows if self._seen is not None else []
        if action in ("steer('stop')", "steer('pause')"):
            return any(row.working for row in rows)
        if action == "steer('resume')":
            return any(row.run is None or row.status in RESUMABLE for row in rows)
        return action in ("new", "new_scale", "back") or self.group is not None

    @work(thread=True, group="look")
    def _look(self) -> None:
        assert self._board is not None
        study: Study | None = None
        trouble: UserError | None = None
        counts, group, rows = self._board.look(self._chosen)
        if group is not None and group.kind == "scale":
            try:
                study = read_study(self.workbench.workspace, group, rows)
            except UserError as error:
                trouble = error
        self.post_message(self.Looked(counts, group, rows, study, trouble))

    @on(Looked)
    def _looked(self, event: Looked) -> None:
        self._seen = event
        self._chosen = event.group.name if event.group else ""
        self.query_one("#groups", PickList).show([(each.group.name, _entry(each)) for each in event.groups])
        self._show()
        self.refresh_bindings()
        if event.study is not None:
            self._fit(event.study)

    @on(OptionList.OptionHighlighted, "#groups")
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_id and event.option_id != self._chosen:
            self._chosen = event.option_id
            self.look()

    @on(OptionList.OptionSelected, "#groups")
    def _entered(self) -> None:
        self.query_one(RowTable).focus()

    @on(RowTable.Opened)
    def _opened(self, event: RowTable.Opened) -> None:
        rows = self._seen.rows if self._seen else []
        run = next((row.run for row in rows if row.member.name == event.key), None)
        if run is None:
            self.notify("This run was not launched, or has been deleted. r launches it.")
        else:
            self.workbench.open_run(run)

    @property
    def metric(self) -> str:
        """What the table is sorted by."""
        return self._metrics.get(self._chosen, self.group.metric if self.group else "")

    def _show(self) -> None:
        seen = self._seen
        detail = self.query_one("#sweeps-detail")
        detail.display = seen is not None and seen.group is not None
        self.query_one("#sweeps-empty").display = not detail.display
        if seen is None or seen.group is None:
            return
        group, rows = seen.group, seen.rows
        detail.border_title = line(f"{group.name} · {group.stage} · {groups.summary(rows)}")
        fit = self._known_fit(seen.study)
        ordered = groups.ranked(rows, self.metric)
        columns, table = _table(group, ordered, self.metric, seen.study, fit if isinstance(fit, Fit) else None)
        best = bool(ordered) and groups.has_rank(ordered[0], self.metric)
        self.query_one(RowTable).show(columns, table, first=int(best))
        self._show_law(seen, fit)

    def _show_law(self, seen: Looked, fit: Fit | UserError | None) -> None:
        law, plot = self.query_one("#law", Static), self.query_one(LossPlot)
        law.display = plot.display = seen.study is not None or seen.trouble is not None
        if seen.study is None:
            law.update(content(str(seen.trouble or ""), "$text-error"))
            return
        plot.show(study_picture(seen.study, fit if isinstance(fit, Fit) else None, log=self._log))
        if isinstance(fit, Fit):
            law.update(Content("\n").join([*map(Content, law_lines(fit)), *_forecasts(seen.study, fit)]))
        else:
            law.update(content(str(fit or "Fitting …"), "$text-muted"))

    def _known_fit(self, study: Study | None) -> Fit | UserError | None:
        """What was found for the runs that have finished; for fewer of them while more are being fitted."""
        known = self._fits.get(study.group.name) if study is not None else None
        return known[1] if known else None

    @work(exclusive=True, group="fit")
    async def _fit(self, study: Study) -> None:
        """Have the desk fit the law, when there is anything new to fit."""
        question = study.question()
        known = self._fits.get(study.group.name)
        if known is not None and known[0] == question:
            return
        try:
            found: Fit | UserError = msgspec.convert(await self.workbench.desk.ask(VERB, **question), Fit)
        except UserError as error:
            found = error
        self._fits[study.group.name] = (question, found)
        self._show()

    def action_metric(self, by: int) -> None:
        """Sort by another of the metrics that the runs have logged."""
        names = groups.metrics_of(self._seen.rows) if self._seen else []
        if names:
            at = names.index(self.metric) if self.metric in names else -by
            self._metrics[self._chosen] = names[(at + by) % len(names)]
            self._show()

    def action_log_axis(self) -> None:
        """Draw the losses of a study by their logarithm, or plainly."""
        self._log = not self._log
        self._show()

    def action_new(self) -> None:
        """Ask what kind of run varies, and open its form."""
        pick_stage(self.app, "Sweep what kind of run?", (), self._open_form)

    def _open_form(self, stage: str) -> None:
        from workbench.screens.sweeping import sweep_form

        self.app.push_screen(sweep_form(stage))

    def action_new_scale(self) -> None:
        from workbench.screens.sweeping import ScaleScreen

        self.app.push_screen(ScaleScreen())

    def action_next_size(self) -> None:
        """Launch the run that the forecast is held against."""
        if self._seen is None or self._seen.study is None:
            self.notify("A scaling study has a next size; this is a sweep.")
            return
        self._steer("next")

    def action_steer(self, how: str) -> None:
        """Stop, pause or resume the group."""
        if self.group is not None:
            self._steer(how)

    @work(thread=True, group="steer")
    def _steer(self, how: str) -> None:
        group, workspace = self.group, self.workbench.workspace
        width = self.workbench.settings.queue.cpu_width
        assert group is not None
        try:
            if how == "next":
                launch_next(workspace, group, cpu_width=width)
                said = "The next size is in the queue."
            elif how == "resume":
                said = f"{groups.resume_group(workspace, group.name, cpu_width=width)} runs are in the queue again."
            else:
                count = (groups.stop_group if how == "stop" else groups.pause_group)(workspace, group.name)
                said = f"{count} runs were asked to {how}."
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
        else:
            self.app.call_from_thread(self.notify, said)
        self.app.call_from_thread(self.look)

    @work
    async def action_forget(self) -> None:
        """Ask, then forget that the runs belong together."""
        if (group := self.group) is None:
            return
        if await self.app.push_screen_wait(
            Question(f"Forget {group.name}?", "Its runs stay as they are.", yes="forget")
        ):
            forget_group(self.workbench.workspace, group.name)
            self.look()

    def action_back(self) -> None:
        self.dismiss()


def _entry(counted: Counted) -> Content:
    """A line of the list: the name, how many of its runs have finished."""
    group, finished, working = counted
    style = "$accent" if working else "$success" if finished == len(group.members) else "$text-muted"
    kind = "study" if group.kind == "scale" else "sweep"
    return Content.assemble(
        cell(line(group.name), NAME),
        Content.styled(f" {kind} ", "$text-muted"),
        Content.styled(f"{finished}/{len(group.members)}", style),
    )


def _invitation() -> Content:
    """What stands where there is no sweep yet."""
    return Content.assemble(
        ("n", "bold $accent"),
        "  a sweep: a stage run with every combination of some settings, such as three learning rates and two widths, "
        "or with so many drawn at random. The runs go through the queue as any others; here they stand in one table, "
        "the best first.\n\n",
        ("N", "bold $accent"),
        "  a scaling study: models of several sizes, each trained on several budgets of tokens. The law by which the "
        "loss falls is fitted as they finish: it tells how to share compute between size and tokens, and forecasts "
        "the next size, which one more run checks.",
    )


def _table(
    group: Group, ordered: list[Standing], metric: str, study: Study | None, fit: Fit | None
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Headings and rows: what varies, where each run stands, the metric; of a study sizes and what the law says."""
    if study is None:
        columns = columns_of(group, metric)
        return columns, [
            (row.member.name, [_shown(row_of(row, metric).get(column)) for column in columns]) for row in ordered
        ]
    points = {point.row.member.name: point for point in study.points}
    table = []
    for row in ordered:
        point, facts = points[row.member.name], row_of(row, metric)
        law = f"{fit.law.loss(point.parameters, point.tokens):.4f}" if fit else ""
        cells = [
            row.member.name,
            f"{point.parameters:,}",
            short(point.tokens),
            facts["status"],
            _shown(facts[metric]),
        ]
        table.append((row.member.name, [*cells, law]))
    return ["name", "parameters", "tokens", "status", metric, "law says"], table


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _forecasts(study: Study, fit: Fit) -> list[Content]:
    """The checks with what was forecast and measured, or the forecast of the next size."""
    if study.checks:
        return [line(check_line(*check), "bold") for check in misses(study, fit)]
    size, tokens = study.ahead
    which = f"next size, {short(size)} on {short(tokens)} tokens: "
    trains = Content.assemble(("   x", "bold $accent"), " trains it")
    return [Content.assemble(which, (told(fit.forecasts[-1].loss), "bold"), trains)]
