"""Tokens: a text as tokens while it is typed, two tokenizers side by side, and how they fit a dataset."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest
from textual.pilot import Pilot

from stages.store.tokenizers import INFO
from stages.store.workspace import Workspace
from tests.stages.data.parts import RHYMES, dataset_of, tokenizer_of
from tests.workbench.conftest import SIZES, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.tokens import TokensScreen
from workbench.widgets.text_field import TextField
from workbench.widgets.token_strip import SPACE, TokenStrip

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[..., Awaitable[None]]


@pytest.fixture
def bottles(workspace: Workspace) -> Workspace:
    """The dataset `rhymes` and two tokenizers: `bpe`, trained on it, and `words`."""
    dataset = dataset_of(workspace.datasets / "rhymes", [RHYMES], ["green bottles"])
    (dataset.path / "dataset.json").write_bytes(msgspec.json.encode(dataset.info))
    for name, kind in (("bpe", "bpe"), ("words", "wordpiece")):
        made = tokenizer_of(workspace.tokenizers / name, [RHYMES], kind=kind)
        info = msgspec.structs.replace(made.info, dataset="rhymes")
        (made.path / INFO).write_bytes(msgspec.json.encode(info))
    return workspace


async def opened(pilot: Pilot[None]) -> TokensScreen:
    """The screen over `bpe`, with all it shows there."""
    screen = TokensScreen("bpe")
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.is_mounted and strip(screen).tokens and "bpe" in screen._facts)
    await settled(pilot)
    return screen


def strip(screen: TokensScreen, place: str = "first") -> TokenStrip:
    return screen.query_one(f"#{place}", TokenStrip)


@pytest.mark.parametrize("size", SIZES)
async def test_snapshot(make_app: MakeApp, bottles: Workspace, snapshot: Snapshot, size: tuple[int, int]) -> None:
    async with make_app().run_test(size=size) as pilot:
        screen = await opened(pilot)
        await pilot.press("c")
        await wait_for(pilot, lambda: strip(screen, "second").tokens and "words" in screen._facts)
        await pilot.press("i")
        await snapshot(pilot, f"tokens-{size[0]}x{size[1]}")


async def test_typing_shows_the_tokens_of_what_is_typed(make_app: MakeApp, bottles: Workspace) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await pilot.press("e")
        screen.query_one(TextField).text = ""
        await pilot.press("space", *"green", "space", *"bottles")
        await wait_for(pilot, lambda: [token[1] for token in strip(screen).tokens] == [" green", " bottles"])
        assert "2 tokens, 7.00 bytes a token" in screen_text(pilot.app)
        await pilot.press("escape", "i")
        assert strip(screen).has_focus and "green₂" in screen_text(pilot.app)
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, TokensScreen)


async def test_a_record_of_the_dataset_becomes_the_text(make_app: MakeApp, bottles: Workspace) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await pilot.press("n")
        await wait_for(pilot, lambda: screen.query_one(TextField).text == RHYMES)
        assert "never occur" in screen_text(pilot.app) or "every token occurs" in screen_text(pilot.app)


async def test_data_opens_it_on_the_selected_tokenizer(make_app: MakeApp, bottles: Workspace) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.show_data("tokenizer", "words")
        await settled(pilot)
        await pilot.press("v")
        await wait_for(pilot, lambda: isinstance(app.screen, TokensScreen))
        assert isinstance(app.screen, TokensScreen) and app.screen.names[0] == "words"


async def test_without_a_tokenizer_it_says_how_to_get_one(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(TokensScreen())
        await wait_for(pilot, lambda: "t trains one" in screen_text(app))


async def test_without_colours_bars_part_the_tokens(
    make_app: MakeApp, bottles: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen.query_one(TextField).text = " green bottles"
        await wait_for(pilot, lambda: strip(screen).plain.replace(SPACE, " ") == " green│ bottles│")


async def test_styles_may_be_given_token_by_token(make_app: MakeApp, bottles: Workspace) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        shown = strip(await opened(pilot))
        shown.show([[1, "a", False], [2, "b\n", False], [3, "c", True]], ["trained", "ignored", "cut"])
        assert shown._written == [("a", "trained"), ("b␊", "ignored"), ("\n", "note"), ("c", "cut")]
