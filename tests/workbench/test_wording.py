"""Where a run stands, in the words of the command line and of the lists."""

from __future__ import annotations

import pytest
from textual.content import Content

from stages.store.rundir import RunState, Status
from workbench.plots.legend import middle_cut
from workbench.widgets.side_by_side import in_one_row
from workbench.wording import amount, metric_text, operations, portion, speed, standing, summary


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 bytes"), (999, "999 bytes"), (16_930, "16.9 kB"), (2_000_000, "2.0 MB")]
)
def test_bytes_are_scaled_for_people(count: int, shown: str) -> None:
    assert amount(count, "bytes") == shown


def test_compute_is_told_in_one_way() -> None:
    told = ["96.7 GFLOP", "1.29 TFLOP", "1 TFLOP", "4.1 ZFLOP", "12 FLOP"]
    assert [operations(value) for value in (9.666e10, 1_288_036_669_440, 9.999e11, 4.1e21, 12)] == told
    assert metric_text("compute", 1_288_036_669_440) == "1.29 TFLOP" and metric_text("compute", None) == ""
    assert metric_text("tokens", 29_710) == "29,710"


def test_both_parts_of_a_portion_have_one_scale() -> None:
    assert portion(5_000, 2_000_000, "bytes") == "0.0/2.0 MB"
    assert portion(240, 2_000, "steps") == "240/2,000 steps"


def test_speeds_have_about_three_digits() -> None:
    assert [speed(value, "steps") for value in (2.784, 41.26, 1234.5)] == [
        "2.78 steps/s",
        "41.3 steps/s",
        "1,234 steps/s",
    ]
    assert speed(3_210_000.0, "bytes") == "3.2 MB/s"


def test_encoding_of_a_training_run_reads_as_such() -> None:
    state = RunState(status="running", step=40, total=100, unit="bytes", phase="encoding", rate=20_000.0, eta=3.0)
    assert summary(state, "running") == "running  40/100 bytes  40%  20.0 kB/s  0:03 to go  encoding"
    assert standing(state, "running") == "encoding 40%  0:03"


@pytest.mark.parametrize(
    ("status", "shown"), [("running", "starting"), ("queued", "queued"), ("lost", "lost"), ("finished", "finished")]
)
def test_a_run_without_figures_still_says_how_it_stands(status: Status, shown: str) -> None:
    assert standing(RunState(status="running"), status) == shown


def test_facts_of_one_row_are_whole_and_the_needed_one_is_among_them() -> None:
    parts = [Content(text) for text in ("loss 1.043", "lr 0.01", "grad_norm 0.9", "tokens 1M")]
    assert in_one_row(parts, 80).plain == "loss 1.043  lr 0.01  grad_norm 0.9  tokens 1M"
    assert in_one_row(parts, 30).plain == "loss 1.043  lr 0.01 …"
    assert in_one_row(parts, 30, needed=3).plain == "… grad_norm 0.9  tokens 1M"
    assert "grad_norm" in in_one_row(parts, 4, needed=2).plain
    assert in_one_row([], 30).plain == ""


def test_a_long_name_gives_way_in_its_middle_so_that_runs_of_one_sweep_stay_apart() -> None:
    first, second = (middle_cut(f"acme-lora-2-sft-sweep-{number}", 14) for number in (1, 2))
    assert first != second and len(first) == len(second) == 14 and first.endswith("sweep-1")
