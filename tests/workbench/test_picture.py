"""Which curves share a plot, how they are told apart, and the words above them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.plots.curves import Track
from workbench.plots.picture import FAINT, MOST_MARKERS, Group, Look, figure, groups, picture


def track(tmp_path: Path, count: int, every: int) -> Track:
    rows = [
        {"step": step, "train/loss": 4 / step} | ({"val/loss": 5 / step} if step % every == 0 else {})
        for step in range(1, count + 1)
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = Track(path)
    found.catch_up()
    return found


def test_the_same_measure_on_different_data_shares_a_plot() -> None:
    assert groups(["train/loss", "val/loss", "val/bits_per_byte", "lr", "reward/mean"]) == [
        Group("loss", ("train/loss", "val/loss")),
        Group("bits_per_byte", ("val/bits_per_byte",)),
        Group("lr", ("lr",)),
        Group("reward/mean", ("reward/mean",)),
    ]


@pytest.mark.parametrize("every", [1, 10, 250])
def test_train_and_val_differ_by_marker_at_every_length(tmp_path: Path, every: int) -> None:
    shown = picture(track(tmp_path, 1000, every), Group("loss", ("train/loss", "val/loss")), Look())
    train, val = shown.curves
    assert (train.marker, train.joined, val.marker, val.joined) == ("braille", True, "◆", False)
    assert len(val.points) <= MOST_MARKERS + 1
    assert val.points[-1][1] == pytest.approx(5 / 1000, rel=0.05)
    assert [(key.marker, key.name) for key in shown.keys] == [("━", "train"), ("◆", "val"), ("", "best")]


def test_a_smoothed_curve_stands_before_its_faint_self(tmp_path: Path) -> None:
    look = Look().smoother(1).toggled_log()
    shown = picture(track(tmp_path, 100, 10), Group("loss", ("train/loss",)), look)
    assert [curve.role for curve in shown.curves] == [FAINT, 0]
    assert (shown.log, shown.note) == (True, "log · smoothed 0.6")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.51234, "1.512"), (0.00031, "0.00031"), (9_999.0, "9999"), (52_100.0, "52.1k"), (8_192_000, "8.192M"), (0, "0")],
)
def test_values_are_shown_in_four_digits(value: float, shown: str) -> None:
    assert figure(value) == shown
