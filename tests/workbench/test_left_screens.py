"""A screen may be left while one of its workers waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from textual import work
from textual.app import App, ComposeResult
from textual.css.query import NoMatches
from textual.message import Message
from textual.widgets import Static
from textual.worker import WorkerFailed

from workbench.app import WorkbenchApp
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


class InThread(Dialog[None]):
    """A thread of it looks at a widget when the screen is being taken down."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on, self.done = threading.Event(), threading.Event()

    def compose(self) -> ComposeResult:
        yield Static(id="there")

    def on_mount(self) -> None:
        self.look()

    @work(thread=True)
    def look(self) -> None:
        try:
            assert self.go_on.wait(60)
            self.app.call_from_thread(self.query_one, "#there")
        finally:
            self.done.set()

    async def on_unmount(self) -> None:
        self.go_on.set()
        assert await asyncio.to_thread(self.done.wait, 60)


@pytest.mark.parametrize("pop", [False, True], ids=["the app ends", "the screen is left"])
async def test_what_a_thread_does_not_find_on_a_left_screen_is_no_mistake(pop: bool) -> None:
    app: App[None] = App()
    async with app.run_test() as pilot:
        screen = InThread()
        await app.push_screen(screen)
        if pop:
            await app.pop_screen()
            await pilot.pause()
            assert app.is_running and app.return_code is None
    assert screen.done.is_set()


class Leaving(Static):
    """Says when it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()

    def on_unmount(self) -> None:
        self.gone.set()


class Looking(Static):
    """Looks for the widget beside it once that one has gone."""

    class Look(Message):
        pass

    looked = False

    async def on_looking_look(self) -> None:
        await asyncio.wait_for(self.screen.query_one(Leaving).gone.wait(), 60)
        self.looked = True
        self.screen.query_one(Leaving)


class Beside(Dialog[None]):
    """Two widgets, of which one handles a message while the other is taken down."""

    def compose(self) -> ComposeResult:
        yield Leaving()
        yield Looking()


@pytest.mark.parametrize("pop", [False, True], ids=["the app ends", "the screen is left"])
async def test_what_a_widget_does_not_find_on_a_left_screen_is_no_mistake(
    pop: bool, make_app: Callable[[], WorkbenchApp]
) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await app.push_screen(Beside())
        looking = app.screen.query_one(Looking)
        looking.post_message(Looking.Look())
        if pop:
            await app.pop_screen()
            await pilot.pause()
            assert app.is_running and app.return_code is None
    assert looking.looked


async def test_what_a_widget_does_not_find_on_a_screen_in_view_is_a_mistake(
    make_app: Callable[[], WorkbenchApp],
) -> None:
    app = make_app()
    with pytest.raises(NoMatches):
        async with app.run_test() as pilot:
            await app.push_screen(Beside())
            app.screen.query_one(Looking).post_message(Looking.Look())
            await app.screen.query_one(Leaving).remove()
            await pilot.pause()
