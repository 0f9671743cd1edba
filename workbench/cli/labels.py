"""`workbench labels`: label sets, figures, files for other programs, backups."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from stages.store.errors import UserError, WorkFailed
from stages.store.files import path_of, temporary_beside
from stages.store.labels import Labels, LabelSet, open_labels
from stages.store.labels.backup import back_up, backups, restore
from stages.store.labels.export import FORMATS, Format, export
from stages.store.labels.figures import Agreement, figures, progress
from stages.store.labels.judged import Choice, judged, preference_of
from stages.store.labels.records import Mode
from stages.store.names import check_name
from stages.store.records import Part, Record
from stages.store.rundir import find_run
from workbench.cli.common import (
    CommandGroup,
    Environment,
    confirm,
    json_option,
    pass_environment,
    say,
    say_facts,
    say_json,
    say_table,
    yes_option,
)
from workbench.cli.elo import elo
from workbench.cli.model_labels import ask, by_model
from workbench.judging.freezing import refuse_unknown
from workbench.judging.label_sets import decoded, make_set, take_in_labels, tasks_of
from workbench.judging.labelling import annotator_name

PAGE = 2_000
MODES: tuple[Mode, ...] = get_args(Mode)


def choice_options(function: Any) -> Any:
    """Options that say which labels are meant."""
    for option in (
        click.option("--models", is_flag=True, help="Labels that a model gave, too."),
        click.option("--part", "parts", multiple=True, type=click.Choice(get_args(Part)), help="Only prompts of it."),
        click.option("--annotator", "annotators", multiple=True, help="Only this person's; repeatable."),
        click.option("--label-set", "sets", multiple=True, help="Only this label set; repeatable."),
    ):
        function = option(function)
    return function


@click.group(cls=CommandGroup)
def labels() -> None:
    """What people judged: make sets, figures, export, import, backups. Judging itself is done in the app (K)."""


@labels.command("sets")
@json_option
@pass_environment
def sets_(env: Environment, as_json: bool) -> None:
    """List the label sets."""
    rows = []
    if env.workspace.labels.is_file():
        with open_labels(env.workspace.labels) as opened:
            rows = [_row(opened, one, _annotator(env)) for one in opened.sets()]
    columns = {key: key for key in ("name", "mode", "prompts", "judged", "by_you")} | {"by_you": "by you"}
    empty = "There is no label set yet. `workbench labels new NAME --from DATASET` makes one."
    say_table(rows, columns, as_json=as_json, empty=empty)


@labels.command()
@click.argument("name")
@click.option("--from", "dataset", required=True, metavar="DATASET", help="Preferences, prompts or conversations.")
@click.option("--mode", type=click.Choice(MODES), help="How it is judged; left out: by the dataset's kind.")
@click.option("--people", type=click.IntRange(1, 100), help="People who judge each prompt.")
@click.option("--repeat-share", type=click.FloatRange(0, 0.5), help="Share of prompts silently asked again.")
@click.option("--rankings/--no-rankings", default=True, help="Take rankings that the dataset brings as labels.")
@pass_environment
def new(
    env: Environment,
    name: str,
    dataset: str,
    mode: Mode | None,
    people: int | None,
    repeat_share: float | None,
    rankings: bool,
) -> None:
    """Make a label set from a dataset."""
    from workbench.talking.desk_client import ask_once

    check_name(name, "name of a label set")
    settings = env.settings.labels
    with open_labels(env.workspace.ensure().labels) as opened:
        if name in {one.name for one in opened.sets()}:
            raise UserError(f"There is already a label set {name!r}.", "Choose another name.")
        records: list[Record] = []
        start, total = 0, 1
        while start < total:
            page = ask_once(env.workspace, "records.slice", dataset=dataset, start=start, count=PAGE)
            records += decoded(page["kind"], page["records"])
            start, total = start + PAGE, page["total"]
        chosen, taken = make_set(
            opened,
            name,
            page["kind"],
            records,
            dataset,
            mode=mode,
            people=people or settings.people,
            repeat_share=settings.repeat_share if repeat_share is None else repeat_share,
            rankings=rankings,
        )
    came = f" {taken:,} rankings came with it." if taken else ""
    say(f"Made the label set {name} of {chosen.prompts:,} prompts.{came} Judge it in the app: K, enter.")


@labels.command("import")
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@click.option("--name", required=True, help="The label set they go into; made where there is none.")
@pass_environment
def import_(env: Environment, sources: tuple[str, ...], name: str) -> None:
    """Take in rankings: our own export, TRL's and HH-RLHF's pairs, UltraFeedback, OpenAssistant trees.

    What is there already, by the same person on the same prompt, is left alone.
    """
    from workbench.talking.desk_client import ask_once

    check_name(name, "name of a label set")
    for source in sources:
        if not path_of(source).exists():
            raise UserError(f"There is no file or folder {source!r}.", f"The current folder is {Path.cwd()}.")
    paths = [str(path_of(source).absolute()) for source in sources]
    found = ask_once(env.workspace, "records.of_files", sources=paths, kind="preference")
    records, origin = decoded("preference", found["records"]), f"file:{Path(paths[0]).name}"
    with open_labels(env.workspace.ensure().labels) as opened:
        chosen = opened.add_set(name, "rank", tasks_of(records, origin))
        taken = take_in_labels(opened, chosen, records, origin)
    say(f"Took in {taken:,} rankings of {len(records):,} records into {name}; {chosen.prompts:,} prompts are in it.")
    if found["problem_count"]:
        first = found["problems"][0]
        place = f"{first['file']}, line {first['line']}: {first['message']}"
        say(f"{found['problem_count']:,} records could not be read, the first: {place}")


@labels.command()
@click.argument("run_name", metavar="RUN")
@click.option("--mode", type=click.Choice(("rank", "pair", "rate")), help="Left out: as the run says.")
@pass_environment
def take(env: Environment, run_name: str, mode: Mode | None) -> None:
    """Make a label set of what `workbench sample` has completed, or add what is new to it."""
    from workbench.cli.sample import take_in_run

    take_in_run(env, find_run(env.workspace, run_name), mode)


@labels.command()
@click.argument("name", required=False, metavar="[SET]")
@json_option
@pass_environment
def stats(env: Environment, name: str | None, as_json: bool) -> None:
    """How good labels are: biases, agreement with oneself and others, conflicts."""
    with _existing(env) as opened:
        far = progress(opened, name)
        found = figures(judged(opened, Choice(sets=(name,) if name else (), repeats=True, overruled=True)))
    if as_json:
        say_json({"progress": msgspec.to_builtins(far), **msgspec.to_builtins(found)})
        return
    facts = {
        **{one.set_name: f"{one.judged:,} of {one.prompts:,} prompts are judged" for one in far},
        "labels": ", ".join(f"{count:,} {kind}" for kind, count in found.by_kind.items()) or "none yet",
        "people": ", ".join(f"{who} {count:,}" for who, count in found.by_annotator.items()),
        "seconds": f"{found.median_seconds:.1f} (median)" if found.median_seconds is not None else "",
        "an hour": f"{found.per_hour:,.0f}, pauses left out" if found.per_hour else "",
        "longer wins": str(found.longer_wins) if found.longer_wins.of else "",
        **{f"best at place {number}": str(one) for number, one in enumerate(found.best_by_place, 1) if one.of},
        **{f"{one.who}, again": _agreed(one) for one in found.self_agreement},
        **{one.who: _agreed(one) for one in found.between},
        "conflicts": f"{len(found.conflicts):,} between people" if found.between else "",
        "turned round": f"{len(found.self_conflicts):,} on being asked again" if found.self_agreement else "",
        "settled": f"{found.settled:,}" if found.settled else "",
    }
    say_facts(facts)


def _agreed(one: Agreement) -> str:
    """Pairs ordered alike, and Kendall's τ where there is one, with intervals."""
    tau = f"; τ {one.tau[0]:+.2f} ({one.tau[1]:+.2f} to {one.tau[2]:+.2f})" if one.tau else ""
    return f"{one.pairs} of pairs alike{tau}, over {one.prompts:,} prompts"


