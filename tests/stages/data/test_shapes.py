"""Shapes: rows as people write them, each read to the canonical record that was written down by hand for it."""

from typing import Any

import pytest

from stages.data.shapes import SHAPES, Unfit, detect, read_row, renamed
from stages.store.datasets import Kind
from stages.store.records import (
    ChatRecord,
    LabelledRecord,
    Message,
    PreferenceRecord,
    PromptRecord,
    Record,
    TextRecord,
)

SKY = "What color is the sky?"


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, train: bool | None = None) -> Message:
    return Message("assistant", text, train)


def chat(*messages: Message, **rest: Any) -> ChatRecord:
    return ChatRecord(messages=list(messages), **rest)


def pair(prompt: str, chosen: str, rejected: str, **rest: Any) -> PreferenceRecord:
    return PreferenceRecord(messages=[user(prompt)], completions=[chosen, rejected], ranks=[1, 2], **rest)


def records(row: dict[str, Any], kind: Kind | None = None) -> list[Record]:
    """The records of one row, by the shape that is found for it."""
    found = detect([row], kind)
    assert found is not None
    return read_row(found.shape, found.kind, row, "")


TRL: list[tuple[str, dict[str, Any], Record]] = [
    ("language modeling", {"text": "The sky is blue."}, TextRecord(text="The sky is blue.")),
    (
        "language modeling, conversational",
        {"messages": [{"role": "user", "content": SKY}, {"role": "assistant", "content": "It is blue."}]},
        chat(user(SKY), assistant("It is blue.")),
    ),
    ("prompt only", {"prompt": "The sky is"}, PromptRecord(messages=[user("The sky is")])),
    (
        "prompt only, conversational",
        {"prompt": [{"role": "user", "content": SKY}]},
        PromptRecord(messages=[user(SKY)]),
    ),
    (
        "prompt completion",
        {"prompt": "The sky is", "completion": " blue."},
        chat(user("The sky is"), assistant(" blue.")),
    ),
    (
        "prompt completion, conversational",
        {
            "prompt": [{"role": "user", "content": SKY}],
            "completion": [{"role": "assistant", "content": "It is blue."}],
        },
        chat(user(SKY), assistant("It is blue.")),
    ),
    (
        "preference, explicit prompt",
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        pair("The sky is", " blue.", " green."),
    ),
    (
        "preference, implicit prompt",
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        pair("The sky is", " blue.", " green."),
    ),
    (
        "preference, explicit prompt, conversational",
        {
            "prompt": [{"role": "user", "content": SKY}],
            "chosen": [{"role": "assistant", "content": "It is blue."}],
            "rejected": [{"role": "assistant", "content": "It is green."}],
        },
        pair(SKY, "It is blue.", "It is green."),
    ),
    (
        "preference, implicit prompt, conversational",
        {
            "chosen": [{"role": "user", "content": SKY}, {"role": "assistant", "content": "It is blue."}],
            "rejected": [{"role": "user", "content": SKY}, {"role": "assistant", "content": "It is green."}],
        },
        pair(SKY, "It is blue.", "It is green."),
    ),
    (
        "unpaired preference",
        {"prompt": "The sky is", "completion": " blue.", "label": True},
        LabelledRecord(task="pair", texts=["The sky is", " blue."], label="true"),
    ),
    (
        "unpaired preference, conversational",
        {
            "prompt": [{"role": "user", "content": SKY}],
            "completion": [{"role": "assistant", "content": "It is green."}],
            "label": False,
        },
        LabelledRecord(task="pair", texts=[SKY, "It is green."], label="false"),
    ),
    (
        "stepwise supervision",
        {
            "prompt": "Which number is larger, 9.8 or 9.11?",
            "completions": ["The fractional part of 9.8 is 0.8.", "0.11 is greater than 0.8.", "Hence, 9.11 > 9.8."],
            "labels": [True, False, False],
        },
        LabelledRecord(
            task="tokens",
            texts=["The fractional part of 9.8 is 0.8.", "0.11 is greater than 0.8.", "Hence, 9.11 > 9.8."],
            labels=["true", "false", "false"],
            meta={"prompt": "Which number is larger, 9.8 or 9.11?"},
        ),
    ),
]
"""The examples of TRL's page on dataset formats."""

