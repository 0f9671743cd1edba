"""`workbench data from-labels`: freeze labels as a dataset, so that a stage can train on them."""

from __future__ import annotations

import click

from stages.store.errors import UserError, WorkFailed
from stages.store.labels import open_labels
from stages.store.labels.judged import Choice
from stages.store.names import check_name
from stages.store.records import Part
from stages.store.specs.build import Build
from workbench.cli.common import Environment, SpecCommand, pass_environment, run_stage, say, set_option, stage_settings
from workbench.cli.labels import choice_options
from workbench.judging.freezing import build_settings, day, freeze, kind_of, spooled


@click.command("from-labels", cls=SpecCommand, spec=Build)
@click.option("--name", required=True, help="Name of the new dataset.")
@click.option("--best", is_flag=True, help="A chat dataset of the answers that are best, or were written.")
@click.option("--agreed", is_flag=True, help="Leave out prompts about which two people are in conflict.")
@click.option("--since", metavar="DATE", help="Only labels given from this day on, as 2026-05-01 (UTC).")
@click.option("--until", metavar="DATE", help="Only labels given before this day.")
@choice_options
@set_option
@pass_environment
def from_labels(
    env: Environment,
    name: str,
    best: bool,
    agreed: bool,
    since: str | None,
    until: str | None,
    sets: tuple[str, ...],
    annotators: tuple[str, ...],
    parts: tuple[Part, ...],
    models: bool,
    pairs: tuple[str, ...],
) -> None:
    """Freeze labels as a dataset: rankings as preferences, or with --best the best answers as conversations."""
    check_name(name, "name of a dataset")
    if (env.workspace.datasets / name / "dataset.json").exists():
        raise UserError(f"There is already a dataset {name!r}.", "Choose another name.")
    if not env.workspace.labels.is_file():
        raise UserError("There are no labels yet.", "`workbench labels new NAME --from DATASET` makes a set to judge.")
    choice = Choice(
        sets=sets,
        annotators=annotators,
        parts=parts,
        models=models,
        since=day(since) if since else 0.0,
        until=day(until) if until else float("inf"),
    )
    settings = stage_settings(env, "build", pairs, kind=kind_of(best))
    with open_labels(env.workspace.labels) as labels:
        frozen = freeze(labels, choice, best=best, agreed=agreed)
    records, path = frozen.records, spooled(env.workspace, name, frozen.records)
    try:
        run_stage(env, "build", name, build_settings(settings, path, frozen.sets, best=best), detach=False)
    except WorkFailed:
        raise  # a run that is lost may be resumed, and reads it again
    except UserError:
        path.unlink(missing_ok=True)
        raise
    say(f"Froze {len(records):,} {'answers' if best else 'rankings'} as the dataset {name} of kind {kind_of(best)}.")
