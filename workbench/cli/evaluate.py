"""`workbench evaluate`: checkpoints measured on a dataset, side by side."""

from __future__ import annotations

import click
import msgspec

from stages.store.datasets import find_dataset
from stages.store.evaluations import Evaluation, columns, read_evaluation
from stages.store.specs.evaluate import Evaluate
from workbench.cli.common import (
    Environment,
    SpecCommand,
    detach_option,
    json_option,
    pass_environment,
    run_stage,
    say,
    say_json,
    say_table,
    set_option,
    stage_settings,
)
from workbench.display import shortened
from workbench.evaluating import cells, expanded, name_for

SHOWN = 3
"""Wrong answers of each checkpoint that are printed."""


@click.command(cls=SpecCommand, spec=Evaluate)
@click.argument("checkpoints", nargs=-1, required=True, metavar="CKPT...")
@click.option("--data", "dataset", required=True, metavar="NAME", help="Dataset to measure on.")
@click.option("--reference", metavar="CKPT", help="Measure the KL of each checkpoint's answers from this one.")
@click.option("--name", help="Name of the run; left out: made of the first checkpoint and the dataset.")
@set_option
@detach_option
@json_option
@pass_environment
def evaluate(
    env: Environment,
    checkpoints: tuple[str, ...],
    dataset: str,
    reference: str | None,
    name: str | None,
    pairs: tuple[str, ...],
    detach: bool,
    as_json: bool,
) -> None:
    """Measure checkpoints on a dataset: loss, perplexity, bits a byte, right answers, choices.

    CKPT is a run's name (its last checkpoint), run@step, run@all (every checkpoint it has), an imported model or a
    folder. What is measured follows from the dataset's kind.
    """
    settings = stage_settings(env, "evaluate", pairs)
    find_dataset(env.workspace, dataset)
    named = [one for text in checkpoints for one in expanded(env.workspace, text)]
    chosen = name or name_for(named[0], dataset)
    extra = {"reference": reference} if reference else {}
    run = run_stage(env, "evaluate", chosen, settings, dataset=dataset, checkpoints=named, extra=extra, detach=detach)
    if not detach:
        say_evaluation(read_evaluation(run), as_json=as_json)


def say_evaluation(found: Evaluation, *, as_json: bool) -> None:
    """A table, notes, and some answers to read; or all of it as JSON."""
    if as_json:
        say_json(msgspec.to_builtins(found))
        return
    say(f"{found.dataset}, {found.split}: {found.records:,} records of kind {found.kind}")
    names = columns(found)
    values_of = {row.checkpoint: cells(row) for row in found.rows}
    if len(names) > 4:  # a line a measure
        table = [{"measure": name, **{one: values.get(name) for one, values in values_of.items()}} for name in names]
        say_table(table, {key: key for key in ("measure", *values_of)}, as_json=False, empty="")
    else:
        table = [{"checkpoint": one, **values} for one, values in values_of.items()]
        say_table(table, {key: key for key in ("checkpoint", *names)}, as_json=False, empty="")
    for row in found.rows:
        if row.note:
            say(f"{row.checkpoint}: {row.note}")
        for answer in [one for one in row.answers if one.right is not True][:SHOWN]:
            wanted = f" (wanted {shortened(answer.wanted, 40)})" if answer.wanted is not None else ""
            say(f"{row.checkpoint}: {shortened(answer.prompt, 60)} → {shortened(answer.text, 60)}{wanted}")
