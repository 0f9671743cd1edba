"""The measurement runs where there is no GPU to measure, as far as it can."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels.bench import SHARES, SMOKE, Bench, Row, table
from tests.kernels.groups import ROOT


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "kernels.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_without_a_gpu_it_says_so_in_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = bench()
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert "no GPU" in done.stdout


def test_every_phase_runs_in_the_interpreter(tmp_path: Path) -> None:
    done = bench("--smoke", "--json", str(tmp_path / "rows.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "rows.json").read_text())
    assert {row["phase"] for row in found["rows"]} == set(SHARES)
    losses = {row["contender"]: row["rate"] for row in found["rows"] if "loss after" in row["case"]}
    assert losses == {"ours": pytest.approx(losses["torch"], rel=1e-5), "torch": losses["torch"]}
    assert {row["contender"] for row in found["rows"] if row["phase"] == "grid"} == {"triton", "sdpa"}
    assert all(row["rate"] > 0 for row in found["rows"])
    assert found["remarks"] == []


def test_a_phase_without_time_says_what_it_left_out() -> None:
    bench = Bench(torch.device("cpu"), SMOKE, minutes=0)
    bench.run()
    assert bench.rows == []
    assert [remark.partition(": left out for lack of time: ")[0] for remark in bench.remarks] == list(SHARES)
    assert bench.remarks[2].endswith("time: D 32 T 32 full, D 32 T 32 causal")


def test_cases_that_a_phase_had_time_for_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first product uses up the time of the ceilings; the copy is left out, and other phases have theirs."""
    bench = Bench(torch.device("cpu"), SMOKE, minutes=60)

    def slow(name: str, case: str, function: Callable[[], Any]) -> bool:
        bench.deadline = 0.0
        return name != "triton"

    monkeypatch.setattr(bench, "_works", slow)
    monkeypatch.setattr("kernels.bench.SHARES", {"ceilings": 0.5, "grid": 0.5})
    bench.run()
    assert [(row.phase, row.case) for row in bench.rows][:1] == [("ceilings", "product of 64 x 64")]
    assert bench.remarks == [
        "ceilings: left out for lack of time: copy of 64 x 64",
        "grid: left out for lack of time: D 32 T 32 full backward, D 32 T 32 causal",
    ]


def test_the_table_ends_with_geometric_means() -> None:
    rates = {"triton": (8.0, 18.0), "flash": (4.0, 4.0)}
    rows = [
        Row("grid", f"D 64 T {512 * (i + 1)} full forward", name, rate, "TFLOP/s")
        for name, pair in rates.items()
        for i, rate in enumerate(pair)
    ]
    assert list(table(rows))[-1] == "triton over flash, forward: 3.00 by geometric mean"
