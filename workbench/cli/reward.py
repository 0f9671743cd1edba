"""`workbench reward report` and `workbench score`: what a reward model makes of ranked answers, and of any answer."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError
from stages.store.files import path_of
from stages.store.records import Message
from stages.store.rewards import ReportCard, read_card
from stages.store.specs.report import Report
from workbench.cli.common import (
    CommandGroup,
    Environment,
    SpecCommand,
    json_option,
    judged,
    pass_environment,
    say,
    say_facts,
    say_json,
    say_table,
    set_option,
)
from workbench.display import shortened
from workbench.judging.report_card import asked, ceiling, facts

SHOWN = 8
"""Disagreements that are printed."""
TOGETHER = 200
"""Answers that are scored in one request."""


class Answer(msgspec.Struct, frozen=True):
    """A line of a file of answers to score: a conversation, or a prompt as text, and a completion."""

    completion: str
    messages: list[Message] = []
    prompt: str = ""


@click.group(cls=CommandGroup)
def reward() -> None:
    """Reward models: the report card. `workbench train reward` trains one, `workbench score` scores with it."""


@reward.command(cls=SpecCommand, spec=Report)
@click.argument("checkpoint", metavar="CKPT")
@click.option("--data", "dataset", metavar="NAME", help="Rankings to judge; left out: those held out in training.")
@set_option
@json_option
@pass_environment
def report(env: Environment, checkpoint: str, dataset: str | None, pairs: tuple[str, ...], as_json: bool) -> None:
    """How good a reward model is: accuracy against the annotators' agreement, calibration, length, disagreements.

    Without --data it shows the card that a training run wrote at its end, or an earlier report by its name.
    """
    card = read_card(judged(env, "report", "report", checkpoint, dataset, pairs))
    say_card(env, card, as_json=as_json)


def say_card(env: Environment, card: ReportCard, *, as_json: bool) -> None:
    """The facts, how sure and how right, and some disagreements."""
    agreed = ceiling(env.workspace, card)
    if as_json:
        agreement = {"annotators": agreed.others, "themselves": agreed.selves}
        say_json({**msgspec.to_builtins(card), "agreement": agreement})
        return
    say_facts(facts(card, agreed))
    rows = [
        {"sure": f"{100 * one.confidence:.0f} %", "right": f"{100 * one.accuracy:.0f} %", "pairs": one.pairs}
        for one in card.bins
    ]
    say_table(rows, {"sure": "sure", "right": "right", "pairs": "pairs"}, as_json=False, empty="")
    for one in card.worst[:SHOWN]:
        say(
            f"{shortened(asked(one), 50)}: {one.annotator or 'the annotator'} prefers {shortened(one.better, 40)!r} "
            f"({one.better_score:+.2f}) to {shortened(one.worse, 40)!r} ({one.worse_score:+.2f})"
        )


@click.command()
@click.argument("checkpoint", metavar="CKPT")
@click.option("--prompt", metavar="TEXT", help="What was asked.")
@click.option("--answer", "answers", multiple=True, metavar="TEXT", help="What was answered; repeatable.")
@click.option("--file", metavar="FILE|-", help="JSON lines: prompt (or messages) and completion.")
@json_option
@pass_environment
def score(
    env: Environment, checkpoint: str, prompt: str | None, answers: tuple[str, ...], file: str | None, as_json: bool
) -> None:
    """Score answers with a reward model, in the order given: raw, and normalised on its reference samples."""
    wanted = _read(file) if file else [Answer(text, prompt=prompt or "") for text in answers]
    if (file is None) != bool(prompt and answers):
        raise UserError("There is nothing to score.", "Give --prompt and --answer, or --file.")
    folder = str(resolve_checkpoint(env.workspace, checkpoint).path)
    rows = []
    for start in range(0, len(wanted), TOGETHER):
        rows += _scored(env, folder, wanted[start : start + TOGETHER], start)
    columns = {"normal": "score", "raw": "raw", "prompt": "prompt", "completion": "answer"}
    say_table(rows if as_json else [_short(row) for row in rows], columns, as_json=as_json, empty="Nothing to score.")


def _scored(env: Environment, folder: str, answers: list[Answer], first: int) -> list[dict[str, Any]]:
    from workbench.talking.desk_client import ask_once

    talks = [one.messages or [Message("user", one.prompt)] for one in answers]
    said = [{"messages": talk, "completion": one.completion} for talk, one in zip(talks, answers, strict=True)]
    found = ask_once(env.workspace, "reward.score", folder=folder, answers=said)
    return [
        {"name": str(number), "kind": "score", "prompt": talk[-1].content, "completion": one.completion, **row}
        for number, (talk, one, row) in enumerate(zip(talks, answers, found, strict=True), first)
    ]


def _short(row: dict[str, Any]) -> dict[str, Any]:
    if row["why"]:
        return {"normal": "–", "prompt": shortened(row["prompt"], 40), "completion": row["why"]}
    texts = {"prompt": shortened(row["prompt"], 40), "completion": shortened(row["completion"], 60)}
    return {"normal": f"{row['normal']:+.3f}", "raw": f"{row['raw']:+.3f}", **texts}


def _read(file: str) -> list[Answer]:
    """The answers of a file. UserError naming the first line that cannot be read."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else path_of(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                found.append(msgspec.json.decode(line, type=Answer))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise UserError(f"{file}, line {number}: {error}.", 'Write {"prompt": …, "completion": …}.') from error
    return found
