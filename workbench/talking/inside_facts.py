"""What the desk tells of a text that a model has read, as it is shown: figures, colours and tables of its tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from workbench.board.rollout_facts import TITLES, level
from workbench.display import content, line, shortened

COLOURINGS = {
    "score": "score: above its mean, or below; pale 0.1, strong over 2 σ",
    "label": "the likeliest label: pale 90 %, strong under 10 %",
    "probability": TITLES["probability"],
    "upto": "p of the label read at each token: pale 90 %, strong under 10 %",
    "without": "by masking it: for the label, or against; pale 0.1, strong over 2 nats",
}
"""By what tokens are coloured, and what says so."""
LOOKED_AT = 5
"""Tokens that are named of those a token looks at."""
WORD, BAR = 14, 16
"""Cells of a candidate's text, and of the bar of a probability of 1."""


def begins_at(found: Mapping[str, Any]) -> int:
    """The token that is marked at first: where a head is read, else the end of the text."""
    if found["read_at"]:
        return int(found["read_at"][0])
    return max(0, len(found["tokens"]) - (0 if found["next"] else 1))


def colourings(found: Mapping[str, Any]) -> list[str]:
    """By what the tokens can be coloured."""
    by = {"reward": ["score"], "tokens": ["label"]}.get(found["head"], [])
    known = (("probability", "logprob"), ("upto", "upto"), ("without", "without"))
    return by + [name for name, field in known if any(token[field] is not None for token in found["tokens"])]


def levels(found: Mapping[str, Any], colouring: str) -> list[int]:
    """How strongly to colour each token; 0 where nothing is known of it. Below 0: a score below the mean."""
    return [_level(token, colouring) for token in found["tokens"]]


def _level(token: Mapping[str, Any], colouring: str) -> int:
    if colouring == "score" and token["score"] is not None:
        return level("advantage", float(token["score"]))
    if colouring == "label" and token["labels"]:
        return level("probability", math.log(max(1e-9, float(token["labels"][0]["probability"]))))
    if colouring == "probability" and token["logprob"] is not None:
        return level("probability", float(token["logprob"]))
    if colouring == "upto" and token["upto"] is not None:
        return level("probability", float(token["upto"]))
    if colouring == "without" and token["without"] is not None:
        return level("advantage", float(token["without"]))
    return 0


def summary(found: Mapping[str, Any]) -> str:
    """How a text was taken, in a line: tokens, what the head says, else nats each and perplexity."""
    tokens = found["tokens"]
    if not tokens:
        return "no text yet"
    parts = [f"{len(tokens):,} tokens", *(_verdict(found) if found["head"] else _likelihood(tokens))]
    parts += ["each hidden in turn"] if found["hides"] else []
    parts += [found["note"]] if found["note"] else []
    parts += [f"the last {found['left_out']:,} exceed the context"] if found["left_out"] else []
    return " · ".join(parts)


