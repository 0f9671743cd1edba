"""Labelled texts: classes, pairs, choices and words."""

from __future__ import annotations

from typing import Any, get_args

from stages.data.shapes.base import Fields, Row, Shape, Unfit, has_label, has_text, is_texts, text_of, texts_of
from stages.data.shapes.turns import as_prompt
from stages.store.records import LabelledRecord, Record, Task

TEXTS = ("text", "sentence", "content", "review", "tweet", "utterance")
LABELS = ("label", "category", "class", "intent", "sentiment", "labels", "emotion", "target")
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "passage"),
    ("question", "sentence"),
)
"""Names of two texts that are judged together. The second text may also stand beside `text` as `text2`."""
TAGS = ("ner_tags", "tags", "labels", "pos_tags", "pos", "ner")
LONGEST = 20_000
"""Characters. A longer text with a category is a document that has one, rather than an example to classify."""


def _is_canonical(row: Row) -> bool:
    return row.get("task") in get_args(Task) and is_texts(row.get("texts"))


def _read_canonical(fields: Fields) -> list[Record]:
    task, texts = fields.needed("task"), texts_of(fields.needed("texts"), "texts")
    label, labels = fields.take("label"), fields.take("labels")
    if task == "tokens":
        return [_tokens(texts, labels, "labels")]
    expected = {"classify": 1, "pair": 2}.get(task)
    if expected is not None and len(texts) != expected:
        raise Unfit("texts", f"The task {task} takes {expected} of them.")
    if label is None:
        raise Unfit("label", "There is no label.")
    if task == "choice":
        return [_choice(texts[0], texts[1:], text_of(label, "label"))]
    return [LabelledRecord(task=task, texts=texts, label=text_of(label, "label"))]


def _tokens(words: list[str], labels: Any, field: str) -> LabelledRecord:
    tags = texts_of(labels, field)
    if len(tags) != len(words):
        raise Unfit(field, f"There are {len(tags):,} labels for {len(words):,} words.")
    return LabelledRecord(task="tokens", texts=words, labels=tags)


def _choice(question: str, options: list[str], answer: str, names: list[str] | None = None) -> LabelledRecord:
    """`answer` is the number of an option from 0, its letter, its name or the option itself."""
    letters = [chr(ord("A") + n) for n in range(len(options))]
    for known in (names or [], [str(n) for n in range(len(options))], letters, options):
        if answer in known:
            return LabelledRecord(task="choice", texts=[question, *options], label=str(known.index(answer)))
    raise Unfit("answer", f"{answer[:40]!r} is none of the {len(options)} options.")


def _has_tags(row: Row) -> bool:
    words = row.get("tokens") or row.get("words")
    return is_texts(words) and any(isinstance(row.get(name), list) for name in TAGS)


def _read_tags(fields: Fields) -> list[Record]:
    words = texts_of(fields.needed("tokens", "words"), "tokens")
    return [_tokens(words, fields.needed(*TAGS), "labels")]


def _has_choices(row: Row) -> bool:
    options = row.get("choices") or row.get("options")
    listed = is_texts(options) or (isinstance(options, dict) and is_texts(options.get("text")))
    return listed and has_text(row, "question", "prompt", "text") and has_label(row, "answer", "answerKey", "label")


def _read_choices(fields: Fields) -> list[Record]:
    options, names = fields.needed("choices", "options"), None
    if isinstance(options, dict):
        names = texts_of(options.get("label"), "choices.label")
        options = options.get("text")
    answer = text_of(fields.needed("answer", "answerKey", "label"), "answer")
    question = fields.text("question", "prompt", "text")
    return [_choice(question, texts_of(options, "choices"), answer, names)]


def _pair_names(row: Row) -> tuple[str, str] | None:
    names = next((names for names in PAIRS if all(has_text(row, name) for name in names)), None)
    return names or (("text", "text2") if has_text(row, "text") and has_text(row, "text2") else None)


def _is_pair(row: Row) -> bool:
    return _pair_names(row) is not None and has_label(row, *LABELS)


def _read_pair(fields: Fields) -> list[Record]:
    names = _pair_names(fields.row)
    if names is None:
        raise Unfit("text2", "There are not two texts.")
    texts = [fields.text(name) for name in names]
    return [LabelledRecord(task="pair", texts=texts, label=_label(fields))]


def _is_classified(row: Row) -> bool:
    short = any(isinstance(row.get(name), str) and len(row[name]) <= LONGEST for name in TEXTS)
    return short and has_label(row, *LABELS)


def _read_classified(fields: Fields) -> list[Record]:
    return [LabelledRecord(task="classify", texts=[fields.text(*TEXTS)], label=_label(fields))]


def _label(fields: Fields) -> str:
    label = text_of(fields.needed(*LABELS), "label")
    if not label.strip():
        raise Unfit("label", "The label is empty.")
    return label


def _is_judged(row: Row) -> bool:
    return row.get("prompt") is not None and row.get("completion") is not None and isinstance(row.get("label"), bool)


def _read_judged(fields: Fields) -> list[Record]:
    """One answer judged good or bad has nothing to be ranked against: the prompt and the answer, with the judgement."""
    sides = [_said(fields.needed(name), name) for name in ("prompt", "completion")]
    return [LabelledRecord(task="pair", texts=sides, label=text_of(fields.needed("label"), "label"))]


def _is_stepwise(row: Row) -> bool:
    labels = row.get("labels")
    return is_texts(row.get("completions")) and isinstance(labels, list) and has_text(row, "prompt")


def _read_stepwise(fields: Fields) -> list[Record]:
    """The steps stand where words stand, each with its judgement; the prompt is in the meta."""
    return [_tokens(texts_of(fields.needed("completions"), "completions"), fields.needed("labels"), "labels")]


def _said(value: Any, field: str) -> str:
    return "\n\n".join(message.content for message in as_prompt(value, field))


SHAPES = (
    Shape("labelled records", "labelled", "task, texts [], label or labels []", _is_canonical, _read_canonical),
    Shape("unpaired preference", "labelled", "prompt, completion, label true or false", _is_judged, _read_judged),
    Shape("stepwise supervision", "labelled", "prompt, completions [], labels []", _is_stepwise, _read_stepwise),
    Shape("words and tags", "labelled", "tokens [], tags []", _has_tags, _read_tags),
    Shape("multiple choice", "labelled", "question, choices [], answer", _has_choices, _read_choices),
)
LATE = (
    Shape("pairs of texts", "labelled", "premise, hypothesis, label", _is_pair, _read_pair),
    Shape("text and label", "labelled", "text, label", _is_classified, _read_classified),
)
