"""`workbench sweep STAGE` starts a group of runs; `workbench sweeps` tells how they did, and steers them as one."""

from __future__ import annotations

import time
from typing import Any

import click

from stages.store.errors import UserError
from stages.store.groups import Group, find_group, forget_group, group_names, list_groups
from stages.store.specs import FROM_CHECKPOINT, TRAINING, spec_of
from stages.store.specs.parents import extra_parents
from workbench.cli.common import (
    CommandGroup,
    Environment,
    SpecCommand,
    confirm,
    detach_option,
    json_option,
    pass_environment,
    say,
    say_json,
    say_table,
    set_option,
    stage_settings,
    yes_option,
)
from workbench.runs import unique_name
from workbench.studies import groups
from workbench.studies.sweeps import parse_over, plan_sweep
from workbench.studies.table import columns_of, row_of

POLL = 0.5
"""Seconds between looks at the runs of a group."""
EXAMPLES = """Train with every combination of some settings: a group of runs, through the queue.

\b
  workbench sweep pretrain --data world --tokenizer world-bpe --over lr=1e-3,3e-3 --over width=64,128
  workbench sweep sft --data chats --from base --over lr=1e-5..1e-3 --over epochs=1,2 --random 8

Grid: every value of one with every value of the others. Random: so many combinations, LOW..HIGH drawn by its logarithm.
"""


@click.group(cls=CommandGroup, help=EXAMPLES)
def sweep() -> None:
    """The root of a command for each stage."""


def _start(
    env: Environment,
    dataset: str,
    over: tuple[str, ...],
    count: int | None,
    draw_seed: int,
    metric: str,
    name: str | None,
    pairs: tuple[str, ...],
    detach: bool,
    *,
    tokenizer: str | None = None,
    checkpoint: str | None = None,
    **beside: str | None,
) -> None:
    """`beside`: the stage's further parents, by role."""
    stage = click.get_current_context().command.name or ""
    axes = parse_over(stage, over)
    parents: dict[str, Any] = {"dataset": dataset}
    parents |= {"checkpoint": checkpoint} if checkpoint else {"tokenizer": tokenizer}
    if extra := {role: other for role, other in beside.items() if other}:
        parents["extra"] = extra
    chosen = name or unique_name(group_names(env.workspace), f"{dataset[:30]}-{stage}-sweep")
    group = plan_sweep(
        env.workspace,
        stage,
        chosen,
        stage_settings(env, stage, pairs),
        axes,
        parents=parents,
        count=count,
        seed=draw_seed,
        metric=metric,
    )
    begin(env, group, detach)


def begin(env: Environment, group: Group, detach: bool) -> None:
    """Launch a group; then return at once, or wait and print its table."""
    groups.launch_group(env.workspace, group, cpu_width=env.settings.queue.cpu_width)
    say(f"{group.name}: {len(group.members)} runs are in the queue.")
    if detach:
        say(f"`workbench sweeps show {group.name}` tells how they did, `workbench sweeps stop {group.name}` ends them.")
        return
    attend(env, group)


def attend(env: Environment, group: Group) -> list[groups.Standing]:
    """Wait until no run of the group works or waits, a line for each that ends; then its table.

    UserError when one has failed. ctrl+c ends the wait, not the runs.
    """
    told: set[str] = set()
    while True:
        rows = groups.standings(env.workspace, group)
        for row in rows:
            if not row.working and row.member.name not in told:
                told.add(row.member.name)
                figure = row.figures.get(group.metric)
                value = f": {group.metric} {figure:.4g}" if figure is not None else ""
                say(f"{len(told)}/{len(rows)}  {row.member.name} {row.status or 'not launched'}{value}")
        if not any(row.working for row in rows):
            break
        time.sleep(POLL)
    _say_group(group, rows, group.metric, as_json=False)
    failed = [row.member.name for row in rows if row.status in ("failed", "lost")]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(rows)} runs failed: {', '.join(failed[:5])}.",
            f"`workbench runs show {failed[0]}` tells why, `workbench sweeps resume {group.name}` tries them again.",
            exit_code=1,
        )
    return rows


@click.group(cls=CommandGroup, invoke_without_command=True)
@json_option
@click.pass_context
def sweeps(ctx: click.Context, as_json: bool) -> None:
    """List sweeps and scaling studies, or act on one as a whole."""
    if ctx.invoked_subcommand is not None:
        return
    env = ctx.ensure_object(Environment)
    rows = []
    for group in list_groups(env.workspace):
        found = groups.standings(env.workspace, group)
        ordered = groups.ranked(found, group.metric)
        best = next((row for row in ordered if groups.has_rank(row, group.metric)), None)
        rows.append(
            {
                "name": group.name,
                "kind": group.kind,
                "stage": group.stage,
                "runs": len(found),
                "finished": sum(row.finished for row in found),
                "at work": sum(row.working for row in found),
                "over": ", ".join(group.over),
                "metric": group.metric,
                "best": best.figures.get(group.metric) if best else None,
                "best run": best.member.name if best and group.metric in best.figures else "",
                "created": group.created,
            }
        )
    columns = ("name", "kind", "stage", "runs", "finished", "at work", "over", "metric", "best", "best run")
    empty = "There is no sweep yet. `workbench sweep --help` shows how to start one."
    say_table(rows, {key: key for key in columns}, as_json=as_json, empty=empty)


