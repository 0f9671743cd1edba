"""`workbench bin`: what was deleted, to take back or to delete for good."""

from __future__ import annotations

import click

from stages.store.bin import Thrown, destroy_all, find_thrown, list_bin, restore
from stages.store.errors import WorkFailed
from workbench.cli.common import (
    CommandGroup,
    Environment,
    confirm,
    json_option,
    pass_environment,
    say,
    say_table,
    yes_option,
)
from workbench.wording import amount


@click.group("bin", cls=CommandGroup, invoke_without_command=True)
@json_option
@click.pass_context
def bin_(ctx: click.Context, as_json: bool) -> None:
    """What was deleted lies in the bin until it is emptied."""
    if ctx.invoked_subcommand is not None:
        return
    env = ctx.ensure_object(Environment)
    columns = ("name", "kind", "deleted", "size")
    rows = [_row(thrown, as_json) for thrown in list_bin(env.workspace)]
    say_table(rows, {key: key for key in columns}, as_json=as_json, empty="The bin is empty.")


@bin_.command("restore")
@click.argument("name", metavar="DELETED")
@pass_environment
def restore_(env: Environment, name: str) -> None:
    """Take something back from the bin: the newest of this name, or KIND/NAME."""
    thrown = find_thrown(env.workspace, name)
    title = thrown.title  # a run's name is read where it lies
    restore(env.workspace, thrown)
    say(f"{title} is back among the {thrown.kind}.")


@bin_.command("empty")
@click.argument("names", nargs=-1, metavar="[DELETED]…")
@yes_option
@pass_environment
def empty(env: Environment, names: tuple[str, ...], yes: bool) -> None:
    """Delete what is in the bin for good: all of it, or what is named."""
    chosen = [find_thrown(env.workspace, name) for name in names] or list_bin(env.workspace)
    if not chosen:
        say("The bin is empty.")
        return
    total = amount(sum(thrown.bytes() for thrown in chosen), "bytes")
    confirm(f"Delete {', '.join(thrown.title for thrown in chosen[:5])}{' …' if chosen[5:] else ''} for good?", yes)
    failed = destroy_all(chosen)
    if failed:
        raise WorkFailed(
            f"{len(failed):,} of {len(chosen):,} could not be deleted.", " ".join(str(error) for error in failed[:5])
        )
    say(f"{total} are free again.")


def _row(thrown: Thrown, as_json: bool) -> dict[str, object]:
    size: int | str = thrown.bytes() if as_json else amount(thrown.bytes(), "bytes")
    when = thrown.deleted.isoformat() if as_json else thrown.deleted.astimezone().strftime("%Y-%m-%d %H:%M")
    return {"name": thrown.title, "kind": thrown.kind, "deleted": when, "size": size}
