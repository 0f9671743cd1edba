"""Near duplicates: the estimate against the exact similarity and against datasketch, in every script."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash

from stages.data.cleaning import Cleaner
from stages.data.near_duplicates import NearDuplicates, signature, similarity
from stages.store.records import TextRecord
from stages.store.specs.build import Build
from tests.stages.data.parts import build

N = 9
ALPHABETS = {
    "latin": "etaoin shrdlu cmfwyp",
    "han": "的一是不了人我在有他这中大来上国",
    "kana": "あいうえおかきくけこさしすせそ",
}


def written(alphabet: str, size: int, seed: int) -> str:
    chosen = random.Random(seed)
    return "".join(chosen.choice(alphabet) for _ in range(size))


def altered(text: str, edits: int, seed: int) -> str:
    chosen, characters = random.Random(seed), list(text)
    for place in chosen.sample(range(len(characters)), edits):
        characters[place] = "§"
    return "".join(characters)


def runs(text: str) -> set[str]:
    plain = " ".join(text.lower().split())
    return {plain[place : place + N] for place in range(len(plain) - N + 1)}


def classical(text: str) -> MinHash:
    made = MinHash(128)
    made.update_batch([run.encode() for run in runs(text)])
    return made


@pytest.mark.parametrize("size", [40, 400, 4_000])
def test_the_estimate_is_as_good_as_datasketchs(size: int) -> None:
    ours, theirs = [], []
    for seed in range(40):
        one = written(ALPHABETS["latin"], size, seed)
        other = altered(one, seed % 5 * size // 200, seed)
        exact = len(runs(one) & runs(other)) / len(runs(one) | runs(other))
        ours.append(similarity(signature(one, N), signature(other, N)) - exact)
        theirs.append(classical(one).jaccard(classical(other)) - exact)
    assert abs(np.mean(ours)) < 0.02  # the standard error of the mean is 0.035 / √40
    assert np.std(ours) < max(0.05, 1.5 * float(np.std(theirs)))


def found(path: Path, texts: list[str], *, threshold: float = 0.8, limit: int = 1_000) -> list[bool]:
    index = NearDuplicates(path / "index", threshold, N, limit)
    try:
        return [index.is_known(text) for text in texts]
    finally:
        index.close()


@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)
def test_the_first_of_a_group_is_kept_in_every_script(tmp_path: Path, alphabet: str) -> None:
    one, other = written(alphabet, 1_500, 1), written(alphabet, 1_500, 2)
    texts = [one, other, altered(one, 4, 3), f"  {other.upper()}\n", altered(one, 400, 4), altered(other, 3, 5)]
    assert found(tmp_path, texts) == [False, False, True, True, False, True]
    assert list(tmp_path.iterdir()) == []


def test_short_and_empty_texts_are_compared_as_they_are(tmp_path: Path) -> None:
    assert found(tmp_path, ["", "yes", "Yes", "no", "", "what is 3 + 4?", "what is 9 + 4?"]) == [
        False,
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_beyond_the_limit_nothing_is_compared_and_the_report_says_so(tmp_path: Path) -> None:
    texts = [written(ALPHABETS["latin"], 300, seed) for seed in range(4)]
    assert found(tmp_path, [*texts, texts[0]], limit=3) == [False] * 5
    cleaner = Cleaner(Build(sources=[], near_duplicates=True, deduplicate=False, near_duplicate_limit=3), tmp_path)
    assert all(cleaner.clean(TextRecord(text=text)) for text in [*texts, texts[0]])
    sentence = next(line.sentence for line in cleaner.filters() if line.name == "near duplicates")
    assert "Off after 3 records: 2 not compared." in sentence
    cleaner.close()


def test_cleaning_drops_near_duplicates_with_an_example(tmp_path: Path) -> None:
    one = written(ALPHABETS["latin"], 900, 1)
    cleaner = Cleaner(Build(sources=[], near_duplicates=True), tmp_path)
    assert cleaner.clean(TextRecord(text=one)) is not None
    assert cleaner.clean(TextRecord(text=altered(one, 3, 2))) is None
    line = next(line for line in cleaner.filters() if line.name == "near duplicates")
    assert line.removed == 1 and line.examples
    cleaner.close()


def test_two_builds_are_equal_and_leave_no_index_behind(tmp_path: Path) -> None:
    one = written(ALPHABETS["latin"], 2_000, 1)
    source = tmp_path / "texts.jsonl"
    texts = [one, altered(one, 3, 2), *(written(ALPHABETS["latin"], 500, seed) for seed in range(2, 30))]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    first, second = (
        build(tmp_path / name, source, near_duplicates=True, unique_prompts=True, split="documents:0.5")
        for name in ("a", "b")
    )
    assert first.info.digest == second.info.digest and sum(first.info.records.values()) == 29
    assert sorted(path.name for path in first.path.iterdir()) == ["dataset.json", "records"]