@labels.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="kway", show_default=True)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@choice_options
@pass_environment
def export_(
    env: Environment,
    file: Path,
    form: Format,
    force: bool,
    sets: tuple[str, ...],
    annotators: tuple[str, ...],
    parts: tuple[Part, ...],
    models: bool,
) -> None:
    """Write rankings for other programs: kway and csv lose nothing; trl, trl-implicit, trl-text and hh are pairs."""
    if path_of(str(file)).is_dir():
        raise UserError(f"{file} is a folder.", "Name the file that is to be written.")
    if file.exists() and not force:
        raise UserError(f"{file} is there already.", "Choose another name, or pass --force.")
    lost = Counter[str]()
    with _existing(env) as opened:
        choice = Choice(sets=sets, annotators=annotators, parts=parts, models=models)
        refuse_unknown(opened, choice)
        records = [record for one in judged(opened, choice) if (record := preference_of(one)) is not None]
    count = _write(file, export(records, form, lost))
    say(f"Wrote {count:,} lines to {file}, from {len(records):,} rankings.")
    for sentence, times in lost.items():
        say(f"warning: {sentence} ({times:,}); kway and csv carry them.")


@labels.command()
@pass_environment
def backup(env: Environment) -> None:
    """Copy labels.db, verified, into labels-backups/ (also done whenever a labelling screen is left)."""
    made = back_up(env.workspace.labels)
    if made is None:
        raise UserError("There are no labels yet.")
    say(f"Wrote {made.path}: {made.labels:,} rows, verified.")


