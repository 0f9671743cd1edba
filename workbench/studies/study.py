"""A scaling study as it is now: its runs as points of the law, the fit of those that have finished, the forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from stages.store.errors import UserError
from stages.store.groups import Group, Member
from stages.store.scaling import Fit, Forecast
from stages.store.workspace import Workspace
from workbench.studies.groups import Standing, add_members, standings
from workbench.studies.ladder import ladder_of, largest_budget, next_width, rung, size_and_tokens

LOSS = "val/loss"
VERB = "scaling.fit"


class Point(NamedTuple):
    """A run of the study: N parameters, D tokens, and its closing loss once it has finished."""

    row: Standing
    parameters: int
    tokens: int
    loss: float | None

    @property
    def flops(self) -> float:
        return 6.0 * self.parameters * self.tokens

    @property
    def is_check(self) -> bool:
        return self.row.member.role == "check"


class Study(NamedTuple):
    """What is on disk of a study."""

    group: Group
    points: list[Point]
    upcoming: Member
    """The run of the next size at the largest budget, whether it has been launched or not."""
    ahead: tuple[int, int]
    """(N, D) of that run."""

    @property
    def fitted(self) -> list[Point]:
        """The finished runs that the law is fitted to."""
        return [point for point in self.points if point.loss is not None and not point.is_check]

    @property
    def checks(self) -> list[Point]:
        """The runs that are held against the forecast."""
        return [point for point in self.points if point.is_check]

    def question(self) -> dict[str, Any]:
        """The arguments of the desk's verb: what to fit, and what to forecast, the checks first and `ahead` last."""
        asked = [(point.parameters, point.tokens) for point in self.checks]
        return {
            "points": [[point.parameters, point.tokens, point.loss] for point in self.fitted],
            "ask": [list(one) for one in (*asked, self.ahead)],
        }


def read_study(workspace: Workspace, group: Group, rows: Sequence[Standing] | None = None) -> Study:
    """The study as it is now, by `rows` where they have been read.

    UserError when the group is a sweep, or its tokenizer is gone.
    """
    ladder = ladder_of(group)
    points = []
    for row in standings(workspace, group) if rows is None else rows:
        size, tokens = size_and_tokens(workspace, group, row.member)
        points.append(Point(row, size, tokens, row.figures.get(LOSS) if row.finished else None))
    upcoming = rung(group.name, ladder, next_width(group), largest_budget(group), check=True)
    return Study(group, points, upcoming, size_and_tokens(workspace, group, upcoming))


def launch_next(workspace: Workspace, group: Group, *, cpu_width: int = 1) -> Group:
    """Launch the run of the next size, which the forecast is held against. UserError when it is there already."""
    member = read_study(workspace, group).upcoming
    if any(member.name == one.name for one in group.members):
        raise UserError(f"The run {member.name!r} of the next size is there already.", "See `workbench scale show`.")
    return add_members(workspace, group, [member], cpu_width=cpu_width)


def misses(study: Study, fit: Fit) -> list[tuple[Point, Forecast, float | None]]:
    """Each check with its forecast, and how far the measured loss is from it, as a share; None before it has ended."""
    return [
        (point, forecast, point.loss / forecast.loss.value - 1 if point.loss is not None else None)
        for point, forecast in zip(study.checks, fit.forecasts, strict=False)
    ]


def frontier(fit: Fit, points: Sequence[Point], count: int = 40) -> list[tuple[float, float]]:
    """(C, L) along the compute-optimal line, over the range of compute of `points`."""
    low, high = min(point.flops for point in points), max(point.flops for point in points)
    ratio = (high / low) ** (1 / (count - 1)) if high > low else 1.0
    return [(flops, fit.law.best_loss(flops)) for flops in (low * ratio**number for number in range(count))]