OTHERS: list[tuple[str, dict[str, Any], Record]] = [
    (
        "Alpaca",
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        chat(user("Add.\n\n1 and 2"), assistant("3")),
    ),
    ("Alpaca", {"instruction": "Hi.", "input": "", "output": "Hello."}, chat(user("Hi."), assistant("Hello."))),
    (
        "Alpaca",
        {"instruction": "And?", "output": "So.", "system": "Be brief.", "history": [["Why?", "Thus."]]},
        chat(Message("system", "Be brief."), user("Why?"), assistant("Thus."), user("And?"), assistant("So.")),
    ),
    (
        "Dolly",
        {"instruction": "Where?", "context": "It is in Bern.", "response": "Bern.", "category": "closed_qa"},
        chat(user("Where?\n\nIt is in Bern."), assistant("Bern."), meta={"category": "closed_qa"}),
    ),
    ("prompt and response", {"prompt": "2+2?", "response": "4"}, chat(user("2+2?"), assistant("4"))),
    ("question and answer", {"question": "2+2?", "answer": "#### 4"}, chat(user("2+2?"), assistant("#### 4"))),
    (
        "ShareGPT",
        {"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        chat(user("Hi"), assistant("Hello"), meta={"id": "a"}),
    ),
    (
        "ShareGPT",
        {
            "system": "Be kind.",
            "conversations": [
                {"from": "human", "value": "Time?"},
                {"from": "function_call", "value": "clock()"},
                {"from": "observation", "value": "9:00"},
                {"from": "gpt", "value": "Nine."},
            ],
        },
        chat(
            Message("system", "Be kind."),
            user("Time?"),
            assistant("clock()"),
            Message("tool", "9:00"),
            assistant("Nine."),
        ),
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "developer", "content": "Be exact."},
                {"role": "user", "content": [{"type": "text", "text": "Time "}, {"type": "text", "text": "now?"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"type": "function", "id": "1", "function": {"name": "clock", "arguments": '{"zone":"UTC"}'}}
                    ],
                },
                {"role": "tool", "content": "9:00", "tool_call_id": "1"},
                {"role": "assistant", "content": "Nine.", "weight": 0},
                {"role": "assistant", "content": "It is nine.", "weight": 1},
            ],
            "tools": [],
        },
        chat(
            Message("system", "Be exact."),
            user("Time now?"),
            assistant('<tool_call>\n{"name":"clock","arguments":{"zone":"UTC"}}\n</tool_call>'),
            Message("tool", "9:00"),
            assistant("Nine.", False),
            assistant("It is nine.", True),
            meta={"tools": []},
        ),
    ),
    (
        "preferred output",
        {
            "input": {"messages": [{"role": "user", "content": "Hi"}]},
            "preferred_output": [{"role": "assistant", "content": "Hello!"}],
            "non_preferred_output": [{"role": "assistant", "content": "No."}],
        },
        pair("Hi", "Hello!", "No."),
    ),
    (
        "HH-RLHF transcripts",
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: Because.\n\nSo.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:",
        },
        PreferenceRecord(
            messages=[user("Hi"), assistant("Hello"), user("Why?")], completions=["Because.\n\nSo.", ""], ranks=[1, 2]
        ),
    ),
    (
        "HH-RLHF transcripts",  # which go on apart: what follows is part of each answer
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: Because.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: No",
        },
        pair("Hi", "Hello\n\nHuman: Why?\n\nAssistant: Because.", "No"),
    ),
    (
        "UltraFeedback",
        {
            "source": "evol_instruct",
            "instruction": "Why?",
            "models": ["a", "b", "c"],
            "completions": [
                {"model": "a", "response": "A", "overall_score": 7.5},
                {"model": "b", "response": "B", "overall_score": 9},
                {"model": "c", "response": "C", "overall_score": 7.5},
            ],
        },
        PreferenceRecord(
            messages=[user("Why?")],
            completions=["A", "B", "C"],
            ranks=[2, 1, 2],
            scores=[7.5, 9.0, 7.5],
            source="evol_instruct",
            meta={"models": ["a", "b", "c"]},
        ),
    ),
    (
        "UltraFeedback",
        {
            "instruction": "Why?",
            "completions": [
                {"response": "A", "annotations": {"helpfulness": {"Rating": "4"}, "honesty": {"Rating": "5"}}},
                {"response": "B", "annotations": {"helpfulness": {"Rating": "2"}, "honesty": {"Rating": "N/A"}}},
            ],
        },
        PreferenceRecord(messages=[user("Why?")], completions=["A", "B"], ranks=[1, 2], scores=[4.5, 2.0]),
    ),
    (
        "prompt, chosen and rejected",
        {
            "prompt": "Why?",
            "prompt_id": "x",
            "chosen": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "A"}],
            "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "B"}],
            "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "A"}],
            "score_chosen": 8.0,
            "score_rejected": 6.5,
        },
        pair(
            "Why?",
            "A",
            "B",
            scores=[8.0, 6.5],
            meta={
                "prompt_id": "x",
                "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "A"}],
            },
        ),
    ),
    (
        "MT-Bench questions",
        {"question_id": 81, "turns": ["Write.", "Rewrite."], "reference": ["Written.", "Rewritten."]},
        PromptRecord(
            messages=[user("Write.")], answer="Written.", meta={"question_id": 81, "following_turns": ["Rewrite."]}
        ),
    ),
    (
        "text and label",
        {"text": "Where is my card?", "category": "card_arrival"},
        LabelledRecord(task="classify", texts=["Where is my card?"], label="card_arrival"),
    ),
    (
        "pairs of texts",
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0},
        LabelledRecord(task="pair", texts=["It rains.", "It is wet."], label="0"),
    ),
    (
        "multiple choice",
        {"question": "2+2?", "choices": {"text": ["3", "4"], "label": ["A", "B"]}, "answerKey": "B"},
        LabelledRecord(task="choice", texts=["2+2?", "3", "4"], label="1"),
    ),
    (
        "words and tags",
        {"tokens": ["Ada", "sings"], "ner_tags": [1, 0]},
        LabelledRecord(task="tokens", texts=["Ada", "sings"], labels=["1", "0"]),
    ),
    (
        "preference records",
        {
            "messages": [{"role": "user", "content": "Why?"}],
            "completions": ["A", "B"],
            "ranks": [1, 1],
            "annotator": "ada",
            "source": "s",
            "meta": {"n": 1},
        },
        PreferenceRecord(
            messages=[user("Why?")], completions=["A", "B"], ranks=[1, 1], annotator="ada", source="s", meta={"n": 1}
        ),
    ),
    (
        "prompt records",
        {"messages": [{"role": "user", "content": "Why?"}], "answer": "So."},
        PromptRecord(messages=[user("Why?")], answer="So."),
    ),
    (
        "labelled records",
        {"task": "choice", "texts": ["Q", "a", "b"], "label": "1"},
        LabelledRecord(task="choice", texts=["Q", "a", "b"], label="1"),
    ),
    ("a single column of text", {"headline": "It rains."}, TextRecord(text="It rains.")),
]


