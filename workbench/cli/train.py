"""`workbench train STAGE`: one command for every stage that trains a model."""

from __future__ import annotations

import click

from stages.store.checkpoints import list_checkpoints, resolve_checkpoint
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.specs import FROM_CHECKPOINT, TRAINING, on_several_gpus, spec_of
from stages.store.specs.parents import extra_parents
from workbench.cli.common import (
    CommandGroup,
    Environment,
    SpecCommand,
    detach_option,
    gpus_option,
    pass_environment,
    run_stage,
    say,
    set_option,
    stage_settings,
)
from workbench.models.estimate import estimate
from workbench.models.tuning import refuse_kind
from workbench.runs import refuse_gpus, run_names, unique_name


@click.group(cls=CommandGroup)
def train() -> None:
    """Train a model: one command a stage."""


@click.option("--data", "dataset", required=True, metavar="NAME", help="Dataset to train on.")
@click.option("--tokenizer", required=True, metavar="NAME", help="Tokenizer of the new model.")
@click.option("--preset", help="Shape of the model; see `workbench models`.")
@click.option("--name", help="Name of the run; left out: made of dataset and preset.")
@gpus_option
@set_option
@detach_option
@pass_environment
def _train(
    env: Environment,
    dataset: str,
    tokenizer: str,
    preset: str | None,
    name: str | None,
    gpus: int | None,
    pairs: tuple[str, ...],
    detach: bool,
) -> None:
    stage = click.get_current_context().command.name or ""
    settings = stage_settings(env, stage, pairs, preset=preset, gpus=wanted_gpus(stage, gpus))
    find_dataset(env.workspace, dataset)
    found = estimate(env.workspace, settings, dataset, tokenizer, stage)
    chosen = name or unique_name(run_names(env.workspace), f"{dataset[:40]}-{found.preset}")
    epochs = f", {found.epochs:,.1f} epochs" if found.epochs else ""
    each = f" in each of {settings['gpus']} processes" if settings.get("gpus", 1) > 1 else ""
    memory = f"about {found.memory / 1e6:,.0f} MB of memory{each}"
    say(f"{chosen}: {found.parameters:,} parameters, {found.tokens:,} tokens to see{epochs}, {memory}.")
    if found.warning:
        say(f"Warning: {found.warning}")
    run = run_stage(env, stage, chosen, settings, dataset=dataset, tokenizer=tokenizer, detach=detach)
    if not detach:
        say_trained(run)


@click.option("--data", "dataset", required=True, metavar="NAME", help="Dataset to train on.")
@click.option("--from", "checkpoint", required=True, metavar="CKPT", help="Checkpoint to go on from.")
@click.option("--name", help="Name of the run; left out: made of checkpoint and stage.")
@gpus_option
@set_option
@detach_option
@pass_environment
def _tune(
    env: Environment,
    dataset: str,
    checkpoint: str,
    name: str | None,
    gpus: int | None,
    pairs: tuple[str, ...],
    detach: bool,
    **beside: str | None,
) -> None:
    """`beside`: the stage's further parents, by role."""
    stage = click.get_current_context().command.name or ""
    settings = stage_settings(env, stage, pairs, gpus=wanted_gpus(stage, gpus))
    refuse_kind(stage, find_dataset(env.workspace, dataset))
    found = resolve_checkpoint(env.workspace, checkpoint)
    lineage = found.lineage()
    stem = lineage.name if lineage else found.path.name
    chosen = name or unique_name(run_names(env.workspace), f"{stem[:40]}-{stage}")
    extra = {role: other for role, other in beside.items() if other}
    further = "".join(f", {role} {other}" for role, other in extra.items())
    say(f"{chosen}: from {stem}{f' at step {found.step:,}' if found.step else ''}, on {dataset}{further}.")
    run = run_stage(env, stage, chosen, settings, dataset=dataset, checkpoint=checkpoint, extra=extra, detach=detach)
    if not detach:
        say_trained(run)


def wanted_gpus(stage: str, gpus: int | None) -> int | None:
    """The setting that --gpus means; None where it says nothing. UserError for a stage that has no such setting."""
    if gpus is not None:
        refuse_gpus(stage, gpus)
    return gpus if stage in on_several_gpus() else None


_NEW, _ONWARD = click.command()(_train), click.command()(_tune)


def _command(stage: str) -> click.Command:
    """The command of a stage: its parents as options, its settings behind `--set`."""
    model, spec = _ONWARD if stage in FROM_CHECKPOINT else _NEW, spec_of(stage)
    beside: list[click.Parameter] = [
        click.Option(
            [f"--{one.role}"],
            required=one.required,
            metavar="CKPT" if one.of == "checkpoint" else "NAME",
            help=one.about,
        )
        for one in extra_parents(stage)
    ]
    parameters = [*model.params[:2], *beside, *model.params[2:]]
    return SpecCommand(stage, callback=model.callback, params=parameters, help=(spec.__doc__ or "").strip(), spec=spec)


for stage in TRAINING:
    train.add_command(_command(stage))


def say_trained(run: RunDir) -> None:
    """How a run that has ended well, or was stopped, turned out, and what to do next."""
    state, name = run.state(), run.spec().name
    found = list_checkpoints(run)
    if state.status == "finished" and not found:
        raise UserError(f"The run {name!r} finished without a checkpoint.", f"See {run.log}.", exit_code=1)
    figures = found[-1].lineage() if found else None
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in (figures.metrics if figures else {}).items())
    say(f"{name} {state.status} at step {state.step:,}{': ' + metrics if metrics else ''}.")
    if found:
        blanks = f"`workbench fill {name} 'a text with ___ in it'` asks it"
        onward = {
            "bert": blanks,
            "t5": blanks,
            "reward": f"`workbench reward report {name}` judges it",
            "classify": f"`workbench classified {name}` tells how well it labels",
        }.get(run.spec().stage, f"`workbench chat {name}` talks to it")
        say(f"Checkpoint {found[-1].path}. {onward}.")
