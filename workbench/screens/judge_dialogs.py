"""What judging asks for in dialogs: a reason, a note, a number. Each calls `then` unless the person leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.app import App

from stages.store.errors import UserError
from workbench.screens.question import Ask


def ask_reason(app: App[Any], then: Callable[[str], object]) -> None:
    """Why the prompt is skipped; may be empty."""
    ask = Ask("Skip this prompt", "Why? (may be empty)", "", _anything, does="skips it")
    _ask(app, ask, lambda text: then(text.strip()))


def ask_note(app: App[Any], note: str, then: Callable[[str], object]) -> None:
    """A note on the judgement; `note` is what it says so far."""
    _ask(app, Ask("A note on this judgement", "It is saved with it.", note, _anything), lambda text: then(text.strip()))


def ask_place(app: App[Any], now: int, count: int, then: Callable[[int], object]) -> None:
    """Which prompt to go to: a place from 0, of so many; `now` is the one at hand."""

    def check(text: str) -> None:
        try:
            number = int(text)
        except ValueError:
            number = 0
        if not 1 <= number <= count:
            raise UserError(f"Give a number from 1 to {count:,}.")

    asked = Ask("Go to a prompt", f"Its number, 1 to {count:,}.", str(now + 1), check)
    _ask(app, asked, lambda text: then(int(text) - 1))


def _ask(app: App[Any], dialog: Ask, then: Callable[[str], object]) -> None:
    def answered(text: str | None) -> None:
        if text is not None:
            then(text)

    app.push_screen(dialog, answered)


def _anything(text: str) -> None:
    """Every text will do."""
