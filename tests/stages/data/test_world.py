"""The world: counts, the same bytes everywhere, and nothing held out in any training part."""

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from stages.data import world
from stages.data.world import build, knowledge
from stages.data.world.items import part_of

ROOT = Path(world.__file__).parents[3]
PINNED = {1: "c326436a9f04b830c5d739620f90a83ba4326efb0d99b2b1a38a31896cdccdd3"}

DIGEST_SCRIPT = """
import hashlib, json
from stages.data import world
from stages.data.world import PARTS
out = hashlib.sha256()
for source in (
    world.pretraining_documents(),
    world.conversations(),
    *(world.questions(part) for part in PARTS),
    world.preferences("reward", 1000),
    world.labelled(),
):
    for record in source:
        out.update(json.dumps(record, sort_keys=True, ensure_ascii=False).encode() + b"\\n")
print(out.hexdigest())
"""


@cache
def documents() -> tuple[world.Record, ...]:
    return tuple(world.pretraining_documents())


@cache
def training_text() -> str:
    """All that training may show: pre-training, conversations, and the prompts of the reward and policy parts."""
    chats = (message["content"] for record in world.conversations() for message in record["messages"])
    asked = (prompt_of(record) for part in ("reward", "policy") for record in world.questions(part))
    return "\n\0\n".join([*(record["text"] for record in documents()), *chats, *asked])


def prompt_of(record: world.Record) -> str:
    return record["messages"][0]["content"]


def by_family(records: Iterable[world.Record]) -> Counter[str]:
    return Counter(record["meta"]["family"] for record in records)


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_same_bytes_whatever_the_hash_seed(hash_seed: str) -> None:
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", DIGEST_SCRIPT], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == PINNED[world.WORLD_VERSION], "new bytes need a new WORLD_VERSION"


def test_another_seed_gives_other_documents_and_another_mix_of_styles() -> None:
    assert [d["text"] for d in islice(world.pretraining_documents(seed=1), 50)] != [
        d["text"] for d in islice(documents(), 50)
    ]
    one, two = list(world.conversations(seed=0)), list(world.conversations(seed=1))
    assert len(one) == len(two)
    assert one != two
    assert {prompt_of(record) for record in one} == {prompt_of(record) for record in two}