@pytest.mark.parametrize(("row", "expected"), [case[1:] for case in TRL], ids=[case[0] for case in TRL])
def test_each_type_of_trl_is_read(row: dict[str, Any], expected: Record) -> None:
    assert records(row) == [expected]


@pytest.mark.parametrize(("name", "row", "expected"), OTHERS, ids=[f"{n}-{case[0]}" for n, case in enumerate(OTHERS)])
def test_each_shape_is_found_and_read(name: str, row: dict[str, Any], expected: Record) -> None:
    found = detect([row])
    assert found is not None and (found.shape.name, found.kind) == (name, found.shape.kind)
    assert records(row) == [expected]


def test_instances_of_an_instruction_become_a_conversation_each() -> None:
    instances = [{"input": "a", "output": "A"}, {"input": "", "output": "B"}]
    assert records({"instruction": "Do.", "instances": instances, "id": "x"}) == [
        chat(user("Do.\n\na"), assistant("A"), meta={"id": "x"}),
        chat(user("Do."), assistant("B"), meta={"id": "x"}),
    ]


TREE = {
    "message_tree_id": "t",
    "prompt": {
        "text": "Hi",
        "role": "prompter",
        "replies": [
            {"text": "No.", "role": "assistant", "rank": 1, "replies": []},
            {
                "text": "Hello.",
                "role": "assistant",
                "rank": 0,
                "replies": [
                    {
                        "text": "Why?",
                        "role": "prompter",
                        "replies": [{"text": "So.", "role": "assistant", "replies": []}],
                    },
                    {"text": "Bye.", "role": "prompter", "replies": []},
                ],
            },
        ],
    },
}


