"""Contamination: training records that repeat what an evaluation asks.

Source: Brown et al., Language Models are Few-Shot Learners (arXiv 2005.14165), appendix C: n-grams of 13 words, in
lower case and without punctuation. There, shorter evaluation texts are compared by shorter n-grams; here, a prompt of
fewer than n words must be found as a whole, since its n-grams would be anybody's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from stages.data.hashing import Hashes, bare_words, ngrams, word_hashes
from stages.data.judging import prompt_of
from stages.data.records import read_records
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.names import nearest
from stages.store.records import Record, TextRecord, texts_in
from stages.store.sources import STARTER, STARTERS
from stages.store.workspace import Workspace

MOST = 20_000_000
"""N-grams of evaluation sets, at 8 bytes each."""


class Contamination:
    """The n-grams and short prompts of evaluation records, and whether a record has one of them."""

    def __init__(self, records: Iterable[Record], n: int) -> None:
        self._n = n
        self._prompts: set[str] = set()
        parts: list[Hashes] = [np.empty(0, np.uint64)]
        size = 0
        for record in records:
            prompt = bare_words(_asked(record))
            if 0 < len(prompt) < n:
                self._prompts.add(" ".join(prompt))
            parts += [ngrams(word_hashes(bare_words(text)), n) for text in texts_in(record)]
            size += len(parts[-1])
            if size > MOST:
                raise UserError(
                    f"There are more than {MOST:,} n-grams to compare with.", "Name evaluation sets, not training data."
                )
        self._ngrams = np.unique(np.concatenate(parts))

    def found(self, record: Record) -> str:
        """The words that a record shares with the evaluation; empty when there are none."""
        prompt = bare_words(_asked(record))
        if 0 < len(prompt) < self._n and " ".join(prompt) in self._prompts:
            return " ".join(prompt)
        for text in texts_in(record) if len(self._ngrams) else []:
            words = bare_words(text)
            hashes = ngrams(word_hashes(words), self._n)
            place = np.minimum(np.searchsorted(self._ngrams, hashes), len(self._ngrams) - 1)
            hits = np.flatnonzero(self._ngrams[place] == hashes)
            if len(hits):
                return " ".join(words[hits[0] : hits[0] + self._n])
        return ""


def _asked(record: Record) -> str:
    return record.text if isinstance(record, TextRecord) else prompt_of(record)


def evaluation_records(
    names: list[str], workspace: Workspace | None, check: Callable[[], object] = lambda: None
) -> Iterator[Record]:
    """The records of datasets and of `starter:` sources. UserError for a name that there is not."""
    for name in names:
        for record in _records(name, workspace):
            check()
            yield record


def _records(name: str, workspace: Workspace | None) -> Iterator[Record]:
    if name in STARTERS:
        from stages.data.starters import starter_records  # it generates a world: not for everybody who cleans

        yield from starter_records(name, lambda count: None)
    elif name.startswith(STARTER):
        raise UserError(f"There is no starter data {name!r}.", nearest(name, STARTERS))
    elif workspace is None:
        raise UserError(f"There is no dataset {name!r}: there is no workspace here.")
    else:
        dataset = find_dataset(workspace, name)
        for split in dataset.info.records:
            yield from read_records(dataset, split)
