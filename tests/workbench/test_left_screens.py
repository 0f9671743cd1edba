"""A screen may be left while one of its workers waits."""

from __future__ import annotations

import asyncio

import pytest
from textual import work
from textual.app import App, ComposeResult
from textual.css.query import NoMatches
from textual.widgets import Static
from textual.worker import WorkerFailed

from workbench.screens.base import Dialog


class Waiting(Dialog[None]):
    """Waits for something, and then looks for a widget."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.go_on, self.done = asyncio.Event(), asyncio.Event()
        self.wanted = wanted

    def compose(self) -> ComposeResult:
        yield Static(id="there")

    def on_mount(self) -> None:
        self.look()

    @work
    async def look(self) -> None:
        try:
            await asyncio.shield(self.go_on.wait())
        except asyncio.CancelledError:
            await self.go_on.wait()  # the cancelling comes late, as it may
        try:
            self.query_one(self.wanted)
        finally:
            self.done.set()


class Ending(Waiting):
    """Goes on at the moment when the app has begun to take its screens down."""

    async def on_unmount(self) -> None:
        self.go_on.set()
        await asyncio.wait_for(self.done.wait(), 30)


async def test_what_a_left_screen_does_not_find_is_no_mistake() -> None:
    app: App[None] = App()
    async with app.run_test() as pilot:
        screen = Waiting("#there")
        await app.push_screen(screen)
        await app.pop_screen()
        assert screen.left and not screen.query("#there")
        screen.go_on.set()
        await asyncio.wait_for(screen.done.wait(), 30)
        await pilot.pause()
        assert app.is_running and app.return_code is None


async def test_what_a_screen_in_view_does_not_find_is_one() -> None:
    app: App[None] = App()
    with pytest.raises((NoMatches, WorkerFailed)):
        async with app.run_test() as pilot:
            screen = Waiting("#missing")
            await app.push_screen(screen)
            screen.go_on.set()
            await asyncio.wait_for(screen.done.wait(), 30)
            await pilot.pause()


async def test_what_a_screen_does_not_find_while_the_app_ends_is_no_mistake() -> None:
    app: App[None] = App()
    async with app.run_test() as pilot:
        screen = Ending("#there")
        await app.push_screen(screen)
        await pilot.pause()
        assert screen.query("#there")
    assert screen.done.is_set(), "the worker looked, and found the app at its end"
