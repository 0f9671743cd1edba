"""Sweeps and studies in the app: tables, the law plotted as runs finish, steering as one, and the forms."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from stages.store.errors import UserError
from stages.store.groups import Group, Member, find_group, group_names, runs_of, write_group
from stages.store.rundir import RunDir
from stages.store.scaling import Fit, Forecast, Interval, Law
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, SIZES, add_dataset, screen_text, settled, wait_for
from workbench import runs
from workbench.app import WorkbenchApp
from workbench.cli.root import run as command
from workbench.plots.plot import Curve
from workbench.screens.run import RunScreen
from workbench.screens.sweeping import ScaleScreen, sweep_form
from workbench.screens.sweeps import SweepsScreen
from workbench.studies import groups
from workbench.studies.ladder import Ladder, ladder_of, next_width, plan_ladder, size_and_tokens
from workbench.studies.study import misses, read_study
from workbench.studies.study_picture import study_picture
from workbench.studies.sweeps import plan_sweep
from workbench.talking.desk_client import DeskClient
from workbench.widgets.form import SpecForm
from workbench.widgets.row_table import RowTable

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]

PARENTS = {"dataset": "world", "tokenizer": "world-bpe"}
LAW = Law(E=0.9, A=30.0, B=900.0, alpha=0.45, beta=0.6)


@pytest.fixture
def unstarted(populated: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace in which launched runs get no worker."""
    monkeypatch.setattr(runs, "start", lambda run, **_: None)
    return populated


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the desk is asked to fit; it answers with a law that is known."""
    questions: list[dict[str, Any]] = []

    async def ask(self: DeskClient, verb: str, **args: Any) -> Any:
        questions.append({"verb": verb, **args})
        if len(args["points"]) < 6:
            raise UserError(f"{len(args['points'])} finished runs do not tell the five constants of the law.")
        names = {"E": 0.9, "alpha": 0.45, "beta": 0.6, "share": 0.571}
        intervals = {name: Interval(value, value * 0.9, value * 1.1) for name, value in names.items()}
        ahead = [Forecast(n, d, Interval(LAW.loss(n, d), 1.1, 1.3)) for n, d in args["ask"]]
        return msgspec.to_builtins(Fit(LAW, intervals, 0.0021, len(args["points"]), ahead))

    monkeypatch.setattr(DeskClient, "ask", ask)
    return questions


def finish(workspace: Workspace, run: RunDir, loss: float, status: Any = "finished") -> None:
    state, steps = run.state(), run.spec().settings["steps"]
    state.status, state.step, state.total = status, steps, steps
    run.write_state(state)
    run.metrics.write_text(json.dumps({"step": steps, "time": CREATED, "train/loss": loss, "val/loss": loss}) + "\n")


def study(workspace: Workspace, *, finished: int = 15) -> Group:
    """A study whose first runs have finished by LAW with noise of 0.3 %."""
    group = plan_ladder(workspace, "ladder", Ladder(), dataset="world", tokenizer="world-bpe")
    groups.launch_group(workspace, group)
    noise, found = random.Random(1), runs_of(workspace, "ladder")
    for member in group.members[:finished]:
        loss = LAW.loss(*size_and_tokens(workspace, group, member)) * math.exp(noise.gauss(0, 0.003))
        finish(workspace, found[member.name], loss)
    return group


def sweep(workspace: Workspace) -> Group:
    over: dict[str, Any] = {"lr": [1e-3, 3e-3, 1e-2], "preset": ["tiny", "tiny-llama"]}
    group = plan_sweep(workspace, "pretrain", "rates", {"steps": 100}, over, parents=PARENTS)
    groups.launch_group(workspace, group)
    found = runs_of(workspace, "rates")
    for place, member in enumerate(group.members[:5]):
        finish(workspace, found[member.name], 2.0 - 0.1 * (place * 3 % 5), "failed" if place == 3 else "finished")
    return group


async def open_sweeps(pilot: Pilot[None], name: str = "") -> SweepsScreen:
    screen = SweepsScreen(name)
    pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.group is not None)
    await settled(pilot)
    return screen


@pytest.mark.parametrize("size", SIZES)
async def test_a_study_looks_like_this(
    unstarted: Workspace,
    make_app: MakeApp,
    snapshot: Snapshot,
    asked: list[dict[str, Any]],
    size: tuple[int, int],
) -> None:
    study(unstarted)
    async with make_app().run_test(size=size) as pilot:
        await open_sweeps(pilot)
        await wait_for(pilot, lambda: "L(N, D)" in screen_text(pilot.app))
        await snapshot(pilot, f"sweeps-study-{size[0]}x{size[1]}")
    assert len(asked) == 1 and asked[0]["verb"] == "scaling.fit" and len(asked[0]["points"]) == 15


@pytest.mark.parametrize("size", SIZES)
async def test_a_sweep_looks_like_this(
    unstarted: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    sweep(unstarted)
    async with make_app().run_test(size=size) as pilot:
        await open_sweeps(pilot)
        await snapshot(pilot, f"sweeps-{size[0]}x{size[1]}")


async def test_the_form_of_a_sweep_looks_like_this(unstarted: Workspace, make_app: MakeApp, snapshot: Snapshot) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.push_screen(sweep_form("pretrain"))
        await snapshot(pilot, "sweep-form-120x40")


@pytest.mark.parametrize("size", SIZES)
async def test_the_form_of_a_study_looks_like_this(
    unstarted: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        pilot.app.push_screen(ScaleScreen())
        await snapshot(pilot, f"scale-form-{size[0]}x{size[1]}")


async def test_without_a_sweep_the_screen_says_what_they_are(
    workspace: Workspace, make_app: MakeApp, snapshot: Snapshot
) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        pilot.app.push_screen(SweepsScreen())
        await snapshot(pilot, "sweeps-empty-80x24")


async def test_n_asks_what_kind_of_run_is_swept(unstarted: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        pilot.app.push_screen(SweepsScreen())
        await settled(pilot)
        await pilot.press("n")
        await wait_for(pilot, lambda: "Sweep what kind of run?" in screen_text(pilot.app))
        await pilot.press("end", "enter")
        await wait_for(pilot, lambda: "Sweep: ppo with every combination" in screen_text(pilot.app))


async def test_a_sweep_of_a_stage_that_goes_on_from_a_checkpoint(unstarted: Workspace, make_app: MakeApp) -> None:
    add_dataset(unstarted, "talks", kind="chat", digest="c1" * 32)
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.push_screen(sweep_form("sft"))
        await settled(pilot)
        form = pilot.app.screen.query_one(SpecForm)
        form.rows["over"].text = "lr=1e-4,3e-4"
        form.rows["name"].text = "tuned"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, SweepsScreen) and pilot.app.screen.group)
    specs = [run.spec() for run in runs_of(unstarted, "tuned").values()]
    assert sorted(spec.settings["lr"] for spec in specs) == [1e-4, 3e-4]
    assert all(spec.stage == "sft" and set(spec.parents) == {"dataset", "checkpoint"} for spec in specs)


async def test_home_and_runs_lead_to_the_sweeps_and_a_row_to_its_run(
    unstarted: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    sweep(unstarted)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("w")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, SweepsScreen) and pilot.app.screen.group)
        await settled(pilot)
        await pilot.press("enter")
        table = pilot.app.screen.query_one(RowTable)
        assert table.chosen == "rates-2" and pilot.app.focused is table
        await pilot.press("j", "enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        assert "rates-" in screen_text(pilot.app)


async def test_the_table_is_sorted_by_the_metric_that_is_chosen(unstarted: Workspace, make_app: MakeApp) -> None:
    sweep(unstarted)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_sweeps(pilot)
        assert screen.metric == "val/loss"
        await pilot.press("right_square_bracket")
        assert screen.metric == "train/loss" and "train/loss" in screen_text(pilot.app)


async def test_the_law_is_fitted_anew_when_another_run_has_finished(
    unstarted: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    group = study(unstarted, finished=5)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_sweeps(pilot)
        await wait_for(pilot, lambda: "5 finished runs do not tell" in screen_text(pilot.app))
        finish(unstarted, runs_of(unstarted, "ladder")[group.members[5].name], 1.5)
        await wait_for(pilot, lambda: "6 runs, 0.21 % off" in screen_text(pilot.app))
    assert [len(question["points"]) for question in asked] == [5, 6]


async def test_x_trains_the_next_size_and_the_screen_says_how_far_off_the_forecast_was(
    unstarted: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    group = study(unstarted)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_sweeps(pilot)
        await wait_for(pilot, lambda: "next size" in screen_text(pilot.app))
        await pilot.press("x")
        await wait_for(pilot, lambda: "not measured yet" in screen_text(pilot.app))
        (check,) = find_group(unstarted, "ladder").members[15:]
        assert check.role == "check" and check.values["width"] == next_width(group) == 88
        size, tokens = size_and_tokens(unstarted, group, check)
        finish(unstarted, runs_of(unstarted, "ladder")[check.name], LAW.loss(size, tokens) * 1.012)
        await wait_for(pilot, lambda: "+1.20 %" in screen_text(pilot.app))
    assert all(len(question["points"]) == 15 for question in asked)  # a check is not fitted


async def test_a_group_is_stopped_and_forgotten_as_one(
    unstarted: Workspace, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(unstarted)
    steered: list[str] = []
    monkeypatch.setattr(groups, "resume_group", lambda _, name, **__: steered.append(name) or 2)
    async with make_app().run_test(size=(120, 40), notifications=True) as pilot:
        await open_sweeps(pilot)
        await pilot.press("r")
        await wait_for(pilot, lambda: "2 runs are in the queue again" in screen_text(pilot.app))
        await pilot.press("d")
        await wait_for(pilot, lambda: "Forget rates?" in screen_text(pilot.app))
        await pilot.press("y")
        await wait_for(pilot, lambda: not group_names(unstarted))
    assert steered == ["rates"] and len(runs_of(unstarted, "rates")) == 6


async def test_the_form_starts_a_sweep_and_tells_a_mistake_at_its_field(
    unstarted: Workspace, make_app: MakeApp
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.push_screen(sweep_form("pretrain"))
        await settled(pilot)
        form = pilot.app.screen.query_one(SpecForm)
        form.rows["over"].text = "heads=3"
        await pilot.press("ctrl+r")
        note = form.rows["over"].query_one(".note", Static)
        await wait_for(pilot, lambda: "no multiple of 3" in str(note.visual))
        form.rows["over"].text = "lr=1e-4..1e-2 seed=0,1"
        form.rows["draw"].text = "3"
        form.rows["name"].text = "drawn"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, SweepsScreen) and pilot.app.screen.group)
    group = find_group(unstarted, "drawn")
    assert len(group.members) == 3 and set(runs_of(unstarted, "drawn")) == {"drawn-1", "drawn-2", "drawn-3"}
    assert group.settings["preset"] == "tiny" and group.over == {"lr": [1e-4, 1e-2], "seed": [0, 1]}


async def test_the_form_of_a_study_starts_its_ladder(
    unstarted: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.push_screen(ScaleScreen({"widths": "16, 24, 32", "budgets": "100k, 200k"}))
        await settled(pilot)
        assert "runs       6" in screen_text(pilot.app)
        form = pilot.app.screen.query_one(SpecForm)
        form.rows["widths"].text = "16, 24, 31"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "no multiple" in screen_text(pilot.app))
        form.rows["widths"].text = "16, 24, 32"
        form.rows["name"].text = "laws"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, SweepsScreen) and pilot.app.screen.group)
    group = find_group(unstarted, "laws")
    assert ladder_of(group).budgets == "100k, 200k" and len(runs_of(unstarted, "laws")) == 6
    assert {member.values["steps"] for member in group.members} == {98, 195}
    assert all(member.values["warmup"] <= member.values["steps"] / 10 for member in group.members)


def test_a_study_is_points_of_the_law_with_a_curve_for_each_size(unstarted: Workspace) -> None:
    group = study(unstarted)
    found = read_study(unstarted, group)
    fit = Fit(LAW, {}, 0.0, 15, [])
    curves: list[Curve] = study_picture(found, fit).curves
    assert sum(not curve.joined for curve in curves) == 5 and sum(curve.joined for curve in curves) == 6
    dots = [point for curve in curves if not curve.joined for point in curve.points]
    assert sorted(dots) == sorted((math.log10(point.flops), point.loss) for point in found.points)
    line = next(curve for curve in curves if curve.joined and curve.role == 50)
    assert all(loss <= LAW.loss(n, 10**x / 6 / n) + 1e-12 for x, loss in line.points for n in (1e3, 1e5, 1e7))
    assert misses(found, fit) == [] and study_picture(read_study(unstarted, group), None).curves


def test_the_command_fits_by_the_desk_and_forecasts_the_next_size(
    unstarted: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    study(unstarted)
    assert command(["scale", "show", "ladder", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    forecast = found["fit"]["forecasts"][0]
    truth = LAW.loss(found["next"]["parameters"], found["next"]["tokens"])
    assert forecast["loss"]["value"] == pytest.approx(truth, rel=0.01) and len(found["runs"]) == 15
    with pytest.raises(UserError, match="no group of runs 'lader'"):
        command(["scale", "show", "lader"])
    sweep(unstarted)
    with pytest.raises(UserError, match="'rates' is a sweep"):
        command(["scale", "show", "rates"])


@pytest.mark.parametrize(
    ("ladder", "said"),
    [
        ({"widths": "16, 24"}, "three widths and two budgets"),
        ({"budgets": "1M"}, "three widths and two budgets"),
        ({"widths": "16, many, 3"}, "are no widths"),
        ({"budgets": "1k, 2.0001k, -3"}, "are no budgets"),
        ({"widths": "16, 24, 36"}, "no multiple of the head width"),
        ({"preset": "tiny-bert"}, "not a decoder"),
        ({"preset": "gpt3"}, "for planning only"),
    ],
)
def test_a_ladder_that_cannot_be_climbed_is_one_sentence(
    unstarted: Workspace, ladder: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        plan_ladder(unstarted, "l", Ladder(**ladder), dataset="world", tokenizer="world-bpe")
    assert group_names(unstarted) == []


async def test_names_from_a_plan_of_another_hand_are_shown_unharmed(unstarted: Workspace, make_app: MakeApp) -> None:
    hostile = "\x1b[31m[bold]red\u202e"
    write_group(unstarted, Group(name="odd", kind="sweep", stage="pretrain", settings={}))
    member = Member(hostile, {hostile: hostile})
    group = Group(name=hostile, kind="sweep", stage=hostile, settings={}, over={hostile: [1]}, members=[member])
    (unstarted.groups / "odd.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(group, metric=hostile)))
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_sweeps(pilot)
        shown = screen_text(pilot.app)
    assert "\x1b" not in shown and "\u202e" not in shown and "␛[31m[bold]red" in shown
