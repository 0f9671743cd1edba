"""`workbench in-context`: checkpoints measured on a task that the prompt shows by examples."""

from __future__ import annotations

import click

from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.evaluations import read_evaluation
from stages.store.specs.in_context import InContext
from stages.store.tasks import absolute_task
from workbench.cli.common import (
    Environment,
    SpecCommand,
    detach_option,
    json_option,
    pass_environment,
    run_stage,
    set_option,
    stage_settings,
)
from workbench.cli.evaluate import say_evaluation
from workbench.evaluating import TASKS, expanded, name_for


@click.command("in-context", cls=SpecCommand, spec=InContext)
@click.argument("checkpoints", nargs=-1, required=True, metavar="CKPT...")
@click.option("--data", "dataset", required=True, metavar="NAME", help="Labelled records, or prompts with answers.")
@click.option("--task", metavar="NAME|FILE", help="Template of the prompts; the same as --set task=…")
@click.option("--name", help="Name of the run; left out: made of the first checkpoint and the dataset.")
@set_option
@detach_option
@json_option
@pass_environment
def in_context(
    env: Environment,
    checkpoints: tuple[str, ...],
    dataset: str,
    task: str | None,
    name: str | None,
    pairs: tuple[str, ...],
    detach: bool,
    as_json: bool,
) -> None:
    """Measure checkpoints on a task shown by examples: the share that is right with 0, 1, 4 of them, with intervals.

    CKPT is as for evaluate. Nothing is trained: a template writes solved examples and a question, options are compared
    by their log-likelihood, or the answer is written and must be exact.
    """
    settings = stage_settings(env, "in_context", pairs, task=task)
    if "task" in settings:
        settings["task"] = absolute_task(settings["task"])
    kind = find_dataset(env.workspace, dataset).info.kind
    if kind not in TASKS:
        raise UserError(f"{dataset!r} is of kind {kind}.", "Choose prompts with answers, or labelled records.")
    named = [one for text in checkpoints for one in expanded(env.workspace, text)]
    chosen = name or f"few-shot-{name_for(named[0], dataset)}"[:60].rstrip("-._")
    run = run_stage(env, "in_context", chosen, settings, dataset=dataset, checkpoints=named, detach=detach)
    if not detach:
        say_evaluation(read_evaluation(run), as_json=as_json)
