"""Evaluation in the app: the form, the table as it grows, the plot along a run, answers to read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import ContentSwitcher

from stages.store.errors import UserError
from stages.store.evaluations import FILE, Evaluation, Row
from stages.store.lineage import Stretch
from stages.store.rundir import Parent, RunDir, RunError, list_runs
from stages.store.workspace import Workspace
from tests.workbench.conftest import (
    CREATED,
    DATASET_DIGEST,
    SIZES,
    add_checkpoint,
    add_dataset,
    add_run,
    screen_text,
    settled,
    wait_for,
)
from tests.workbench.evaluations import SKY, add_evaluation, answered, row, write_evaluation
from workbench import runs
from workbench.app import WorkbenchApp
from workbench.cli.root import run as command
from workbench.evaluating import best, heading, listed, name_for
from workbench.plots.evaluation_picture import has_line, picture_of
from workbench.plots.plot import Curve
from workbench.screens.evaluate import EvaluateScreen
from workbench.screens.evaluation import AnswerScreen, EvaluationScreen
from workbench.screens.run import RunScreen
from workbench.screens.runs import RunsScreen
from workbench.widgets.form import SpecForm
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.measure_table import MeasureTable
from workbench.widgets.run_list import RunList

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]

GROWTH = answered(
    [row(100, 40, "red", "The sky is green.", "blue"), row(200, 120, "green"), row(300, 190, "Blue, I would say.")]
)


@pytest.fixture
def tuned(populated: Workspace) -> Workspace:
    """Two models with checkpoints, and data to measure them on."""
    add_dataset(populated, "world-eval", kind="prompts", digest="e1" * 32, created=CREATED + 20)
    model = add_run(populated, "sft", "world-tiny-sft", created=CREATED + 50, last_checkpoint="step-300")
    for step in (100, 200, 300):
        add_checkpoint(model, step)
    first = next(run for run in list_runs(populated) if run.spec().name == "world-tiny")
    first.write_state(msgspec.structs.replace(first.state(), last_checkpoint="step-2000"))
    return populated


@pytest.fixture
def launched(tuned: Workspace, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was asked to be launched; nothing is."""
    asked: list[dict[str, Any]] = []

    def launch(_: Workspace, stage: str, name: str, settings: dict[str, Any], **rest: Any) -> RunDir:
        asked.append({"stage": stage, "name": name, **rest, **settings})
        return add_evaluation(tuned, None, name)

    monkeypatch.setattr(runs, "launch", launch)
    return asked


async def open_evaluation(pilot: Pilot[None], run: RunDir) -> EvaluationScreen:
    pilot.app.open_run(run)  # type: ignore[attr-defined]  # a WorkbenchApp
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, EvaluationScreen) and pilot.app.screen.run_in_view())
    await settled(pilot)
    assert isinstance(pilot.app.screen, EvaluationScreen)
    return pilot.app.screen


async def open_runs(pilot: Pilot[None]) -> RunList:
    pilot.app.go("runs")  # type: ignore[attr-defined]  # a WorkbenchApp
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.query("RunList"))
    await wait_for(pilot, lambda: pilot.app.screen.query_one(RunList).entry)
    await settled(pilot)
    return pilot.app.screen.query_one(RunList)


def shows(app: WorkbenchApp, text: str) -> bool:
    return text in screen_text(app)


def run_of(workspace: Workspace, name: str) -> RunDir:
    return next(run for run in list_runs(workspace) if run.spec().name == name)


