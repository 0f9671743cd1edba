"""`workbench data check`: what sources or a dataset hold, and what is suspicious about them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click
import msgspec

from stages.store.checks import Check
from stages.store.desk import DeskProgress
from stages.store.errors import UserError
from stages.store.files import path_of
from stages.store.sources import STARTER, absolute_source
from stages.store.specs.build import Build
from workbench.cli.common import (
    Environment,
    SpecCommand,
    json_option,
    pass_environment,
    say,
    say_json,
    set_option,
    stage_settings,
)
from workbench.records.check_lines import fact_lines, finding_lines, length_lines, problem_lines, verdict
from workbench.talking.desk_client import ask_once


@click.command("check", cls=SpecCommand, spec=Build)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE|DATASET...")
@click.option("--tokenizer", default="", help="Count lengths in tokens of this tokenizer as well.")
@click.option("--against", multiple=True, help="An evaluation dataset or starter: source that must not be in it.")
@click.option("--kind", help="What a record is, where it is not found out.")
@click.option("--map", "mapping", multiple=True, metavar="OURS=THEIRS", help="Our name for one of their fields.")
@set_option
@json_option
@pass_environment
def check(
    env: Environment,
    sources: tuple[str, ...],
    tokenizer: str,
    against: tuple[str, ...],
    kind: str | None,
    mapping: tuple[str, ...],
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Examine files, folders or a dataset: kind, lengths, duplicates and what is suspicious, with examples and fixes.

    Nothing is changed. A fix is a setting of `workbench data build`. A name that is no file is that of a dataset.
    """
    settings = stage_settings(env, "build", pairs, sources=list(sources), kind=kind, mapping=list(mapping) or None)
    asked: dict[str, Any] = {"tokenizer": tokenizer, "against": list(against), "settings": settings}
    if dataset := _dataset(env, sources):
        asked |= {"dataset": dataset}
    else:
        settings["sources"] = [absolute_source(source) for source in sources]
    with _progress(sys.stderr) as told:
        found = msgspec.convert(ask_once(env.workspace, "data.check", on_progress=told, **asked), Check)
    if as_json:
        say_json({**msgspec.to_builtins(found), "fixes": found.fixes()})
    else:
        say("\n".join(_report(found, min(100, shutil.get_terminal_size((80, 24)).columns))))


def _dataset(env: Environment, sources: tuple[str, ...]) -> str:
    """The dataset that is meant, if one is: a file of the same name comes first."""
    name = sources[0]
    if len(sources) > 1 or name.startswith(STARTER) or path_of(name).exists():
        return ""
    known = "/" not in name and (env.workspace.datasets / name / "dataset.json").is_file()
    if known or (env.workspace.datasets.is_dir() and _close(env, name)):
        return name
    return ""


def _close(env: Environment, name: str) -> bool:
    """Whether the name is so near to a dataset's that the refusal should name that one."""
    from stages.store.datasets import list_datasets
    from stages.store.names import nearest

    return "Did you mean" in nearest(name, (found.name for found in list_datasets(env.workspace)))


def _report(found: Check, width: int) -> Iterator[str]:
    yield found.name
    yield from fact_lines(found)
    for lengths in found.lengths:
        yield ""
        yield from length_lines(lengths, width)
    yield ""
    if found.problem_count:
        yield from problem_lines(found)
        yield ""
    yield f"findings: {len(found.findings)}" if found.findings else verdict(found)
    for finding in found.findings:
        yield from finding_lines(finding, width)


@contextmanager
def _progress(out: TextIO) -> Iterator[Any]:
    """Says on a terminal how far it is, on one line, and clears it at the end."""
    shown = 0

    def tell(progress: DeskProgress) -> None:
        nonlocal shown
        if out.isatty():
            share = f" {progress.done / progress.total:.0%}" if progress.total else ""
            line = f"{progress.phase}{share}"
            print(f"\r{line:<{shown}}", end="", file=out, flush=True)
            shown = len(line)

    try:
        yield tell
    except KeyboardInterrupt as interrupt:
        raise UserError("The check was interrupted; nothing was changed.", exit_code=130) from interrupt
    finally:
        if shown:
            print(f"\r{'':<{shown}}\r", end="", file=out, flush=True)
