"""Conversations as tokens with a mask: which tokens a model is trained to say.

Trained is what the assistant says and the token that ends its turn, and nothing else. Where it stands is told by the
template's `generation` blocks; a template without them is rendered twice for each assistant's turn, up to where the
turn begins and up to where it ends, and the turn is what the second has more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from stages.data.control import ChatEncoder, Encoded
from stages.data.rendering import Renderer
from stages.data.templates import Messages, Rendered, digest_of, read_template, shipped, template_in
from stages.store.errors import UserError
from stages.store.records import Message

Turns = Literal["all", "last"]

GENERATION = re.compile(r"{%-?\+?\s*generation\b")


class Conversation(NamedTuple):
    """A conversation in tokens. What did not fit the context is in `cut`: no model sees it."""

    ids: list[int]
    trained: list[bool]
    cut: list[int]
    turns_cut: int


class Masker:
    """Tokenizes conversations with one tokenizer and template. Use it as a context: it may hold a child process."""

    def __init__(
        self,
        folder: Path,
        template: str = "auto",
        *,
        turns: Turns = "all",
        context: int = 2**31,
        text: str | None = None,
    ) -> None:
        """folder: a model's, with its tokenizer. template: its name, as for `choose_template`; `text` is it itself."""
        self.template = choose_template(folder, template) if text is None else text
        self.encoder = ChatEncoder(folder, self.template)
        self.turns, self.context = turns, context
        self.marks_turns = bool(GENERATION.search(self.template))
        self._renderer = Renderer(self.template, self.encoder.special)

    def __enter__(self) -> Masker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child process, if there is one."""
        self._renderer.close()

    def mask(self, messages: Sequence[Message]) -> Conversation:
        """One conversation. Raises UserError in a sentence when it cannot be trained on."""
        (found,) = self.mask_all([messages])
        if isinstance(found, UserError):
            raise found
        return found

    def mask_all(self, conversations: Sequence[Sequence[Message]]) -> list[Conversation | UserError]:
        """Each conversation in tokens, or why it cannot be trained on."""
        plans = [self._plan(messages) for messages in conversations]
        texts = iter(self._renderer.render_all([item for plan in plans for item in plan.items]))
        placed = [_place(plan, [next(texts) for _ in plan.items]) for plan in plans]
        fine = [(text, plan.mark) for text, plan in zip(placed, plans, strict=True) if isinstance(text, Rendered)]
        encoded = iter(self._encode(fine))
        found: list[Conversation | UserError] = []
        for text, plan in zip(placed, plans, strict=True):
            outcome = text if isinstance(text, UserError) else next(encoded)
            found.append(outcome if isinstance(outcome, UserError) else self._finish(outcome, plan))
        return found

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation up to where the assistant is to speak."""
        return self._render(messages, prompt=True)

    def prompt_all(self, conversations: Sequence[Sequence[Message]]) -> list[list[int] | UserError]:
        """The same for each conversation, or why it cannot be written; all of them encoded together."""
        marked = [self.encoder.mark(_plain(messages)) for messages in conversations]
        texts = self._renderer.render_all([(plain, True) for plain, _ in marked])
        fine = [
            (Rendered(text.text, []), mark)
            for text, (_, mark) in zip(texts, marked, strict=True)
            if isinstance(text, Rendered)
        ]
        encoded = iter(self._encode(fine))
        found: list[list[int] | UserError] = []
        for text in texts:
            outcome = text if isinstance(text, UserError) else next(encoded)
            found.append(outcome if isinstance(outcome, UserError) else outcome.ids)
        return found

    def whole(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation, whether it can be trained on or not."""
        return self._render(messages, prompt=False)

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> list[int]:
        marked, mark = self.encoder.mark(_plain(messages))
        rendered = self._renderer.render(marked, prompt=prompt)
        return self.encoder.encode_all([(Rendered(rendered.text, []), mark)])[0].ids

    def end_of_turn(self) -> int | None:
        """The control token that ends what the assistant says; None where the template has none."""
        ids, trained, *_ = self.mask([Message("user", "a"), Message("assistant", "b")])
        last = next(token for token, on in zip(reversed(ids), reversed(trained), strict=True) if on)
        return last if last in self.encoder.control.values() else None

    def _plan(self, messages: Sequence[Message]) -> _Plan:
        marked, mark = self.encoder.mark(_plain(messages))
        said = [number for number, message in enumerate(messages) if message.role == "assistant"]
        wanted = {n for n in said if messages[n].train is not False and (self.turns == "all" or n == said[-1])}
        wanted |= {n for n in said if messages[n].train is True}
        items: list[tuple[Messages, bool]] = [(marked, False)]
        if not self.marks_turns:
            for number in sorted(wanted):
                items += [(marked[:number], True), (marked[: number + 1], False)]
        return _Plan(marked, mark, said, wanted, items, self.marks_turns)

    def _encode(self, texts: list[tuple[Rendered, str]]) -> list[Encoded | UserError]:
        try:
            return list(self.encoder.encode_all(texts))
        except UserError as error:  # one of them: find out which
            if len(texts) == 1:
                return [error]
            return [found for text in texts for found in self._encode([text])]

    def _finish(self, encoded: Encoded, plan: _Plan) -> Conversation | UserError:
        """Cut to the context and turn the spans into a mask."""
        ids, span_of = encoded
        if len(ids) <= self.context:
            trained = [span >= 0 for span in span_of]
            return Conversation(ids, trained, [], 0) if any(trained[1:]) else _untrained(plan)
        after = [*span_of[1:], -1]
        ends = [i + 1 for i in range(1, self.context) if span_of[i] >= 0 and after[i] != span_of[i]]
        if not any(span >= 0 for span in span_of[1:]):
            return _untrained(plan)
        if not ends:
            return UserError(f"Its first trained turn ends after {self.context:,} tokens, the longest the model sees.")
        keep = ends[-1]
        turns_cut = len({span for span in span_of[keep:] if span >= 0})
        return Conversation(ids[:keep], [span >= 0 for span in span_of[:keep]], ids[keep:], turns_cut)


class _Plan(NamedTuple):
    """What is rendered of one conversation: all of it, and without generation blocks two texts for each turn."""

    marked: list[dict[str, Any]]
    mark: str
    said: list[int]
    wanted: set[int]
    items: list[tuple[Messages, bool]]
    marks_turns: bool


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _untrained(plan: _Plan) -> UserError:
    if not plan.said:
        return UserError("It has no assistant's turn, so there is nothing to learn.")
    if not plan.wanted:
        return UserError("Every assistant's turn is switched off by `train`, so there is nothing to learn.")
    return UserError("Its template leaves nothing of the assistant's turns, so there is nothing to learn.")


def _place(plan: _Plan, texts: Sequence[Rendered | UserError]) -> Rendered | UserError:
    """The whole text with the spans of the turns that are trained."""
    for text in texts:
        if isinstance(text, UserError):
            return text
    whole, *parts = [text for text in texts if isinstance(text, Rendered)]
    spans = _marked_turns(plan, whole.spans) if plan.marks_turns else _by_prefixes(whole.text, parts)
    return spans if isinstance(spans, UserError) else Rendered(whole.text, spans)


def _marked_turns(plan: _Plan, spans: list[tuple[int, int]]) -> list[tuple[int, int]] | UserError:
    if plan.wanted == set(plan.said):
        return spans
    if len(spans) != len(plan.said):
        return UserError("Its template marks other turns than the conversation has, so none can be left out.")
    return [span for span, number in zip(spans, plan.said, strict=True) if number in plan.wanted]


def _by_prefixes(whole: str, parts: Sequence[Rendered]) -> list[tuple[int, int]] | UserError:
    spans = []
    for before, after in zip(parts[::2], parts[1::2], strict=True):
        if not after.text.startswith(before.text) or not whole.startswith(after.text.rstrip()):
            return UserError(
                "Its template writes a turn otherwise when another follows, so what to train on cannot be found.",
                'Set turns to "last", or use a template with generation blocks.',
            )
        spans.append((len(before.text), len(after.text.rstrip())))  # the end of turn, not the line break behind it
    return spans


def choose_template(folder: Path, name: str) -> str:
    """The template that `name` means for the model in this folder.

    auto: the model's own, else chatml when its tokenizer has the tokens of it, else raw.
    """
    if name != "auto":
        return read_template(name)
    own = template_in(folder)
    if own is not None:
        return own
    encoder = ChatEncoder(folder, "")
    known = {"<|im_start|>", "<|im_end|>"} <= set(encoder.control)
    return shipped()["chatml" if known else "raw"]


def masking_digest(template: str, turns: Turns, context: int) -> str:
    """Names the way of masking: other than the tokenizer, all that the tokens of a record depend on."""
    return digest_of(msgspec.json.encode([1, digest_of(template), turns, context]).decode())
