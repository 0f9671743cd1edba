"""Sweeps apart from what their runs do: what varies, which combinations, what is refused, and the table."""

from __future__ import annotations

import json
import shutil
from typing import Any

import msgspec
import pytest

from stages.store.errors import UserError
from stages.store.groups import MOST_RUNS, find_group, group_names, runs_of
from stages.store.rundir import RunDir, list_runs
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_metrics
from workbench import runs
from workbench.cli.root import run as command
from workbench.studies import groups
from workbench.studies.groups import is_higher_better, ranked, standings
from workbench.studies.sweeps import Span, combinations, parse_over, plan_sweep

PARENTS = {"dataset": "world", "tokenizer": "world-bpe"}


@pytest.fixture
def unstarted(populated: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace in which launched runs get no worker."""
    monkeypatch.setattr(runs, "start", lambda run, **_: None)
    return populated


@pytest.mark.parametrize(
    ("texts", "over"),
    [
        (["lr=1e-3,3e-3"], {"lr": [0.001, 0.003]}),
        (["lr=1e-3, 3e-3 width=64,128"], {"lr": [0.001, 0.003], "width": [64, 128]}),
        (["lr = 1e-3 ; preset = tiny, small"], {"lr": [0.001], "preset": ["tiny", "small"]}),
        (["width=none,64"], {"width": [None, 64]}),
        (["deterministic=yes,no", "seed=0,1,1"], {"deterministic": [True, False], "seed": [0, 1]}),
        (["lr=1e-4..1e-2", "width=64..256"], {"lr": Span(1e-4, 1e-2, False), "width": Span(64, 256, True)}),
    ],
)
def test_what_varies_is_read_as_people_write_it(texts: list[str], over: dict[str, Any]) -> None:
    assert parse_over("pretrain", texts) == over


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Nothing is to vary"),
        ("lr", "does not say what is to vary"),
        ("lr=", "does not say what is to vary"),
        ("learning=1", "unknown key 'learning'"),
        ("lr=,", "names no value"),
        ("lr=1e-3,fast", "expected a number"),
        ("lr=2", "from 0 to 1"),
        ("lr=1e-2..1e-3", "no span from a smaller"),
        ("lr=1;lr=2", "twice|expected"),
        ("sample_prompts=a,b", "cannot vary"),
    ],
)
def test_what_cannot_vary_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_over("pretrain", [text])


def test_a_grid_has_every_value_with_every_other() -> None:
    rows = combinations({"lr": [1, 2], "width": [8, 16, 32]})
    assert rows == [{"lr": lr, "width": width} for lr in (1, 2) for width in (8, 16, 32)]


def test_random_combinations_differ_come_again_with_the_seed_and_fill_the_span_by_its_logarithm() -> None:
    over = {"lr": Span(1e-4, 1e-2, False), "width": Span(64, 256, True), "seed": [0, 1]}
    rows = combinations(over, 100, seed=1)
    assert len({tuple(row.values()) for row in rows}) == 100
    assert rows == combinations(over, 100, seed=1) != combinations(over, 100, seed=2)
    assert all(1e-4 <= row["lr"] <= 1e-2 and 64 <= row["width"] <= 256 and row["seed"] in (0, 1) for row in rows)
    assert 30 < sum(row["lr"] < 1e-3 for row in rows) < 70
    assert all(isinstance(row["width"], int) for row in rows)


def test_fewer_combinations_than_asked_for_are_all_there_are() -> None:
    assert len(combinations({"lr": [1, 2], "width": [3]}, 10)) == 2


def test_a_grid_of_a_span_and_too_many_runs_are_refused() -> None:
    with pytest.raises(UserError, match="single values of 'lr'"):
        combinations({"lr": Span(0.1, 0.2, False)})
    for many in (lambda: combinations({"seed": list(range(MOST_RUNS + 1))}), lambda: combinations({"a": [1]}, 1_000)):
        with pytest.raises(UserError, match="more than"):
            many()


def test_a_combination_that_cannot_be_built_is_named_before_anything_is_launched(unstarted: Workspace) -> None:
    before = len(list_runs(unstarted))
    with pytest.raises(UserError, match="With heads=3 width=64: This model cannot be built"):
        plan_sweep(unstarted, "pretrain", "s", {}, {"heads": [2, 3], "width": [64]}, parents=PARENTS)
    with pytest.raises(UserError, match="no dataset 'gone'"):
        plan_sweep(unstarted, "pretrain", "s", {}, {"seed": [1]}, parents={**PARENTS, "dataset": "gone"})
    assert len(list_runs(unstarted)) == before and group_names(unstarted) == []


def launched(workspace: Workspace, name: str = "s", **over: Any) -> groups.Group:
    group = plan_sweep(workspace, "pretrain", name, {"layers": 1}, over or {"lr": [1e-3, 3e-3]}, parents=PARENTS)
    groups.launch_group(workspace, group)
    return find_group(workspace, name)


def test_the_runs_of_a_sweep_are_ordinary_ones_that_name_it(unstarted: Workspace) -> None:
    group = launched(unstarted, lr=[1e-3, 3e-3], seed=[0, 1])
    found = {name: run.spec() for name, run in runs_of(unstarted, "s").items()}
    assert set(found) == {member.name for member in group.members} == {"s-1", "s-2", "s-3", "s-4"}
    assert {(spec.settings["lr"], spec.settings["seed"]) for spec in found.values()} == {
        (lr, seed) for lr in (1e-3, 3e-3) for seed in (0, 1)
    }
    assert {spec.group for spec in found.values()} == {"s"} and {
        spec.settings["layers"] for spec in found.values()
    } == {1}


def test_a_name_that_is_taken_is_refused_and_no_run_is_made(unstarted: Workspace) -> None:
    group = launched(unstarted)
    before = len(list_runs(unstarted))
    with pytest.raises(UserError, match="already a run 's-1'"):
        launched(unstarted)
    with pytest.raises(UserError, match="already a group of runs 's'"):
        groups.launch_group(unstarted, msgspec.structs.replace(group, members=[]))
    assert len(list_runs(unstarted)) == before


def end(run: RunDir, status: Any, rows: int = 0, shift: float = 0.0) -> None:
    state = run.state()
    state.status = status
    run.write_state(state)
    if rows:
        add_metrics(run, rows)
        text = run.metrics.read_text()
        run.metrics.write_text(
            text + json.dumps({"step": 9_999, "val/loss": 1.0 + shift, "val/accuracy": shift}) + "\n"
        )


def test_the_best_stand_first_by_the_metrics_own_direction_and_those_without_it_last(unstarted: Workspace) -> None:
    group = launched(unstarted, seed=[0, 1, 2, 3])
    for name, run in runs_of(unstarted, "s").items():
        if name != "s-2":
            end(run, "finished", 10, float(name[-1]) * (-1) ** int(name[-1]))
    rows = standings(unstarted, group)
    assert [row.member.name for row in ranked(rows, "val/loss")] == ["s-3", "s-1", "s-4", "s-2"]
    assert [row.member.name for row in ranked(rows, "val/accuracy")] == ["s-4", "s-1", "s-3", "s-2"]
    failed = [row._replace(status="failed") if row.member.name == "s-3" else row for row in rows]
    assert [row.member.name for row in ranked(failed, "val/loss")] == ["s-1", "s-4", "s-2", "s-3"]
    assert is_higher_better("val/entity_f1") and not is_higher_better("val/bits_per_byte")


def test_resuming_starts_what_has_not_ended_well_and_launches_what_is_missing(
    unstarted: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = launched(unstarted, seed=[0, 1, 2, 3])
    found = runs_of(unstarted, "s")
    for name, status in (("s-1", "finished"), ("s-2", "stopped"), ("s-3", "failed")):
        end(found[name], status)
    shutil.rmtree(found["s-4"].path)
    started: list[str] = []
    monkeypatch.setattr(groups, "start", lambda run, **_: started.append(run.spec().name))
    assert groups.resume_group(unstarted, "s") == 3
    assert started == ["s-2", "s-3"] and set(runs_of(unstarted, "s")) == {member.name for member in group.members}


def test_a_sweep_is_not_gone_on_with_on_other_data(unstarted: Workspace) -> None:
    launched(unstarted)
    path = unstarted.datasets / "world" / "dataset.json"
    path.write_bytes(path.read_bytes().replace(b"d1" * 32, b"d9" * 32))
    with pytest.raises(UserError, match="dataset of 's' has been replaced"):
        groups.resume_group(unstarted, "s")


def test_the_command_tells_of_sweeps_as_text_and_json(unstarted: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["sweeps"]) == 0 and "no sweep yet" in capsys.readouterr().out
    arguments = ["--data", "world", "--tokenizer", "world-bpe", "--over", "lr=1e-3,3e-3", "--name", "s", "--detach"]
    assert command(["sweep", "pretrain", *arguments]) == 0
    for name, run in runs_of(unstarted, "s").items():
        end(run, "finished", 10, -float(name[-1]))
    capsys.readouterr()
    assert command(["sweeps", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["runs"], listed["finished"], listed["best run"]) == (2, 2, "s-2")
    assert command(["sweeps", "show", "s"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "s: 2 runs: 2 finished" and lines[2].split()[:2] == ["s-2", "0.003"]
    with pytest.raises(UserError, match="has logged 'val/los'"):
        command(["sweeps", "show", "s", "--metric", "val/los"])
    assert command(["sweeps", "forget", "s", "--yes"]) == 0
    assert group_names(unstarted) == [] and runs_of(unstarted, "s")


def test_a_plan_that_cannot_be_read_is_one_sentence_and_hides_no_other(unstarted: Workspace) -> None:
    launched(unstarted)
    (unstarted.groups / "torn.json").write_text('{"name": "torn", ')
    with pytest.raises(UserError, match=r"torn\.json cannot be read"):
        find_group(unstarted, "torn")
    assert command(["sweeps"]) == 0
