"""The cockpit of a policy run: lamps that follow the figures, rollouts whose tokens are coloured by one of theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Static

from stages.store.bands import GAUGES, band_of
from stages.store.checkpoints import list_checkpoints
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, SIZES, add_checkpoint, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.board.rollout_facts import level, rollout_of
from workbench.plots.curves import Curves
from workbench.plots.gauges import readings, spark
from workbench.plots.series import Series
from workbench.screens.cockpit import CockpitScreen
from workbench.widgets.rollouts import Rollouts, RolloutStrip
from workbench.widgets.side_by_side import flowed

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]


def row(step: int, **figures: float) -> dict[str, Any]:
    well = {
        "reward/mean": 0.1 * step,
        "policy/kl": 0.05 * step,
        "policy/entropy": 1.2,
        "policy/length": 9.0 + 0.1 * step,
        "policy/ratio": 1.01,
        "policy/clipped": 0.04,
        "value/explained_variance": 0.6,
        "policy/ended": 0.97,
        "policy/advantage_std": 0.9,
        "lr": 3e-5,
    }
    return {"step": step, "time": CREATED + step, **well, **{name.replace("__", "/"): v for name, v in figures.items()}}


def rollout(step: int, text: str, **more: Any) -> dict[str, Any]:
    pieces = [f"{word} " for word in text.split()]
    return {
        "step": step,
        "kind": "rollout",
        "prompt": "What is 3 + 4?",
        "text": text,
        "reward": 1.25,
        "kl": 0.61,
        "ended": True,
        "pieces": pieces,
        "token_kl": [0.0, 0.2, 0.7, 1.5, 3.0][: len(pieces)],
        "token_advantage": [-3.0, -0.2, 0.0, 0.2, 3.0][: len(pieces)],
        "token_logprob": [-0.01, -0.2, -0.7, -1.5, -3.0][: len(pieces)],
        **more,
    }


def append(path: Path, *rows: object) -> None:
    with path.open("ab") as file:
        file.writelines(msgspec.json.encode(one) + b"\n" for one in rows)


def policy_run(workspace: Workspace, *rows: dict[str, Any], stage: str = "ppo") -> RunDir:
    run = add_run(workspace, stage, "policy", "paused", created=CREATED + 60, step=20, last_checkpoint="step-20")
    append(run.metrics, *rows)
    append(
        run.samples,
        {"step": 0, "kind": "fixed", "prompt": "Is the sky green?", "text": "No."},
        rollout(10, "It is 7 now ."),
        rollout(20, "3 + 4 is 7."),
    )
    return run


async def open_cockpit(pilot: Pilot[None], run: RunDir) -> CockpitScreen:
    pilot.app.open_run(run)  # type: ignore[attr-defined]  # a WorkbenchApp
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, CockpitScreen) and pilot.app.screen.run_in_view())
    await settled(pilot)
    assert isinstance(pilot.app.screen, CockpitScreen)
    return pilot.app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_it_looks_like_this(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    run = policy_run(populated, *(row(step) for step in range(1, 20)), row(20, policy__length=31.0))
    async with make_app().run_test(size=size) as pilot:
        await open_cockpit(pilot, run)
        await snapshot(pilot, f"cockpit-{size[0]}x{size[1]}")


async def test_a_lamp_lights_with_its_sentence_when_a_figure_leaves_its_band(
    populated: Workspace, make_app: MakeApp
) -> None:
    run = policy_run(populated, row(1), row(2))
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_cockpit(pilot, run)
        await wait_for(pilot, lambda: "●" in screen_text(pilot.app))
        assert "▲" not in screen_text(pilot.app)
        append(run.metrics, row(3, policy__kl=25.0))
        await wait_for(pilot, lambda: "▲ KL" in screen_text(pilot.app))
        text = str(pilot.app.screen.query_one("#lamps-text", Static).content)
        assert "far from its reference" in text


async def test_n_reads_an_older_rollout_and_stays_there_while_newer_ones_come(
    populated: Workspace, make_app: MakeApp
) -> None:
    run = policy_run(populated, row(1))
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_cockpit(pilot, run)
        await wait_for(pilot, lambda: "1 of 2" in screen_text(pilot.app))
        await pilot.press("n")
        await wait_for(pilot, lambda: "2 of 2" in screen_text(pilot.app))
        append(run.samples, rollout(30, "newer one"))
        await wait_for(pilot, lambda: "3 of 3" in screen_text(pilot.app))
        assert "step 10" in str(screen.query_one("#rollout-facts", Static).content)


async def test_t_colours_tokens_by_the_next_figure(populated: Workspace, make_app: MakeApp) -> None:
    run = policy_run(populated, row(1))
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_cockpit(pilot, run)
        await wait_for(pilot, lambda: "1 of 2" in screen_text(pilot.app))
        strip = screen.query_one(RolloutStrip)
        await pilot.press("n")
        assert strip._token_styles == [f"level-{number}" for number in range(5)]
        await pilot.press("t")
        assert strip._token_styles == ["worse-4", "worse-1", "level-0", "level-1", "level-4"]
        await pilot.press("t")
        assert strip._token_styles == [f"level-{number}" for number in range(5)]


async def test_b_goes_back_to_an_earlier_checkpoint_at_a_lower_rate(
    populated: Workspace, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, float]] = []
    monkeypatch.setattr("workbench.runs.start", lambda run, *, cpu_width: asked.append(("start", cpu_width)))
    monkeypatch.setattr("workbench.runs.set_lr", lambda run, rate: asked.append(("lr", rate)))
    monkeypatch.setattr("workbench.runs.parse_lr", lambda run, text: float(text))
    run = policy_run(populated, row(1), row(20))
    add_checkpoint(run, 10)
    add_checkpoint(run, 20)
    append(run.events, {"event": "set", "time": CREATED, "lr": 1e-4, "before": 2e-4, "step": 15})
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_cockpit(pilot, run)
        await pilot.press("b")
        await wait_for(pilot, lambda: "step 10" in screen_text(pilot.app))
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: "5e-05" in screen_text(pilot.app))  # of the peak, not of what is left of it
        await pilot.press("enter")
        await wait_for(pilot, lambda: len(asked) == 2)
        assert asked == [("start", 1), ("lr", 5e-05)]
        assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [10]
        assert (run.path / "set-aside" / "step-20").is_dir()


async def test_without_colours_the_strength_stands_behind_each_token(
    populated: Workspace, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    run = policy_run(populated, row(1))
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_cockpit(pilot, run)
        await wait_for(pilot, lambda: "1 of 2" in screen_text(pilot.app))
        assert screen.query_one(RolloutStrip).plain.replace("\xa0", " ").startswith("3 ₀│+ ₁│")


async def test_a_row_of_another_shape_is_shown_as_far_as_it_goes(populated: Workspace, make_app: MakeApp) -> None:
    run = policy_run(populated, row(1))
    append(run.samples, {"step": 30, "kind": "rollout", "text": "odd", "pieces": 3, "reward": "x", "token_kl": [None]})
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_cockpit(pilot, run)
        await wait_for(pilot, lambda: "1 of 3" in screen_text(pilot.app))
        assert "odd" in pilot.app.screen.query_one(Rollouts).query_one(RolloutStrip).plain


def test_a_relative_band_is_measured_from_the_start(tmp_path: Path) -> None:
    append(tmp_path / "m", {"step": 1, "policy/length": 10.0}, {"step": 2, "policy/length": 18.0})
    curves = Curves(tmp_path / "m")
    while curves.catch_up():
        pass
    (found,) = readings(curves, {})
    assert (found.verdict, found.text, found.bounds) == ("high", "18", "4–17")
    (found,) = readings(curves, {"max_length_ratio": 2.0})
    assert (found.verdict, found.bounds) == (None, "4–20")


def test_the_band_of_the_reward_ends_below_its_start_by_more_than_chance(tmp_path: Path) -> None:
    means = (1.0, 3.0, 0.5, 0.2)
    append(tmp_path / "m", *({"step": n, "reward/mean": mean, "reward/std": 0.5 + n} for n, mean in enumerate(means)))
    curves = Curves(tmp_path / "m")
    while curves.catch_up():
        pass
    (found,) = readings(curves, {"batch_size": 18})
    assert (found.verdict, found.text, found.bounds) == ("low", "0.2", "≥ 0.5")
    assert "fallen below where it began" in found.sentence
    (found,) = readings(curves, {})
    assert (found.verdict, found.bounds) == (None, "")


def test_every_gauge_says_what_leaving_its_band_means() -> None:
    for gauge in GAUGES:
        band = band_of(gauge, {"batch_size": 32}, 1.0, 1.0)
        assert (band.low is None) == (gauge.when_low == "")
        assert (band.high is None) == (gauge.when_high == "")


def test_a_spark_goes_from_the_lowest_to_the_highest() -> None:
    series = Series()
    for number in range(100):
        series.append(number, number)
    shown = spark(series.buckets, 8)
    assert (shown[0], shown[-1]) == ("▁", "█")
    assert len(shown) <= 8
    assert list(shown) == sorted(shown)


def test_levels_grow_with_the_figure() -> None:
    assert [level("kl", value) for value in (0.0, 0.1, 0.6, 1.2, 9.0)] == [0, 1, 2, 3, 4]
    assert [level("probability", value) for value in (0.0, -0.2, -0.6, -1.3, -9.0)] == [0, 1, 2, 3, 4]
    assert level("advantage", -9.0) == -4
    assert rollout_of({"pieces": ["a"], "token_kl": [1.0, 2.0]}).levels("kl") == []


def test_no_figure_is_parted_from_its_name_at_the_end_of_a_row() -> None:
    parts = [Content(text) for text in ("● reward 1.2", "● KL 0.9", "▲ advantage spread 0.5")]
    assert flowed(parts, 24).plain.splitlines() == ["● reward 1.2  ● KL 0.9", "▲ advantage spread 0.5"]
    assert flowed(parts, 0).plain == "● reward 1.2  ● KL 0.9  ▲ advantage spread 0.5"
