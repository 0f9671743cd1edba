"""Pictures and cards: well-formed, with the curves that the screen shows, and harmless whatever names say."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.store.errors import UserError
from stages.store.rundir import find_run
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_checkpoint, add_metrics, add_run, settled, wait_for
from tests.workbench.test_runs_screens import open_runs
from workbench.app import WorkbenchApp
from workbench.cli.root import run as command
from workbench.plots.curves import Track
from workbench.plots.picture import Key, Look, Picture, groups, picture
from workbench.plots.plot import Curve
from workbench.plots.svg import legible_name, svg_of
from workbench.widgets.run_list import RunList

SVG = "{http://www.w3.org/2000/svg}"


def test_a_curve_stands_where_its_points_are() -> None:
    drawn = svg_of(Picture("loss", [Key("━", 0, "now", "1.0")], [Curve([(0, 4.0), (50, 2.0), (100, 1.0)], 0)]))
    line = ET.fromstring(drawn).find(f"{SVG}polyline")
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
    assert [x for x, _ in points] == [72.0, pytest.approx(504.0), 936.0]
    heights = [y for _, y in points]
    assert heights == sorted(heights)
    assert (heights[1] - heights[0]) / (heights[2] - heights[1]) == pytest.approx(2.0, rel=0.01)


def test_hostile_names_and_no_points_are_harmless() -> None:
    hostile = "</text><script>alert(1)</script>&\x1b[2J\x00"
    root = ET.fromstring(
        svg_of(Picture(hostile, [Key("●", 1, hostile, "1")], [Curve([(1, 2), (2, 1)], 1, "●", False)]))
    )
    assert {each.tag for each in root} == {f"{SVG}{name}" for name in ("rect", "text", "line", "path")}
    assert "nothing was logged" in svg_of(Picture("loss", empty="nothing was logged"))
    assert legible_name(["val/loss", "../../x y"]) == "val-loss-..-..-x-y"


def test_the_card_tells_where_a_checkpoint_comes_from(
    populated: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(populated.root))
    assert command(["card", "world-tiny", "--to", str(tmp_path / "card")]) == 0
    text = (tmp_path / "card" / "README.md").read_text()
    for wanted in ("# world-tiny, step 2,000", "- dataset: `world`", "![The loss", "workbench chat world-tiny@2000"):
        assert wanted in text
    drawn = ET.parse(tmp_path / "card" / "curves.svg").getroot()
    assert len(drawn.findall(f"{SVG}polyline")) == 1
    track = Track(find_run(populated, "world-tiny").metrics)
    track.catch_up()
    assert svg_of(picture(track, groups(track.whole.metrics())[0], Look())).count("<text") == len(
        drawn.findall(f"{SVG}text")
    )
    capsys.readouterr()
    assert command(["card", "world-tiny"]) == 0
    assert capsys.readouterr().out == text
    with pytest.raises(UserError, match="no checkpoint"):
        command(["card", "too-hot"])


async def test_a_key_saves_the_plot(workspace: Workspace, make_app: Callable[..., WorkbenchApp]) -> None:
    run = add_run(workspace, "pretrain", "first")
    add_metrics(run, 50)
    add_checkpoint(run, 20)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        screen.query_one(RunList).select(run.id)
        await settled(pilot)
        await wait_for(pilot, lambda: screen.tracks()[0].whole.metrics())
        await settled(pilot)
        await pilot.press("P")
        folder = workspace.root / "plots"
        await wait_for(pilot, lambda: folder.is_dir() and list(folder.glob("*.svg")))
        (path,) = folder.glob("*.svg")
        assert ET.parse(path).getroot().findall(f"{SVG}polyline")