@pytest.mark.parametrize("size", SIZES)
async def test_the_form_looks_like_this(
    tuned: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        app.start_run("evaluate", {"checkpoints": "world-tiny-sft"})
        await settled(pilot)
        await snapshot(pilot, f"evaluate-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", SIZES)
async def test_an_evaluation_looks_like_this(
    tuned: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    run = add_evaluation(tuned, GROWTH)
    async with make_app().run_test(size=size) as pilot:
        await open_evaluation(pilot, run)
        await snapshot(pilot, f"evaluation-{size[0]}x{size[1]}")


@pytest.fixture
def lineage(tuned: Workspace) -> RunDir:
    """An evaluation of world-tiny at 1000 and 2000, and of world-tiny-sft, which went on from 2000, at its steps."""
    base, model = run_of(tuned, "world-tiny"), run_of(tuned, "world-tiny-sft")
    add_checkpoint(base, 1_000)
    came = {"checkpoint": Parent(str(base.checkpoints / "step-2000"))}
    for step in (400, 800):
        add_checkpoint(model, step, parents=came)
    rows = [row(1_000, 4, run="world-tiny"), row(2_000, 10, run="world-tiny"), row(400, 120), row(800, 190)]
    folders = [*(base.checkpoints / f"step-{step}" for step in (1_000, 2_000))]
    folders += [model.checkpoints / f"step-{step}" for step in (400, 800)]
    parents = {f"checkpoint-{number}": Parent(str(folder)) for number, folder in enumerate(folders, 1)}
    return add_evaluation(tuned, answered(rows), parents=parents)


async def test_a_lineage_is_one_line_from_run_to_run(lineage: RunDir, make_app: MakeApp, snapshot: Snapshot) -> None:
    """Against the steps made in all, with x against the checkpoints in order."""
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_evaluation(pilot, lineage)
        await snapshot(pilot, "evaluation-lineage-120x40")
        plot = screen.query_one(LossPlot)
        assert [points_of(curve) for curve in plot._picture.curves if curve.joined] == [
            [(1_000, 2.0), (2_000, 5.0)],
            [(2_000, 5.0), (2_400, 60.0)],
            [(2_400, 60.0), (2_800, 95.0)],
        ]
        await pilot.press("x")
        await settled(pilot)
        assert [points_of(curve) for curve in plot._picture.curves if curve.joined] == [
            [(1, 2.0), (2, 5.0)],
            [(2, 5.0), (3, 60.0)],
            [(3, 60.0), (4, 95.0)],
        ]
        assert "in order" in screen_text(pilot.app)


def points_of(curve: Curve) -> list[tuple[float, float]]:
    return [(x, round(y, 1)) for x, y in curve.points]


def test_a_run_joins_the_last_measured_checkpoint_before_it_went_on() -> None:
    """Also where a run between them was not measured, and where one model was imported and has no steps."""
    ancestries = {
        "base": [Stretch("pretrain", "base", 900)],
        "dpo": [Stretch("pretrain", "base", 600), Stretch("sft", "sft", 50), Stretch("dpo", "dpo", 20)],
        "tuned": [Stretch("", "smol", 0), Stretch("sft", "tuned", 30)],
    }
    rows = [row(300, 2, run="base"), row(900, 4, run="base"), row(10, 20, run="dpo"), row(20, 22, run="dpo")]
    found = answered([*rows, row(30, 100, run="tuned"), msgspec.structs.replace(row(0, 60), checkpoint="smol")])
    curves = [points_of(curve) for curve in picture_of(found, "exact", ancestries).curves if curve.joined]
    assert curves == [
        [(300, 1.0), (900, 2.0)],
        [(300, 1.0), (660, 10.0)],
        [(660, 10.0), (670, 11.0)],
        [(0, 30.0), (30, 50.0)],
        [(30, 50.0)],
        [(0, 30.0)],
    ]
    assert has_line(answered(found.rows[4:]), ancestries) and not has_line(answered(found.rows[4:]))


async def test_the_form_measures_all_checkpoints_of_the_run_one_came_from(
    tuned: Workspace, make_app: MakeApp, launched: list[dict[str, Any]]
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        (await open_runs(pilot)).select(run_of(tuned, "world-tiny-sft").id)
        await pilot.press("e")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, EvaluateScreen))
        await settled(pilot)
        form = pilot.app.screen.query_one(SpecForm)
        form.rows["dataset"].text = "world-eval"
        form.rows["of_each_run"].text = "all"
        await wait_for(pilot, lambda: "3 checkpoints" in screen_text(pilot.app))
        assert form.rows["name"].text == "world-tiny-sft-on-world-eval"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, EvaluationScreen))
    (asked,) = launched
    assert asked["checkpoints"] == ["world-tiny-sft@100", "world-tiny-sft@200", "world-tiny-sft@300"]
    assert (asked["stage"], asked["dataset"]) == ("evaluate", "world-eval")