def test_a_tree_of_openassistant_gives_its_best_threads_or_its_rankings() -> None:
    meta = {"message_tree_id": "t"}
    assert records(TREE) == [chat(user("Hi"), assistant("Hello."), user("Why?"), assistant("So."), meta=meta)]
    assert records(TREE, "preference") == [
        PreferenceRecord(messages=[user("Hi")], completions=["No.", "Hello."], ranks=[2, 1], meta=meta)
    ]


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("prompts", {"question": "2+2?", "answer": "4"}, PromptRecord(messages=[user("2+2?")], answer="4")),
        (
            "prompts",
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
            PromptRecord(messages=[user("Hi")], answer="Hello"),
        ),
        (
            "prompts",
            {"instruction": "Add.", "input": "1 and 2", "output": "3"},
            PromptRecord(messages=[user("Add.\n\n1 and 2")], answer="3"),
        ),
        ("chat", {"prompt": "Q", "chosen": "A", "rejected": "B"}, chat(user("Q"), assistant("A"))),
        ("text", {"text": "A text.", "label": "x"}, TextRecord(text="A text.", meta={"label": "x"})),
    ],
)
def test_a_kind_that_is_asked_for_decides(kind: Kind, row: dict[str, Any], expected: Record) -> None:
    assert records(row, kind) == [expected]


def test_fields_of_other_names_are_mapped() -> None:
    row = {"frage": "2+2?", "data": {"antwort": "4"}, "n": 1}
    mapped = renamed(row, {"prompt": "frage", "completion": "data.antwort"})
    assert records(mapped) == [chat(user("2+2?"), assistant("4"), meta={"data": {"antwort": "4"}, "n": 1})]


def test_rows_that_nobody_knows_have_no_shape() -> None:
    assert detect([{"a": 1, "b": "x", "c": "y"}]) is None
    assert detect([{"text": "a"}], "preference") is None


def test_most_of_the_rows_decide_and_certainty_is_the_share_that_can_be_read() -> None:
    good = {"prompt": "Q", "completion": "A"}
    found = detect([good, good, {"text": "stray"}, good])
    assert found is not None and found.shape.name == "prompt and completion" and found.certainty == 0.75


@pytest.mark.parametrize(
    ("like", "row", "field", "message"),
    [
        ({"prompt": "Q", "completion": "A"}, {"prompt": "Q"}, "completion", "no field 'completion'; the fields are"),
        ({"prompt": "Q", "completion": "A"}, {"prompt": "Q", "completion": ["A"]}, "completion", "not text"),
        (
            {"messages": [{"role": "assistant", "content": "A"}]},
            {"messages": [{"role": "user", "content": "Q"}]},
            "messages",
            "says nothing",
        ),
        (
            {"messages": [{"role": "assistant", "content": "A"}]},
            {"messages": [{"role": "wizard", "content": "Q"}]},
            "messages[0].role",
            "'wizard' is not known",
        ),
        (
            {"messages": [{"role": "assistant", "content": "A"}]},
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages[0].content[0]",
            "image_url",
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: x\n\nAssistant: c"},
            "rejected",
            "differ before their last turn",
        ),
        (
            {"messages": [{"role": "user", "content": "Q"}], "completions": ["A", "B"], "ranks": [1, 2]},
            {"messages": [{"role": "user", "content": "Q"}], "completions": ["A", "B"], "ranks": [1]},
            "ranks",
            "2 ranks",
        ),
        ({"text": "a", "label": "x"}, {"text": "a", "label": " "}, "label", "empty"),
        ({"tokens": ["a"], "tags": ["x"]}, {"tokens": ["a", "b"], "tags": ["x"]}, "labels", "1 labels for 2 words"),
    ],
)
def test_a_row_that_does_not_fit_names_its_field(
    like: dict[str, Any], row: dict[str, Any], field: str, message: str
) -> None:
    found = detect([like])
    assert found is not None
    with pytest.raises(Unfit) as caught:
        read_row(found.shape, found.kind, row, "")
    assert caught.value.field == field and message in caught.value.message


def test_every_shape_has_an_example_here() -> None:
    rows = [row for _, row, _ in [*TRL, *OTHERS]]
    found = {detection.shape.name for row in rows if (detection := detect([row]))}
    elsewhere = {"self-instruct", "OpenAssistant trees", "OpenAssistant rankings", "rankings by rows"}
    without = {shape.name for shape in SHAPES} - found - elsewhere
    assert without <= {"instruction and response", "input and output"}
