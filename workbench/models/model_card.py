"""A model card in Markdown: what a checkpoint is, from what, by which recipe, how it went, how good it is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stages.store import strict
from stages.store.checkpoints import Checkpoint, Lineage
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.evaluations import FILE, Evaluation, read_evaluation
from stages.store.files import write_atomic
from stages.store.lineage import Ancestor, ancestry, parents_of
from stages.store.rundir import RunDir, list_runs
from stages.store.specs import STAGES
from stages.store.workspace import Workspace
from workbench.board.again import readable
from workbench.display import displayable_line
from workbench.plots.curves import Track
from workbench.plots.picture import Look, groups, picture
from workbench.plots.svg import svg_of

CARD, CURVES = "README.md", "curves.svg"


class Card(NamedTuple):
    """The card, and the picture beside it, if there are curves."""

    markdown: str
    curves: str


def card_of(workspace: Workspace, checkpoint: Checkpoint) -> Card:
    """The card of a checkpoint that was trained here. Raises UserError for one that was not."""
    lineage = checkpoint.lineage()
    if lineage is None:
        raise UserError(f"{checkpoint.path} was not trained here: nothing is known of it.")
    curves = _curves(checkpoint)
    parts = [
        f"# {_plain(lineage.name)}, step {lineage.step:,}",
        "\n".join(_facts(checkpoint, lineage)),
        "## Made from\n\n" + "\n".join(_parents(workspace, checkpoint, lineage)),
        "## Recipe\n\n" + "\n".join(_recipe(lineage)),
        f"## Curves\n\n![The loss as it fell]({CURVES})" if curves else "",
        "## How good it is\n\n" + "\n".join(_figures(workspace, checkpoint, lineage)),
        f"## Use\n\n    workbench chat {readable(workspace, str(checkpoint.path))}\n\n"
        "The folder opens with transformers' `from_pretrained` as it stands.",
    ]
    return Card("\n\n".join(part for part in parts if part) + "\n", curves)


def write_card(card: Card, folder: Path) -> None:
    """Write the card and its picture into a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}.") from error
    write_atomic(folder / CARD, card.markdown.encode())
    if card.curves:
        write_atomic(folder / CURVES, card.curves.encode())


def _facts(checkpoint: Checkpoint, lineage: Lineage) -> Iterator[str]:
    yield f"- stage: {lineage.stage}"
    yield f"- tokens seen: {lineage.tokens_seen:,}"
    if lineage.created:
        yield f"- written: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(lineage.created))}"
    yield f"- digest: `{checkpoint.digest()}`"


def _parents(workspace: Workspace, checkpoint: Checkpoint, lineage: Lineage) -> Iterator[str]:
    way = [f"{one.stage or 'imported'} `{_plain(one.name)}` to step {one.step:,}" for one in ancestry(checkpoint.path)]
    yield f"{' → '.join(way)}\n"
    for ancestor in parents_of(workspace, lineage.parents):
        yield f"- {ancestor.role}: `{_plain(_name(workspace, ancestor))}`, digest `{ancestor.digest}`{_note(ancestor)}"
        if ancestor.role == "dataset" and ancestor.state == "present":
            yield from _dataset(workspace, ancestor.name)


def _dataset(workspace: Workspace, name: str) -> Iterator[str]:
    info = find_dataset(workspace, name).info
    counts = ", ".join(f"{count:,} {split}" for split, count in info.records.items())
    yield f"  - {info.kind}, {counts} records, from {', '.join(_plain(one.path) for one in info.sources[:8])}"


def _name(workspace: Workspace, ancestor: Ancestor) -> str:
    return readable(workspace, ancestor.name) if "/" in ancestor.name else ancestor.name


def _note(ancestor: Ancestor) -> str:
    return {"present": "", "changed": " (what has this name now is another)", "gone": " (no longer here)"}[
        ancestor.state
    ]


def _recipe(lineage: Lineage) -> Iterator[str]:
    known = {field.name: field for field in strict.fields(STAGES[lineage.stage])} if lineage.stage in STAGES else {}
    yield "| setting | value | |"
    yield "|---|---|---|"
    for name, value in lineage.settings.items():
        changed = name in known and value != known[name].default
        yield f"| {name} | {_cell(value)} | {'set' if changed else ''} |"


def _figures(workspace: Workspace, checkpoint: Checkpoint, lineage: Lineage) -> Iterator[str]:
    yield "| measured | value | by |"
    yield "|---|---|---|"
    for name, value in sorted(lineage.metrics.items()):
        yield f"| {name} | {value:.4g} | its own run |"
    text = readable(workspace, str(checkpoint.path))
    for run, found in _evaluations(workspace):
        for row in found.rows:
            if row.checkpoint == text:
                for name, value in row.figures.items():
                    yield f"| {name} | {value:.4g} | {_plain(run)} |"
                for name, share in row.shares.items():
                    yield f"| {name} | {share}, {share.of:,} asked | {_plain(run)} |"


def _evaluations(workspace: Workspace) -> Iterator[tuple[str, Evaluation]]:
    for run in list_runs(workspace):
        if (run.path / FILE).is_file():
            try:
                yield run.spec().name, read_evaluation(run)
            except UserError:
                continue


def _curves(checkpoint: Checkpoint) -> str:
    """The first group of the run's curves, as SVG; nothing where the run is gone or logged none."""
    run = RunDir(checkpoint.path.parent.parent)
    if not run.metrics.is_file():
        return ""
    track = Track(run.metrics)
    track.catch_up()
    found = groups(track.whole.metrics())
    return svg_of(picture(track, found[0], Look())) if found else ""


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} = {each}" for key, each in value.items())
    return _plain("" if value is None else str(value)).replace("|", "\\|")


def _plain(text: str) -> str:
    """Foreign text in one harmless line."""
    return displayable_line(text)
