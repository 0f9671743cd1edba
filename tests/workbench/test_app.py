"""The skeleton: places, keys, palette, help, sizes, themes, and leaving without harm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.command import CommandPalette

from stages.store.errors import UserError
from stages.store.workspace import Workspace
from tests.workbench.conftest import SIZES, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.keys import check_keymap, known_bindings
from workbench.screens.data import DataScreen
from workbench.screens.help import HelpScreen
from workbench.screens.home import HomeScreen
from workbench.screens.question import Ask
from workbench.settings import AppSettings, Settings

MakeApp = Callable[..., WorkbenchApp]

FOUGHT_OVER = {f"ctrl+{letter}" for letter in "abhijmsqwz"}
"""Keys that tmux, terminals and shells take for themselves."""


async def test_capital_letters_go_to_the_places(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await wait_for(pilot, lambda: isinstance(app.screen, HomeScreen))
        await pilot.press("D")
        await wait_for(pilot, lambda: isinstance(app.screen, DataScreen))
        await pilot.press("H")
        await wait_for(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_bars_of_places_and_keys_are_clickable(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await pilot.click("PlaceBar", offset=(screen_text(app).index("Data") + 1, 0))
        await wait_for(pilot, lambda: isinstance(app.screen, DataScreen))
        await settled(pilot)
        await pilot.click("KeyBar", offset=(screen_text(app).split("\n")[-2].index("Keys"), 0))
        await wait_for(pilot, lambda: isinstance(app.screen, HelpScreen))


async def test_quitting_says_which_runs_go_on(make_app: MakeApp, workspace: Workspace) -> None:
    run = add_run(workspace, "pretrain", "mine\x1b[31m", "running")
    assert run.acquire() is not None
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press("q")
        await pilot.pause()
    assert app.return_code == 0
    farewell = app._farewell()
    assert farewell is not None and "mine␛[31m" in farewell and "\x1b" not in farewell


async def test_ctrl_c_twice_leaves_and_once_does_not(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(notifications=True) as pilot:
        await pilot.press("ctrl+c")
        await wait_for(pilot, lambda: "ctrl+c again" in screen_text(app))
        assert app.is_running
        await pilot.press("ctrl+c")
        await pilot.pause()
    assert app.return_code == 0


async def test_question_mark_lists_the_keys_of_where_one_is(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 50)) as pilot:
        await settled(pilot)
        await pilot.press("question_mark")
        await wait_for(pilot, lambda: isinstance(app.screen, HelpScreen))
        await settled(pilot)
        shown = screen_text(app)
        for id_ in ("home.starter", "life.open", "app.quit"):
            assert id_ in shown
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_palette_can_do_what_the_keys_can(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 50)) as pilot:
        await settled(pilot)
        await pilot.press("ctrl+p")
        await wait_for(pilot, lambda: isinstance(app.screen, CommandPalette))
        await wait_for(pilot, lambda: "home: starter life" in screen_text(app) and "go: data" in screen_text(app))
        await pilot.press(*"go: data")
        await wait_for(pilot, lambda: "home: starter life" not in screen_text(app))
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, DataScreen))


async def test_keys_are_remapped_by_id(make_app: MakeApp) -> None:
    app = make_app(Settings(keys={"app.data": "x"}))
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("D")
        await pilot.pause()
        assert isinstance(app.screen, HomeScreen)
        await pilot.press("x")
        await wait_for(pilot, lambda: isinstance(app.screen, DataScreen))


async def test_unknown_id_in_keys_is_told(make_app: MakeApp) -> None:
    app = make_app(Settings(keys={"app.dta": "x"}))
    async with app.run_test(notifications=True, size=(100, 30)) as pilot:
        await wait_for(pilot, lambda: "app.data" in screen_text(app))


def test_every_binding_has_an_id_a_sentence_and_a_quiet_key() -> None:
    known = known_bindings()
    assert {"app.quit", "home.starter", "data.build", "list.down"} <= set(known)
    for id_, binding in known.items():
        assert "." in id_ and binding.tooltip, id_
        assert not set(binding.key.split(",")) & FOUGHT_OVER, id_
    with pytest.raises(UserError, match="no binding"):
        check_keymap({"home.startr": "x"})


@pytest.mark.parametrize("size", [(40, 12), (20, 5), (60, 16), (300, 100)])
async def test_any_size_is_survived(make_app: MakeApp, populated: Workspace, size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        for key in ("H", "D", "n", "escape", "question_mark"):
            await pilot.press(key)
            await settled(pilot)
        if size < (60, 16):
            assert "Enlarge the window" in screen_text(app) or isinstance(app.screen, HelpScreen)


async def test_too_small_a_window_says_so_and_recovers(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(50, 14)) as pilot:
        await settled(pilot)
        lines = [line for line in screen_text(app).split("\n") if line.strip()]
        assert lines == ["Enlarge the window: 50×14, not 60×16."]
        await pilot.resize_terminal(80, 24)
        await wait_for(pilot, lambda: "The model's life" in screen_text(app))


async def test_a_window_resized_below_a_dialog_fits_it_and_the_screen_behind_it(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        app.push_screen(Ask("A name", "For what?", "", lambda text: None))
        await wait_for(pilot, lambda: "For what?" in screen_text(app))
        await pilot.resize_terminal(50, 14)
        await wait_for(pilot, lambda: "Enlarge the window: 50×14" in screen_text(app))
        await pilot.press("escape")
        await wait_for(pilot, lambda: not isinstance(app.screen, Ask))
        await wait_for(pilot, lambda: screen_text(app).strip() == "Enlarge the window: 50×14, not 60×16.")
        app.push_screen(Ask("A name", "For what?", "", lambda text: None))
        await pilot.resize_terminal(60, 20)
        await wait_for(pilot, lambda: "For what?" in screen_text(app))
        await pilot.press("escape")
        await wait_for(pilot, lambda: "The model's life" in screen_text(app))


@pytest.mark.parametrize("theme", ["dark", "light", "ansi"])
async def test_themes(make_app: MakeApp, populated: Workspace, theme: str) -> None:
    app = make_app(Settings(app=AppSettings(theme=theme)))  # type: ignore[arg-type]  # parametrized
    async with app.run_test() as pilot:
        await settled(pilot)
        assert app.current_theme.dark is (theme != "light")
        assert app.native_ansi_color is (theme == "ansi")


async def test_no_color_is_honoured(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = make_app()
    async with app.run_test() as pilot:
        await settled(pilot)
        strips = app.screen._compositor.render_strips()
        colors = {
            style.color.get_truecolor()
            for strip in (
                strip.apply_filter(f, app.screen.background_colors[1]) for strip in strips for f in app._filters
            )
            for _, style, _ in strip
            if style and style.color
        }
        assert all(color.red == color.green == color.blue for color in colors)


async def test_toasts_show_foreign_text_as_text(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(notifications=True, size=(100, 30)) as pilot:
        await settled(pilot)
        app.notify("[/red] \x1b[2J", title="[@click=app.quit]x")
        await wait_for(pilot, lambda: "[/red] ␛[2J" in screen_text(app))
        assert "[@click=app.quit]x" in screen_text(app)


@pytest.mark.parametrize("size", SIZES)
async def test_help_snapshot(make_app: MakeApp, snapshot: Callable[..., object], size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("question_mark")
        await snapshot(pilot, f"help-{size[0]}x{size[1]}")  # type: ignore[misc]  # an async fixture
