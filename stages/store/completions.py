"""completions.jsonl in the directory of a sampling run: a line a completion, taken into labels.db by the app."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from stages.store import strict
from stages.store.labels.records import Candidate, Mode, Prompt
from stages.store.rundir import RunDir
from stages.store.specs.sample import Sample

FILE = "completions.jsonl"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The k-th completion of a prompt, which is numbered from 0 in the order of the run."""

    prompt: int
    k: int
    asked: Prompt
    text: str
    checkpoint: str
    digest: str
    sampling: dict[str, Any]
    ended: str


def read_completions(run: RunDir) -> list[Line]:
    """All whole lines, in the order in which they were written; a line that is torn or damaged is passed over."""
    try:
        data = (run.path / FILE).read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in data.split(b"\n"):
        try:
            found.append(msgspec.json.decode(line, type=Line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return found


def tasks_in(run: RunDir) -> list[tuple[Prompt, list[Candidate]]]:
    """Each prompt whose completions are all there, with its candidates in the order of k, ready to be a label set.

    So that a run may be taken in as it goes on: a prompt comes when it is complete, and once.
    """
    count = int(run.spec().settings["k"])
    by_prompt: dict[int, list[Line]] = defaultdict(list)
    for line in {(line.prompt, line.k): line for line in read_completions(run)}.values():
        by_prompt[line.prompt].append(line)
    return [
        (
            lines[0].asked,
            [
                Candidate(
                    run=run.id,
                    k=one.k,
                    text=one.text,
                    checkpoint=one.checkpoint,
                    sampling={**one.sampling, "digest": one.digest},
                    ended=one.ended,
                )
                for one in sorted(lines, key=lambda one: one.k)
            ],
        )
        for _, lines in sorted(by_prompt.items())
        if len(lines) == count
    ]


def answered_alike(candidates: Sequence[Candidate]) -> bool:
    """Whether the answers to a prompt are all the same text, so that there is nothing to compare."""
    return len({one.text for one in candidates}) <= 1


def judged_by(run: RunDir) -> Mode:
    """How the label set of a run is judged."""
    return mode_of(strict.parse(Sample, run.spec().settings, str(run.path / "spec.json"), "settings."))


def mode_of(settings: Sample) -> Mode:
    """How completions are judged that are sampled so."""
    if settings.judged_by == "auto":
        return "pair" if settings.k == 2 else "rank"
    return settings.judged_by
