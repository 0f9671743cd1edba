"""`workbench compare`: what differs between runs, what came out of them, and a metric along the way."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from stages.store.rundir import Parent, RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, add_run
from workbench import __main__ as entry

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> Command:
    """Run `workbench` with arguments: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["workbench", *arguments])
        code = entry.main()
        return (code, *capsys.readouterr())

    return run


def add(workspace: Workspace, name: str, level: float, *, created: float = CREATED, **settings: object) -> RunDir:
    """A run of 50 rows whose loss is `level` but for one row; tokens and seconds grow with the level."""
    parents = {"dataset": Parent("world", "d1" * 32)}
    run = add_run(workspace, "pretrain", name, created=created, parents=parents, settings={"seed": 1, **settings})
    rows = [
        {"step": step, "time": created + level * step, "train/loss": level, "tokens": 100.0 * level * step}
        for step in range(1, 51)
    ]
    rows[24]["train/loss"] = 99.0
    run.metrics.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return run


@pytest.fixture
def two(workspace: Workspace) -> list[RunDir]:
    return [
        add(workspace, "warm", 1.0, lr=0.001, preset="tiny", warmup=10),
        add(workspace, "cold", 2.0, lr=0.01, preset="tiny", warmup=10, created=CREATED + 1),
    ]


def rows(out: str, kind: str) -> dict[str, list[float | None]]:
    return {row["name"]: [row["warm"], row["cold"]] for row in json.loads(out) if row["kind"] == kind}


def test_settings_that_differ_and_last_values_stand_side_by_side(command: Command, two: list[RunDir]) -> None:
    code, out, err = command("compare", "warm", "cold")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["setting", "warm", "cold"],
        ["lr", "0.001", "0.01"],
        [],
        ["last", "value", "warm", "cold"],
        ["train/loss", "1", "2"],
        ["tokens", "5,000", "10,000"],
    ]
    assert rows(command("compare", "warm", "cold", "--json")[1], "setting") == {"lr": [0.001, 0.01]}


@pytest.mark.parametrize(
    ("against", "ends"),
    [
        ("steps", {"50": [1.0, 2.0]}),
        ("tokens", {"4,000": [5.9, 2.0], "10,000": [None, 2.0]}),
        ("time", {"1:38": [None, 2.0]}),
    ],
)
def test_a_metric_is_shown_along_steps_tokens_or_time(
    command: Command, two: list[RunDir], against: str, ends: dict[str, list[float | None]]
) -> None:
    out = command("compare", "warm", "cold", "--metric", "train/loss", "--against", against, "--json")[1]
    curve = rows(out, "curve")
    assert list(curve)[-1] == list(ends)[-1]
    assert {name: curve[name] for name in ends} == ends
    assert rows(out, "extreme") == {"lowest": [1.0, 2.0], "highest": [99.0, 99.0]}
    assert 5 < max(value or 0 for values in curve.values() for value in values) < 99


def test_runs_of_one_name_are_told_apart_by_id(command: Command, workspace: Workspace, two: list[RunDir]) -> None:
    other = add(workspace, "warm", 3.0, created=CREATED + 2, lr=0.1)
    out = command("compare", two[0].id, other.id, "--json")[1]
    assert {two[0].id, other.id} <= set(json.loads(out)[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["warm"], "nothing to compare"),
        (["warm", "warm"], "named twice"),
        (["warm", "cold", "--metric", "train/los"], "Did you mean 'train/loss'?"),
        (["warm", "gone"], "There is no run 'gone'."),
        (["warm", "cold", "--against", "moons"], "moons"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    command: Command, two: list[RunDir], arguments: list[str], said: str
) -> None:
    code, out, err = command("compare", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_runs_without_metrics_are_compared_by_their_settings(command: Command, workspace: Workspace) -> None:
    add_run(workspace, "pretrain", "one", settings={"lr": 0.1})
    add_run(workspace, "pretrain", "other", settings={"lr": 0.1}, created=CREATED + 1)
    out = command("compare", "one", "other")[1]
    assert out == "Their settings are the same.\n\nThey have logged no metric.\n"


def test_a_reward_model_and_the_setting_of_that_name_are_told_apart(command: Command, workspace: Workspace) -> None:
    for name, scorer in (("warm", "old"), ("cold", "new")):
        add_run(workspace, "ppo", name, settings={"reward": "model"}, parents={"reward": Parent(scorer, "e5" * 32)})
    out = command("compare", "warm", "cold", "--json")[1]
    assert rows(out, "setting") == {"reward_model": ["old e5e5e5e5", "new e5e5e5e5"]}