def test_importing_the_world_needs_no_library() -> None:
    code = (
        "import sys; import stages.data.world; "
        "print(sorted({'torch', 'numpy', 'pyarrow', 'tokenizers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.strip() == "[]"


def test_pretraining_is_one_to_two_megabytes_of_different_documents() -> None:
    texts = [record["text"] for record in documents()]
    assert len(texts) == len(set(texts)) == world.DOCUMENTS
    assert 1_000_000 < sum(len(text.encode()) for text in texts) < 2_100_000
    assert max(map(len, texts)) < 1_000
    assert set(by_family(documents())) == set(build.DOCUMENT_SHARES)
    assert len(list(world.pretraining_documents(size=10))) == 10


def test_every_part_asks_every_learnable_family() -> None:
    learnable = {family.name for family in world.families() if family.learnable}
    for part in world.PARTS:
        count = by_family(world.questions(part))
        assert set(count) - {"unasked_facts"} == learnable
        assert min(count.values()) >= 100
    assert by_family(world.questions("eval"))["unasked_facts"] == 2 * (5 + 4) * 6
    assert [family.name for family in world.families() if not family.learnable] == ["unasked_facts"]


def test_the_pieces_of_the_sum_are_all_there() -> None:
    counts = {part: len(list(world.questions(part))) for part in world.PARTS}
    assert counts["sft"] == len(list(world.conversations())) > 10_000
    assert counts["reward"] > 3_000 and counts["policy"] > 3_000 and counts["eval"] > 1_500


def test_no_prompt_is_in_two_parts() -> None:
    prompts = [prompt_of(record) for part in world.PARTS for record in world.questions(part)]
    assert len(prompts) == len(set(prompts))


def test_the_split_marks_what_is_held_out() -> None:
    for part in world.PARTS:
        for record in world.questions(part):
            assert record["meta"]["part"] == part
            assert record["meta"]["held_out"] == (part == "eval")


def test_no_held_out_prompt_or_context_stands_anywhere_in_training() -> None:
    text = training_text()
    for item in build.items("eval"):
        assert item.prompt not in text
        assert not item.context or item.context not in text


def test_only_prompts_of_sft_stand_in_pretraining_and_conversations() -> None:
    lines = "\n".join(record["text"] for record in documents())
    asked = set(re.findall(r"^Question: (.*?)\nAnswer:", lines, flags=re.MULTILINE | re.DOTALL))
    asked |= {message["content"] for record in world.conversations() for message in record["messages"][::2]}
    assert len(asked) > 15_000
    for part in ("reward", "policy"):
        assert not asked & {prompt_of(record) for record in world.questions(part)}


def test_no_held_out_pair_is_added_anywhere_in_training_in_either_order() -> None:
    held_out = {item.key for item in build.items("eval") if item.family == "sums"}
    shown = re.findall(r"\b(\d+) (?:plus|\+|and) (\d+)\b", training_text())
    assert len(shown) > 10_000
    assert not held_out & {knowledge.sum_key(int(a), int(b)) for a, b in shown}
    assert 0.1 < len(held_out) / (50 * 51 / 2) < 0.2


def test_every_operand_of_a_held_out_sum_is_added_to_others_in_training() -> None:
    seen = {number for pair in knowledge.training_pairs() for number in pair}
    assert seen == set(knowledge.OPERANDS)


def test_every_asked_fact_is_stated_and_asked_in_training_and_held_out_in_another_phrasing() -> None:
    text = training_text()
    asked = defaultdict(set)
    for table in (knowledge.fact_items(), knowledge.opposite_items()):
        for item in table:
            asked[item.lead].add(part_of(item))
    for fact in (*knowledge.facts(), *knowledge.opposites()):
        assert any(statement in text for statement in fact.statements), fact
        assert asked[fact.lead] == (set(world.PARTS) if fact.asked else {"eval"})
    assert 200 < sum(fact.asked for fact in knowledge.facts()) < 400


def test_unasked_facts_are_stated_in_pretraining_and_asked_nowhere() -> None:
    stated = "\n".join(record["text"] for record in documents())
    questions = [line for line in training_text().splitlines() if line.endswith("?") or line.startswith("Question:")]
    chats = [message["content"] for record in world.conversations() for message in record["messages"]]
    subjects = {fact.subject for fact in knowledge.facts() if not fact.asked}
    asked = "\n".join(questions + chats)
    assert len(subjects) == 12
    for fact in knowledge.facts():
        if not fact.asked:
            assert any(statement in stated for statement in fact.statements), fact
    assert [subject for subject in subjects if re.search(rf"\b{subject}\b", asked)] == []


def test_an_answer_from_a_context_stands_in_the_context_and_no_wrong_one_does() -> None:
    asked = [item for part in world.PARTS for item in build.items(part) if item.family == "context"]
    for item in asked:
        words = re.findall(r"\w+", item.context)
        assert item.answer in words and not set(item.wrong) & set(words), item


def test_the_same_question_has_other_answers_in_other_contexts() -> None:
    answers = defaultdict(set)
    for item in build.items("sft"):
        if item.family == "context":
            answers[item.prompt.removeprefix(item.context)].add(item.answer)
    assert max(map(len, answers.values())) >= 6


def test_entailment_answers_come_in_equal_shares() -> None:
    answers = Counter(r["answer"] for r in world.questions("sft") if r["meta"]["family"] == "entailment")
    assert set(answers) == {"yes", "no", "maybe"}
    assert min(answers.values()) > 0.28 * sum(answers.values())


def test_four_answers_in_ten_of_the_conversations_are_in_the_preferred_style() -> None:
    styles: dict[str, Counter[str]] = defaultdict(Counter)
    for record in world.conversations():
        assert world.is_correct({"meta": record["meta"]}, record["messages"][1]["content"]), record
        styles[record["meta"]["family"]][world.style_of(record["messages"][1]["content"])] += 1
    total = sum(styles.values(), Counter())
    assert total["sentence"] / total.total() == pytest.approx(world.PREFERRED_SHARE, abs=0.015)
    for family, count in styles.items():
        assert set(count) == {"sentence", "terse"}
        assert count["sentence"] / count.total() == pytest.approx(0.4, abs=0.08), family


def test_some_conversations_have_two_turns() -> None:
    turns = Counter(len(record["messages"]) for record in world.conversations())
    assert set(turns) == {2, 4}
    assert turns[4] / turns.total() == pytest.approx(0.1, abs=0.02)


def test_texts_hold_no_control_characters_but_line_ends_and_are_ascii() -> None:
    text = training_text().replace("\0", "") + json.dumps(list(world.labelled()), ensure_ascii=False)
    assert text.isascii()
    assert {char for char in text if ord(char) < 32 or ord(char) == 127} == {"\n"}


def test_labelled_records_fit_their_tasks_and_hold_out_a_part() -> None:
    count: Counter[tuple[str, str]] = Counter()
    for record in world.labelled():
        task, texts = record["task"], record["texts"]
        count[task, record["meta"]["part"]] += 1
        assert record["meta"]["held_out"] == (record["meta"]["part"] == "eval")
        if task == "tokens":
            assert len(texts) == len(record["labels"])
            assert set(record["labels"]) <= {"person", "place", "animal", "food", "other"}
        elif task == "choice":
            assert len(texts) == 4 and record["label"] in (0, 1, 2)
        else:
            assert len(texts) == {"pair": 2, "classify": 1}[task] and isinstance(record["label"], str)
    assert {task for task, _ in count} == set(world.TASKS)
    assert min(count.values()) >= 100
    assert sum(count.values()) == len(world.TASKS) * 1_200
    assert {record["task"] for record in world.labelled("pair")} == {"pair"}


def test_the_right_option_of_a_choice_stands_in_every_place() -> None:
    places = Counter(record["label"] for record in world.labelled("choice"))
    assert min(places.values()) > 300
