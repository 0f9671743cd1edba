"""Files of rankings, out and in again: nothing is lost, or what is lost has a name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from stages.data.reading import records_of
from stages.desk import Job
from stages.store.labels.export import Format, export
from stages.store.records import Message, PreferenceRecord


class Quiet:
    """Somebody who waits, and wants no progress."""

    def progress(self, done: int, total: int, phase: str) -> None: ...


def read(path: Path) -> list[PreferenceRecord]:
    """The rankings that an import takes from a file."""
    found = records_of(cast(Job, Quiet()), [str(path)], "preference")
    assert found["problems"] == []
    return [msgspec.convert(record, PreferenceRecord) for record in found["records"]]


def ranking(texts: list[str], ranks: list[int], **more: Any) -> PreferenceRecord:
    asked = more.pop("messages", [Message("user", 'Which lantern?\nThe first, or the "second"?')])
    return PreferenceRecord(
        messages=asked, completions=texts, ranks=ranks, annotator="ada", source="here", meta={"part": "reward"}, **more
    )


TALK = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Why?")]

RANKINGS = [
    ranking(["one", "two", "three", "four"], [1, 2, 2, 4]),
    ranking(["a,b", 'c"d', "e\r\nf", "  g  ", "", "海", "h\u2028i", "x\ty", "=1+1"], [1, 2, 3, 4, 5, 6, 7, 8, 8]),
    ranking(["yes", "no"], [1, 1], scores=[5.0, 5.0]),
    ranking(["best", "worst"], [1, 2], scores=[7.0, 1.0], messages=TALK),
]

PAIRS = [
    ranking(["yes", "no"], [1, 2]),
    ranking(["line\nline", "海の灯台"], [1, 2], messages=[Message("user", "Say.\n\nTwice.")]),
    ranking(["Because.", "No."], [1, 2], messages=TALK[1:]),
]


def through(tmp_path: Path, form: Format, *given: PreferenceRecord) -> tuple[list[PreferenceRecord], Counter[str]]:
    """What comes back of rankings written in a format, and what is said to be lost."""
    lost = Counter[str]()
    path = tmp_path / ("rankings.csv" if form == "csv" else "rankings.jsonl")
    path.write_bytes("".join(export(given, form, lost)).encode())
    return read(path), lost


def bare(record: PreferenceRecord) -> tuple[Any, ...]:
    return record.messages, record.completions, record.ranks


@pytest.mark.parametrize("form", ["kway", "csv"])
def test_rankings_come_back_with_ties_scores_and_every_completion(tmp_path: Path, form: Format) -> None:
    came, lost = through(tmp_path, form, *RANKINGS)
    assert not lost
    assert [(*bare(one), one.scores, one.annotator, one.source) for one in came] == [
        (*bare(one), one.scores, one.annotator, one.source) for one in RANKINGS
    ]
    assert all(one.meta.get("part") == "reward" for one in came)


@pytest.mark.parametrize("form", ["trl", "trl-implicit", "hh"])
def test_pairs_come_back(tmp_path: Path, form: Format) -> None:
    came, lost = through(tmp_path, form, *PAIRS)
    assert [bare(one) for one in came] == [bare(one) for one in PAIRS]
    assert not lost


def test_pairs_as_plain_text_come_back_where_the_prompt_is_one_turn(tmp_path: Path) -> None:
    came, lost = through(tmp_path, "trl-text", *PAIRS)
    assert [bare(one) for one in came] == [bare(one) for one in PAIRS[:2]]
    assert lost == {"pairs whose prompt is not one user turn were left out": 1}


@pytest.mark.parametrize("form", ["trl", "trl-implicit", "trl-text", "hh"])
def test_what_pairs_cannot_carry_is_named(tmp_path: Path, form: Format) -> None:
    came, lost = through(tmp_path, form, RANKINGS[0], *PAIRS[:1])
    assert lost == {"rankings of more than two completions became pairs": 1, "ties were left out": 1}
    assert [set(one.completions) for one in came] == [
        *({"one", other} for other in ("two", "three", "four")),
        {"two", "four"},
        {"three", "four"},
        {"yes", "no"},
    ]


def test_trl_reads_what_is_written(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from trl.data_utils import extract_prompt, is_conversational

    for form in ("trl", "trl-implicit", "trl-text"):
        path = tmp_path / f"{form}.jsonl"
        path.write_text("".join(export(PAIRS[:2], cast(Format, form), Counter())))
        rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
        assert is_conversational(rows[0]) == (form != "trl-text")
        for row, pair in zip(rows, PAIRS, strict=False):
            row = extract_prompt(row) if form == "trl-implicit" else row
            told = [row[side] if form == "trl-text" else row[side][-1]["content"] for side in ("chosen", "rejected")]
            assert told == pair.completions
            asked = row["prompt"] if form == "trl-text" else row["prompt"][-1]["content"]
            assert asked == pair.messages[-1].content


ULTRA = {
    "source": "evol_instruct",
    "instruction": "How do I light a lantern?",
    "models": ["alpaca-7b", "bard", "gpt-4", "llama-2-7b-chat"],
    "completions": [
        {
            "model": model,
            "principle": "helpfulness",
            "custom_system_prompt": "Be helpful.",
            "response": f"{model} says how.",
            "annotations": {
                aspect: {"Rating": rating, "Rationale": "Because."}
                for aspect in ("instruction_following", "honesty", "truthfulness", "helpfulness")
            },
            "overall_score": score,
            "fine-grained_score": score - 0.5,
            "critique": "It could be longer.",
        }
        for model, rating, score in (
            ("alpaca-7b", "2", 4.0),
            ("bard", "4", 7.5),
            ("gpt-4", "5", 9.0),
            ("llama-2-7b-chat", "4", 7.5),
        )
    ],
    "correct_answers": ["None"],
    "incorrect_answers": ["None"],
}

BINARIZED = {
    "prompt": "How do I light a lantern?",
    "prompt_id": "0" * 64,
    "chosen": [{"content": "How do I light a lantern?", "role": "user"}, {"content": "So.", "role": "assistant"}],
    "rejected": [{"content": "How do I light a lantern?", "role": "user"}, {"content": "No.", "role": "assistant"}],
    "messages": [{"content": "How do I light a lantern?", "role": "user"}, {"content": "So.", "role": "assistant"}],
    "score_chosen": 9.0,
    "score_rejected": 4.0,
}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_ultrafeedback_brings_scores_and_ties(tmp_path: Path) -> None:
    (came,) = read(write(tmp_path / "ultra.jsonl", ULTRA))
    assert came.messages == [Message("user", "How do I light a lantern?")]
    assert came.completions == [f"{model} says how." for model in ULTRA["models"]]
    assert (came.ranks, came.scores) == ([4, 2, 1, 2], [4.0, 7.5, 9.0, 7.5])
    assert came.meta["models"] == ULTRA["models"]


def test_binarized_ultrafeedback_brings_pairs_with_scores(tmp_path: Path) -> None:
    (came,) = read(write(tmp_path / "binarized.jsonl", BINARIZED))
    assert bare(came) == ([Message("user", "How do I light a lantern?")], ["So.", "No."], [1, 2])
    assert came.scores == [9.0, 4.0]


def oasst(number: int, parent: int | None, role: str, text: str, rank: int | None) -> dict[str, Any]:
    """A message as a row of OpenAssistant's published files."""
    return {
        "message_id": f"m{number}",
        "parent_id": None if parent is None else f"m{parent}",
        "user_id": "u1",
        "created_date": "2023-02-05T14:23:50.983374+00:00",
        "text": text,
        "role": role,
        "lang": "en",
        "review_count": 3,
        "review_result": True,
        "deleted": False,
        "rank": rank,
        "synthetic": False,
        "model_name": None,
        "detoxify": {"toxicity": 0.0003, "obscene": 0.0001},
        "message_tree_id": "m0",
        "tree_state": "ready_for_export",
        "emojis": {"name": ["+1"], "count": [2]},
        "labels": {"name": ["quality"], "value": [0.7], "count": [3]},
    }


