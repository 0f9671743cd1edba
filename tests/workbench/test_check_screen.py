"""The data doctor's screen: what it shows, what its keys do, and that leaving it stops the work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from stages.store.checks import Bar, Check, Example, Finding, Lengths
from stages.store.datasets import Problem
from stages.store.desk import DeskProgress
from stages.store.errors import UserError
from stages.store.workspace import Workspace
from tests.workbench.conftest import SIZES, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.build import BuildScreen
from workbench.screens.check import CheckScreen, ExamplesScreen
from workbench.screens.data import DataScreen
from workbench.talking.desk_client import DeskClient

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[..., Awaitable[None]]

REPORT = Check(
    name="asked.jsonl",
    kind="chat",
    records={"all": 2_412},
    files=2,
    bytes=1_204_118,
    characters=1_099_804,
    notes=["All that was read is UTF-8.", "91% of the records are plain ASCII."],
    lengths=[
        Lengths(
            "characters",
            12,
            4_604,
            455.9,
            {"p5": 70, "p50": 373, "p95": 2_032},
            [
                Bar(10, 20, 3),
                Bar(20, 50, 41),
                Bar(50, 100, 260),
                Bar(100, 200, 702),
                Bar(200, 500, 1_011),
                Bar(500, 1_000, 300),
                Bar(1_000, 2_000, 90),
                Bar(2_000, 5_000, 5),
            ],
        )
    ],
    findings=[
        Finding(
            "repeated prompts",
            "Their prompt came before in another record.",
            134,
            [Example("asked.jsonl:187", "What is up?")],
            {"unique_prompts": True},
            "Several answers to one prompt are often meant.",
        ),
        Finding(
            "empty answers",
            "An answer or a completion is empty.",
            4,
            [Example("asked.jsonl:87", "Can you help me?⏎"), Example("asked.jsonl:517", "What do you think?⏎")],
            {"drop_empty_answers": True},
        ),
        Finding(
            "replacement characters",
            "They hold U+FFFD.",
            1,
            [Example("asked.jsonl:9", "caf\ufffd")],
            advice="Read the original again.",
        ),
    ],
    problems=[Problem("asked.jsonl", 33, "messages", "There is no answer.")],
    problem_count=1,
    sources=["starter:instructions"],
    settings={"sources": ["starter:instructions"], "replace": True, "seed": 7},
)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the desk is asked; it answers with REPORT."""
    asked: list[dict[str, Any]] = []

    async def ask(self: DeskClient, verb: str, *, on_progress: Any = None, **args: Any) -> Any:
        asked.append({"verb": verb, **args})
        if verb != "data.check":
            raise UserError("Only checks are answered here.")
        return msgspec.to_builtins(REPORT)

    monkeypatch.setattr(DeskClient, "ask", ask)
    return asked


async def opened(pilot: Any, **asked: Any) -> CheckScreen:
    screen = CheckScreen(**(asked or {"settings": {"sources": ["asked.jsonl"]}}))
    await pilot.app.push_screen(screen)
    await settled(pilot)
    return screen


@pytest.mark.parametrize("size", SIZES)
async def test_snapshot(make_app: MakeApp, desk: list[Any], snapshot: Snapshot, size: tuple[int, int]) -> None:
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("D")
        await settled(pilot)
        await opened(pilot)
        await snapshot(pilot, f"check-{size[0]}x{size[1]}")


async def test_enter_shows_the_examples_of_a_finding(make_app: MakeApp, desk: list[Any]) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("j", "enter")
        await wait_for(pilot, lambda: isinstance(app.screen, ExamplesScreen))
        await settled(pilot)
        assert "asked.jsonl:517" in screen_text(app) and "drop_empty_answers=true" in screen_text(app)
        await pilot.press("escape")
        assert isinstance(app.screen, CheckScreen)


async def test_the_build_form_opens_with_every_fix(make_app: MakeApp, desk: list[Any]) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("b")
        await wait_for(pilot, lambda: isinstance(app.screen, BuildScreen))
        screen = app.screen
        assert isinstance(screen, BuildScreen)
        given = {key: screen.given[key] for key in ("sources", "seed", "unique_prompts", "drop_empty_answers")}
        assert given == {
            "sources": ["starter:instructions"],
            "seed": 7,
            "unique_prompts": True,
            "drop_empty_answers": True,
        }
        assert "replace" not in screen.given


async def test_a_dataset_is_examined_from_its_place(make_app: MakeApp, populated: Workspace, desk: list[Any]) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.show_data("dataset", "world")
        await wait_for(pilot, lambda: isinstance(app.screen, DataScreen) and "text dataset" in screen_text(app))
        await settled(pilot)
        await pilot.press("c")

        def asked(key: str, value: object) -> Callable[[], bool]:
            return lambda: any(call["verb"] == "data.check" and call.get(key) == value for call in desk)

        await wait_for(pilot, asked("dataset", "world"))
        await settled(pilot)
        await pilot.press("t")
        await wait_for(pilot, asked("tokenizer", "world-bpe"))
        await settled(pilot)
        await pilot.press("e")
        await settled(pilot)
        await pilot.press("enter")
        await wait_for(pilot, asked("against", ["starter:probes"]))


async def test_progress_shows_and_leaving_cancels(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def ask(self: DeskClient, verb: str, *, on_progress: Any, **args: Any) -> Any:
        on_progress(DeskProgress(42, 100, "checking"))
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(DeskClient, "ask", ask)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = CheckScreen(settings={"sources": ["big.jsonl"]})
        await app.push_screen(screen)
        await wait_for(pilot, lambda: "Checking 42%" in screen_text(app))
        await pilot.press("escape")
        await wait_for(pilot, lambda: ended.is_set() and app.screen is not screen)


async def test_a_refusal_is_shown_where_the_report_would_be(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(self: DeskClient, verb: str, **args: Any) -> Any:
        raise UserError("There is no file x.", "Name another.")

    monkeypatch.setattr(DeskClient, "ask", ask)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await wait_for(pilot, lambda: "There is no file x. Name another." in screen_text(app))
        await pilot.press("b", "enter")
        assert isinstance(app.screen, CheckScreen)
