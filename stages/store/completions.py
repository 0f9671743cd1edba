"""completions.jsonl in the directory of a sampling run: a line a completion, taken into labels.db by the app."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec

from stages.store.labels.records import Candidate, Prompt
from stages.store.rundir import RunDir

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
        except msgspec.DecodeError:
            continue
    return found


def tasks_in(run: RunDir) -> list[tuple[Prompt, list[Candidate]]]:
    """Each prompt with its candidates in the order of k, ready to be a label set."""
    by_prompt: dict[int, list[Line]] = defaultdict(list)
    for line in read_completions(run):
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
                    sampling=one.sampling,
                    ended=one.ended,
                )
                for one in sorted(lines, key=lambda one: one.k)
            ],
        )
        for _, lines in sorted(by_prompt.items())
    ]
