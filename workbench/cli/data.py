"""`workbench data`: build datasets, list them, show what one holds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from stages.store import strict
from stages.store.datasets import Dataset, DatasetInfo, Filter, find_dataset, list_datasets
from stages.store.errors import UserError, WorkFailed
from stages.store.names import check_name
from stages.store.rundir import RunDir
from stages.store.sources import STARTERS, STDIN, absolute_source, spool
from stages.store.specs.build import Build
from workbench.cli.check import check
from workbench.cli.common import (
    CommandGroup,
    Environment,
    SpecCommand,
    confirm,
    detach_option,
    json_option,
    pass_environment,
    run_stage,
    say,
    say_json,
    say_table,
    set_option,
    stage_settings,
    yes_option,
)
from workbench.cli.from_labels import from_labels
from workbench.cli.records import record_options, show_records, wants_records
from workbench.display import shortened
from workbench.records.lines import record_lines
from workbench.talking.desk_client import ask_once

EXAMPLES = 3
"""Examples of each filter that `data show` prints."""


class BuildCommand(SpecCommand):
    """Its help also lists the data that ships with the app."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Data that ships with the app"):
            formatter.write_dl([(name, f"{kind}: {what}") for name, (kind, what) in STARTERS.items()])
        super().format_epilog(ctx, formatter)


@click.group(cls=CommandGroup)
def data() -> None:
    """Datasets: check, build, list, show, delete."""


@data.command("build", cls=BuildCommand, spec=Build)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--name", help="Name of the new dataset.")
@click.option("--kind", help="What a record is: text, chat, preference, prompts or labelled; else as found.")
@click.option("--map", "mapping", multiple=True, metavar="OURS=THEIRS", help="Our name for one of their fields.")
@click.option("--split", help="Validation part: documents:0.1, tail:0.1 or none.")
@click.option("--replace", is_flag=True, default=None, help="Replace the dataset of this name.")
@click.option("--dry-run", is_flag=True, help="Show what would be read, as what, and build nothing.")
@set_option
@detach_option
@pass_environment
def build(
    env: Environment,
    sources: tuple[str, ...],
    name: str | None,
    kind: str | None,
    mapping: tuple[str, ...],
    split: str | None,
    replace: bool | None,
    dry_run: bool,
    pairs: tuple[str, ...],
    detach: bool,
) -> None:
    """Build a dataset from files and folders: read, clean, drop duplicates, split.

    A SOURCE is a file, a folder or a 'glob': text, source code, JSONL, JSON, CSV, TSV, Parquet or Arrow, or gzip of
    these; `-` for standard input; the id of a dataset in the local Hugging Face cache; or data that ships with the app.

    What the records are is found out; --kind and --map say it where that fails, --dry-run shows it. With --map, our
    names of fields are: text; prompt, completion, system, messages; chosen, rejected; answer; label, text2.
    """
    settings = stage_settings(
        env,
        "build",
        pairs,
        sources=list(sources) or None,
        kind=kind,
        mapping=list(mapping) or None,
        split=split,
        replace=replace,
    )
    if not settings.get("sources"):
        raise UserError("No source is given.", "For example: workbench data build notes/ --name notes.")
    if not dry_run:
        _check_free(env, name, replace=bool(settings.get("replace")))
    with _found(env, settings["sources"], name or "stdin", keep=not dry_run) as found:
        settings["sources"] = found
        if dry_run:
            _say_look(ask_once(env.workspace, "source.look", settings=settings))
            return
        assert name is not None
        run = run_stage(env, "build", name, settings, detach=detach)
    if not detach:
        _say_built(env, name, run)


@data.command("list")
@json_option
@pass_environment
def list_(env: Environment, as_json: bool) -> None:
    """List the datasets of the workspace."""
    say_table(
        [_row(dataset) for dataset in list_datasets(env.workspace)],
        {"name": "name", "kind": "kind", "train": "train", "val": "val", "bytes": "bytes", "split": "split"},
        as_json=as_json,
        empty="There is no dataset yet. `workbench data build starter:world --name world` makes one.",
    )


@data.command("show")
@click.argument("name", metavar="DATASET")
@record_options
@json_option
@pass_environment
def show(env: Environment, name: str, as_json: bool, **records: Any) -> None:
    """Show a dataset's report: sources, what each filter removed, and what could not be read.

    With --records, --search or --filter it shows records instead.
    """
    found = find_dataset(env.workspace, name)
    if wants_records(**records):
        show_records(env.workspace, name, as_json=as_json, **records)
        return
    if as_json:
        say_json(msgspec.to_builtins(found.info))
    else:
        say("\n".join(_report(found.info)))


@data.command("delete")
@click.argument("name", metavar="DATASET")
@yes_option
@pass_environment
def delete(env: Environment, name: str, yes: bool) -> None:
    """Delete a dataset that nothing needs."""
    from stages.store.lineage import delete_dataset

    find_dataset(env.workspace, name)
    confirm(f"Delete the dataset {name!r}?", yes)
    delete_dataset(env.workspace, name)
    say(f"Deleted the dataset {name}. `workbench bin restore {name}` takes it back.")


