"""Keys typed ahead of what they open reach what they were meant for."""

from __future__ import annotations

import asyncio

import pytest
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.events import Event, Key
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from workbench.terminal import keys_in_turn
from workbench.terminal.keys_in_turn import Followed, KeysInTurn


class Dialog(ModalScreen[str]):
    """Takes its time to open, asks for a text."""

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Label("Note")
            yield Input()

    async def on_mount(self) -> None:
        await asyncio.sleep(0.05)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        self.dismiss(message.value)


class Desk(App[None]):
    """`n` opens the dialog; digits are counted."""

    BINDINGS = [Binding("n", "note", ""), *(Binding(digit, f"digit({digit})", "") for digit in "123")]
    in_turn = True

    def __init__(self) -> None:
        super().__init__()
        self.keys = KeysInTurn(self, super().on_event)
        self.said: list[str | int | None] = []

    async def on_event(self, event: Event) -> None:
        if self.in_turn and isinstance(event, Key) and not event.is_forwarded:
            await self.keys.take(event)
        else:
            await super().on_event(event)

    async def on_followed(self, message: Followed) -> None:
        await self.keys.followed(message)

    def action_note(self) -> None:
        self.push_screen(Dialog(), self.said.append)

    def action_digit(self, digit: int) -> None:
        self.said.append(digit)


async def typed(app: Desk, keys: list[str]) -> list[str | int | None]:
    """What becomes of keys that arrive all at once, as over a slow line."""
    async with app.run_test() as pilot:
        for key in keys:
            app.post_message(Key(key, key if len(key) == 1 else None))
        wanted = sum(key == "enter" for key in keys) + sum(key in "123" for key in keys)
        for _ in range(6_000):
            await pilot.pause(0.01)
            if len(app.said) >= wanted:
                break
    return app.said


KEYS = ["1", "n", *"hard", "enter", "2", "n", *"so", "enter", "3"]


async def test_what_is_typed_ahead_arrives_where_it_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_in_turn, "PATIENCE", 60.0)  # however slow the machine is
    assert await typed(Desk(), KEYS) == [1, "hard", 2, "so", 3]


async def test_without_it_the_dialog_misses_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Desk, "in_turn", False)
    app = Desk()
    async with app.run_test() as pilot:
        for key in ("n", *"hard"):
            app.post_message(Key(key, key))
        await pilot.pause(0.3)
        assert app.screen.query_one(Input).value != "hard"


async def test_a_key_goes_on_when_what_had_the_focus_is_gone() -> None:
    app = Desk()
    async with app.run_test() as pilot:
        await pilot.press("n")
        await pilot.pause()
        app.screen.query_one(Input).remove()
        for key in ("escape", "x", "y"):
            app.post_message(Key(key, key if len(key) == 1 else None))
        await pilot.pause()
        app.pop_screen()
        app.post_message(Key("1", "1"))
        for _ in range(6_000):
            await pilot.pause(0.01)
            if app.said:
                break
    assert app.said == [1]