MESSAGES = [
    oasst(0, None, "prompter", "What is a buoy?", None),
    oasst(1, 0, "assistant", "A float.", 1),
    oasst(2, 0, "assistant", "A mark at sea.", 0),
    oasst(3, 0, "assistant", "No idea.", 2),
    oasst(4, 2, "prompter", "Who made the first?", 0),
    oasst(5, 4, "assistant", "Nobody knows.", 0),
    oasst(6, 4, "assistant", "The Romans.", 1),
]


def tree() -> dict[str, Any]:
    """The same messages as a tree, the other form in which they are published."""
    nodes = {row["message_id"]: {**row, "replies": []} for row in MESSAGES}
    for row in MESSAGES[1:]:
        nodes[row["parent_id"]]["replies"].append(nodes[row["message_id"]])
    return {"message_tree_id": "m0", "tree_state": "ready_for_export", "prompt": nodes["m0"]}


@pytest.mark.parametrize("rows", [MESSAGES, [tree()]], ids=["messages", "tree"])
def test_openassistant_brings_a_ranking_for_every_turn_that_was_ranked(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    first, second = read(write(tmp_path / "oasst.jsonl", *rows))
    asked = Message("user", "What is a buoy?")
    assert bare(first) == ([asked], ["A float.", "A mark at sea.", "No idea."], [2, 1, 3])
    thread = [asked, Message("assistant", "A mark at sea."), Message("user", "Who made the first?")]
    assert bare(second) == (thread, ["Nobody knows.", "The Romans."], [1, 2])
