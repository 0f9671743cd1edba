"""Reports that people read: of a dataset, of a tokenizer, of a run that is to make one."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

from textual.content import Content

from stages.store.datasets import Dataset, DatasetInfo, Filter
from stages.store.tokenizers import Tokenizer
from workbench.board.run_board import Entry
from workbench.board.survey import Inventory
from workbench.display import content, line, shortened
from workbench.themes import STATUS_STYLES, STATUS_SYMBOLS
from workbench.wording import amount, summary

EXAMPLE_WIDTH = 200
"""Characters of an example that are shown."""
PROBLEMS = 100
"""Problems that are shown."""
BAR = 30
"""Cells of a progress bar."""


def dataset_report(dataset: Dataset, inventory: Inventory) -> Content:
    """What is in a dataset, what each filter removed, and what could not be read."""
    info = dataset.info
    parts = [
        _title(dataset.name, f"{info.kind} dataset, built {moment(info.created)}"),
        _sizes(info),
        _section("What the filters did", _filters(info)),
        _section(f"Problems ({info.problem_count:,})", _problems(info)) if info.problem_count else None,
        _section("Sources", _sources(info)),
        _section("Used by", _users(info, inventory)),
        Content.assemble("\n", line(f"digest {info.digest}", "$text-muted")),
    ]
    return Content("\n").join(part for part in parts if part is not None)


def tokenizer_report(tokenizer: Tokenizer) -> Content:
    """What a tokenizer is, and how well it fits the data it was trained on."""
    info = tokenizer.info
    special = ", ".join(f"{role} {number}" for role, number in info.special.items())
    facts = [
        ("entries", f"{info.vocab_size:,}"),
        ("special tokens", special or "none"),
        ("imported from", info.source) if info.source else ("trained on", info.dataset or "unknown"),
        ("bytes per token", f"{info.bytes_per_token:.2f}" if info.bytes_per_token is not None else "not measured"),
        ("round trips", f"{info.round_trips:,} of {info.round_trip_checked:,} texts decode to exactly themselves"),
        *([("sample", info.sample)] if info.sample else []),
        ("digest", info.digest),
        *(("note", note) for note in info.notes),
    ]
    rows = [Content.assemble((f"  {name:<16}", "$text-muted"), line(value)) for name, value in facts]
    made = "imported" if info.source else "trained"
    return Content("\n").join([_title(tokenizer.name, f"{info.type}, {made} {moment(info.created)}"), *rows])


def run_report(facts: Entry) -> Content:
    """Where a build or a tokenizer's training stands, or why it ended."""
    style = STATUS_STYLES[facts.status]
    parts = [_title(facts.name, f"{facts.spec.stage} run, begun {moment(facts.spec.created)}"), Content()]
    if facts.live and facts.share is not None:
        parts.append(progress_bar(facts.share))
    parts.append(Content.assemble((f"{STATUS_SYMBOLS[facts.status]} ", style), line(_standing(facts))))
    error = facts.state.error
    if facts.status == "failed" and error is not None:
        parts += [Content(), content(error.message, "$text-error"), content(error.hint)]
    elif facts.status == "lost":
        parts += [Content(), Content("Its worker is gone without a word: killed, or the machine restarted.")]
    keys = "x cancels it · enter shows the run" if facts.live else "a tries again · enter shows the run and its log"
    return Content("\n").join([*parts, Content(), Content.styled(keys, "$text-muted")])


def progress_bar(share: float) -> Content:
    """`━━━━━━━───── 43 %`."""
    full = round(share * BAR)
    return Content.assemble(("━" * full, "$accent"), ("─" * (BAR - full), "$border-blurred"), f" {share:.0%}")


def moment(seconds: float) -> str:
    """A time for people, in the zone of this machine."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "at an unknown time"


def _standing(facts: Entry) -> str:
    return summary(facts.state, facts.status)


def _title(name: str, what: str) -> Content:
    return Content.assemble(line(name, "bold $primary"), "  ", line(what, "$text-muted"))


def _section(title: str, lines: Iterable[Content]) -> Content:
    shown = list(lines) or [Content.styled("  nothing", "$text-muted")]
    return Content("\n").join([Content(), Content.styled(title, "bold"), *shown])


def _sizes(info: DatasetInfo) -> Content:
    rows = [Content.styled(f"  {'':<6}{'documents':>10}{'characters':>14}{'bytes':>14}", "$text-muted")]
    for split, records in info.records.items():
        figures = f"{records:>10,}{info.characters.get(split, 0):>14,}{info.bytes.get(split, 0):>14,}"
        rows.append(Content.assemble("  ", line(f"{split:<6}"), figures))
    kept = sum(info.records.values())
    what = f"  {info.read:,} records were read and {kept:,} kept; split {info.split or 'none'}."
    return Content("\n").join([*rows, line(what)])


def _filters(info: DatasetInfo) -> Iterator[Content]:
    for found in info.filters:
        style = "bold" if found.removed or found.changed else "$text-muted"
        yield Content.assemble((f"  {_did(found):<14}", style), line(found.sentence))
        for example in found.examples:
            yield Content.assemble(("    │ ", "$text-muted"), line(shortened(example, EXAMPLE_WIDTH), "$text-muted"))


def _did(found: Filter) -> str:
    parts = [f"{found.removed:,} removed"] if found.removed else []
    parts += [f"{found.changed:,} changed"] if found.changed else []
    return ", ".join(parts) or "none"


def _problems(info: DatasetInfo) -> Iterator[Content]:
    for problem in info.problems[:PROBLEMS]:
        place = f"  {problem.file}" + (f":{problem.line}" if problem.line else "")
        field = f" {problem.field}:" if problem.field else ""
        yield Content.assemble(line(place, "$text-warning"), line(f"{field} {problem.message}"))
    if info.problem_count > len(info.problems[:PROBLEMS]):
        yield Content.styled(f"  and {info.problem_count - len(info.problems[:PROBLEMS]):,} more", "$text-muted")


def _sources(info: DatasetInfo) -> Iterator[Content]:
    for source in info.sources[:50]:
        yield Content.assemble(
            "  ", line(source.path), line(f"  {amount(source.size, 'bytes')}  {source.sha256[:12]}", "$text-muted")
        )
    if len(info.sources) > 50:
        yield Content.styled(f"  and {len(info.sources) - 50:,} more", "$text-muted")


def _users(info: DatasetInfo, inventory: Inventory) -> Iterator[Content]:
    for tokenizer in inventory.tokenizers:
        if tokenizer.info.dataset_digest == info.digest:
            yield Content.assemble("  tokenizer ", line(tokenizer.name, "bold"))
    for facts in inventory.runs:
        if facts.digest("dataset") == info.digest and facts.spec.stage != "tokenizer":
            yield Content.assemble(line(f"  {facts.spec.stage} "), line(facts.name, "bold"), f"  {facts.status}")
