"""Sets made by hand: durable changes that can be undone, sets that stay as they are, and kills at every moment."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stages.data import browse, edit
from stages.data.records import read_records
from stages.desk import Job
from stages.store.datasets import Kind, find_dataset, list_datasets
from stages.store.errors import UserError
from stages.store.handmade import EDITABLE, Edit
from stages.store.records import (
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    TextRecord,
)
from stages.store.rundir import Parent, RunSpec, RunState, create_run
from stages.store.workspace import Workspace

ASK = Message("user", "What is the sky?")
SAMPLES: dict[Kind, Record] = {
    "text": TextRecord(text="The sky is blue.\n\x1b[31m", source="me"),
    "chat": ChatRecord(messages=[ASK, Message("assistant", "Blue.", train=True)], meta={"a": 1}),
    "preference": PreferenceRecord(messages=[ASK], completions=["Blue.", "No."], ranks=[1, 2], annotator="me"),
    "prompts": PromptRecord(messages=[ASK], answer="blue"),
    "labelled": LabelledRecord(task="classify", texts=["Blue."], label="colour"),
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").ensure()


class Hand:
    """Changes a set like the app: each change is based on the digest that the last one brought."""

    def __init__(self, workspace: Workspace, name: str, kind: Kind = "text") -> None:
        self.job, self.name = Job(workspace), name
        self.digest = edit.create(self.job, name=name, kind=kind)["digest"]

    def change(self, change: Edit, split: str = "train") -> None:
        answer = edit.edit(
            self.job,
            dataset=self.name,
            digest=self.digest,
            split=split,
            at=change.at,
            before=msgspec.to_builtins(change.before),
            after=msgspec.to_builtins(change.after),
        )
        self.digest = answer["digest"]

    def add(self, *records: Record) -> None:
        for record in records:
            self.change(Edit(len(self.records()), None, record))

    def records(self, split: str = "train") -> list[Record]:
        return list(read_records(find_dataset(self.job.workspace, self.name), split))


def texts(*some: str) -> list[Record]:
    return [TextRecord(text=text) for text in some]


def used_by_a_run(workspace: Workspace, name: str) -> None:
    """A finished run that trained on the set as it is."""
    pinned = {"dataset": Parent(name, find_dataset(workspace, name).info.digest)}
    run = create_run(workspace, RunSpec(stage="pretrain", name="trained", settings={}, parents=pinned))
    run.write_state(RunState(status="finished"))


@pytest.mark.parametrize("kind", SAMPLES)
def test_records_of_every_kind_are_added_changed_and_deleted(workspace: Workspace, kind: Kind) -> None:
    hand, record = Hand(workspace, "mine", kind), SAMPLES[kind]
    changed = msgspec.structs.replace(record, source="elsewhere")
    hand.change(Edit(0, None, record))
    assert hand.records() == [record]
    hand.change(Edit(0, record, changed))
    hand.change(Edit(0, None, record))
    assert hand.records() == [record, changed]
    hand.change(Edit(1, changed, None))
    assert hand.records() == [record]
    hand.change(Edit(0, None, changed), "val")
    info = find_dataset(workspace, "mine").info
    assert (info.kind, info.records, info.digest) == (kind, {"train": 1, "val": 1}, hand.digest)


def test_the_digest_changes_with_every_change_and_comes_back_when_it_is_undone(workspace: Workspace) -> None:
    hand = Hand(workspace, "mine")
    first, second, third = texts("one", "two", "three")
    digests, changes = [hand.digest], [Edit(0, None, first), Edit(0, first, second), Edit(1, None, third)]
    changes.append(Edit(0, second, None))
    for change in changes:
        hand.change(change)
        digests.append(hand.digest)
    assert len(set(digests)) == len(digests)
    for change, digest in zip(reversed(changes), reversed(digests[:-1]), strict=True):
        hand.change(change.undone())
        assert hand.digest == digest == find_dataset(workspace, "mine").info.digest
    assert hand.records() == []


def test_an_empty_set_can_be_looked_at(workspace: Workspace) -> None:
    hand = Hand(workspace, "mine", "chat")
    ask: dict[str, Any] = {"dataset": "mine", "split": "train"}
    assert browse.page(hand.job, start=0, count=10, **ask)["rows"] == []
    assert browse.search(hand.job, text="x", **ask) == {"at": None, "wrapped": False}
    assert browse.statistics(hand.job, **ask)["records"] == 0
    assert browse.count(hand.job, filter="role:user", **ask)["total"] == 0


def test_tokens_made_from_the_old_records_are_gone_with_them(workspace: Workspace) -> None:
    hand = Hand(workspace, "mine")
    tokens = workspace.datasets / "mine" / "tokens"
    tokens.mkdir()
    hand.add(*texts("one"))
    assert not tokens.exists()


def test_a_change_based_on_what_is_no_longer_there_is_refused(workspace: Workspace) -> None:
    hand = Hand(workspace, "mine")
    hand.add(*texts("one", "two"))
    stale = hand.digest
    hand.add(*texts("three"))
    now, hand.digest = hand.digest, stale
    with pytest.raises(UserError, match="has changed meanwhile"):
        hand.change(Edit(0, texts("one")[0], None))
    hand.digest = now
    for wrong in (Edit(0, texts("two")[0], None), Edit(7, None, texts("x")[0]), Edit(-1, None, texts("x")[0])):
        with pytest.raises(UserError, match="have changed meanwhile"):
            hand.change(wrong)
    assert hand.records() == texts("one", "two", "three")


def test_a_set_that_a_finished_run_used_stays_and_its_copy_can_be_changed(workspace: Workspace) -> None:
    hand = Hand(workspace, "mine")
    hand.add(*texts("one"))
    used_by_a_run(workspace, "mine")
    with pytest.raises(UserError, match=r"was used by run 'trained', so its records stay.*Make a copy"):
        hand.add(*texts("two"))
    assert hand.records() == texts("one")
    assert edit.copy(hand.job, dataset="mine", name="ours")["digest"] == hand.digest
    hand.name = "ours"
    hand.add(*texts("two"))
    assert hand.records() == texts("one", "two")


def test_a_large_set_is_not_changed_by_hand(workspace: Workspace) -> None:
    hand = Hand(workspace, "mine")
    path = workspace.datasets / "mine" / "dataset.json"
    info = msgspec.json.decode(path.read_bytes())
    info["records"] = {"train": EDITABLE + 1}
    path.write_bytes(msgspec.json.encode(info))
    with pytest.raises(UserError, match="10,001 records; up to 10,000"):
        hand.change(Edit(0, None, texts("x")[0]))


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (TextRecord(text=" \n"), "The text is empty."),
        (ChatRecord(messages=[]), "There is no turn."),
        (ChatRecord(messages=[ASK]), "No turn is the assistant's."),
        (ChatRecord(messages=[ASK, Message("assistant", "")]), "Turn 2 (assistant) is empty."),
        (PreferenceRecord(messages=[ASK], completions=["a"], ranks=[1]), "There is nothing to compare."),
        (PreferenceRecord(messages=[ASK], completions=["a", "b"], ranks=[1]), "Not every completion has a rank."),
        (PreferenceRecord(messages=[ASK], completions=["a", "b"], ranks=[0, 1]), "Not every completion has a rank."),
        (PromptRecord(messages=[ASK, Message("assistant", "x")]), "The last turn is the assistant's."),
        (LabelledRecord(task="classify", texts=["a"]), "There is no label."),
        (LabelledRecord(task="pair", texts=["a"], label="x"), "The task pair does not go with 1 texts."),
        (LabelledRecord(task="choice", texts=["q", "a", "b"], label="2"), "The label '2' names no option."),
        (LabelledRecord(task="tokens", texts=["a", "b"], labels=["x"]), "There are 2 words and 1 labels."),
    ],
)
def test_a_record_that_nothing_can_be_learnt_from_is_refused(
    workspace: Workspace, record: Record, sentence: str
) -> None:
    kinds: dict[type, Kind] = {type(sample): kind for kind, sample in SAMPLES.items()}
    hand = Hand(workspace, "mine", kinds[type(record)])
    with pytest.raises(UserError) as caught:
        hand.change(Edit(0, None, record))
    assert caught.value.title == sentence and caught.value.hint
    assert hand.records() == []


def test_a_record_of_another_kind_is_refused_by_its_field(workspace: Workspace) -> None:
    hand = Hand(workspace, "mine")
    with pytest.raises(UserError, match="no record of kind text: Object missing required field `text`"):
        hand.change(Edit(0, None, SAMPLES["chat"]))


@pytest.mark.parametrize("name", ["../x", "", "a/b", "mine"])
def test_a_name_that_will_not_do_makes_nothing(workspace: Workspace, name: str) -> None:
    edit.create(Job(workspace), name="mine", kind="text")
    with pytest.raises(UserError):
        edit.create(Job(workspace), name=name, kind="text")
    assert [path.name for path in workspace.datasets.iterdir() if not path.name.startswith(".lock")] == ["mine"]


CALLS = ("open", "write", "fsync", "rename", "replace", "rmdir", "unlink")
"""Calls by which the store changes the disk; Parquet files are written by a library between two of them."""


def dies_at(call: int, hand: Hand, change: Edit) -> bool:
    """Make the change in a child process that is killed before its disk call number `call`; whether it came so far."""
    child = os.fork()
    if child == 0:
        remaining = call

        def counted(real: Any) -> Any:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                nonlocal remaining
                if remaining == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                remaining -= 1
                return real(*args, **kwargs)

            return wrapper

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        edit.RecordWriter._flush = counted(edit.RecordWriter._flush)  # type: ignore[method-assign]
        edit.RecordWriter._close_file = counted(edit.RecordWriter._close_file)  # type: ignore[method-assign]
        try:
            hand.change(change)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
def test_a_kill_at_any_call_leaves_the_old_set_or_the_new_one(workspace: Workspace, every: int) -> None:
    hand = Hand(workspace, "mine")
    hand.add(*texts("one", "two"))
    before, digest = hand.records(), hand.digest
    change = Edit(1, texts("two")[0], texts("TWO")[0])
    pristine, outcomes = workspace.root / "pristine", []
    shutil.copytree(workspace.datasets, pristine)
    call = 0
    while dies_at(call, hand, change):
        call += every
        (found,) = list_datasets(workspace)
        records = hand.records()
        assert records in (before, texts("one", "TWO"))
        assert (found.info.digest == digest) == (records == before)
        assert sum(found.info.records.values()) == 2
        outcomes.append(records == before)
        assert not [path for path in workspace.datasets.iterdir() if path.name.startswith((".tmp", ".previous"))]
        hand.digest = found.info.digest
        if records != before:
            hand.change(change.undone())
        assert hand.digest == digest
    assert outcomes[0] and not outcomes[-1] and len(outcomes) > 20 // every
    assert hand.records() == texts("one", "TWO")


def test_two_hands_cannot_change_a_set_at_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand(workspace, "mine")
    real = edit.read_records

    def meanwhile(*args: Any) -> Sequence[Record]:
        monkeypatch.setattr(edit, "read_records", real)
        with pytest.raises(UserError, match="Another process is building"):
            hand.add(*texts("other"))
        return list(real(*args))

    monkeypatch.setattr(edit, "read_records", meanwhile)
    hand.add(*texts("one"))
    assert hand.records() == texts("one")
