"""Runs by compute: 6 N + 12 L H D T for each token of a new decoder, and nothing where that would not be true."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stages.store.rundir import Parent, RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, TOKENIZER_DIGEST, add_run, add_tokenizer, screen_text, wait_for
from workbench import __main__ as entry
from workbench.app import WorkbenchApp
from workbench.plots.compute import flops_of_run

MakeApp = Callable[..., WorkbenchApp]

SHAPE = {"preset": "tiny", "layers": 2, "heads": 2, "width": 32, "context": 64}


def add(workspace: Workspace, stage: str, name: str, digest: str = TOKENIZER_DIGEST, **settings: Any) -> RunDir:
    """A run with a tokenizer for a parent and fifty rows, 1,000 tokens each."""
    parents = {"tokenizer": Parent("words", digest)}
    run = add_run(workspace, stage, name, parents=parents, settings=settings)
    rows = [{"step": step, "time": CREATED + step, "train/loss": 2.0, "tokens": 1e3 * step} for step in range(1, 51)]
    run.metrics.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return run


def test_a_token_of_a_new_decoder_takes_what_the_formula_says(workspace: Workspace) -> None:
    add_tokenizer(workspace, "words", vocab_size=100)
    found = flops_of_run(add(workspace, "pretrain", "new", **SHAPE))
    attention, feed_forward, head = 4 * 32 * 32, 2 * 4 * 32 * 32, 100 * 32
    products = 2 * (attention + feed_forward) + head  # weights; the biases are two in a hundred of them
    assert found is not None
    assert found == pytest.approx(6 * products + 12 * 2 * 32 * 64, rel=0.03)


def test_nothing_is_claimed_where_the_count_would_not_be_true(workspace: Workspace) -> None:
    add_tokenizer(workspace, "words", vocab_size=100)
    assert flops_of_run(add(workspace, "bert", "masked", preset="tiny-bert")) is None
    assert flops_of_run(add(workspace, "t5", "spans", preset="tiny-t5")) is None
    assert flops_of_run(add(workspace, "sft", "tuned")) is None
    assert flops_of_run(add(workspace, "pretrain", "other-words", digest="00" * 32, **SHAPE)) is None
    assert flops_of_run(add(workspace, "pretrain", "odd", preset="no such")) is None
    (workspace.tokenizers / "words" / "tokenizer.info.json").unlink()
    assert flops_of_run(add(workspace, "pretrain", "no-words", **SHAPE)) is None


def test_runs_are_compared_by_compute(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_tokenizer(workspace, "words", vocab_size=100)
    run = add(workspace, "pretrain", "small", **SHAPE)
    add(workspace, "pretrain", "large", **{**SHAPE, "width": 64})
    command = ["workbench", "compare", "small", "large", "--metric", "train/loss", "--against", "compute", "--json"]
    monkeypatch.setattr("sys.argv", command)
    assert entry.main() == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["kind"] == "curve"]
    per_token = flops_of_run(run)
    assert per_token is not None
    ends = [row["compute"] for row in rows if row["small"] is not None]
    assert ends[-1] >= 50_000 * per_token > ends[-2]  # the smaller one ends earlier
    assert rows[-1]["small"] is None and rows[-1]["large"] == 2.0


async def test_the_plot_goes_on_to_compute_where_it_is_known(workspace: Workspace, make_app: MakeApp) -> None:
    add_tokenizer(workspace, "words", vocab_size=100)
    add(workspace, "pretrain", "small", **SHAPE)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("R")
        await wait_for(pilot, lambda: "└┬" in screen_text(app))
        for axis in ("tokens", "time", "compute"):
            await pilot.press("x")
            await wait_for(pilot, lambda told=f"against {axis}": told in screen_text(app))
        await wait_for(pilot, lambda: "10G" in screen_text(app))
        await pilot.press("x")
        await wait_for(pilot, lambda: "against" not in screen_text(app))


def test_runs_whose_compute_is_not_known_are_refused_in_one_line(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        add(workspace, "sft", name)
    command = ["workbench", "compare", "one", "two", "--metric", "train/loss", "--against", "compute"]
    monkeypatch.setattr("sys.argv", command)
    assert entry.main() == 2
    assert "pre-train a decoder" in capsys.readouterr().err
