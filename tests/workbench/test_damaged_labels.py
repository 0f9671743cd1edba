"""Labels that cannot be read are said to be damaged, on whatever screen one asks for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.screen import Screen

from stages.store.labels import open_labels
from stages.store.workspace import Workspace
from tests.stages.store.labels.conftest import tasks
from tests.workbench.conftest import settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.freeze import FreezeScreen
from workbench.screens.judge import JudgeScreen
from workbench.screens.new_set import NewSetScreen
from workbench.screens.settling import SettleScreen

MakeApp = Callable[..., WorkbenchApp]


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    with open_labels(workspace.labels) as labels:
        labels.add_set("mine", "rank", tasks(40))
    data = bytearray(workspace.labels.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    workspace.labels.write_bytes(data)
    return workspace


@pytest.mark.parametrize(
    "make",
    [
        lambda: NewSetScreen(lambda _: None),
        lambda: FreezeScreen("mine"),
        lambda: SettleScreen("mine"),
        lambda: JudgeScreen("mine"),
    ],
    ids=["new", "freeze", "settle", "judge"],
)
async def test_damaged_labels_are_a_sentence(
    make: Callable[[], Screen[None]], make_app: MakeApp, workspace: Workspace
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await app.push_screen(make())
        await wait_for(pilot, lambda: any("labels.db is damaged" in note.title for note in app._notifications))
        await pilot.press("escape")
        await settled(pilot)
