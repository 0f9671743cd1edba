"""`workbench best-of`: a dataset of the best of n answers, or of their ranking."""

from __future__ import annotations

import click

from stages.store.checkpoints import resolve_checkpoint
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.names import check_name
from stages.store.specs.best_of import BestOf
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

FIGURES = {"mean_score": "mean score", "mean_best": "of the best"}
"""Of the run's result, as they are told."""


@click.command("best-of", cls=SpecCommand, spec=BestOf)
@click.option("--from", "checkpoint", required=True, metavar="CKPT", help="Checkpoint that answers.")
@click.option("--prompts", "prompts", required=True, metavar="NAME", help="Dataset of prompts.")
@click.option("--reward", metavar="CKPT", help="Reward model that scores; left out: as the settings say.")
@click.option("-n", "n", type=int, help="Answers to each prompt.")
@click.option("--keep", type=click.Choice(("best", "ranking")), help="The best answer alone, or all with their ranks.")
@click.option("--name", required=True, help="Name of the dataset.")
@set_option
@detach_option
@pass_environment
def best_of(
    env: Environment,
    checkpoint: str,
    prompts: str,
    reward: str | None,
    n: int | None,
    keep: str | None,
    name: str,
    pairs: tuple[str, ...],
    detach: bool,
) -> None:
    """Answer each prompt n times and make a dataset of the best answers (rejection sampling), or of their ranking.

    Answers are scored by a reward model, or by a function: --set reward=exact, world, pattern, length or python.
    """
    settings = stage_settings(env, "best_of", pairs, n=n, keep=keep)
    kind = find_dataset(env.workspace, prompts).info.kind
    if kind not in ("prompts", "preference", "chat"):
        raise UserError(f"The dataset {prompts!r} holds records of kind {kind}: they ask nothing.")
    resolve_checkpoint(env.workspace, checkpoint)
    if (env.workspace.datasets / check_name(name, "name of a dataset")).exists():
        raise UserError(f"There is already a dataset {name!r}.", "Choose another name.")
    extra = {"reward": reward} if reward else {}
    run = run_stage(env, "best_of", name, settings, dataset=prompts, checkpoint=checkpoint, extra=extra, detach=detach)
    if detach:
        return
    result = run.state().result or {}
    scores = [f"{label} {result[key]:.3f}" for key, label in FIGURES.items() if result.get(key) is not None]
    counts = result.get("records", {})
    say(f"{name}: {sum(counts.values()):,} prompts, {result.get('left_out', 0):,} left out; {', '.join(scores)}.")
    say(f"`workbench data show {name} --records 5` shows some.")
