"""A small set of prompts with four candidates each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.store.labels import Candidate, Labels, LabelSet, Prompt, open_labels
from stages.store.records import Message

MakeSet = Callable[..., LabelSet]


@pytest.fixture
def labels(tmp_path: Path) -> Iterator[Labels]:
    with open_labels(tmp_path / "labels.db") as opened:
        yield opened


def tasks(count: int, k: int = 4) -> list[tuple[Prompt, list[Candidate]]]:
    """`count` prompts with `k` different candidates each."""
    return [
        (
            Prompt(messages=[Message("user", f"Question {number}?")], part="reward"),
            [Candidate(run="a-run", k=place, text=f"Answer {number}.{place}", checkpoint="m@1") for place in range(k)],
        )
        for number in range(count)
    ]