@labels.command("restore")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@yes_option
@pass_environment
def restore_(env: Environment, file: Path | None, yes: bool) -> None:
    """Put a backup (the newest, unless named) in the place of labels.db, which is kept beside it."""
    found = file or next(iter(backups(env.workspace.labels)), None)
    if found is None:
        raise UserError("There is no backup.", f"They are kept in {env.workspace.root / 'labels-backups'}.")
    confirm(f"Put {found} in the place of {env.workspace.labels}?", yes)
    made = restore(env.workspace.labels, found)
    before = f" What was there before is {made.kept.name}." if made.kept is not None else ""
    say(f"Restored {found}: {made.labels:,} rows.{before}")


def _row(opened: Labels, one: LabelSet, annotator: str) -> dict[str, object]:
    return {
        "name": one.name,
        "kind": "labels",
        "mode": one.mode,
        "prompts": one.prompts,
        "judged": opened.count(one.id),
        "by_you": opened.count(one.id, annotator),
        "people": one.people,
        "created": one.created,
    }


def _annotator(env: Environment) -> str:
    return annotator_name(env.settings.labels.annotator)


def _existing(env: Environment) -> Labels:
    if not env.workspace.labels.is_file():
        raise UserError("There are no labels yet.", "`workbench labels new NAME --from DATASET` makes a set to judge.")
    return open_labels(env.workspace.labels)


def _write(file: Path, lines: Iterable[str]) -> int:
    """Write a file beside its place and move it there; how many lines.

    UserError naming the file where it cannot be written, WorkFailed where the disk is full.
    """
    temporary = temporary_beside(file)
    count = 0
    try:
        with temporary.open("w", encoding="utf-8", newline="") as out:
            for line in lines:
                out.write(line)
                count += 1
        temporary.replace(file)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (WorkFailed if full else UserError)(f"{file} cannot be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


for command in (elo, by_model, ask):
    labels.add_command(command)
