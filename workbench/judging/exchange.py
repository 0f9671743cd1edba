"""The last turn of a chat: what was asked, and the answers to it, one of which counts."""

from __future__ import annotations

import msgspec

from stages.store.chat import Turn
from stages.store.labels.records import Prompt
from workbench.judging.on_the_spot import CHAT, Answer, prompt_of

MOST = 9
"""Answers to one turn: as many as digits can rank."""


class Exchange:
    """A question with what came before it. `talks` tells a conversation from text that is continued."""

    def __init__(self, prompt: str, before: list[Turn], *, system: str = "", talks: bool) -> None:
        self.prompt, self.before, self.system, self.talks = prompt, before, system, talks
        self.given = prompt
        """What the model is sent in its place: the same, or with passages of a source."""
        self.sources = ""
        """Where the passages come from, for people."""
        self.answers: list[Answer] = []
        self.at = 0
        """The answer that counts: the one shown, which the conversation goes on from."""
        self.ranked = ""
        """What was said of the answers, once they were ranked."""
        self.mark = 0
        """Spans of the transcript before the answer."""

    @property
    def answer(self) -> Answer | None:
        return self.answers[self.at] if self.answers else None

    @property
    def asked(self) -> list[Turn]:
        """The conversation up to the question, with what the model was told before it."""
        system = [Turn("system", self.system)] if self.system and self.talks else []
        return [*system, *self.before, Turn("user", self.given)]

    def after(self) -> list[Turn]:
        """The conversation that the next question follows: none, where text was continued."""
        if not self.talks:
            return []
        if self.answer is None:
            return self.before
        return [*self.before, Turn("user", self.prompt), Turn("assistant", self.answer.text)]

    def add(self, answer: Answer) -> None:
        """One more answer, which counts from now on."""
        self.answers.append(answer)
        self.at = len(self.answers) - 1
        self.ranked = ""

    def extend(self, more: Answer) -> None:
        """The answer that counts goes on with `more`."""
        assert self.answer is not None
        text = self.answer.text + more.text
        self.answers[self.at] = msgspec.structs.replace(more, text=text, sampling=self.answer.sampling)

    def step(self, by: int) -> bool:
        """Have the next answer count, or the one before; False at either end."""
        at = self.at + by
        if not 0 <= at < len(self.answers):
            return False
        self.at = at
        return True

    def as_prompt(self) -> Prompt:
        """What was asked, as it is stored with the answers."""
        return prompt_of(self.asked, CHAT)
