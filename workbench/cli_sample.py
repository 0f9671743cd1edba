"""`workbench sample`: completions to judge."""

from __future__ import annotations

import click

from stages.store.completions import tasks_in
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.labels.records import Mode
from stages.store.names import check_name
from stages.store.rundir import find_run
from stages.store.specs.sample import Sample
from workbench.cli_common import (
    House,
    SpecCommand,
    detach_option,
    pass_house,
    run_stage,
    say,
    set_option,
    stage_settings,
)
from workbench.evaluating import expanded


@click.command(cls=SpecCommand, spec=Sample)
@click.option("--from", "checkpoints", required=True, multiple=True, metavar="CKPT", help="Checkpoint; repeatable.")
@click.option("--prompts", "dataset", required=True, metavar="NAME", help="Dataset of prompts.")
@click.option("-k", "k", type=int, help="Completions of each prompt.")
@click.option("--name", help="Name of the run and of the label set; left out: made of checkpoint and dataset.")
@click.option("--mode", type=click.Choice(("rank", "pair", "rate")), help="How the set is judged.")
@set_option
@detach_option
@pass_house
def sample(
    house: House,
    checkpoints: tuple[str, ...],
    dataset: str,
    k: int | None,
    name: str | None,
    mode: Mode | None,
    pairs: tuple[str, ...],
    detach: bool,
) -> None:
    """Write K completions to each prompt of a dataset, and make a label set of them.

    Several checkpoints take turns: with -k 4 and two checkpoints each writes two. Which wrote what is shown only after
    a judgement.
    """
    settings = stage_settings(house, "sample", pairs, k=k)
    find_dataset(house.workspace, dataset)
    named = [one for text in checkpoints for one in expanded(house.workspace, text)]
    stem = "-".join(one.replace("@", "-") for one in named[:2])
    chosen = check_name(name or f"{stem[:40]}-on-{dataset[:20]}", "name of a label set")
    judged_by: Mode = mode or ("pair" if settings.get("k") == 2 else "rank")
    with open_labels(house.workspace.ensure().labels) as labels:
        if any(one.name == chosen and one.mode != judged_by for one in labels.sets()):
            raise UserError(f"The label set {chosen!r} is judged in another way.", "Choose another --name.")
    run = run_stage(house, "sample", chosen, settings, dataset=dataset, checkpoints=named, detach=detach)
    if detach:
        say(f"`workbench labels take {chosen}` makes a label set of it when it is done.")
    else:
        take_in(house, run.spec().name, judged_by)


def take_in(house: House, name: str, mode: Mode) -> None:
    """Make a label set of what a sampling run has written, or add what is new to it."""
    run = find_run(house.workspace, name)
    tasks = [(prompt, candidates) for prompt, candidates in tasks_in(run) if candidates]
    if not tasks:
        raise UserError(f"The run {name!r} has written no completions.", "Sample some: `workbench sample --help`.")
    settings = house.settings.labels
    with open_labels(house.workspace.ensure().labels) as labels:
        made = labels.add_set(name, mode, tasks, people=settings.people, repeat_share=settings.repeat_share)
    say(f"The label set {name} has {made.prompts:,} prompts. Judge it in the app: K, enter.")
