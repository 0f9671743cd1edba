"""`workbench data`: build datasets, list them, show what one holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from stages.store.datasets import Dataset, DatasetInfo, Filter, find_dataset, list_datasets
from stages.store.errors import UserError
from stages.store.names import check_name
from stages.store.specs.build import Build
from workbench.cli_common import (
    House,
    SpecCommand,
    confirm,
    detach_option,
    json_option,
    pass_house,
    run_stage,
    say,
    say_json,
    say_table,
    set_option,
    stage_settings,
)
from workbench.display import shortened

EXAMPLES = 3
"""Examples of each filter that `data show` prints."""


@click.group()
def data() -> None:
    """Datasets: build, list, show, delete."""


@data.command("build", cls=SpecCommand, spec=Build)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--name", required=True, help="Name of the new dataset.")
@click.option("--kind", help="What a record is; text in this version.")
@click.option("--split", help="Validation part: documents:0.1, tail:0.1 or none.")
@click.option("--replace", is_flag=True, default=None, help="Replace the dataset of this name.")
@set_option
@detach_option
@pass_house
def build(
    house: House,
    sources: tuple[str, ...],
    name: str,
    kind: str | None,
    split: str | None,
    replace: bool | None,
    pairs: tuple[str, ...],
    detach: bool,
) -> None:
    """Build a dataset from files and folders: read, clean, drop duplicates, split.

    A SOURCE is a .txt, .md, source-code or .jsonl file, a folder of these, or data that ships with the app:
    starter:world (generated for small models) and starter:sentences.
    """
    check_name(name, "name of a dataset")
    given = [_source(text) for text in sources] or None
    settings = stage_settings(house, "build", pairs, sources=given, kind=kind, split=split, replace=replace)
    if not settings.get("sources"):
        raise UserError("No source is given.", "For example: workbench data build notes/ --name notes.")
    if not settings.get("replace") and (house.workspace.datasets / name / "dataset.json").exists():
        raise UserError(f"There is already a dataset {name!r}.", "Choose another name, or pass --replace.")
    run_stage(house, "build", name, settings, detach=detach)
    if not detach:
        _say_built(house, name)


@data.command("list")
@json_option
@pass_house
def list_(house: House, as_json: bool) -> None:
    """List the datasets of the workspace."""
    say_table(
        [_row(dataset) for dataset in list_datasets(house.workspace)],
        {"name": "name", "kind": "kind", "train": "train", "val": "val", "bytes": "bytes", "split": "split"},
        as_json=as_json,
        empty="There is no dataset yet. `workbench data build starter:world --name world` makes one.",
    )


@data.command("show")
@click.argument("name")
@json_option
@pass_house
def show(house: House, name: str, as_json: bool) -> None:
    """Show a dataset's report: sources, what each filter removed, and what could not be read."""
    found = find_dataset(house.workspace, name)
    if as_json:
        say_json(msgspec.to_builtins(found.info))
    else:
        say("\n".join(_report(found.info)))


@data.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_house
def delete(house: House, name: str, yes: bool) -> None:
    """Delete a dataset that nothing needs."""
    from stages.store.lineage import delete_dataset

    find_dataset(house.workspace, name)
    confirm(f"Delete the dataset {name!r}?", yes)
    delete_dataset(house.workspace, name)
    say(f"Deleted the dataset {name}.")


def _source(text: str) -> str:
    """A source as the worker, which stands in another folder, can find it; UserError when it is not there."""
    if text.startswith("starter:"):
        return text
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise UserError(f"There is no file or folder {text!r}.", f"The current folder is {Path.cwd()}.")
    return str(path)


def _say_built(house: House, name: str) -> None:
    info = find_dataset(house.workspace, name).info
    removed = sum(part.removed for part in info.filters)
    say(f"Built the dataset {name}: {_counts(info.records)} documents, {_counts(info.bytes)} bytes.")
    say(f"{removed:,} removed, {info.problem_count:,} could not be read; `workbench data show {name}` tells more.")


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
        yield f"  {source.size:>14,} bytes  {source.path}"
    if len(info.sources) > 20:
        yield f"  … and {len(info.sources) - 20:,} more"
    yield "filters:"
    for part in info.filters:
        yield from _filter(part)
    yield f"problems: {info.problem_count:,}"
    for problem in info.problems[:20]:
        place = ", ".join(filter(None, [f"line {problem.line}" if problem.line else "", problem.field]))
        yield f"  {problem.file}{': ' + place if place else ''}: {problem.message}"
    if info.problem_count > 20:
        yield f"  … and {info.problem_count - min(20, len(info.problems)):,} more"


def _filter(part: Filter) -> Iterator[str]:
    yield f"  {part.name}: {part.removed:,} removed, {part.changed:,} changed. {part.sentence}"
    for example in part.examples[:EXAMPLES]:
        yield f"      {shortened(example, 100)}"


def _changed(info: DatasetInfo) -> list[str]:
    defaults = {field.name: field.default for field in msgspec.structs.fields(Build)}
    return [
        f"{key} = {value}" for key, value in info.settings.items() if key != "sources" and value != defaults.get(key)
    ]
