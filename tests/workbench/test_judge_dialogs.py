"""What judging asks for in dialogs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.widgets import Input

from tests.workbench.conftest import screen_text, settled
from workbench.app import WorkbenchApp
from workbench.screens.judge_dialogs import ask_place
from workbench.screens.question import Ask

MakeApp = Callable[..., WorkbenchApp]


@pytest.mark.parametrize("text", ["²", "9" * 5_000, "0", "13", "-1", "1.5", ""])
async def test_a_place_that_is_none_is_asked_for_again(text: str, make_app: MakeApp) -> None:
    gone_to: list[int] = []
    app: WorkbenchApp | Any = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        ask_place(app, 0, 12, gone_to.append)
        await pilot.pause()
        app.screen.query_one(Input).value = text
        await pilot.press("enter")
        assert isinstance(app.screen, Ask) and gone_to == []
        assert "Give a number from 1 to 12." in screen_text(app)
        app.screen.query_one(Input).value = "012"
        await pilot.press("enter")
        assert gone_to == [11]
