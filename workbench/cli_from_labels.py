"""`workbench data from-labels`: freeze labels as a dataset, so that a stage can train on them."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator

import click
import msgspec

from stages.store.errors import UserError
from stages.store.labels import Labels, open_labels
from stages.store.labels.figures import figures
from stages.store.labels.judged import Choice, Judged, chat_of, judged, preference_of
from stages.store.names import check_name
from stages.store.records import Part, Record
from stages.store.sources import spool
from stages.store.specs.build import Build
from workbench.cli_common import House, SpecCommand, pass_house, run_stage, say, set_option, stage_settings
from workbench.cli_labels import choice_options


@click.command("from-labels", cls=SpecCommand, spec=Build)
@click.option("--name", required=True, help="Name of the new dataset.")
@click.option("--best", is_flag=True, help="A chat dataset of the answers that are best, or were written.")
@click.option("--agreed", is_flag=True, help="Leave out prompts about which two people are in conflict.")
@click.option("--since", metavar="DATE", help="Only labels given from this day on, as 2026-05-01 (UTC).")
@click.option("--until", metavar="DATE", help="Only labels given before this day.")
@choice_options
@set_option
@pass_house
def from_labels(
    house: House,
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
    if (house.workspace.datasets / name / "dataset.json").exists():
        raise UserError(f"There is already a dataset {name!r}.", "Choose another name.")
    if not house.workspace.labels.is_file():
        raise UserError("There are no labels yet.", "`workbench labels new NAME --from DATASET` makes a set to judge.")
    choice = Choice(
        sets=sets,
        annotators=annotators,
        parts=parts,
        models=models,
        since=day(since) if since else 0.0,
        until=day(until) if until else float("inf"),
    )
    with open_labels(house.workspace.labels) as labels:
        for one in sets:
            labels.find_set(one)
        records = list(frozen(labels, choice, best=best, agreed=agreed))
    if not records:
        raise UserError("No label that was chosen makes a record.", "Ask for more, or label some first.")
    kind = "chat" if best else "preference"
    settings = stage_settings(house, "build", pairs, kind=kind)
    data = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
    path = spool(io.BytesIO(data), house.workspace.ensure().root, name)
    try:
        run_stage(house, "build", name, {**settings, "sources": [str(path)]}, detach=False)
    finally:
        path.unlink(missing_ok=True)
    say(f"Froze {len(records):,} {'answers' if best else 'rankings'} as the dataset {name} of kind {kind}.")


def frozen(labels: Labels, choice: Choice, *, best: bool, agreed: bool) -> Iterator[Record]:
    """The records that the chosen labels make."""
    meant = list(judged(labels, choice))
    conflicts = {(one.set_name, one.place) for one in figures(meant).conflicts} if agreed else set()
    for one in meant:
        if (one.set_name, one.label.place) not in conflicts and (record := _record(one, labels, best)) is not None:
            yield record


def _record(one: Judged, labels: Labels, best: bool) -> Record | None:
    return chat_of(one, labels) if best else preference_of(one)


def day(text: str) -> float:
    """The start of a day in UTC, in seconds since the epoch."""
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=datetime.UTC).timestamp()
    except ValueError:
        raise UserError(f"{text!r} is no day.", "Give it as 2026-05-01.") from None
