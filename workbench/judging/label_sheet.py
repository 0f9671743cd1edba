"""How good the labels of a set are, as lines with bars: progress, speed, biases, agreement, conflicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from textual.content import Content

from stages.store.labels import LabelSet
from stages.store.labels.figures import Agreement, Conflict, Figures, Progress
from stages.store.statistics import Share
from workbench.display import content, line
from workbench.wording import duration

BAR, SHORT = 20, 14
"""Cells of a bar, and where there is less room."""
DAYS = 14
"""Days of work that are drawn, the latest."""
LISTED = 20
"""Disagreements that are named on the sheet; c lists all."""


def sheet_of(chosen: LabelSet, far: Progress, found: Figures, bar: int = BAR) -> Iterator[Content]:
    """The figures of a set as lines, with bars of so many cells."""
    yield from _facts(chosen, far, found, bar)
    if len(found.by_day) > 1:
        yield from _titled("Labels by day (UTC)")
        most = max(found.by_day.values())
        for day, count in list(found.by_day.items())[-DAYS:]:
            yield Content.assemble(_name(day), _filled(count / most, bar), f" {count:,}")
    if any(place.of for place in found.best_by_place):
        yield from _titled("Ranked alone at the top, by place on the screen (without bias alike)")
        for number, place in enumerate(found.best_by_place, 1):
            yield Content.assemble(_name(f"place {number}"), _bar(place, bar))
    if found.longer_wins.of:
        yield from _titled("The longer of two was preferred (without bias one in two)")
        yield Content.assemble(_name("longer"), _bar(found.longer_wins, bar))
    for title, agreements in (
        ("Agreement with oneself, on prompts asked again", found.self_agreement),
        ("Agreement between people", found.between),
    ):
        if agreements:
            yield from _titled(title)
            yield from (_agreement(one, bar) for one in agreements)
    yield from _disagreements(found)


def named(conflict: Conflict) -> Content:
    """A disagreement on one line."""
    one, other = conflict.annotators
    who = f"{one} and {other}" if one != other else f"{one}, asked again"
    tau = f"  τ {conflict.tau:+.2f}" if conflict.tau is not None else ""
    return line(f"prompt {conflict.place + 1:,}: {who}{tau}")


def _facts(chosen: LabelSet, far: Progress, found: Figures, bar: int) -> Iterator[Content]:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.by_kind.items()) or "none yet"
    mode = f"{chosen.mode}, {chosen.people} for each prompt" if chosen.people > 1 else chosen.mode
    yield Content.assemble(_name("judged by"), mode)
    share = far.judged / far.prompts if far.prompts else 0.0
    yield Content.assemble(_name("progress"), _filled(share, bar), f" {far.judged:,} of {far.prompts:,} prompts")
    yield Content.assemble(_name("labels"), kinds)
    if far.by_annotator:
        people = ", ".join(f"{who} {count:,}" for who, count in far.by_annotator.items())
        yield Content.assemble(_name("people"), line(people))
    if found.median_seconds is not None:
        rate = f", {found.per_hour:,.0f} an hour at work" if found.per_hour else ""
        yield Content.assemble(_name("time"), f"{duration(found.median_seconds)} (median){rate}")


def _disagreements(found: Figures) -> Iterator[Content]:
    every: Sequence[Conflict] = [*found.conflicts, *found.self_conflicts]
    if not every and not found.settled:
        return
    yield Content()
    count = f"{len(every):,} disagreement{'s' if len(every) != 1 else ''} to settle"
    settled = f", {found.settled:,} settled" if found.settled else ""
    hint = "   c lists them" if every else ""
    yield Content.assemble((count + settled, "$warning" if every else "$text-muted"), (hint, "$text-muted"))
    for one in every[:LISTED]:
        yield Content.assemble("  ", named(one))


def _titled(title: str) -> Iterator[Content]:
    yield Content()
    yield Content.styled(title, "$text-muted")


def _agreement(one: Agreement, bar: int) -> Content:
    tau = f"  τ {one.tau[0]:+.2f} ({one.tau[1]:+.2f} to {one.tau[2]:+.2f})" if one.tau else ""
    prompts = f"  over {one.prompts:,} prompt{'s' if one.prompts > 1 else ''}"
    return Content.assemble(_name(one.who), _bar(one.pairs, bar), content(tau + prompts))


def _bar(share: Share, cells: int) -> Content:
    return Content.assemble(_filled(share.value or 0.0, cells), f" {share}")


def _filled(share: float, cells: int) -> Content:
    filled = cells if share >= 1 else min(round(share * cells), cells - 1)  # full means all
    return Content.assemble(("█" * filled, "$primary"), ("░" * (cells - filled), "$text-muted"))


def _name(text: str) -> Content:
    shown = line(text, "$text-muted").truncate(15, ellipsis=True)
    return shown.pad_right(16 - shown.cell_length)
