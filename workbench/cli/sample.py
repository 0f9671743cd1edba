"""`workbench sample`: completions to judge."""

from __future__ import annotations

import sys

import click
import msgspec

from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.labels.records import Mode
from stages.store.names import check_name
from stages.store.rundir import RunDir
from stages.store.specs.sample import Sample
from workbench.cli.common import (
    Environment,
    SpecCommand,
    detach_option,
    pass_environment,
    run_stage,
    say,
    set_option,
    stage_settings,
)
from workbench.evaluating import expanded, name_for, names_of_runs
from workbench.judging.taking_in import left_out, refuse_other_mode, take_in
from workbench.runs import unique_name


@click.command(cls=SpecCommand, spec=Sample)
@click.option("--from", "checkpoints", required=True, multiple=True, metavar="CKPT", help="Checkpoint; repeatable.")
@click.option("--prompts", "source", metavar="NAME|-", help="Dataset of prompts; - reads one a line from stdin.")
@click.option("--prompt", "typed", multiple=True, metavar="TEXT", help="A prompt, in place of a dataset; repeatable.")
@click.option("-k", "k", type=int, help="Completions of each prompt.")
@click.option("--name", help="Name of the run and of the label set; left out: made of checkpoint and dataset.")
@click.option("--mode", type=click.Choice(("rank", "pair", "rate")), help="How the set is judged.")
@set_option
@detach_option
@pass_environment
def sample(
    env: Environment,
    checkpoints: tuple[str, ...],
    source: str | None,
    typed: tuple[str, ...],
    k: int | None,
    name: str | None,
    mode: Mode | None,
    pairs: tuple[str, ...],
    detach: bool,
) -> None:
    """Write K completions to each prompt, and make a label set of them.

    Prompts come from a dataset, or are typed: --prompt "…" as often as wanted, or --prompts - with one a line on
    stdin. Several checkpoints take turns: with -k 4 and two checkpoints each writes two. Which wrote what is shown
    only after a judgement.
    """
    prompts, dataset = _prompts(source, typed)
    settings = stage_settings(env, "sample", pairs, k=k, judged_by=mode, prompts=prompts)
    if dataset is not None:
        find_dataset(env.workspace, dataset)
    elif not settings.get("prompts"):
        raise UserError("There are no prompts.", 'Give --prompts DATASET, --prompts - or --prompt "…".')
    named = [one for text in checkpoints for one in expanded(env.workspace, text)]
    chosen = check_name(name or _name_for(env, named, dataset), "name of a label set")
    refuse_other_mode(env.workspace, chosen, msgspec.convert(settings, Sample))
    run = run_stage(env, "sample", chosen, settings, dataset=dataset, checkpoints=named, detach=detach)
    if detach:
        say(f"The app, or `workbench labels take {chosen}`, makes a label set of it when it is done.")
    else:
        take_in_run(env, run)


def take_in_run(env: Environment, run: RunDir, mode: Mode | None = None) -> None:
    """Make a label set of what a sampling run has completed, or add what is new to it."""
    with open_labels(env.workspace.ensure().labels) as labels:
        made = take_in(labels, run, env.settings.labels, mode)
    without = f"; {told}" if (told := left_out(run, made.mode)) else ""
    say(f"The label set {made.name} has {made.prompts:,} prompts{without}. Judge it in the app: K, enter.")


def _prompts(source: str | None, typed: tuple[str, ...]) -> tuple[list[str] | None, str | None]:
    """Typed prompts, and the name of a dataset: one of the two, or neither."""
    if source != "-":
        if source is not None and typed:
            raise UserError("--prompt and --prompts exclude each other.", "Choose one of them.")
        return list(typed) or None, source
    try:
        lines = sys.stdin.buffer.read().decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError("What came on stdin is not UTF-8.", "Write the prompts in UTF-8, one a line.") from error
    return [*typed, *(line for line in lines if line.strip())], None


def _name_for(env: Environment, checkpoints: list[str], dataset: str | None) -> str:
    """Made of the checkpoints and the dataset; one of typed prompts is new each time."""
    stem = name_for(" ".join(checkpoints[:2]), dataset or "typed")
    return stem if dataset else unique_name(names_of_runs(env.workspace), stem)
