"""A scaling study's ladder: sizes × budgets from one form, as a group of pre-training runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from stages.store.errors import UserError
from stages.store.groups import Group, Member
from stages.store.shape import model_config
from stages.store.sizes import parameter_count
from stages.store.specs.base import about
from stages.store.specs.pretrain import Pretrain
from stages.store.tokenizers import find_tokenizer
from stages.store.workspace import Workspace
from workbench.plots.scope import count_of
from workbench.plots.series import tick_label
from workbench.studies.sweeps import check_members

STAGE = "pretrain"
WARMUP_SHARE = 0.1
"""Of a run's steps, at most, that are warm-up: the shortest run of a ladder is short."""
ROWS = 100
"""Rows of metrics that each run logs."""


class Ladder(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Train models of several sizes on several budgets, and fit the law by which the loss falls."""

    widths: Annotated[str, about("Widths of the models, the smallest first.", group="sizes")] = "16, 24, 32, 48, 64"
    width_per_layer: Annotated[
        int, about("A layer for so much width; at least one.", ge=1, le=65_536, group="sizes")
    ] = 16
    layers: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=512)] | None,
        about("Layers of every model; empty: by its width.", group="sizes"),
    ] = None
    head_width: Annotated[int, about("Width of an attention head; widths are its multiples.", ge=1, group="sizes")] = 8
    preset: Annotated[str, about("All else of the shape; see `workbench models`.", group="sizes")] = "tiny"
    context: Annotated[int, about("Tokens a model sees at once.", unit="tokens", ge=2, le=1_048_576, group="sizes")] = (
        64
    )

    budgets: Annotated[str, about("Tokens to train each size on: 250k, 1M …", unit="tokens", group="budgets")] = (
        "250k, 500k, 1M"
    )
    batch_size: Annotated[
        int, about("Sequences in one step.", unit="sequences", ge=1, le=1_048_576, group="budgets")
    ] = 16
    lr: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        about("Peak learning rate of all; empty: by the width of each.", group="budgets"),
    ] = None
    seed: Annotated[int, about("Seed of weights and data order.", ge=0, le=2**31 - 1, group="budgets")] = 0


def plan_ladder(
    workspace: Workspace,
    name: str,
    ladder: Ladder,
    *,
    dataset: str,
    tokenizer: str,
    settings: Mapping[str, Any] | None = None,
) -> Group:
    """The group of runs that the study is: every size with every budget, the cheapest first.

    `settings` of pre-training stand behind what the ladder says. UserError for sizes or budgets that cannot be read,
    are too few, or cannot be built.
    """
    widths, budgets = _numbers(ladder.widths, "widths"), _numbers(ladder.budgets, "budgets")
    if len(widths) < 3 or len(budgets) < 2:
        raise UserError("A law takes three widths and two budgets at least.", "Such as 16, 24, 32 and 250k, 500k.")
    shared = {
        **(settings or {}),
        "preset": ladder.preset,
        "context": ladder.context,
        "batch_size": ladder.batch_size,
        "lr": ladder.lr,
        "seed": ladder.seed,
        "sample_every": 0,
    }
    pairs = sorted(((width, tokens) for width in widths for tokens in budgets), key=lambda one: one[0] ** 2 * one[1])
    members = [rung(name, ladder, width, tokens) for width, tokens in pairs]
    parents = {"dataset": dataset, "tokenizer": tokenizer}
    check_members(workspace, STAGE, shared, members, parents)
    return Group(
        name=name,
        kind="scale",
        stage=STAGE,
        settings=shared,
        parents=parents,
        over={"width": widths, "steps": sorted({member.values["steps"] for member in members})},
        members=members,
        form=msgspec.to_builtins(ladder),
        created=time.time(),
    )


def ladder_of(group: Group) -> Ladder:
    """The form that a study was made from."""
    if group.kind != "scale":
        raise UserError(f"{group.name!r} is a sweep, and no scaling study.", "`workbench sweeps show` tells of it.")
    return msgspec.convert(group.form, Ladder)


def rung(name: str, ladder: Ladder, width: int, tokens: float, *, check: bool = False) -> Member:
    """One run: a model of `width`, trained on about `tokens` tokens (whole steps of them)."""
    if width % ladder.head_width:
        raise UserError(f"The width {width} is no multiple of the head width {ladder.head_width}.")
    steps = max(1, round(tokens / (ladder.batch_size * ladder.context)))
    values = {
        "width": width,
        "layers": ladder.layers or max(1, round(width / ladder.width_per_layer)),
        "heads": width // ladder.head_width,
        "steps": steps,
        "warmup": min(Pretrain().warmup, int(steps * WARMUP_SHARE)),
        "eval_every": steps,
        "checkpoint_every": steps,
        "log_every": max(1, steps // ROWS),
    }
    return Member(f"{name[:40]}-{width}x{tick_label(tokens)}", values, "check" if check else "")


def next_width(group: Group) -> int:
    """The size after the largest, as much larger as the others are on average."""
    ladder, widths = ladder_of(group), sorted(_numbers(ladder_of(group).widths, "widths"))
    ratio = (widths[-1] / widths[0]) ** (1 / (len(widths) - 1))
    return max(round(widths[-1] * ratio / ladder.head_width), widths[-1] // ladder.head_width + 1) * ladder.head_width


def largest_budget(group: Group) -> int:
    """The largest budget of the ladder, in tokens."""
    return max(_numbers(ladder_of(group).budgets, "budgets"))


def size_and_tokens(workspace: Workspace, group: Group, member: Member) -> tuple[int, int]:
    """(N, D) of a run: parameters that take part in matrix products, as in C = 6 N D, and tokens it is trained on."""
    settings = msgspec.convert({**group.settings, **member.values}, Pretrain)
    config = model_config(settings, find_tokenizer(workspace, group.parents["tokenizer"]).info.vocab_size)
    return parameter_count(config).in_products, settings.steps * settings.batch_size * config.context


def _numbers(text: str, what: str) -> list[int]:
    """`16, 24` or `250k, 1M` as whole numbers, in order and once each."""
    try:
        found = [count_of(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError as error:
        raise UserError(
            f"{text!r} are no {what}.", "Write whole numbers with commas between, such as 250k, 1M."
        ) from error
    if any(not 1 <= number <= 1e15 or number != int(number) for number in found):
        raise UserError(f"{text!r} are no {what}.", "Write whole numbers with commas between, such as 250k, 1M.")
    return sorted({int(number) for number in found})


def told_sizes(found: Sequence[tuple[int, int]]) -> str:
    """What a ladder spans, for people: `15 runs, 3,072 to 73,728 parameters, 15M tokens in all`."""
    sizes = [size for size, _ in found]
    tokens = sum(tokens for _, tokens in found)
    return f"{len(found)} runs, {min(sizes):,} to {max(sizes):,} parameters, {tick_label(tokens)} tokens in all"