async def test_marked_runs_are_measured_side_by_side(tuned: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40), notifications=True) as pilot:
        listing = await open_runs(pilot)
        listing.select(run_of(tuned, "cut-off").id)
        await pilot.press("e")
        await wait_for(pilot, lambda: "no checkpoint to evaluate" in screen_text(pilot.app))
        for name in ("world-tiny", "world-tiny-sft"):
            listing.select(run_of(tuned, name).id)
            await pilot.press("space")
        await pilot.press("e")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, EvaluateScreen))
        await settled(pilot)
        form = pilot.app.screen.query_one(SpecForm)
        assert form.rows["checkpoints"].text == "world-tiny, world-tiny-sft"


async def test_a_run_offers_to_measure_its_checkpoints(tuned: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.open_run(run_of(tuned, "world-tiny"))  # type: ignore[attr-defined]  # a WorkbenchApp
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.run_in_view())
        await pilot.press("e")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, EvaluateScreen))
        await settled(pilot)
        assert pilot.app.screen.query_one(SpecForm).rows["checkpoints"].text == "world-tiny"


async def test_the_palette_opens_the_form_wherever_one_is(tuned: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("ctrl+p")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, CommandPalette))
        await pilot.press(*"checkpoints: ev")
        await wait_for(pilot, lambda: "checkpoints: evaluate" in screen_text(pilot.app))
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, EvaluateScreen))


async def test_a_checkpoint_that_is_not_there_is_told_at_its_field(
    tuned: Workspace, make_app: MakeApp, launched: list[dict[str, Any]]
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        for text, told in (
            ("world-tiny@7", "no checkpoint at step 7"),
            ("nobody", "no run 'nobody'"),
            (" , ", "No checkpoint is named."),
        ):
            app.start_run("evaluate", {"checkpoints": text, "name": "x"})
            await settled(pilot)
            await pilot.press("ctrl+r")
            await wait_for(pilot, partial(shows, app, told))
            await pilot.press("escape")
            await wait_for(pilot, lambda: not isinstance(app.screen, EvaluateScreen))
    assert not launched


async def test_the_cursor_chooses_the_measure_and_the_checkpoint(tuned: Workspace, make_app: MakeApp) -> None:
    run = add_evaluation(tuned, GROWTH)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_evaluation(pilot, run)
        table = screen.query_one(MeasureTable)
        assert table.has_focus and table.measure == "exact"
        assert "95.0 % (91.0–97.3)" in screen_text(pilot.app)
        assert "The sky is green." in screen_text(pilot.app)
        await pilot.press("l", "l", "j")
        await settled(pilot)
        assert screen.checkpoint is GROWTH.rows[2] or screen.checkpoint == GROWTH.rows[2]
        assert "Blue, I would say." in screen_text(pilot.app)
        assert "The sky is green." not in screen_text(pilot.app)
        assert screen.query_one(LossPlot)._picture.title == "exact/facts, %"
        await pilot.press("right_square_bracket", "right_square_bracket")
        assert table.measure == "exact"


async def test_a_whole_answer_stands_beside_those_of_the_other_checkpoints(tuned: Workspace, make_app: MakeApp) -> None:
    run = add_evaluation(tuned, GROWTH)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_evaluation(pilot, run)
        await pilot.press("tab", "j", "enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, AnswerScreen))
        await settled(pilot)
        shown = screen_text(pilot.app)
        assert SKY in shown and "wanted" in shown
        for text in ("The sky is green.", "✗ world-tiny-sft@200", "Blue, I would say."):
            assert text in shown
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, EvaluationScreen))


async def test_the_table_grows_while_the_worker_is_at_it(tuned: Workspace, make_app: MakeApp) -> None:
    run = add_evaluation(tuned, None, status="running", step=20, phase="checkpoint 1")
    assert run.acquire() is not None
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_evaluation(pilot, run)
        assert "nothing measured yet" in screen_text(pilot.app)
        write_evaluation(run, answered(GROWTH.rows[:1]))
        await wait_for(pilot, lambda: "world-tiny-sft@100" in screen_text(pilot.app))
        assert not screen.query_one("#run-plot").display
        await pilot.press("j")
        write_evaluation(run, answered(GROWTH.rows[:2]))
        await wait_for(pilot, lambda: "world-tiny-sft@200" in screen_text(pilot.app))
        assert screen.query_one("#run-plot").display
        assert screen.query_one(MeasureTable).measure == "exact/facts"


