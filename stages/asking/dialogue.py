"""A conversation as a prompt: rendered by the model's chat template, cut at turns where it exceeds the context."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from stages.data.conversations import Masker
from stages.data.templates import read_template, template_in
from stages.models.bases import base_folder
from stages.store.chat import Turn
from stages.store.errors import UserError
from stages.store.records import Message


class Prompt(NamedTuple):
    """What a model is to answer, and how many turns at the start of the conversation it does not see."""

    tokens: list[int]
    turns_cut: int
    end_of_turn: int | None


def own_template(folder: Path) -> str | None:
    """The chat template that a checkpoint brings along, itself or in an adapter's base; None for a base model."""
    return template_in(folder) or template_in(base_folder(folder))


def asking_template(folder: Path, name: str) -> str:
    """The template that a checkpoint is asked by. auto: its own, else the plain text of `raw`."""
    own = own_template(folder) if name == "auto" else None
    return own or read_template("raw" if name == "auto" else name)


class Dialogue:
    """The chat template of a model at work."""

    def __init__(self, tokenizer: Path, template: str) -> None:
        self._masker = Masker(tokenizer, text=template)
        try:
            self.end_of_turn = self._masker.end_of_turn()
        except UserError:  # a template that cannot be trained on may still do for talking
            self.end_of_turn = None

    @classmethod
    def of(cls, folder: Path) -> Dialogue | None:
        """That of a model folder or an adapter's; None for a base model, which has no template."""
        template = own_template(folder)
        return None if template is None else cls(folder, template)

    def prompt(self, turns: Sequence[Turn], room: int) -> Prompt:
        """At most `room` tokens: the system message if there is one, and as many of the latest turns as fit.

        Turns are left out from the start, up to the next question. Raises UserError when not even the last fits.
        """
        messages = [message_of(turn) for turn in turns]
        if not messages or messages[-1].role != "user":
            raise UserError("A conversation must end with the user's turn.")
        system = messages[:1] if messages[0].role == "system" else []
        rest = messages[len(system) :]
        starts = [number for number, message in enumerate(rest) if message.role == "user"]
        for start in starts:
            tokens = self._masker.prompt([*system, *rest[start:]])
            if len(tokens) <= room:
                return Prompt(tokens, start, self.end_of_turn)
        raise UserError(
            f"The last message has {len(tokens):,} tokens with what goes around it, and {room:,} fit.",
            "Shorten it, or lower max_new_tokens.",
        )


def message_of(turn: Turn) -> Message:
    """A turn as records have it. Raises UserError for a role that there is not."""
    try:
        return msgspec.convert({"role": turn.role, "content": turn.content}, Message)
    except msgspec.ValidationError as error:
        raise UserError(f"A message cannot be read: {error}.", "Roles are system, user, assistant and tool.") from error
