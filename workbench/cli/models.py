"""`workbench models`: presets, planned and imported models by parameters, memory, compute, and time on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec

from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.lineage import children_of_model, delete_model
from stages.store.models import Model, find_model, list_models
from stages.store.names import nearest
from stages.store.planned import list_planned
from stages.store.presets import list_presets
from workbench.cli.common import (
    CommandGroup,
    Environment,
    confirm,
    json_option,
    pass_environment,
    say,
    say_facts,
    say_json,
    say_table,
    yes_option,
)
from workbench.display import displayable_line
from workbench.models.model_cards import Card, Plan, all_cards, facts_of, find_card, long, size, time_of, told_rates
from workbench.models.rates import VERB, Machine, Rate, rates_of_runs, remember, remembered, this_machine
from workbench.plots.scope import count_of
from workbench.plots.series import figure
from workbench.talking.desk_client import ask_once
from workbench.wording import operations

COLUMNS = ("name", "kind", "from", "parameters", "train memory", "fits", "tokens", "work", "time here")


class Tokens(click.ParamType):
    """A count of tokens as people write it."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """`300G`, `1.5M`, `100,000`."""
        try:
            found = count_of(str(value))
        except ValueError:
            found = 0.0
        if not 1 <= found <= 1e18:
            self.fail(f"{value!r} is no number of tokens; write 300G, 1.5M or 100,000", param, ctx)
        return found


def plan_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What one wants to know the costs of."""
    for option in (
        click.option(
            "--dtype",
            type=click.Choice(("bf16", "fp32")),
            default="bf16",
            show_default=True,
            help="Of the weights in memory.",
        ),
        click.option("--context", type=click.IntRange(1), help="Tokens in view; left out: the model's, up to 4,096."),
        click.option("--micro-batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences at once."),
        click.option("--tokens", type=Tokens(), help="Tokens to train on; left out: 20 for each parameter."),
    ):
        function = option(function)
    return function


@click.group(cls=CommandGroup, invoke_without_command=True)
@plan_options
@json_option
@click.pass_context
def models(
    ctx: click.Context, tokens: float | None, micro_batch: int, context: int | None, dtype: str, as_json: bool
) -> None:
    """List presets, planned and imported models by what they cost, or show or delete one.

    A preset is a shape for a new model: its count is for its published vocabulary, and a run takes its tokenizer's. A
    planned one is there to reckon with. An imported model is a checkpoint: `workbench import` makes one. Memory is that
    of a training step with AdamW; FLOP are 6 N D and those of attention; time is by the nearest in size of the finished
    runs of this workspace, else by a few steps that `workbench models show` times once.
    """
    if ctx.invoked_subcommand is not None:
        return
    env = ctx.ensure_object(Environment)
    plan, machine = Plan(tokens, micro_batch, context, dtype), this_machine()
    rates, timed = rates_of_runs(env.workspace, machine), remembered(machine)
    cards = all_cards()
    rows = [_row(card, plan, machine, rates, timed) for card in cards]
    rows += [_imported(model) for model in list_models(env.workspace)]
    say_table(rows, {key: key for key in COLUMNS}, as_json=as_json, empty="")
    if not as_json:
        used = [found[1] for card in cards if (found := time_of(card, plan, rates, timed))]
        where = f"This machine: {machine.name}, {size(machine.memory)} of memory."
        click.echo(f"{displayable_line(where)} {displayable_line(told_rates(used))}", err=True)


@models.command("show")
@click.argument("name", metavar="MODEL")
@plan_options
@json_option
@pass_environment
def show(
    env: Environment,
    name: str,
    tokens: float | None,
    micro_batch: int,
    context: int | None,
    dtype: str,
    as_json: bool,
) -> None:
    """Show a model: a preset or planned one by its costs, an imported one by its shape and what goes on from it."""
    if name in (*list_presets(), *list_planned()):
        _show_card(env, find_card(name), Plan(tokens, micro_batch, context, dtype), as_json)
        return
    model = _imported_model(env, name)
    info = model.info
    children = [str(child) for child in children_of_model(env.workspace, name)]
    if as_json:
        say_json(msgspec.to_builtins(info) | {"digest": model.digest(), "children": children})
        return
    say_facts(
        {
            "name": info.name,
            "kind": info.family,
            "parameters": f"{info.parameters:,} in {info.dtype}, {info.bytes / 1e6:,.0f} MB",
            "shape": f"{info.layers} layers, {info.heads} heads, width {info.width:,}",
            "context": f"{info.context:,} tokens",
            "vocabulary": f"{info.vocab_size:,} tokens",
            "chat template": "yes" if info.chat_template else "no",
            "from": info.source,
            "needed by": ", ".join(children),
            "folder": str(model.path),
            "digest": model.digest(),
        }
    )


@models.command("delete")
@click.argument("name", metavar="IMPORTED")
@yes_option
@pass_environment
def delete(env: Environment, name: str, yes: bool) -> None:
    """Delete an imported model that nothing needs."""
    find_model(env.workspace, name)
    confirm(f"Delete the model {name!r}?", yes)
    delete_model(env.workspace, name)
    say(f"Deleted the model {name}. `workbench bin restore {name}` takes it back.")


def _imported_model(env: Environment, name: str) -> Model:
    known = [model.name for model in list_models(env.workspace)]
    if name not in known:
        raise UserError(f"There is no model {name!r}.", nearest(name, [*list_presets(), *list_planned(), *known]))
    return find_model(env.workspace, name)


def _show_card(env: Environment, card: Card, plan: Plan, as_json: bool) -> None:
    machine = this_machine()
    rates, timed = rates_of_runs(env.workspace, machine), remembered(machine)
    if not rates and timed is None:
        if not as_json:
            say("Timing a few steps of training, once for this machine …")
        timed = remember(machine, ask_once(env.workspace, VERB))
    if as_json:
        say_json(_row(card, plan, machine, rates, timed) | {"parts": card.parts})
        return
    say(f"{card.title}. {card.about}")
    say_facts(facts_of(card, plan, machine, rates, timed))


def _row(card: Card, plan: Plan, machine: Machine, rates: list[Rate], timed: Rate | None) -> dict[str, object]:
    shape, memory, running = card.shape, card.memory(plan, machine), card.running(plan)
    found = time_of(card, plan, rates, timed)
    return {
        "name": card.name,
        "kind": shape.family if isinstance(shape, ModelConfig) else "deepseek",
        "from": card.kind,
        "parameters": card.parameters,
        "train memory": size(memory.total),
        "fits": card.fits(plan, machine),
        "tokens": figure(card.tokens(plan)),
        "work": operations(card.flops(plan)),
        "flops": card.flops(plan),
        "time here": long(found[0]) if found else None,
        "active": card.active,
        "layers": shape.layers,
        "heads": shape.heads,
        "width": shape.width,
        "context": shape.context,
        "vocabulary": shape.vocab_size,
        "memory": {**memory._asdict(), "total": memory.total},
        "inference": {**running._asdict(), "total": running.total},
        "seconds": found[0] if found else None,
        "rate": {"flops": found[1].flops, "source": found[1].source} if found else None,
        "title": card.title,
        "about": card.about,
        "source": card.source,
    }


def _imported(model: Model) -> dict[str, object]:
    info = model.info
    return {
        "name": model.name,
        "kind": info.family,
        "from": "imported",
        "parameters": info.parameters,
        "layers": info.layers,
        "heads": info.heads,
        "width": info.width,
        "context": info.context,
        "vocabulary": info.vocab_size,
        "dtype": info.dtype,
        "source": info.source,
        "created": info.created,
    }
