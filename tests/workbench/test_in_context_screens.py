"""In-context evaluation in the app: the form, the table by number of examples, the plot against it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.errors import UserError
from stages.store.evaluations import Answer, Evaluation, Row
from stages.store.rundir import Parent, RunDir
from stages.store.statistics import share
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
from tests.workbench.evaluations import write_evaluation
from workbench import runs
from workbench.app import WorkbenchApp
from workbench.cli.root import run as command
from workbench.plots.evaluation_picture import few_shot_picture, has_shots
from workbench.screens.in_context import FewShotScreen, InContextScreen
from workbench.widgets.form import SpecForm

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]
HOSTILE = "\x1b[31mred\u202e"


def row(step: int, *hits: int) -> Row:
    """Right of 48 questions with 0, 1, 4 and so on examples."""
    shares = {}
    for k, right in zip((0, 1, 4, 8), hits, strict=False):
        shares[f"{k}-shot"] = share(right, 48)
        shares |= {f"{k}-shot/young": share(right // 2, 24), f"{k}-shot/sound": share(right - right // 2, 24)}
    answers = [Answer(prompt="cat: kitten\ndog:", text=HOSTILE, wanted="puppy", right=False)]
    return Row(checkpoint=f"world-tiny@{step}", step=step, shares=shares, answers=answers)


def evaluation(*rows: Row) -> Evaluation:
    return Evaluation(
        dataset="lists", dataset_digest=DATASET_DIGEST, kind="labelled", split="all", records=48, rows=list(rows)
    )


@pytest.fixture
def measured(populated: Workspace) -> RunDir:
    """A run of stage in_context with what it found, its checkpoint and its dataset."""
    add_dataset(populated, "lists", kind="labelled", digest="e1" * 32, created=CREATED + 20)
    model = add_run(populated, "pretrain", "looked", created=CREATED + 50, last_checkpoint="step-2000")
    add_checkpoint(model, 2_000)
    parents = {"dataset": Parent("lists", "e1" * 32), "checkpoint": Parent(str(model.checkpoints / "step-2000"), "00")}
    settings = {"shots": [0, 1, 4], "task": "question"}
    run = add_run(
        populated, "in_context", "few", created=CREATED + 100, parents=parents, settings=settings, unit="questions"
    )
    write_evaluation(run, evaluation(row(2_000, 16, 20, 30)))
    return run


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_looks_like_this(
    measured: RunDir, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with (app := make_app()).run_test(size=size) as pilot:
        app.open_run(measured)
        await wait_for(pilot, lambda: isinstance(app.screen, FewShotScreen) and app.screen.found)
        await settled(pilot)
        await wait_for(pilot, lambda: "against examples" in screen_text(app))
        await snapshot(pilot, f"in-context-{size[0]}x{size[1]}")
        assert "␛[31mred" in screen_text(app) and "\x1b" not in screen_text(app)


async def test_e_opens_the_form_with_what_was_asked_and_starts_another(
    measured: RunDir, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[dict[str, Any]] = []

    def launch(_: Workspace, stage: str, name: str, settings: dict[str, Any], **rest: Any) -> RunDir:
        asked.append({"stage": stage, "name": name, **rest, **settings})
        return measured

    monkeypatch.setattr(runs, "launch", launch)
    async with (app := make_app()).run_test(size=(120, 50)) as pilot:
        app.open_run(measured)
        await wait_for(pilot, lambda: isinstance(app.screen, FewShotScreen) and app.screen.found)
        await settled(pilot)
        await pilot.press("e")
        await wait_for(pilot, lambda: isinstance(app.screen, InContextScreen))
        await wait_for(pilot, lambda: "right if its likeliest option is" in screen_text(app))
        form = app.screen.query_one(SpecForm)
        form.rows["checkpoints"].text = "looked"
        form.rows["task"].text = "./nowhere.jinja"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "There is no task template" in screen_text(app))
        template = tmp_path / "mine.jinja"
        template.write_text("{{ item.question }}")
        form.rows["task"].text = str(template)
        form.rows["shots"].text = "0, 2, 8"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: asked)
    assert (asked[0]["stage"], asked[0]["shots"], asked[0]["task"]) == ("in_context", [0, 2, 8], str(template))
    assert asked[0]["name"].startswith("few-shot-")


async def test_the_palette_opens_the_form(measured: RunDir, make_app: MakeApp) -> None:
    async with (app := make_app()).run_test(size=(120, 50)) as pilot:
        await settled(pilot)
        await pilot.press("ctrl+p", *"examples in")
        await wait_for(pilot, lambda: "evaluate by examples in the prompt" in screen_text(app))
        await settled(pilot)
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(app.screen, InContextScreen))


def test_the_plot_is_against_examples_with_intervals_of_a_single_checkpoint() -> None:
    single = few_shot_picture(evaluation(row(1, 16, 20, 30)), "4-shot")
    points = [(k, round(100 * right / 48, 3)) for k, right in ((0, 16), (1, 20), (4, 30))]
    assert [(x, round(y, 3)) for x, y in single.curves[-1].points] == points
    low, high = (curve.points for curve in single.curves[:2])
    assert all(a[1] < b[1] < c[1] for a, b, c in zip(low, points, high, strict=True))
    two = few_shot_picture(evaluation(row(1, 16, 20), row(2, 16, 20, 30, 40)), "0-shot/young")
    assert [len(curve.points) for curve in two.curves] == [2, 2, 4, 4]
    assert two.title == "right of young, %"
    assert has_shots(evaluation(row(1, 16, 20))) and not has_shots(evaluation(row(1, 16)))


def test_the_command_refuses_what_is_no_task(measured: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="There is no task template 'chioce'"):
        command(["in-context", "looked", "--data", "lists", "--task", "chioce"])
    with pytest.raises(UserError, match="of kind text"):
        command(["in-context", "looked", "--data", "world"])