@sweeps.command("show")
@click.argument("name", metavar="SWEEP")
@click.option("--metric", help="Sort by this metric; left out: the one that the sweep was started with.")
@json_option
@pass_environment
def show(env: Environment, name: str, metric: str | None, as_json: bool) -> None:
    """Show the runs of a sweep, the best first."""
    group = find_group(env.workspace, name)
    _say_group(group, groups.standings(env.workspace, group), metric or group.metric, as_json=as_json)


@sweeps.command("wait")
@click.argument("name", metavar="SWEEP")
@pass_environment
def wait(env: Environment, name: str) -> None:
    """Wait until all runs of a sweep have ended."""
    attend(env, find_group(env.workspace, name))


@sweeps.command("stop")
@click.argument("name", metavar="SWEEP")
@pass_environment
def stop(env: Environment, name: str) -> None:
    """Save a checkpoint and end every run of a sweep that is at work or waits."""
    say(f"{_runs(groups.stop_group(env.workspace, name))} of {name} asked to stop.")


@sweeps.command("pause")
@click.argument("name", metavar="SWEEP")
@pass_environment
def pause(env: Environment, name: str) -> None:
    """Save a checkpoint of every run of a sweep that is at work, and give the device up; `resume` goes on."""
    say(f"{_runs(groups.pause_group(env.workspace, name))} of {name} asked to pause.")


@sweeps.command("resume")
@click.argument("name", metavar="SWEEP")
@detach_option
@pass_environment
def resume(env: Environment, name: str, detach: bool) -> None:
    """Go on with every run of a sweep that has not come to its end, and launch those that are missing."""
    count = groups.resume_group(env.workspace, name, cpu_width=env.settings.queue.cpu_width)
    say(f"{_runs(count)} of {name} {'is' if count == 1 else 'are'} in the queue again.")
    if not detach:
        attend(env, find_group(env.workspace, name))


@sweeps.command("forget")
@click.argument("name", metavar="SWEEP")
@yes_option
@pass_environment
def forget(env: Environment, name: str, yes: bool) -> None:
    """Forget that runs belong together; the runs stay as they are."""
    find_group(env.workspace, name)
    confirm(f"Forget the sweep {name!r}? Its runs stay.", yes)
    forget_group(env.workspace, name)
    say(f"Forgot the sweep {name}.")


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _say_group(group: Group, rows: list[groups.Standing], metric: str, *, as_json: bool) -> None:
    known = groups.metrics_of(rows)
    if known and metric not in known and any(row.finished for row in rows):
        raise UserError(f"No run of {group.name!r} has logged {metric!r}.", f"There are: {', '.join(known)}.")
    table = [row_of(row, metric) for row in groups.ranked(rows, metric)]
    if as_json:
        say_json(table)
        return
    say(f"{group.name}: {groups.summary(rows)}")
    columns = columns_of(group, metric)
    say_table(table, {key: key for key in columns}, as_json=False, empty="It has no runs.")


def _command(stage: str) -> click.Command:
    """The command of a stage: its parents as options, what varies, and its settings behind `--set`."""
    onward = stage in FROM_CHECKPOINT
    parent = (
        click.Option(["--from", "checkpoint"], required=True, metavar="CKPT", help="Checkpoint to go on from.")
        if onward
        else click.Option(["--tokenizer"], required=True, metavar="NAME", help="Tokenizer of the new models.")
    )
    beside: list[click.Parameter] = [
        click.Option([f"--{one.role}"], required=one.required, metavar="NAME", help=one.about)
        for one in extra_parents(stage)
    ]

    @click.option("--data", "dataset", required=True, metavar="NAME", help="Dataset to train on.")
    @click.option("--over", multiple=True, required=True, metavar="KEY=A,B", help="A setting that varies. Repeatable.")
    @click.option("--random", "count", type=click.IntRange(1), metavar="N", help="Draw N combinations; else the grid.")
    @click.option("--draw-seed", type=int, default=0, show_default=True, help="Seed of the drawing.")
    @click.option("--metric", default="val/loss", show_default=True, help="What the table is sorted by.")
    @click.option("--name", help="Name of the sweep; left out: made of dataset and stage.")
    @set_option
    @detach_option
    @pass_environment
    def start(env: Environment, **options: Any) -> None:
        _start(env, **options)

    made = click.command()(start)
    about = (spec_of(stage).__doc__ or "").strip()
    parameters = [made.params[0], parent, *beside, *made.params[1:]]
    return SpecCommand(stage, callback=made.callback, params=parameters, help=about, spec=spec_of(stage))


for stage in TRAINING:
    sweep.add_command(_command(stage))
