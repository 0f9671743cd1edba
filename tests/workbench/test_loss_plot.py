"""The plot on a screen: drawn beside the keys, the newest picture only, and no more painted than has changed."""

from __future__ import annotations

import threading

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from tests.workbench.conftest import screen_text, settled, wait_for
from workbench.plots.picture import Picture
from workbench.plots.plot import Curve, Line
from workbench.widgets import loss_plot
from workbench.widgets.loss_plot import LossPlot


class PlotApp(App[None]):
    """A plot alone."""

    def __init__(self) -> None:
        super().__init__()
        self.pressed = 0

    def compose(self) -> ComposeResult:
        yield LossPlot()

    def key_j(self) -> None:
        self.pressed += 1


def titled(title: str, level: float = 1.0) -> Picture:
    return Picture(title, curves=[Curve([(float(x), level + x / 100) for x in range(100)], 0)])


async def test_keys_are_answered_while_a_frame_is_drawn_and_only_the_newest_picture_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[str] = []
    begun, finish = threading.Event(), threading.Event()

    def build(picture: Picture, width: int, height: int) -> list[Line]:
        drawn.append(picture.title)
        if picture.title == "slow":
            begun.set()
            assert finish.wait(60)
        return real(picture, width, height)

    real = loss_plot.build
    monkeypatch.setattr(loss_plot, "build", build)
    app = PlotApp()
    async with app.run_test(size=(60, 20)) as pilot:
        await settled(pilot)
        drawn.clear()
        plot = app.query_one(LossPlot)
        plot.show(titled("slow"))
        await wait_for(pilot, begun.is_set)
        await pilot.press("j")
        assert app.pressed == 1
        for number in range(5):
            plot.show(titled(f"picture {number}"))
        finish.set()
        await wait_for(pilot, lambda: "picture 4" in screen_text(app))
        assert drawn == ["slow", "picture 4"]


async def test_only_cells_that_changed_are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    app = PlotApp()
    async with app.run_test(size=(60, 20)) as pilot:
        plot = app.query_one(LossPlot)
        plot.show(titled("same"))
        await settled(pilot)
        painted: list[Region] = []
        refresh = plot.refresh

        def noted(*regions: Region) -> object:
            painted.extend(regions)
            return refresh(*regions)

        monkeypatch.setattr(plot, "refresh", noted)
        plot.show(titled("same"))
        await settled(pilot)
        assert not painted
        picture = titled("same")
        picture.curves[0].points = [*picture.curves[0].points[:-1], (99.0, 1.9)]
        plot.show(picture)
        await settled(pilot)
        assert 0 < sum(region.area for region in painted) < plot.size.area // 10


async def test_a_plot_that_was_resized_while_it_was_drawn_is_drawn_again() -> None:
    app = PlotApp()
    async with app.run_test(size=(60, 20)) as pilot:
        app.query_one(LossPlot).show(titled("fits"))
        await pilot.resize_terminal(80, 24)
        await settled(pilot)
        lines = screen_text(app).rstrip("\n").split("\n")
        assert len(lines) == 24
        assert max(map(len, lines)) == 80
