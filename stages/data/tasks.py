"""Tasks in a prompt: records as questions with answers, and the Jinja templates that write examples and a question.

A template is given `examples`, a list, and `item`, the question. Each has `question`, `texts`, `options`, `meta`, and
examples alone have `answer` and `reasoning`. It is rendered where chat templates are: in a sandbox, under limits.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.data.rendering import Renderer
from stages.data.templates import MAX_TEMPLATE
from stages.store.errors import UserError
from stages.store.records import LabelledRecord, PromptRecord, Record
from stages.store.tasks import absolute_task, shipped_tasks

HEAD = "{% set examples = messages[:-1] %}{% set item = messages[-1] %}"
"""Goes before a template, which is rendered as one of a conversation: the examples and the question are its turns."""
MARK = "####"
"""Parts the reasoning of an answer from its end, as in GSM8K (Cobbe et al., 2110.14168)."""


class Item(NamedTuple):
    """One question of a task, with what is right."""

    record: Record
    question: str
    texts: list[str]
    options: list[str]
    """What there is to choose from; nothing where an answer is written."""
    right: int | None
    """The option that is right."""
    answer: str
    reasoning: str

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the source said beside the record."""
        return self.record.meta

    @property
    def group(self) -> str:
        """The family or task that the record names."""
        name = self.meta.get("family") or self.meta.get("task")
        return name if isinstance(name, str) else ""

    def shown(self, *, solved: bool) -> dict[str, Any]:
        """What a template sees of it; the answer only of an example."""
        values = {"question": self.question, "texts": self.texts, "options": self.options, "meta": dict(self.meta)}
        return values | ({"answer": self.answer, "reasoning": self.reasoning} if solved else {})


def labels_of(records: Iterable[Record]) -> list[str]:
    """The labels that classes are chosen from: all that occur, sorted."""
    return sorted({str(one.label) for one in records if isinstance(one, LabelledRecord) and _has_class(one)})


def item_of(record: Record, labels: Sequence[str] = ()) -> Item | None:
    """A record as a question; None when it holds none, such as a prompt without an answer. `labels`: of classes."""
    if isinstance(record, PromptRecord) and record.answer is not None:
        question = "\n".join(message.content for message in record.messages)
        reasoning, mark, answer = record.answer.rpartition(MARK)
        answer = answer.strip() if mark else record.answer
        return Item(record, question, [question], [], None, answer, reasoning.strip())
    if not isinstance(record, LabelledRecord):
        return None
    if record.task == "choice":
        right, options = int(record.label or 0), record.texts[1:]
        return Item(record, record.texts[0], record.texts, options, right, options[right], "")
    if _has_class(record):
        label = str(record.label)
        return Item(record, "\n".join(record.texts), record.texts, list(labels), list(labels).index(label), label, "")
    return None


def _has_class(record: LabelledRecord) -> bool:
    return record.task in ("classify", "pair") and record.label is not None


def examples_for(item: Item, pool: Sequence[Item], count: int, *, alike: str, seed: int, number: int) -> list[Item]:
    """`count` examples for a question, no two alike and never the question; those of fewer are the last of more.

    alike: a field of meta in which they are like the question. `number` and `seed` decide the draw. Raises UserError
    when there are not enough.
    """
    order = list(range(len(pool)))
    random.Random(f"{seed} {number}").shuffle(order)
    wanted = item.meta.get(alike) if alike else None
    found: dict[str, Item] = {}
    for one in (pool[place] for place in order):
        if len(found) == count:
            break
        if one.question != item.question and (not alike or one.meta.get(alike) == wanted):
            found.setdefault(one.question, one)
    if len(found) < count:
        where = f" with {alike} {wanted!r}" if alike else ""
        raise UserError(
            f"{count} examples are asked for, and there are {len(found)}{where}.",
            "Lower shots, or choose another part with examples_from.",
        )
    return list(found.values())[::-1]


def read_task(name: str) -> str:
    """The template of this name, or in this file; UserError otherwise."""
    known = shipped_tasks()
    if name in known:
        return known[name]
    path = absolute_task(name)
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The task template {path} cannot be read: {error}.") from error
    if len(text) > MAX_TEMPLATE:
        raise UserError(f"The task template {path} has more than {MAX_TEMPLATE:,} characters.")
    return text


def fitting_task(item: Item) -> str:
    """The name of the shipped template that fits a question."""
    if isinstance(item.record, LabelledRecord):
        return item.record.task
    return "question"


class Writer:
    """Writes prompts by a template. For one thread; `close` ends its process."""

    def __init__(self, template: str) -> None:
        self._renderer = Renderer(HEAD + template, {})

    def write(self, asked: Sequence[tuple[Sequence[Item], Item]]) -> list[str]:
        """The prompts of questions after their examples. UserError when the template cannot or must not."""
        turns = [
            ([*(one.shown(solved=True) for one in examples), item.shown(solved=False)], False)
            for examples, item in asked
        ]
        prompts = []
        for found in self._renderer.render_all(turns):
            if isinstance(found, UserError):
                raise UserError(found.title.replace("chat template", "task template"), "Choose or write another.")
            prompts.append(found.text)
        return prompts

    def close(self) -> None:
        self._renderer.close()
