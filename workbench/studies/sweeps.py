"""Sweeps: a stage run once for every combination of some settings, as one group in the queue."""

from __future__ import annotations

import itertools
import math
import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stages.store import strict
from stages.store.errors import UserError
from stages.store.groups import MOST_RUNS, Group, Member
from stages.store.specs import FROM_CHECKPOINT, spec_of
from stages.store.workspace import Workspace
from workbench.models.estimate import estimate
from workbench.models.tuning import estimate_tuning
from workbench.runs import run_names

EXAMPLE = "Write lr=1e-3,3e-3 or, for random ones, lr=1e-4..1e-2."
TRIES = 50
"""Times that a combination is drawn again for each that is wanted, while what comes has been drawn before."""
_NUMBER = r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SPAN = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})\s*")


class Span(NamedTuple):
    """All numbers from `low` to `high`: what a random sweep may draw from."""

    low: float
    high: float
    whole: bool

    def draw(self, generator: random.Random) -> float | int:
        """A number in three digits: by its logarithm where both ends are positive, evenly otherwise."""
        if self.low > 0:
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = generator.uniform(self.low, self.high)
        return round(value) if self.whole else min(self.high, max(self.low, float(f"{value:.3g}")))


Axis = list[Any] | Span


def parse_over(stage: str, texts: Iterable[str]) -> dict[str, Axis]:
    """What `lr=1e-3,3e-3` and `width=64..256` say: the settings that vary, each with its values or its span.

    A text may hold several, separated by semicolons or blanks. Raises UserError for an unknown setting, a value that
    the stage refuses, and a setting named twice.
    """
    spec, over = spec_of(stage), dict[str, Axis]()
    known = {field.name: field for field in strict.fields(spec)}
    for text in texts:
        for part in re.split(r"[;\n]|\s+(?=[A-Za-z_]\w*\s*=)", text):
            key, equals, values = (piece.strip() for piece in part.partition("="))
            if not part.strip():
                continue
            if not equals or not values:
                raise UserError(f"{part.strip()!r} does not say what is to vary.", EXAMPLE)
            if key in over:
                raise UserError(f"{key!r} is to vary twice.", "Name all its values together.")
            if key in known and known[key].kind in ("list", "table"):
                raise UserError(f"{key!r} is a {known[key].kind}; it cannot vary in a sweep.", EXAMPLE)
            over[key] = _axis(stage, key, values)
    if not over:
        raise UserError("Nothing is to vary.", EXAMPLE)
    return over


def _axis(stage: str, key: str, text: str) -> Axis:
    spec = spec_of(stage)
    if match := _SPAN.fullmatch(text):
        ends = [strict.parse_text(spec, key, end, f"{key}={text}") for end in match.groups()]
        if not all(isinstance(end, int | float) for end in ends) or ends[0] >= ends[1]:
            raise UserError(f"{key}={text} is no span from a smaller to a larger number.", EXAMPLE)
        whole = next(field for field in strict.fields(spec) if field.name == key).kind == "int"
        return Span(ends[0], ends[1], whole)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UserError(f"{key}={text} names no value.", EXAMPLE)
    return list(dict.fromkeys(strict.parse_text(spec, key, part, f"{key}={text}") for part in parts))


def combinations(over: Mapping[str, Axis], count: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """The grid of all values, the last setting varying fastest; or `count` different combinations drawn at random."""
    if count is None:
        spans = [key for key, axis in over.items() if isinstance(axis, Span)]
        if spans:
            raise UserError(f"A grid needs single values of {spans[0]!r}.", "Name them, or say how many runs to draw.")
        size = math.prod(len(axis) for axis in over.values() if not isinstance(axis, Span))
        _refuse_many(size)
        values = itertools.product(*(axis for axis in over.values() if not isinstance(axis, Span)))
        return [dict(zip(over, row, strict=True)) for row in values]
    _refuse_many(count)
    generator, found = random.Random(seed), dict[tuple[Any, ...], dict[str, Any]]()
    for _ in range(count * TRIES):
        if len(found) == count:
            break
        row = {key: _draw(axis, generator) for key, axis in over.items()}
        found.setdefault(tuple(row.values()), row)
    return list(found.values())


def _draw(axis: Axis, generator: random.Random) -> Any:
    return axis.draw(generator) if isinstance(axis, Span) else generator.choice(axis)


def _refuse_many(count: int) -> None:
    if count > MOST_RUNS:
        raise UserError(
            f"{count:,} runs are more than the {MOST_RUNS} that a sweep may have.",
            "Vary fewer settings, or draw some of the combinations at random.",
        )


def plan_sweep(
    workspace: Workspace,
    stage: str,
    name: str,
    settings: Mapping[str, Any],
    over: Mapping[str, Axis],
    *,
    parents: Mapping[str, Any],
    count: int | None = None,
    seed: int = 0,
    metric: str = "val/loss",
) -> Group:
    """The group of runs that a sweep is, every combination checked as if it were to be started alone.

    UserError names the combination that cannot be run, before any run is launched.
    """
    rows = combinations(over, count, seed)
    digits = len(str(len(rows)))
    members = [Member(f"{name[:56]}-{number:0{digits}}", row) for number, row in enumerate(rows, 1)]
    check_members(workspace, stage, settings, members, parents)
    axes = {key: [axis.low, axis.high] if isinstance(axis, Span) else list(axis) for key, axis in over.items()}
    return Group(
        name=name,
        kind="sweep",
        stage=stage,
        settings=dict(settings),
        parents=dict(parents),
        over=axes,
        members=members,
        metric=metric,
        created=time.time(),
    )


def check_members(
    workspace: Workspace,
    stage: str,
    settings: Mapping[str, Any],
    members: Sequence[Member],
    parents: Mapping[str, Any],
) -> None:
    """UserError for the first run whose settings the stage refuses, that cannot be built, or whose name is taken."""
    taken = run_names(workspace)
    for member in members:
        if member.name in taken:
            raise UserError(f"There is already a run {member.name!r}.", "Choose another name.")
        taken.add(member.name)
        values = {**settings, **member.values}
        try:
            strict.parse(spec_of(stage), values, f"{stage} settings")
            if stage in FROM_CHECKPOINT:
                estimate_tuning(workspace, values, parents["dataset"], parents["checkpoint"], stage)
            else:
                estimate(workspace, values, parents["dataset"], parents["tokenizer"], stage)
        except UserError as error:
            raise UserError(f"With {told(member.values)}: {error.title}", error.hint) from error


def told(values: Mapping[str, Any]) -> str:
    """Settings as people write them: `lr=0.001 width=64`."""
    return " ".join(f"{key}={as_typed(value)}" for key, value in values.items())


def as_typed(value: Any) -> str:
    """A value of a setting as people type it."""
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