def _check_free(env: Environment, name: str | None, *, replace: bool) -> None:
    """Raise UserError unless a dataset may be made under this name."""
    if name is None:
        raise UserError("The new dataset has no name.", "Give it one with --name, or look first with --dry-run.")
    check_name(name, "name of a dataset")
    if not replace and (env.workspace.datasets / name / "dataset.json").exists():
        raise UserError(f"There is already a dataset {name!r}.", "Choose another name, or pass --replace.")


@contextmanager
def _found(env: Environment, sources: list[str], name: str, *, keep: bool) -> Iterator[list[str]]:
    """The sources as the worker finds them. Standard input becomes a file, which the worker removes.

    Without `keep`, and when no run has come of it, it is removed here.
    """
    if sources.count(STDIN) > 1:
        raise UserError("Standard input is named twice.", "Name it once.")
    found = [source if source == STDIN else absolute_source(source) for source in sources]
    if STDIN not in found:
        yield found
        return
    if sys.stdin.isatty():
        say("Reading standard input; end it with ctrl+d.")
    path = spool(sys.stdin.buffer, env.workspace.ensure().root, name)
    try:
        yield [str(path) if source == STDIN else source for source in found]
    except WorkFailed:
        raise  # a run that is lost may be resumed, and reads it again
    except UserError:
        path.unlink(missing_ok=True)
        raise
    finally:
        if not keep:
            path.unlink(missing_ok=True)


def _say_look(seen: dict[str, Any]) -> None:
    """What a build would read, for people."""
    say(f"{seen['kind']} records, from {seen['files']:,} {'file' if seen['files'] == 1 else 'files'}")
    for group in seen["groups"]:
        certainty = "" if group["certainty"] == 1.0 else f", {group['certainty']:.0%} of the first rows"
        say(f"  {group['shape']} ({group['form']}{certainty}): {group['count']:,} × {group['files'][0]}")
        if group["used"]:
            say(f"      record  {', '.join(group['used'])}")
        if group["meta"]:
            say(f"      meta    {', '.join(group['meta'])}")
    for record in seen["records"]:
        say("")
        for role, text in record_lines(record):
            say(f"  {role:<12}{shortened(text, 100)}")
    for part in seen["left_out"]:
        say(f"\n{part['name']}: {part['removed']:,}. {part['sentence']}")
    for problem in seen["problems"]:
        say(f"{_place(problem['file'], problem['line'], problem['field'])}: {problem['message']}")


def _place(file: str, line: int, field: str) -> str:
    where = ", ".join(filter(None, [f"line {line}" if line else "", field]))
    return f"{file}: {where}" if where else file


def _say_built(env: Environment, name: str, run: RunDir) -> None:
    if run.state().status != "finished":
        return
    info = find_dataset(env.workspace, name).info
    removed = sum(part.removed for part in info.filters)
    say(f"Built the dataset {name}: {_counts(info.records)} {info.kind} records, {_counts(info.bytes)} bytes.")
    say(f"Read as: {', '.join(dict.fromkeys(source.shape or 'text' for source in info.sources))}.")
    say(f"{removed:,} removed or left out, {info.problem_count:,} could not be read.")
    say(f"`workbench data show {name}` tells more.")


def _row(dataset: Dataset) -> dict[str, object]:
    info = dataset.info
    return {
        "name": dataset.name,
        "kind": info.kind,
        "train": info.records.get("train", 0),
        "val": info.records.get("val", 0),
        "bytes": sum(info.bytes.values()),
        "split": info.split,
        "digest": info.digest,
        "created": info.created,
    }


def _counts(parts: dict[str, int]) -> str:
    return " + ".join(f"{count:,} {split}" for split, count in parts.items()) or "0"


def _report(info: DatasetInfo) -> Iterator[str]:
    yield f"{info.name} · {info.kind} · {info.digest[:12]}"
    yield f"  records     {_counts(info.records)}, of {info.read:,} read"
    yield f"  characters  {_counts(info.characters)}"
    yield f"  bytes       {_counts(info.bytes)}"
    yield f"  split       {info.split}"
    yield f"  settings    {', '.join(_changed(info)) or 'the defaults'}"
    yield f"sources: {len(info.sources):,}"
    for source in info.sources[:20]:
        yield f"  {source.size:>14,} bytes  {source.path}{f'  ({source.shape})' if source.shape else ''}"
    if len(info.sources) > 20:
        yield f"  … and {len(info.sources) - 20:,} more"
    yield "filters:"
    for part in info.filters:
        yield from _filter(part)
    yield f"problems: {info.problem_count:,}"
    for problem in info.problems[:20]:
        yield f"  {_place(problem.file, problem.line, problem.field)}: {problem.message}"
    if info.problem_count > 20:
        yield f"  … and {info.problem_count - min(20, len(info.problems)):,} more"


def _filter(part: Filter) -> Iterator[str]:
    yield f"  {part.name}: {part.removed:,} removed, {part.changed:,} changed. {part.sentence}"
    for example in part.examples[:EXAMPLES]:
        yield f"      {shortened(example, 100)}"


def _changed(info: DatasetInfo) -> list[str]:
    defaults = {field.name: field.default for field in strict.fields(Build)}
    return [
        f"{key} = {value}" for key, value in info.settings.items() if key != "sources" and value != defaults.get(key)
    ]


data.add_command(check)
data.add_command(from_labels)
