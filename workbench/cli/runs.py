"""`workbench runs`: the list of all runs, and what can be asked of one of them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from stages.store import strict
from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.evaluations import FILE, read_evaluation
from stages.store.lineage import delete_checkpoint, delete_run, parents_of, told_before_deleting
from stages.store.notes import read_notes, write_notes
from stages.store.rollback import roll_back
from stages.store.rundir import RESUMABLE, RunDir, RunSpec, find_run, list_runs
from stages.store.specs import STAGES, TRAINING, spec_of
from workbench import runs as steering
from workbench.board.again import repeat
from workbench.cli import progress
from workbench.cli.common import (
    CommandGroup,
    Environment,
    confirm,
    detach_option,
    gpus_option,
    json_option,
    parse_pairs,
    pass_environment,
    say,
    say_facts,
    say_json,
    say_table,
    set_option,
    yes_option,
)
from workbench.cli.evaluate import say_evaluation
from workbench.cli.tensorboard import tensorboard
from workbench.cli.train import say_trained
from workbench.display import displayable
from workbench.plots.figures import last_figures
from workbench.wording import duration, summary

POLL = 0.1
"""Seconds between looks at a file or a run."""


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.option("--all", "every", is_flag=True, help="Archived ones too.")
@json_option
@click.pass_context
def runs(ctx: click.Context, every: bool, as_json: bool) -> None:
    """List all runs, or act on one (RUN is a run's name or id)."""
    if ctx.invoked_subcommand is not None:
        return
    _list(ctx.ensure_object(Environment), every, as_json)


def _list(env: Environment, every: bool, as_json: bool) -> None:
    columns = ("name", "kind", "status", "step", "total", "unit", "loss", "rate", "left", "started")
    say_table(
        [row for run in list_runs(env.workspace) for row in _rows(run) if every or not row.get("archived")],
        {key: key for key in columns},
        as_json=as_json,
        empty="There is no run yet. `workbench --help` shows how a first life goes.",
    )


@runs.command("show")
@click.argument("name", metavar="RUN")
@json_option
@pass_environment
def show(env: Environment, name: str, as_json: bool) -> None:
    """Show a run: where it stands, what it was made from, its settings and checkpoints."""
    run = find_run(env.workspace, name)
    spec, state = run.spec(), run.state()
    found = read_evaluation(run) if (run.path / FILE).is_file() else None
    if as_json:
        say_json(
            {
                **_row(run),
                "spec": spec,
                "state": state,
                "parents": {a.role: a._asdict() for a in parents_of(env.workspace, spec.parents)},
                "checkpoints": [{"step": c.step, "path": str(c.path)} for c in list_checkpoints(run)],
                "metrics": last_figures(run),
                **({"evaluation": found} if found else {}),
            }
        )
        return
    say_facts(
        {
            "name": spec.name,
            "id": run.id,
            "stage": spec.stage,
            "status": summary(state, run.status(state)),
            "error": f"{state.error.message} {state.error.hint}" if state.error else "",
            "next": _next(run, run.status(state)),
            "made from": ", ".join(f"{a.role} {a.name} ({a.state})" for a in parents_of(env.workspace, spec.parents)),
            "settings": ", ".join(_changed(spec)) or "the defaults",
            "figures": ", ".join(f"{key} {_figure(value)}" for key, value in last_figures(run).items()),
            "checkpoints": ", ".join(str(checkpoint.step) for checkpoint in list_checkpoints(run)),
            "result": ", ".join(f"{key} {_result(value)}" for key, value in state.result.items()),
            "started": _clock(state.started),
            "ended": _clock(state.ended),
            "threads": str(spec.threads),
            "folder": str(run.path),
        }
    )
    if found:
        say("")
        say_evaluation(found, as_json=False)


def _next(run: RunDir, status: str) -> str:
    """What can be done about a run that has not come to its end."""
    handle = progress.handle_of(run)
    log = f"`workbench runs logs {handle}` shows its log, " if status in ("failed", "lost") else ""
    why = "its worker died without a word; " if status == "lost" else ""
    resume = f"`workbench runs resume {handle}` goes on with it"
    return f"{why}{log}{resume}" if status in RESUMABLE else ""


@runs.command("list")
@click.option("--all", "every", is_flag=True, help="Archived ones too.")
@json_option
@click.pass_context
def list_all(ctx: click.Context, every: bool, as_json: bool) -> None:
    """List all runs, as `workbench runs` alone does."""
    _list(ctx.ensure_object(Environment), every, as_json)


@runs.command("logs")
@click.argument("name", metavar="RUN")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@pass_environment
def logs(env: Environment, name: str, follow: bool) -> None:
    """Print what a run's worker has written."""
    run = find_run(env.workspace, name)
    with _opened(run.log) as file:
        while True:
            alive = run.alive()
            _put(file.read())
            if not (follow and alive):
                return
            time.sleep(POLL)


@runs.command("attach")
@click.argument("name", metavar="RUN")
@pass_environment
def attach(env: Environment, name: str) -> None:
    """Wait for a run and show its progress, as if it had just been started."""
    _wait(find_run(env.workspace, name))


@runs.command("stop")
@click.argument("name", metavar="RUN")
@detach_option
@pass_environment
def stop(env: Environment, name: str, detach: bool) -> None:
    """Save a checkpoint and end a run."""
    run = find_run(env.workspace, name)
    steering.stop(run)
    _await_rest(run, detach)


@runs.command("pause")
@click.argument("name", metavar="RUN")
@detach_option
@pass_environment
def pause(env: Environment, name: str, detach: bool) -> None:
    """Save a checkpoint and give the device up; `resume` goes on from there."""
    run = find_run(env.workspace, name)
    steering.pause(run)
    _await_rest(run, detach)


@runs.command("resume")
@click.argument("name", metavar="RUN")
@click.option("--at", "step", type=int, metavar="STEP", help="Go back to this checkpoint; later ones are set aside.")
@click.option("--lr", metavar="VALUE", help="The peak learning rate from here on.")
@gpus_option
@detach_option
@pass_environment
def resume(env: Environment, name: str, step: int | None, lr: str | None, gpus: int | None, detach: bool) -> None:
    """Go on with a run that was paused, stopped or lost, or that failed, from its last checkpoint or an earlier one."""
    run = find_run(env.workspace, name)
    if run.status() == "finished" and step is None:
        raise UserError(f"The run {name!r} is finished.", "Start another one to train for longer.")
    rate = steering.parse_lr(run, lr) if lr is not None else None
    if step is not None:
        for folder in roll_back(env.workspace, run, step):
            say(f"Set aside: {folder}")
    steering.start(run, cpu_width=env.settings.queue.cpu_width, gpus=gpus)
    if rate is not None:
        steering.set_lr(run, rate)
    if detach:
        say(f"{name} is at work again. {progress.how_to_return(run)}")
    else:
        _wait(run)


@runs.command("checkpoint")
@click.argument("name", metavar="RUN")
@pass_environment
def checkpoint(env: Environment, name: str) -> None:
    """Ask a running run to save a checkpoint at its next step."""
    steering.checkpoint_now(find_run(env.workspace, name))
    say(f"{name} saves a checkpoint at its next step.")


@runs.command("set")
@click.argument("name", metavar="RUN")
@click.argument("pair", metavar="lr=VALUE")
@pass_environment
def set_(env: Environment, name: str, pair: str) -> None:
    """Change the peak learning rate of a running run; the schedule keeps its shape."""
    run = find_run(env.workspace, name)
    key, _, text = pair.partition("=")
    if key.strip() != "lr":
        raise UserError(f"{key!r} of a running run cannot be changed.", "lr can: lr=0.0003.")
    value = steering.parse_lr(run, text)
    steering.set_lr(run, value)
    say(f"{name} goes on with a peak learning rate of {value:g}.")


@runs.command("repeat")
@click.argument("name", metavar="RUN")
@click.option("--name", "new", default="", help="Name of the new run; left out: the old one with a number.")
@set_option
@detach_option
@pass_environment
def repeat_(env: Environment, name: str, new: str, pairs: tuple[str, ...], detach: bool) -> None:
    """Do a run again, with its settings, seed and parents; --set changes a setting."""
    run = find_run(env.workspace, name)
    stage = run.spec().stage
    changes = parse_pairs(spec_of(stage), pairs)
    made = repeat(env.workspace, run, changes, name=new, cpu_width=env.settings.queue.cpu_width)
    if detach:
        say(f"{made.spec().name} is at work. {progress.how_to_return(made)}")
    else:
        _wait(made)


@runs.command("note")
@click.argument("name", metavar="RUN")
@click.argument("text", required=False)
@click.option("--bookmark/--no-bookmark", default=None, help="Give it a star, or take it away.")
@click.option("--archive/--no-archive", default=None, help="Put it away from lists, or back.")
@click.option("--priority", type=click.IntRange(-9, 9), help="Its place in the queue: the higher comes first.")
@pass_environment
def note(
    env: Environment, name: str, text: str | None, bookmark: bool | None, archive: bool | None, priority: int | None
) -> None:
    """Say something about a run. Without TEXT and options, print what is said."""
    run = find_run(env.workspace, name)
    said = read_notes(run)
    changes = {"note": text, "bookmarked": bookmark, "archived": archive, "priority": priority}
    given = {key: value for key, value in changes.items() if value is not None}
    if given:
        said = msgspec.structs.replace(said, **given)
        write_notes(run, said)
    marks = [mark for mark in ("bookmarked", "archived") if getattr(said, mark)]
    marks += [f"priority {said.priority:+}"] if said.priority else []
    say(" · ".join([*marks, said.note or "no note"]))


@runs.command("delete")
@click.argument("name", metavar="CKPT")
@yes_option
@pass_environment
def delete(env: Environment, name: str, yes: bool) -> None:
    """Throw a RUN with its checkpoints into the bin, or RUN@STEP alone, unless it is at work or something needs it."""
    owner, at, step = name.rpartition("@")
    if at and step.isdigit():
        one = find_run(env.workspace, owner)
        confirm(f"Delete the checkpoint {name}? {told_before_deleting(env.workspace, one, int(step))}", yes)
        delete_checkpoint(env.workspace, one, int(step))
        say(f"Deleted the checkpoint {name}. `workbench bin restore {name}` takes it back.")
        return
    run = find_run(env.workspace, name)
    confirm(f"Delete the run {name!r} with {len(list_checkpoints(run))} checkpoints?", yes)
    delete_run(env.workspace, name, run)
    say(f"Deleted the run {name}. `workbench bin restore {name}` takes it back.")


runs.add_command(tensorboard)


def _rows(run: RunDir) -> list[dict[str, Any]]:
    try:
        return [_row(run)]
    except UserError as error:
        return [{"name": run.id, "kind": "?", "status": "unreadable", "id": run.id, "error": str(error)}]


def _row(run: RunDir) -> dict[str, Any]:
    spec, state = run.spec(), run.state()
    status = run.status(state)
    running = status == "running"
    said = read_notes(run)
    return {
        "name": spec.name,
        "kind": spec.stage,
        "status": status,
        "step": state.step,
        "total": state.total,
        "unit": state.unit,
        "loss": last_figures(run).get("train/loss") if spec.stage in TRAINING else None,
        "rate": state.rate if running else None,
        "left": duration(state.eta) if running and state.eta is not None else None,
        "started": _clock(state.started or spec.created),
        "eta": state.eta if running else None,
        "id": run.id,
        "created": spec.created,
        "last_checkpoint": state.last_checkpoint,
        "note": said.note,
        "bookmarked": said.bookmarked,
        "archived": said.archived,
        "error": str(state.error.message) if state.error else None,
    }


def _changed(spec: RunSpec) -> list[str]:
    if spec.stage not in STAGES:
        return [f"{key} = {value}" for key, value in spec.settings.items()]
    defaults = {field.name: field.default for field in strict.fields(STAGES[spec.stage])}
    return [f"{key} = {value}" for key, value in spec.settings.items() if value != defaults.get(key)]


def _wait(run: RunDir) -> None:
    """Wait for the end and tell how it turned out."""
    state = progress.wait(run)
    if run.spec().stage in TRAINING:
        say_trained(run)
    else:
        say(f"{run.spec().name} {state.status}.")


def _await_rest(run: RunDir, detach: bool) -> None:
    """Wait until the worker has acted on a request to end, and say as what it ended."""
    name = run.spec().name
    if detach:
        say(f"{name} was asked to.")
        return
    while run.alive():
        time.sleep(POLL)
    state = run.state()
    say(f"{name}: {summary(state, run.status(state))}")


def _opened(log: Path) -> BinaryIO:
    try:
        return log.open("rb")
    except OSError as error:
        raise UserError(f"{log} cannot be read: {error.strerror}.") from error


def _put(data: bytes) -> None:
    """Log bytes as they are to a file or a pipe; to a terminal with control characters made visible."""
    if sys.stdout.isatty():
        click.echo(displayable(data.decode("utf-8", "backslashreplace"), tabs=8), nl=False)
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()


def _result(value: Any) -> str:
    return _figure(value) if isinstance(value, int | float) else str(value)


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if abs(value) >= 1_000 else f"{value:.4g}"


def _clock(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""
