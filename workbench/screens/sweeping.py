"""The forms of groups of runs: a sweep over the settings of any stage, and the ladder of a scaling study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from stages.store import strict
from stages.store.errors import UserError
from stages.store.groups import Group, group_names
from stages.store.specs import FROM_CHECKPOINT
from stages.store.strict import Field
from workbench.plots.series import figure
from workbench.runs import unique_name
from workbench.screens.base import WorkbenchScreen
from workbench.screens.launch import heading
from workbench.screens.start import StartScreen, labelled
from workbench.screens.tune import TuneScreen
from workbench.studies.groups import launch_group
from workbench.studies.ladder import STAGE, Ladder, plan_ladder, size_and_tokens
from workbench.studies.sweeps import EXAMPLE, parse_over, plan_sweep
from workbench.widgets.form import SpecForm, text_field
from workbench.wording import operations

GROUP_FIELDS = ("over", "draw", "draw_seed", "metric")


def sweep_form(stage: str, values: Mapping[str, Any] | None = None) -> StartScreen:
    """The form of a sweep over the settings of `stage`."""
    return (SweepTuneScreen if stage in FROM_CHECKPOINT else SweepStartScreen)(stage, values)


class _Grouping(StartScreen):
    """What the forms share: the name is a group's, and what is launched is a group."""

    def plan(self, settings: dict[str, Any], extra: dict[str, Any]) -> Group:
        """The group that the form says; UserError where it cannot be. `extra` is left as it is."""
        raise NotImplementedError

    def name_group(self, ending: str) -> None:
        """Suggest a name that no group has."""
        stem = str(self.given.get("name") or self.STAGE)[: 50 - len(ending)]
        self.given["name"] = unique_name(group_names(self.workbench.workspace), f"{stem}-{ending}")

    @work(thread=True, exclusive=True, group="launch")
    def _launch(self, settings: dict[str, Any], extra: dict[str, Any]) -> None:
        try:
            group = self.plan(settings, extra)
            launch_group(self.workbench.workspace, group, cpu_width=self.workbench.settings.queue.cpu_width)
        except UserError as error:
            self.app.call_from_thread(self._refused, error)
        else:
            self.app.call_from_thread(self._show_group, group.name)

    def _show_group(self, name: str) -> None:
        self.dismiss()
        open_sweeps(self, name)


class _Sweeping(_Grouping):
    """Fields for what varies, before those of the stage."""

    def __init__(self, stage: str, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(stage, values)
        self.HEADING = f"Sweep: {stage} with every combination of some settings"  # type: ignore[misc]  # as StartScreen

    def extra_fields(self) -> list[Field]:
        name, *parents = super().extra_fields()
        self.name_group("sweep")
        return [
            name._replace(description="Name of the sweep; its runs are numbered."),
            text_field("over", f"What varies, over the settings below. {EXAMPLE}")._replace(kind="list"),
            text_field("draw", "How many combinations to draw at random; empty: all of them."),
            text_field("draw_seed", "Seed of the drawing.", default="0"),
            text_field("metric", "What the table is sorted by.", default="val/loss"),
            *parents,
        ]

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        kept = {key: extra.pop(key) for key in GROUP_FIELDS}
        mistake = super().check(settings, extra)
        extra |= kept
        if mistake is not None:
            return mistake
        for key in ("draw", "draw_seed"):
            if extra[key] and not extra[key].isdecimal():
                return key, UserError(f"{extra[key]!r} is no whole number.")
        try:
            self.plan(settings, extra)
        except UserError as error:
            return "over", error
        return None

    def plan(self, settings: dict[str, Any], extra: dict[str, Any]) -> Group:
        parents = {key: value for key, value in extra.items() if key not in ("name", *GROUP_FIELDS)}
        return plan_sweep(
            self.workbench.workspace,
            self.STAGE,
            extra["name"],
            settings,
            parse_over(self.STAGE, [extra["over"]]),
            parents=parents,
            count=int(extra["draw"]) if extra["draw"] else None,
            seed=int(extra["draw_seed"] or 0),
            metric=extra["metric"] or "val/loss",
        )


class SweepStartScreen(_Sweeping, StartScreen):
    """A sweep of a stage that makes a new model."""


class SweepTuneScreen(_Sweeping, TuneScreen):
    """A sweep of a stage that goes on from a checkpoint."""


class ScaleScreen(_Grouping):
    """The ladder of a scaling study, and beside it what it spans."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(STAGE, values)
        self.HEADING = "Scaling study: sizes × budgets"  # type: ignore[misc]  # as StartScreen has it

    def compose_body(self) -> ComposeResult:
        yield heading(self.HEADING)
        with Horizontal(id="start-body"):
            yield SpecForm(Ladder, self.given, extra=self.ladder_fields(), crowded=True)
            with Vertical(id="start-cost", classes="pane"):
                yield Static(id="cost")
        yield Static(id="trouble", classes="error")

    def ladder_fields(self) -> list[Field]:
        """Name, dataset and tokenizer; `given` has their first values."""
        name, *parents = super().extra_fields()
        self.name_group("scale")
        return [name._replace(description="Name of the study; its runs are called by size and budget."), *parents]

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        for role, advice in (("dataset", "Build one first."), ("tokenizer", "Train one first.")):
            if not extra[role]:
                return role, UserError(f"There is no {role} yet.", advice)
        try:
            self.plan(settings, extra)
        except UserError as error:
            return ("budgets" if "budgets" in error.title else "widths"), error
        return None

    def plan(self, settings: dict[str, Any], extra: dict[str, Any]) -> Group:
        ladder = strict.parse(Ladder, settings, "scale settings")
        return plan_ladder(
            self.workbench.workspace,
            extra["name"],
            ladder,
            dataset=extra["dataset"],
            tokenizer=extra["tokenizer"],
            settings=self.workbench.settings.stage(STAGE),
        )

    def cost_lines(self, settings: dict[str, Any], extra: dict[str, Any], *, wide: bool) -> list[Content]:
        group = self.plan(settings, extra)
        found = [size_and_tokens(self.workbench.workspace, group, member) for member in group.members]
        facts = [
            ("runs", f"{len(found)}"),
            ("sizes", f"{figure(min(found)[0])} to {figure(max(found)[0])} parameters"),
            ("tokens", f"{figure(sum(tokens for _, tokens in found))} in all"),
            ("work", operations(sum(6.0 * size * tokens for size, tokens in found))),
        ]
        return labelled(facts, wide=wide)


def open_sweeps(screen: WorkbenchScreen[Any], name: str = "") -> None:
    """Show the sweeps, with the one of this name under the cursor."""
    from workbench.screens.sweeps import SweepsScreen

    screen.app.push_screen(SweepsScreen(name))
