"""Preferences in tokens: what stands on disk is what the template writes, and prompts and ranks stay together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from stages.data.conversations import Masker, choose_template
from stages.data.preference_shards import preference_shards
from stages.data.records import RecordWriter
from stages.store.datasets import Dataset, DatasetInfo
from stages.store.errors import UserError
from stages.store.records import Message, PreferenceRecord
from tests.stages.data.chats import chat_dataset
from tests.tiny_model import write_tiny_checkpoint


def preference_dataset(
    folder: Path, train: Sequence[PreferenceRecord], *, val: Sequence[PreferenceRecord] = ()
) -> Dataset:
    """A dataset of kind preference in `folder`, which carries its name."""
    digests, counts, sizes = [], {}, {}
    for split, records in (("train", train), ("val", val)):
        with RecordWriter(folder / "records", split, "preference") as writer:
            for record in records:
                writer.write(record)
        digests.append(writer.digest())
        counts[split], sizes[split] = writer.records, writer.bytes
    info = DatasetInfo(
        name=folder.name, kind="preference", digest="".join(digests)[::2], records=counts, bytes=sizes, characters=sizes
    )
    (folder / "dataset.json").write_bytes(msgspec.json.encode(info))
    return Dataset(folder, info)


def asked(text: str, completions: list[str], ranks: list[int], scores: list[float] | None = None) -> PreferenceRecord:
    return PreferenceRecord(
        messages=[Message("user", text)], completions=completions, ranks=ranks, scores=scores, source="hand"
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_tiny_checkpoint(tmp_path / "model", context=96)
    return tmp_path / "model"


def test_each_completion_stands_with_its_prompt_and_its_rank(tmp_path: Path, model: Path) -> None:
    dataset = preference_dataset(
        tmp_path / "likes",
        [asked("1+1", ["2", "two", "3"], [1, 1, 2]), asked("2+2", ["4", "5"], [1, 2], [7.0, 1.5])],
        val=[asked("3+3", ["6", "7"], [1, 2])],
    )
    template = choose_template(model, "auto")
    found = preference_shards(dataset, model, template=template, context=96)
    assert (len(found.train), len(found.val)) == (2, 1)
    assert list(found.train.members(0)) == [0, 1, 2]
    assert list(found.train.members(1)) == [3, 4]
    assert found.train.ranks.tolist() == [1, 1, 2, 1, 2]
    assert np.isnan(found.train.scores[:3]).all()
    assert found.train.scores[3:].tolist() == [7.0, 1.5]
    with Masker(model, text=template) as masker:
        prompt = masker.prompt([Message("user", "1+1")])
        whole = masker.mask([Message("user", "1+1"), Message("assistant", "two")])
    ids, trained = found.train.completion(1)
    assert ids.tolist() == whole.ids
    assert trained.tolist() == whole.trained
    assert ids[: len(prompt)].tolist() == prompt
    assert not trained[: len(prompt)].any()
    assert trained[len(prompt)]


def test_an_earlier_turn_of_the_assistant_is_part_of_the_prompt(tmp_path: Path, model: Path) -> None:
    earlier = [Message("user", "a"), Message("assistant", "b", train=True), Message("user", "c")]
    record = PreferenceRecord(messages=earlier, completions=["d", "e"], ranks=[1, 2])
    dataset = preference_dataset(tmp_path / "likes", [record])
    found = preference_shards(dataset, model, template=choose_template(model, "auto"), context=96)
    ids, trained = found.train.completion(0)
    other, _ = found.train.completion(1)
    first = int(np.flatnonzero(trained)[0])
    assert ids[:first].tolist() == other[:first].tolist()
    assert ids[first] != other[first]


def test_what_does_not_fit_is_dropped_and_counted_and_a_lone_completion_refused(tmp_path: Path, model: Path) -> None:
    long = "x" * 300
    dataset = preference_dataset(
        tmp_path / "likes", [asked("1", ["2", long, "3"], [1, 2, 3]), asked("4", ["5", long], [1, 2])]
    )
    found = preference_shards(dataset, model, template=choose_template(model, "auto"), context=96)
    counts = found.info.splits["train"]
    assert (counts.prompts, counts.completions, counts.dropped, counts.refused) == (1, 2, 2, 1)
    assert found.train.ranks.tolist() == [1, 3]
    assert "record 2 of train from hand" in str(found.info.refused[0])
    assert found.train.records.tolist() == [0]


def test_it_is_made_once(tmp_path: Path, model: Path) -> None:
    dataset = preference_dataset(tmp_path / "likes", [asked("1", ["2", "3"], [1, 2])])
    template, calls = choose_template(model, "auto"), list[tuple[int, int]]()
    for _ in range(2):
        preference_shards(
            dataset, model, template=template, context=96, progress=lambda done, total: calls.append((done, total))
        )
    assert calls == [(1, 1)]


def test_conversations_are_refused_by_name(tmp_path: Path, model: Path) -> None:
    dataset = chat_dataset(tmp_path / "talk", [[Message("user", "a"), Message("assistant", "b")]])
    with pytest.raises(UserError, match="'talk' holds records of kind chat"):
        preference_shards(dataset, model, template=choose_template(model, "auto"), context=96)
