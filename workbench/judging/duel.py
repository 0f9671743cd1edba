"""Two checkpoints answering the same prompts, and a person who votes without knowing which is which."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from stages.store.chat import Done, Turn
from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError
from stages.store.labels import Candidate, Label, Prompt, open_labels
from stages.store.labels.backup import back_up
from stages.store.labels.elo import Outcome, between, outcomes
from stages.store.labels.judged import judged
from stages.store.specs.chat import Chat
from stages.store.statistics import Share
from stages.store.workspace import Workspace
from workbench.judging.on_the_spot import DUELS, Answer, answer_of, candidates_of, named, save_judgement, take_back
from workbench.talking.chat_client import ChatClient, system_turn

VOTES: dict[str, tuple[list[int], str]] = {
    "1": ([1, 2], ""),
    "2": ([2, 1], ""),
    "=": ([1, 1], ""),
    "x": ([1, 1], "all bad"),
}
"""What can be said of two answers: the ranks in the order of the screen, and the verdict."""

SCORES = {"1": 1.0, "2": 0.0, "=": 0.5, "x": 0.5}


class Round(NamedTuple):
    """A prompt with the two answers in the order in which they are shown, which is drawn anew each time."""

    prompt: Prompt
    answers: list[Answer]

    @property
    def alike(self) -> bool:
        """Whether both wrote the same, so that there is nothing to vote on."""
        return self.answers[0].text == self.answers[1].text


class Vote(NamedTuple):
    """A round with the label that was stored of it."""

    round: Round
    label: Label


class Duel:
    """Two chat processes and the votes on what they write. `open` first; `close` at the end."""

    def __init__(self, workspace: Workspace, annotator: str, checkpoints: Sequence[str]) -> None:
        self.workspace, self.annotator, self.checkpoints = workspace, annotator, list(checkpoints)
        self.clients = [ChatClient(), ChatClient()]
        self.names: list[str] = []
        """As labels name them."""
        self.votes: list[Vote] = []
        """Those of this sitting that were not taken back."""
        self._stored: list[Outcome] = []
        self._origin = f"duel:{secrets.token_hex(6)}"
        self._numbered = 0

    @property
    def tokens(self) -> int:
        """Tokens of both answers so far: apart they would tell the two from each other."""
        return sum(client.tokens for client in self.clients)

    async def open(self) -> None:
        """Load both. Raises UserError when one cannot be loaded, or both are the same."""
        found = [resolve_checkpoint(self.workspace, one) for one in self.checkpoints]
        if found[0].path == found[1].path:
            raise UserError("A checkpoint has nothing to say against itself.", "Choose two different ones.")
        facts = await asyncio.gather(
            *(client.open(one.path) for client, one in zip(self.clients, found, strict=True)), return_exceptions=True
        )
        for one in facts:
            if isinstance(one, BaseException):
                raise one
        self.names = [named(client.facts) for client in self.clients if client.facts is not None]
        if self.names[0] == self.names[1]:
            raise UserError(f"Both are called {self.names[0]}, so that no vote could tell them apart.")
        await asyncio.to_thread(self._look)

    @property
    def alive(self) -> bool:
        return all(client.alive for client in self.clients)

    async def ask(self, prompt: Prompt, sampling: Chat) -> Round:
        """Have both answer. Raises UserError when one cannot."""
        waiting = [asyncio.ensure_future(self._answer(client, prompt, sampling)) for client in self.clients]
        try:
            answers = list(await asyncio.gather(*waiting))
        except UserError:
            await self.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            raise
        random.SystemRandom().shuffle(answers)
        return Round(prompt, answers)

    async def cancel(self) -> None:
        """End what both are writing where it is."""
        for client in self.clients:
            if client.alive:
                await client.cancel()

    def vote(self, round_: Round, key: str, seconds: float) -> Label:
        """Store a vote, one of VOTES; it is on the disk when this returns. For a thread."""
        ranks, verdict = VOTES[key]
        shown: list[Candidate] = candidates_of(round_.answers, self._origin, self._numbered)
        self._numbered += len(shown)
        label = save_judgement(
            self.workspace,
            self.annotator,
            DUELS,
            "pair",
            round_.prompt,
            shown,
            ranks=ranks,
            verdict=verdict,
            seconds=seconds,
        )
        self.votes.append(Vote(round_, label))
        if label.supersedes is None:
            first, second = (one.checkpoint for one in shown)
            self._stored.append(Outcome(first, second, SCORES[key]))
        else:
            self._look()
        return label

    def undo(self) -> Vote | None:
        """Take the last vote of this sitting back; None where there is none. For a thread."""
        if not self.votes:
            return None
        take_back(self.workspace, self.votes[-1].label)
        vote = self.votes.pop()
        self._look()
        return vote

    def share(self) -> Share:
        """How often the first was preferred to the second, in all that is stored of the two."""
        return between(self._stored, *self.names)

    async def close(self) -> None:
        """End both processes, and leave a verified backup of votes."""
        await asyncio.gather(*(client.close() for client in self.clients))
        if self.votes:
            await asyncio.to_thread(back_up, self.workspace.labels)

    def _look(self) -> None:
        """Read what is stored of the two."""
        if self.workspace.labels.is_file():
            with open_labels(self.workspace.labels) as labels:
                self._stored = [one for one in outcomes(judged(labels)) if {one.first, one.second} == {*self.names}]

    async def _answer(self, client: ChatClient, prompt: Prompt, sampling: Chat) -> Answer:
        assert client.facts is not None, "both models are loaded"
        facts, text = client.facts, ""
        said = _as_asked(prompt, sampling) if facts.kind == "chat" else _as_text(prompt)
        async for piece in client.complete(said, sampling):
            if isinstance(piece, Done):
                return answer_of(text, piece, facts, sampling)
            text += piece
        raise UserError("The answer did not end.", "Ask again.")


def _as_asked(prompt: Prompt, sampling: Chat) -> list[Turn]:
    """The conversation, with the system message of the settings where it has none."""
    turns = [Turn(message.role, message.content) for message in prompt.messages]
    return turns if turns[0].role == "system" else [*system_turn(sampling), *turns]


def _as_text(prompt: Prompt) -> str:
    """What a base model continues: a single text as it is, a longer conversation a message a line."""
    texts = [message.content for message in prompt.messages]
    return texts[0] if len(texts) == 1 else "".join(f"{text}\n" for text in texts)
