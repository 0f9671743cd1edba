"""Several runs on one plot: marks, the legend, the axis, ranges, and the filter of the list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest
from textual.events import MouseScrollDown, MouseScrollUp
from textual.pilot import Pilot

from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, SIZES, add_metrics, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.plots.scope import WHOLE
from workbench.screens.question import Ask
from workbench.screens.run import RunScreen
from workbench.screens.runs import RunsScreen
from workbench.widgets.filter_field import FilterField
from workbench.widgets.loss_plot import NEARER, LossPlot
from workbench.widgets.run_list import RunList

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]


def add_curve(workspace: Workspace, name: str, level: float, *, created: float, rows: int = 40) -> RunDir:
    """A finished run whose loss falls towards `level`, 10 steps and 2 seconds a row, 640 tokens a step."""
    run = add_run(workspace, "pretrain", name, created=created, step=rows * 10, total=rows * 10)
    lines = [
        {
            "step": row * 10,
            "time": created + 2.0 * row,
            "train/loss": level + 3 / row,
            "tokens": 6_400.0 * row,
            **({"val/loss": level + 0.1 + 3 / row} if row % 10 == 0 else {}),
        }
        for row in range(1, rows + 1)
    ]
    run.metrics.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return run


@pytest.fixture
def three(populated: Workspace) -> list[RunDir]:
    """Three runs above those of `populated`, the newest first in the list."""
    return [
        add_curve(populated, name, level, created=CREATED + 300 - number)
        for number, (name, level) in enumerate([("low", 1.0), ("middle", 2.0), ("high", 3.0)])
    ]


async def open_runs(pilot: Pilot[None]) -> RunsScreen:
    pilot.app.go("runs")  # type: ignore[attr-defined]  # a WorkbenchApp
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.query("RunList"))
    await settled(pilot)
    assert isinstance(pilot.app.screen, RunsScreen)
    return pilot.app.screen


async def drawn(pilot: Pilot[None], *texts: str) -> None:
    """Wait until all `texts` are on the screen."""
    await wait_for(pilot, lambda: all(text in screen_text(pilot.app) for text in texts))


def extent(screen: RunsScreen | RunScreen) -> tuple[float, float] | None:
    return screen.query_one(LossPlot).extent


@pytest.mark.parametrize("size", SIZES)
async def test_marked_runs_share_the_plot(
    three: list[RunDir], make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_runs(pilot)
        await pilot.press("space", "j", "space", "j")
        await drawn(pilot, "● low 1.075", "◆ middle 2.075", "━ high 3.075", "● ✓ low", "◆ ✓ middle", "train/loss")
        await snapshot(pilot, f"runs-marked-{size[0]}x{size[1]}")


async def test_a_mark_stays_with_its_run_and_its_marker_with_the_mark(
    three: list[RunDir], populated: Workspace, make_app: MakeApp
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await pilot.press("space", "j", "space")
        await pilot.press("k", "space")
        await drawn(pilot, "◆ ✓ middle", "  ✓ low")
        add_run(populated, "pretrain", "newcomer", created=CREATED + 900)
        await drawn(pilot, "newcomer")
        app.go("home")
        await settled(pilot)
        app.go("runs")
        await drawn(pilot, "◆ ✓ middle")
        screen.query_one(RunList).select(three[2].id)
        await pilot.press("space")
        await drawn(pilot, "● ✓ high", "● high", "◆ middle")
        await pilot.press("u")
        await drawn(pilot, "loss, nats a token   ━ train 3.075")


async def test_as_many_runs_can_be_marked_as_there_are_markers(populated: Workspace, make_app: MakeApp) -> None:
    for number in range(9):
        add_curve(populated, f"run-{number}", number, created=CREATED + 100 + number)
    async with make_app().run_test(size=(120, 40), notifications=True) as pilot:
        await open_runs(pilot)
        for _ in range(8):
            await pilot.press("space", "j")
        await drawn(pilot, "7 runs are marked")
        await drawn(pilot, "△ ✓ run-2", "  ✓ run-1", "+")


async def test_a_metric_chosen_for_one_run_stays_chosen_for_several(three: list[RunDir], make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_runs(pilot)
        await drawn(pilot, "loss, nats a token   ━ train 1.075")
        await pilot.press("space", "j")
        await drawn(pilot, "train/loss", "middle 2.075")
        await pilot.press("right_square_bracket")
        await drawn(pilot, "val/loss", "low 1.175", "middle 2.175")
        await pilot.press("u")
        await drawn(pilot, "loss, nats a token   ━ train 2.075   ◆ val 2.175")


async def test_x_goes_through_steps_tokens_and_time_since_the_start(three: list[RunDir], make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await drawn(pilot, "━ train")
        await pilot.press("x")
        await drawn(pilot, "against tokens", "100k", "200k")
        await pilot.press("x")
        await drawn(pilot, "against time", "0:30", "1:00")
        assert extent(screen) == (0, 80)
        await pilot.press("x")
        await wait_for(pilot, lambda: extent(screen) == (0, 400))


async def test_tokens_are_passed_over_when_no_run_has_logged_them(populated: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_runs(pilot)
        await drawn(pilot, "━ train")
        await pilot.press("x")
        await drawn(pilot, "against time")


async def test_a_range_is_asked_for_shown_moved_and_left(three: list[RunDir], make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await drawn(pilot, "━ train")
        await pilot.press("right")
        assert screen.look.scope.range == WHOLE
        await pilot.press("z")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, Ask))
        await pilot.press(*"300-100", "enter")
        await drawn(pilot, "ends before it begins")
        await pilot.press("ctrl+u", *"100-200", "enter")
        await wait_for(pilot, lambda: extent(screen) == (100, 200))
        await drawn(pilot, "100-200")
        await pilot.press("right")
        assert extent(screen) == (125, 225)
        await pilot.press("i", "less_than_sign", "y", "plus")
        assert extent(screen) == pytest.approx((137.5, 187.5))
        await drawn(pilot, "log · smoothed 0.6 · 138-188")
        await pilot.press("Z")
        assert extent(screen) == (0, 400)


async def test_the_wheel_zooms_the_plot(three: list[RunDir], make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await drawn(pilot, "━ train")
        plot = screen.query_one(LossPlot)
        assert (whole := plot.extent) is not None
        plot.post_message(MouseScrollUp(plot, 9, 9, 0, -1, 0, False, False, False))
        await wait_for(pilot, lambda: screen.look.scope.range != WHOLE)
        assert plot.extent is not None
        assert plot.extent[1] - plot.extent[0] == pytest.approx(NEARER * (whole[1] - whole[0]))
        plot.post_message(MouseScrollDown(plot, 9, 9, 0, 1, 0, False, False, False))
        await wait_for(pilot, lambda: screen.look.scope.range == WHOLE)


async def test_zooming_out_ends_with_the_whole(three: list[RunDir], make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await drawn(pilot, "━ train")
        await pilot.press("i", "i")
        assert extent(screen) == (150, 250)
        await pilot.press("o", "o", "o", "o")
        assert screen.look.scope.range == WHOLE


async def test_a_range_without_rows_says_so(three: list[RunDir], make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_runs(pilot)
        await drawn(pilot, "━ train")
        await pilot.press("z")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, Ask))
        await pilot.press(*"5k-6k", "enter")
        await drawn(pilot, "nothing in 5k-6k; Z shows all")


async def test_the_screen_of_one_run_has_axes_and_ranges_too(three: list[RunDir], make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.open_run(three[0])  # type: ignore[attr-defined]  # a WorkbenchApp
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.run_in_view())
        screen = pilot.app.screen
        assert isinstance(screen, RunScreen)
        await drawn(pilot, "━ train")
        await pilot.press("i", "right")
        assert extent(screen) == (150, 350)
        await pilot.press("x")
        await drawn(pilot, "against tokens", "200k")


@pytest.mark.parametrize("size", SIZES)
async def test_a_filter_narrows_the_list_as_one_types(
    three: list[RunDir], make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        screen = await open_runs(pilot)
        await pilot.press("slash", *"world Pre")
        await wait_for(pilot, lambda: len(screen.query_one(RunList)._entries) == 3)
        await drawn(pilot, "too-hot", "cut-off", "world-tiny", "3 of 8")
        assert "middle" not in screen_text(pilot.app)
        await snapshot(pilot, f"runs-filter-{size[0]}x{size[1]}")
        await pilot.press(*" lost", "enter")
        await wait_for(pilot, lambda: len(screen.query_one(RunList)._entries) == 1)
        assert isinstance(screen.focused, RunList)
        await pilot.press("escape")
        await drawn(pilot, "middle")
        assert not screen.query_one(FilterField).display


async def test_a_filter_that_nothing_passes_says_so_and_escape_brings_all_back(
    three: list[RunDir], make_app: MakeApp
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await pilot.press("slash", *"nosuch", "enter")
        await drawn(pilot, "No run has all of nosuch")
        await pilot.press("escape")
        await drawn(pilot, "world-tiny", "middle")
        await wait_for(pilot, lambda: isinstance(screen.focused, RunList))
        await pilot.press("j")
        assert screen.query_one(RunList).cursor == 1


async def test_a_marked_run_at_work_grows_while_another_is_in_view(populated: Workspace, make_app: MakeApp) -> None:
    run = add_run(populated, "pretrain", "at-work", "running", created=CREATED + 60, step=500)
    add_metrics(run, 50)
    assert run.acquire() is not None
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_runs(pilot)
        await pilot.press("space", "j")
        await drawn(pilot, "● at-work 1.56", "━ world-tiny 1.515")
        with run.metrics.open("ab") as file:
            file.write(b'{"step":510,"train/loss":1.2345}\n')
        await drawn(pilot, "● at-work 1.234")
        with run.metrics.open("ab") as file:
            file.write(b'{"rewind_to":250}\n{"step":260,"train/loss":7.5}\n')
        await drawn(pilot, "● at-work 7.5")
