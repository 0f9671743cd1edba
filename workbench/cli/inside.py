"""`workbench inside`: how likely a checkpoint finds each token of a text, and where it looks."""

from __future__ import annotations

import math
from typing import Any

import click

from workbench.cli.common import Environment, json_option, pass_environment, say, say_json, say_table
from workbench.display import displayable_line, shortened
from workbench.talking.desk_client import ask_once

LOOKED_AT = 4
"""Tokens that are named of those a token looks at."""
WORD = 24
"""Characters of a token that are printed."""
COMES_ABOUT = {
    "upto": ("read here", "read here: the log-probability of the label {} in nats, read at each token."),
    "without": ("by it", "by it: nats by which masking the token lowers the log-probability of {}; below 0 it rises."),
}
"""By field of a token: the column of how a label comes about, and what says so of the label."""


@click.command()
@click.argument("checkpoint", metavar="CKPT")
@click.argument("text")
@click.option("-n", "count", type=click.IntRange(1, 1_000), default=3, show_default=True, help="Candidates a token.")
@click.option("--layer", type=click.IntRange(1), help="Print the attention of this layer, counted from 1.")
@click.option("--head", type=click.IntRange(1), default=1, show_default=True, help="The head of that layer.")
@json_option
@pass_environment
def inside(
    env: Environment, checkpoint: str, text: str, count: int, layer: int | None, head: int, as_json: bool
) -> None:
    """Look inside a checkpoint: each token of TEXT with its log-probability and what was expected in its place.

    A decoder tells each token from those before it; of an encoder each is hidden in turn. A T5 reads what stands before
    => and writes what stands after it; without => each token is hidden in turn, or, once tuned, its own answer is told.
    A reward model scores the text up to each token, question => answer; a model that labels gives its probabilities at
    the token where it reads them, with => between a pair's texts or before each option, and tells how the label comes
    about: a decoder its log-probability read at each token, an encoder what masking each token takes from it.
    With --layer: where each token looks. `I` on a run in the app shows both, in colour.
    """
    asked: dict[str, Any] = {"checkpoint": checkpoint, "text": text}
    if layer is not None:
        found = ask_once(env.workspace, "inside.attention", **asked, layer=layer - 1, head=head - 1)
        say_json(found) if as_json else _say_attention(found)
        return
    found = ask_once(env.workspace, "inside.score", **asked, count=count)
    say_json(found) if as_json else _say_score(found)


def _say_score(found: dict[str, Any]) -> None:
    rows = [_row(token) for token in found["tokens"]]
    told = [token["logprob"] for token in found["tokens"] if token["logprob"] is not None]
    columns = {"token": "token"}
    if found["head"] == "reward":
        columns |= {"score": "score", "raw": "raw"}
    elif found["head"]:
        columns |= {"label": "label"}
    comes_about = [field for field in COMES_ABOUT if any(token[field] is not None for token in found["tokens"])]
    columns |= {field: COMES_ABOUT[field][0] for field in comes_about}
    if told or not found["head"]:
        columns |= {"probability": "p", "nats": "nats", "rank": "rank", "expected": "expected"}
    say_table(rows, columns, as_json=False, empty="There is no token in the text.")
    if told:
        perplexity = math.exp(min(-sum(told) / len(told), 700.0))
        say(f"{len(told):,} tokens, {sum(told):.3f} nats, perplexity {perplexity:,.4g}")
    if found["next"]:
        say(f"next: {_expected(found['next'])}")
    named = repr(_shown(found["label"]))
    for sentence in (*(COMES_ABOUT[field][1].format(named) for field in comes_about), found["note"], found["remark"]):
        if sentence:
            say(sentence)
    if found["left_out"]:
        say(f"The last {found['left_out']:,} tokens exceed the model's context.")


def _row(token: dict[str, Any]) -> dict[str, Any]:
    """A token as a row of the table; "" where nothing is known."""
    row: dict[str, Any] = dict.fromkeys(("score", "raw", "probability", "nats", "rank", "expected"), "")
    row["token"] = shortened(token["text"], WORD).replace(" ", "␣")
    row["label"] = _expected(token["labels"])
    row |= {field: "" if token[field] is None else round(token[field], 3) + 0.0 for field in COMES_ABOUT}
    if token["score"] is not None:
        row |= {"score": round(token["score"], 3) + 0.0, "raw": round(token["raw"], 3) + 0.0}
    if token["logprob"] is not None:
        row["probability"] = f"{math.exp(min(0.0, token['logprob'])):.1%}"
        row["nats"] = round(token["logprob"], 3) + 0.0  # no -0
        row |= {"rank": token["rank"], "expected": _expected(token["top"])}
    return row


def _say_attention(found: dict[str, Any]) -> None:
    tokens = found["tokens"]
    width = max(len(_shown(token)) for token in tokens)
    for number, (token, weights) in enumerate(zip(tokens, found["weights"], strict=True)):
        order = sorted(range(len(weights)), key=lambda at: -weights[at])[:LOOKED_AT]
        named = ", ".join(f"{at} {_shown(tokens[at])} {weights[at]:.0%}" for at in order if weights[at] >= 0.005)
        say(f"{number:>4}  {_shown(token):<{width}}  looks at {named}")
    if found["left_out"]:
        say(f"The last {found['left_out']:,} tokens are left out.")


def _expected(candidates: list[dict[str, Any]]) -> str:
    return ", ".join(f"{_shown(one['text'])} {one['probability']:.1%}" for one in candidates)


def _shown(text: str) -> str:
    return displayable_line(shortened(text, WORD)).replace(" ", "␣")
