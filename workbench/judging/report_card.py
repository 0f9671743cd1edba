"""A reward model's report card in words, beside how far the annotators agree with one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.labels.figures import Agreement, figures
from stages.store.labels.judged import Choice, judged
from stages.store.rewards import Disagreement, ReportCard
from stages.store.statistics import Share, share
from stages.store.workspace import Workspace


class Ceiling(NamedTuple):
    """How far annotators agree about pairs. None where nothing tells."""

    others: Share | None
    """With one another."""
    selves: Share | None
    """Each with themselves, asked again."""


def ceiling(workspace: Workspace, card: ReportCard) -> Ceiling:
    """The agreement of those whose labels the card's dataset was made from, as labels.db has it now."""
    if not card.label_sets or not workspace.labels.is_file():
        return Ceiling(None, None)
    try:
        with open_labels(workspace.labels) as labels:
            known = {one.name for one in labels.sets()} & set(card.label_sets)
            if not known:
                return Ceiling(None, None)
            found = figures(judged(labels, Choice(sets=known, repeats=True, overruled=True)))
    except UserError:
        return Ceiling(None, None)
    return Ceiling(_together(found.between), _together(found.self_agreement))


def _together(agreements: Sequence[Agreement]) -> Share | None:
    pairs = [one.pairs for one in agreements]
    total = sum(one.of for one in pairs)
    return share(sum(one.hits for one in pairs), total) if total else None


def facts(card: ReportCard, agreed: Ceiling) -> dict[str, str]:
    """Names and values, in the order in which they are read."""
    return {
        "reward model": card.checkpoint,
        "judged on": f"{card.dataset}, {card.split}: {card.prompts:,} prompts, {card.completions:,} completions",
        "accuracy": f"{card.accuracy} of {card.accuracy.of:,} pairs that are not tied",
        "annotators": _agreement(agreed),
        "calibration": f"{100 * card.ece:.1f} % expected error",
        "length": _length(card),
        "scores": _scores(card),
    }


def _agreement(agreed: Ceiling) -> str:
    if agreed.others is not None:
        return f"agree about {agreed.others} of {agreed.others.of:,} pairs, the ceiling of accuracy"
    if agreed.selves is not None:
        return f"agree with themselves about {agreed.selves} of {agreed.selves.of:,} pairs"
    return "unknown how far they agree: no pair was judged by two of them, or twice"


def _length(card: ReportCard) -> str:
    if not card.longer_preferred.of:
        return "all answers of a prompt are equally long"
    parts = [
        f"the longer scores higher in {card.longer_scores_higher} of pairs, and is preferred in {card.longer_preferred}"
    ]
    if card.length_within is not None:
        parts.append(f"correlation {card.length_within:+.2f} within prompts")
    if card.length_correlation is not None:
        parts.append(f"{card.length_correlation:+.2f} over all")
    return "; ".join(parts)


def _scores(card: ReportCard) -> str:
    low, middle, high = (card.deciles[place] for place in (1, 5, 9))
    return (
        f"normalised: a tenth below {low:+.2f}, half below {middle:+.2f}, a tenth above {high:+.2f}; "
        f"raw: mean {card.scale.mean:+.3f}, deviation {card.scale.std:.3f}"
    )


def asked(one: Disagreement) -> str:
    """The last thing that was said before the completions."""
    return one.messages[-1].content if one.messages else ""
