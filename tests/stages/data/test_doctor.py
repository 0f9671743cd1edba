"""The data doctor: every kind of trouble planted in a file is found at its line, and its fix removes it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stages.build import build_dataset
from stages.data.doctor import check, lengths_of
from stages.desk import Cancelled, Job
from stages.store.checks import Check, Finding
from stages.store.errors import UserError
from stages.store.specs.build import Build
from stages.store.workspace import Workspace
from tests.stages.data.parts import build, real, tokenizer_of


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def checked(workspace: Path, *sources: Path | str, **asked: Any) -> Check:
    settings = {"sources": [str(source) for source in sources]}
    return msgspec.convert(check(Job(Workspace(workspace)), settings=settings, **asked), Check)


def found(report: Check) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings}


GOOD = [
    chat(f"What is the name of river number {n} of the valley?", f"It is the {n * 37 % 101}th river.")
    for n in range(40)
]


def ranked(question: str, ranks: list[int]) -> dict[str, Any]:
    asked = [{"role": "user", "content": question}]
    return {"messages": asked, "completions": ["this one", "that one"], "ranks": ranks}


TROUBLE: dict[str, tuple[dict[str, Any], str]] = {
    "empty answers": (chat("Is anybody there?", "  "), "Is anybody there?"),
    "roles": ({"messages": [chat("Who?", "Me.")["messages"][1], *chat("And?", "You.")["messages"]]}, "speaks first"),
    "mojibake": (chat("How is the cafÃ©?", "Closed, Iâ€™m afraid."), "Ã©"),
    "replacement characters": (chat("What does \ufffd mean?", "Something was lost."), "\ufffd"),
    "long lines": (chat("What is long?", "very " * 3_000), "15,000 characters"),
    "duplicates": (GOOD[3], "river number 3"),
    "control characters": (chat("What rings?", "A bell \x07 does."), "\x07"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_planted_trouble_is_found_with_its_line_and_removed_by_its_fix(tmp_path: Path, name: str) -> None:
    row, shown = TROUBLE[name]
    source = lines(tmp_path / "data.jsonl", [*GOOD, row])
    report = checked(tmp_path, source)
    finding = found(report)[name]
    assert (report.kind, finding.count) == ("chat", 1)
    assert finding.examples[0].place == "data.jsonl:41" and shown in finding.examples[0].text
    if finding.fix:
        built = build(tmp_path / "built", source, **finding.fix)
        kept = check(Job(Workspace(tmp_path)), settings={"sources": sorted(map(str, built.path.glob("records/*")))})
        assert name not in found(msgspec.convert(kept, Check))


def test_good_records_raise_no_suspicion(tmp_path: Path) -> None:
    report = checked(tmp_path, lines(tmp_path / "good.jsonl", GOOD))
    assert report.findings == [] and report.records == {"all": 40} and report.problem_count == 0
    assert sum(bar.count for bar in report.lengths[0].bars) == 40


def test_ties_are_found(tmp_path: Path) -> None:
    rows = [*(ranked(f"Which of {n}?", [1, 2]) for n in range(12)), ranked("Any?", [1, 1])]
    report = checked(tmp_path, lines(tmp_path / "r.jsonl", rows))
    assert report.kind == "preference" and found(report)["ties"].count == 1
    assert found(report)["ties"].examples[0].place == "r.jsonl:13"


def test_near_duplicates_and_repeated_prompts_and_answers_are_found(tmp_path: Path) -> None:
    long = "The tide had gone out before anyone woke, and the boats lay on their sides in the mud like animals. " * 4
    rows = [*GOOD, chat("Tell me.", long), chat("Tell me.", long + "!")]
    rows += [chat(f"Is {n} a number of its own?", "Certainly.") for n in range(12)]
    report = found(checked(tmp_path, lines(tmp_path / "d.jsonl", rows)))
    assert report["near duplicates"].examples[0].place == "d.jsonl:42"
    assert report["repeated prompts"].count == 1
    assert report["same answers"].count == 12 and "12 ×  Certainly." in report["same answers"].examples[0].text


def test_labels_out_of_balance_are_found(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("text,label\n" + "".join(f"text number {n},common\n" for n in range(50)) + "one more text,rare\n")
    report = checked(tmp_path, path)
    assert report.kind == "labelled" and found(report)["rare labels"].examples[0].text == "1 ×  rare"
    assert any("common 50, rare 1" in note for note in report.notes)


def test_prompts_shared_between_the_splits_of_a_dataset_are_found(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rows = [chat(f"Which river is number {n % 4}?", f"The {n}th, of course.") for n in range(60)]
    folder = tmp_path / "datasets" / "d"
    folder.mkdir(parents=True)
    spec = Build(sources=[str(lines(tmp_path / "d.jsonl", rows))], split="documents:0.5")
    info = build_dataset(folder, "d", spec, lambda phase, done, total: None)
    (folder / "records" / "val-00000.parquet").write_bytes((folder / "records" / "train-00000.parquet").read_bytes())
    report = msgspec.convert(check(Job(workspace), dataset="d"), Check)
    assert found(report)["shared prompts"].count == info.records["train"]
    assert found(report)["shared prompts"].fix == {"unique_prompts": True}
    assert report.sources == spec.sources


def test_contamination_is_found_against_what_ships_with_the_app(tmp_path: Path) -> None:
    from stages.data.starters import starter_records
    from stages.store.records import PromptRecord

    probe = next(iter(starter_records("starter:probes", lambda count: None)))
    assert isinstance(probe, PromptRecord)
    rows = [*GOOD, chat(probe.messages[-1].content, "I have seen this one.")]
    report = checked(tmp_path, lines(tmp_path / "d.jsonl", rows), against=["starter:probes"])
    assert found(report)["contamination"].count == 1
    assert found(report)["contamination"].fix["decontaminate"] == ["starter:probes"]


def test_lengths_are_counted_in_tokens_as_well(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizers" / "t", ["some words"], kind="byte")
    (tokenizer.path / "tokenizer-info.json").write_text("{}")
    from stages.data import doctor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "find_tokenizer", lambda workspace, name: tokenizer)
        report = checked(tmp_path, lines(tmp_path / "t.jsonl", [{"text": "abc é"}, {"text": "a"}]), tokenizer="t")
    assert [(part.unit, part.least, part.most) for part in report.lengths] == [("characters", 1, 5), ("tokens", 1, 6)]


@pytest.mark.parametrize("values", [[0], [5] * 9, [1, 10_000_000], list(range(300))])
def test_every_length_stands_in_one_bar(values: list[int]) -> None:
    from array import array

    lengths = lengths_of("characters", array("I", values))
    assert sum(bar.count for bar in lengths.bars) == len(values) and len(lengths.bars) <= 16
    for bar in lengths.bars:
        assert bar.count == sum(bar.low <= value < bar.high for value in values)


def test_a_check_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    told = threading.Event()
    job = Job(Workspace(tmp_path), lambda progress: told.set() or job.cancelled.set())
    path = lines(tmp_path / "big.jsonl", GOOD * 1_000)
    with pytest.raises(Cancelled):
        check(job, settings={"sources": [str(path)]})
    assert told.is_set()


def test_names_that_there_are_not_are_refused(tmp_path: Path) -> None:
    source = lines(tmp_path / "d.jsonl", GOOD)
    for asked in ({"against": ["exam"]}, {"tokenizer": "none"}, {"against": ["starter:prbes"]}):
        with pytest.raises(UserError):
            checked(tmp_path, source, **asked)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("hh_rlhf", "preference", {"empty answers": 4, "repeated prompts": 134}),
        ("sharegpt_dummy", "chat", {"same answers": 500, "repeated prompts": 448}),
        ("wikitext2", "text", {}),
    ],
)
def test_real_data_is_judged_as_by_hand(tmp_path: Path, name: str, kind: str, expected: dict[str, int]) -> None:
    report = checked(tmp_path, real(name))
    counts = {finding.name: finding.count for finding in report.findings}
    assert report.kind == kind and expected.items() <= counts.items()
    assert counts or not expected
