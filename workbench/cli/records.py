"""`workbench data show NAME --records 5`: records on the command line, by the functions that the app uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.handmade import record_from
from stages.store.workspace import Workspace
from workbench.cli.common import say, say_json
from workbench.records.pieces import pieces
from workbench.talking.desk_client import ask_once

MOST = 1_000
"""Records that one command prints."""
FEW = 5
"""Records that it prints where nobody says how many."""


def record_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of `data show` that choose records."""
    for option in (
        click.option("--filter", default="", help="Only records such as role:system length>500 source:wiki label:x."),
        click.option("--split", default="train", show_default=True, help="The split they are in."),
        click.option("--search", default="", metavar="TEXT", help="Only records that have TEXT, whatever the case."),
        click.option("--from", "first", type=int, default=1, metavar="N", help="Begin with record N, from 1."),
        click.option("--records", "count", type=int, metavar="N", help="Show N records, whole."),
    ):
        command = option(command)
    return command


def wants_records(*, count: int | None, search: str, filter: str, **_: object) -> bool:  # noqa: A002
    """Whether the options ask for records rather than the report."""
    return count is not None or bool(search) or bool(filter)


def show_records(
    workspace: Workspace,
    name: str,
    *,
    count: int | None = None,
    first: int = 1,
    split: str = "train",
    search: str = "",
    filter: str = "",  # noqa: A002
    as_json: bool = False,
) -> None:
    """Print `count` records from number `first` on, which counts from 1; with `search`, those that have the text."""
    info = find_dataset(workspace, name).info
    count = FEW if count is None else count
    if not 1 <= count <= MOST:
        raise UserError(f"--records takes a number from 1 to {MOST:,}.")
    if first < 1:
        raise UserError("--from takes a number from 1 on: the first record is 1.")
    view: dict[str, Any] = {"dataset": name, "split": split, "filter": filter}
    answer = ask_once(workspace, "records.find", **view, text=search, start=first - 1, count=count)
    if as_json:
        say_json([{"number": entry["number"] + 1, **entry["record"]} for entry in answer["records"]])
        return
    for entry in answer["records"]:
        record = record_from(entry["record"], info.kind)
        assert record is not None
        say(f"── {split} {entry['number'] + 1:,} of {info.records[split]:,}")
        say("".join(text for text, _ in pieces(record)).rstrip("\n"))
        say("")
    if not answer["records"]:
        say("There is no such record." if search or filter else f"The split {split} ends before record {first:,}.")