def _likelihood(tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    mean = sum(float(token["logprob"]) for token in tokens) / len(tokens)
    return [f"{mean:.2f} nats each", f"perplexity {math.exp(min(-mean, 700.0)):,.4g}"]


def _verdict(found: Mapping[str, Any]) -> list[str]:
    if not found["read_at"]:
        return []
    if found["head"] == "tokens":
        return [f"{len(found['read_at']):,} words labelled"]
    last = found["tokens"][found["read_at"][0]]
    if found["head"] == "reward":
        return [f"score {scored(last)}"]
    likeliest = last["labels"][0]
    return [f"says {shortened(str(likeliest['text']), 30)!r} {likeliest['probability']:.1%}"]


def scored(token: Mapping[str, Any]) -> str:
    """A token's score, normalised and raw."""
    return f"{token['score']:+.2f} (raw {token['raw']:.2f})"


def heading(found: Mapping[str, Any], at: int) -> str:
    """What the table of this token is of."""
    tokens = found["tokens"]
    if at >= len(tokens):
        return "what comes next"
    named = repr(shortened(str(tokens[at]["text"]), 20))
    if found["head"] == "reward":
        return f"up to {named}"
    if tokens[at]["labels"]:
        return f"label of {named}" if found["head"] == "tokens" else f"says at {named}"
    return f"expected for {named}" if tokens[at]["logprob"] is not None else f"at {named}"


def told(found: Mapping[str, Any], at: int) -> Content:
    """What the head says at a token, and what the model expected there; behind the text, what comes next."""
    tokens = found["tokens"]
    here = tokens[at] if at < len(tokens) else None
    if here is None:
        return Content("\n").join(_table(found["next"]))
    remark = [content(found["remark"], "$text-muted")] if found["remark"] else []
    parts = [_said(found, at), [*remark, *_expected(here, bold=not found["head"])]]
    return Content("\n\n").join(Content("\n").join(part) for part in parts if part)


def _said(found: Mapping[str, Any], at: int) -> list[Content]:
    """Rows of what the head says at a token, if there is one."""
    tokens, here = found["tokens"], found["tokens"][at]
    if here["score"] is not None:
        by_it = here["score"] - tokens[at - 1]["score"] if at else None
        step = f", {by_it:+.2f} by it" if by_it is not None else ""
        return [Content.styled(f"score {scored(here)}{step}", "bold")]
    comes_about = _comes_about(found, at)
    if here["labels"]:
        return [*comes_about, *_table(here["labels"], spaces=" ")]
    if found["head"] in ("", "tokens") or not found["read_at"]:
        return []
    place = found["read_at"][0]
    read = line(f"The label is read at {place} {shortened(str(tokens[place]['text']), 16)}.", "$text-muted")
    return [*comes_about, read]


def _comes_about(found: Mapping[str, Any], at: int) -> list[Content]:
    """A row of what a token does for the label of the whole text, where that is known."""
    tokens, here = found["tokens"], found["tokens"][at]
    named = repr(shortened(str(found["label"]), 20))
    if here["upto"] is not None:
        nats = float(here["upto"])
        begins = at == 0 or at - 1 in found["read_at"] or tokens[at - 1]["upto"] is None
        step = "" if begins else f", {nats - tokens[at - 1]['upto']:+.2f} by it"
        return [line(f"{named} {math.exp(min(0.0, nats)):.1%}, {nats:.2f} nats{step}", "bold")]
    if here["without"] is not None:
        nats = float(here["without"])
        return [line(f"masked, log p of {named} {'falls' if nats >= 0 else 'rises'} by {abs(nats):.2f} nats", "bold")]
    return []


def _expected(here: Mapping[str, Any], *, bold: bool) -> list[Content]:
    """Rows of what was expected in a token's place: how likely it was, then the likeliest, itself marked."""
    if here["logprob"] is None:
        return []
    share = math.exp(min(0.0, float(here["logprob"])))
    taken = f"{share:.1%}, {here['logprob']:.2f} nats, rank {here['rank']:,}, entropy {here['entropy']:.2f}"
    return [Content.styled(taken, "bold" if bold else ""), Content(), *_table(here["top"], str(here["text"]))]


def _table(candidates: Sequence[Mapping[str, Any]], marked: str | None = None, *, spaces: str = "␣") -> list[Content]:
    """A row a candidate, with a bar of its probability; `spaces` shows one in its text."""
    rows = []
    for candidate in candidates:
        share = float(candidate["probability"])
        style = "bold" if candidate["text"] == marked else ""
        word = shortened(str(candidate["text"]).replace(" ", spaces), WORD)
        rows.append(
            Content.assemble(
                Content.styled(f"{word:<{WORD}} ", style),
                Content.styled(f"{'█' * round(share * BAR):<{BAR}} ", "$primary"),
                Content.styled(f"{share:6.1%}", style),
            )
        )
    return rows


def looks_at(tokens: Sequence[str], weights: Sequence[float], row: int) -> Content:
    """The tokens that a token looks at most, with their weights."""
    order = sorted(range(len(weights)), key=lambda at: -weights[at])[:LOOKED_AT]
    named = ", ".join(f"{at} {shortened(tokens[at].strip() or tokens[at], 12)} {weights[at]:.0%}" for at in order)
    name = shortened(tokens[row].strip() or tokens[row], 16) if row < len(tokens) else ""
    return Content.assemble(line(f"{row} {name}", "bold"), " looks at: ", line(named, "$text-muted"))