async def test_a_failed_evaluation_shows_why(tuned: Workspace, make_app: MakeApp) -> None:
    error = RunError("UserError", "There is no multiple choice among these records.", "Choose another dataset.")
    run = add_evaluation(tuned, None, status="failed", error=error)
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_evaluation(pilot, run)
        assert "There is no multiple choice among these records." in screen_text(pilot.app)
        assert screen.query_one(ContentSwitcher).current == "log"


async def test_an_evaluation_that_cannot_be_read_is_told_in_a_sentence(tuned: Workspace, make_app: MakeApp) -> None:
    run = add_evaluation(tuned, GROWTH)
    (run.path / FILE).write_text('{"dataset": 1')
    async with make_app().run_test(size=(120, 40), notifications=True) as pilot:
        pilot.app.open_run(run)  # type: ignore[attr-defined]  # a WorkbenchApp
        await wait_for(pilot, lambda: "cannot be read" in screen_text(pilot.app))
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_measuring_again_starts_from_what_was_asked(tuned: Workspace, make_app: MakeApp) -> None:
    run = add_evaluation(tuned, None)
    spec = run.spec()
    folder = str(run_of(tuned, "world-tiny-sft").checkpoints / "step-200")
    parents = {**spec.parents, "checkpoint-1": Parent(folder, DATASET_DIGEST)}
    (run.path / "spec.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(spec, parents=parents)))
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_evaluation(pilot, run)
        await pilot.press("e")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, EvaluateScreen))
        await settled(pilot)
        form = pilot.app.screen.query_one(SpecForm)
        texts = {name: form.rows[name].text for name in ("dataset", "match", "max_records", "checkpoints")}
    assert texts == {"dataset": "world-eval", "match": "world", "max_records": "200", "checkpoints": folder}


def test_runs_show_prints_the_table_of_an_evaluation(tuned: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    add_evaluation(tuned, GROWTH)
    assert command(["runs", "show", "measured"]) == 0
    told = capsys.readouterr().out
    assert "world-tiny-sft@300" in told and "95.0 % (91.0–97.3)" in told
    assert "red (wanted blue)" in told


def test_checkpoints_are_named_as_on_the_command_line(tuned: Workspace) -> None:
    assert listed(tuned, "world-tiny, world-tiny-sft@200,") == ["world-tiny", "world-tiny-sft@200"]
    assert listed(tuned, "world-tiny,world-tiny-sft@200", every=True) == ["world-tiny@2000", "world-tiny-sft@200"]
    with pytest.raises(UserError):
        listed(tuned, "world-tiny, nobody", every=True)


@pytest.mark.parametrize("checkpoint", ["world-tiny@200", "/data/models/my model", "~/x", "…", "a" * 90])
def test_an_evaluation_is_called_by_a_name_that_a_run_may_have(checkpoint: str) -> None:
    from stages.store.names import check_name

    assert check_name(name_for(checkpoint, "world-eval"))


def test_each_run_is_a_line_in_the_order_of_its_steps() -> None:
    rows = [row(300, 100), row(100, 20), row(50, 60, run="other"), row(90, 80, run="other"), row(7, 1, run="alone")]
    shown = picture_of(answered(rows), "exact")
    assert [key.name for key in shown.keys] == ["world-tiny-sft", "other"]
    assert [curve.points for curve in shown.curves if curve.joined] == [
        [(100.0, 10.0), (300.0, 50.0)],
        [(50.0, 30.0), (90.0, 40.0)],
    ]


def test_a_run_alone_has_its_intervals_drawn() -> None:
    low, high, line, _ = picture_of(GROWTH, "exact").curves
    for (_, below), (_, value), (_, above) in zip(low.points, line.points, high.points, strict=True):
        assert below < value < above


def test_less_is_better_of_a_loss_and_more_of_a_share() -> None:
    losses = [Row(checkpoint=f"a@{step}", step=step, figures={"loss": value}) for step, value in ((1, 3.0), (2, 2.0))]
    found = Evaluation(dataset="d", dataset_digest=DATASET_DIGEST, kind="text", split="val", records=1, rows=losses)
    assert best(found, "loss") == [1]
    assert best(GROWTH, "exact") == [2] and best(GROWTH, "exact/sums") == []


def test_a_long_name_keeps_its_step() -> None:
    assert heading("world@5", 22) == "world@5"
    short = heading("a-very-long-name-of-a-model@12000", 22)
    assert len(short) == 22 and short.endswith("@12000")
