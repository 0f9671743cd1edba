"""The demo's steps: their order, what is not repeated, what goes on, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stages.store import strict
from stages.store.errors import UserError
from stages.store.evaluations import FILE, Answer, Evaluation, Row
from stages.store.rundir import RunDir, RunSpec, create_run
from stages.store.sources import STARTERS
from stages.store.specs import spec_of
from stages.store.specs.parents import KINDS, extra_parents
from stages.store.statistics import share
from stages.store.workspace import Workspace
from workbench.life import demo


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws").ensure()


def made(workspace: Workspace, step: demo.Step, status: str) -> RunDir:
    """A run of a step, as a worker would have left it."""
    run = create_run(workspace, RunSpec(stage=step.stage, name=step.name, settings=dict(step.settings), threads=1))
    state = run.state()
    state.status = status  # type: ignore[assignment]  # one of the literals
    run.write_state(state)
    return run


def test_every_step_stands_on_what_came_before_it_and_its_settings_are_known() -> None:
    there: dict[str, str] = {}
    for step in demo.plan():
        strict.parse(spec_of(step.stage), step.settings, step.name)
        parents = dict(step.parents)
        extra = parents.pop("extra", {})
        assert set(parents.values()) | set(extra.values()) <= there.keys()
        assert extra.keys() <= {one.role for one in extra_parents(step.stage)}
        if step.stage == "build":
            there[step.name] = STARTERS[step.settings["sources"][0]][0]
            continue
        if step.stage in KINDS:
            assert there[parents["dataset"]] in KINDS[step.stage]
        there[step.name] = "preference" if step.stage == "best_of" else step.stage
    assert {f"demo-{model}" for model in demo.MODELS} <= there.keys()


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was launched and started, in place of workers: each finishes at once."""
    seen: list[str] = []

    def finish(run: RunDir) -> None:
        state = run.state()
        state.status = "finished"
        run.write_state(state)

    def launch(workspace: Workspace, stage: str, name: str, settings: dict[str, Any], **_: Any) -> RunDir:
        seen.append(f"launch {name}")
        run = create_run(workspace, RunSpec(stage=stage, name=name, settings=settings, threads=1))
        finish(run)
        return run

    def start(run: RunDir, **_: Any) -> None:
        seen.append(f"start {run.spec().name}")
        finish(run)

    monkeypatch.setattr(demo.runs, "launch", launch)
    monkeypatch.setattr(demo.runs, "start", start)
    return seen


def nothing(*_: Any) -> None: ...


def test_what_has_finished_is_not_repeated(workspace: Workspace, launched: list[str]) -> None:
    steps = demo.plan()
    demo.perform(workspace, steps, nothing)
    assert launched == [f"launch {step.name}" for step in steps]
    demo.perform(workspace, steps, nothing)
    assert len(launched) == len(steps)


def test_a_step_is_at_work_beside_the_one_before_unless_it_needs_it(workspace: Workspace, launched: list[str]) -> None:
    steps = demo.plan()
    begun: dict[str, int] = {}
    demo.perform(workspace, steps, lambda step, run: begun.update({step.name: len(launched)}))
    for number, step in enumerate(steps[:-1]):
        ahead = begun[step.name] == number + 2
        assert ahead != (step.name in demo.needs(steps[number + 1]))


@pytest.mark.parametrize("status", ["running", "paused", "stopped", "failed"])
def test_what_was_interrupted_goes_on(workspace: Workspace, launched: list[str], status: str) -> None:
    step = next(step for step in demo.plan() if step.stage == "sft")
    made(workspace, step, status)
    demo.perform(workspace, [step], nothing)
    assert launched == ["start demo-sft"]


def test_a_dataset_that_could_not_be_built_is_built_anew(workspace: Workspace, launched: list[str]) -> None:
    step = demo.plan()[0]
    made(workspace, step, "failed")
    demo.perform(workspace, [step], nothing)
    assert launched == ["launch demo-text"]


def test_a_policy_that_has_paused_itself_is_done(workspace: Workspace, launched: list[str]) -> None:
    step = next(step for step in demo.plan() if step.stage == "grpo")
    run = made(workspace, step, "paused")
    state = run.state()
    state.phase = "The policy runs away."
    run.write_state(state)
    demo.perform(workspace, [step], nothing)
    assert launched == []


def test_a_step_that_someone_stops_ends_the_demo(
    workspace: Workspace, launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = next(step for step in demo.plan() if step.stage == "sft")

    def stop(_: demo.Step, run: RunDir) -> None:
        state = run.state()
        state.status = "stopped"
        run.write_state(state)

    with pytest.raises(UserError, match="demo-sft is stopped"):
        demo.perform(workspace, [step], stop)


def evaluation(workspace: Workspace, name: str, row: Callable[[str], Row]) -> RunDir:
    run = create_run(workspace, RunSpec(stage="evaluate", name=name, settings={}, threads=1))
    rows = [row(model) for model in demo.MODELS]
    found = Evaluation(dataset="d", dataset_digest="", kind="prompts", split="all", records=4, rows=rows)
    (run.path / FILE).write_bytes(msgspec.json.encode(found))
    return run


def test_the_table_joins_answers_and_bits(workspace: Workspace) -> None:
    def answers(model: str) -> Row:
        shares = {"exact": share(3, 4), "preferred": share(1, 4)}
        probes = [Answer(prompt="1+1", text=model)]
        return Row(checkpoint=f"demo-{model}@1", step=1, figures={"kl": 0.5}, shares=shares, answers=probes)

    def bits(model: str) -> Row:
        return Row(checkpoint=f"demo-{model}@1", step=1, figures={"bits_per_byte": 1.25})

    lines = demo.table(evaluation(workspace, "a", answers), evaluation(workspace, "b", bits))
    assert [line.model for line in lines] == list(demo.MODELS)
    assert (lines[0].exact, lines[0].preferred, lines[0].kl, lines[0].bits_per_byte) == (0.75, 0.25, None, 1.25)
    assert lines[1].kl == 0.5 and lines[1].answers == [{"prompt": "1+1", "text": "sft"}]
