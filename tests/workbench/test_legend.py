"""The line above a plot: it fits any width, and names give way before values do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from stages.store.workspace import Workspace
from tests.workbench.conftest import add_run
from tests.workbench.payloads import payloads
from workbench.board.run_board import Board
from workbench.plots.curves import Track
from workbench.plots.legend import legend
from workbench.plots.marks import Marks
from workbench.plots.picture import PLAIN, SIGNS, Key, Look, Picture, Shown, overlay, unit_of
from workbench.plots.plot import Line
from workbench.plots.scope import Range, Scope
from workbench.themes import MARKERS, SERIES, SERIES_ANSI, SERIES_LIGHT


def text(line: Line) -> str:
    return "".join(span.text for span in line).rstrip()


def runs(*names: str) -> Picture:
    return Picture("val/loss", [Key(MARKERS[place % 7], place, name, "1.234") for place, name in enumerate(names)])


def test_a_legend_shows_all_when_there_is_room() -> None:
    assert text(legend(runs("warm", "cold"), 60)) == "val/loss   ● warm 1.234   ◆ cold 1.234"


def test_the_unit_stands_behind_the_title_where_there_is_room() -> None:
    shown = runs("warm", "cold")
    shown.unit = unit_of("val/loss", ["pretrain", "sft"])
    assert text(legend(shown, 60)) == "val/loss, nats a token   ● warm 1.234   ◆ cold 1.234"
    assert text(legend(shown, 46)) == "val/loss   ● warm 1.234   ◆ cold 1.234"
    assert unit_of("loss", ["sft", "dpo"]) == unit_of("val/accuracy", ["sft"]) == unit_of("loss", []) == ""


def test_names_give_way_before_values_and_the_rest_is_counted() -> None:
    long = runs(*(f"a-rather-long-name-{number}" for number in range(7)))
    assert text(legend(long, 150)).endswith("△ a-…name-6 1.234")
    assert text(legend(long, 118)) == "val/loss   " + "   ".join(f"{MARKERS[n]} a…-{n} 1.234" for n in range(7))
    assert text(legend(long, 74)) == "val/loss   " + "   ".join(f"{MARKERS[n]} a…-{n}" for n in range(7))
    assert text(legend(long, 40)) == "val/loss   ● a…-0   ◆ a…-1   ▲ a…-2   +4"


@pytest.mark.parametrize("width", [4, 33, 80])
def test_a_legend_of_any_names_fits_and_holds_nothing_that_acts(width: int) -> None:
    everything = payloads()
    for first in range(0, len(everything), 7):
        shown = legend(runs(*everything[first : first + 7]), width)
        assert cell_len(text(shown)) <= max(width, 14)
        assert text(shown).isprintable()


def test_there_is_a_colour_for_every_marker_in_every_theme() -> None:
    assert len(set(MARKERS)) == len(MARKERS) == len(set(SERIES)) == len(set(SERIES_LIGHT)) == len(set(SERIES_ANSI))


def track(path: Path, losses: list[float]) -> Track:
    path.write_text("".join(json.dumps({"step": s, "loss": loss}) + "\n" for s, loss in enumerate(losses)))
    found = Track(path)
    found.catch_up()
    return found


def test_runs_on_one_plot_differ_by_colour_and_marker_and_keep_their_extremes(tmp_path: Path) -> None:
    first = track(tmp_path / "a", [5.0] * 40_000 + [99.0] + [5.0] * 40_000)
    second = track(tmp_path / "b", [4.0] * 50)
    empty = track(tmp_path / "c", [])
    shown = overlay(
        [Shown("a", first, 3, "■"), Shown("b", second, PLAIN, "━"), Shown("c", empty, 0, "●")], "loss", Look()
    )
    lines = [curve for curve in shown.curves if curve.joined]
    signs = [curve for curve in shown.curves if not curve.joined]
    assert [curve.role for curve in lines] == [3, PLAIN, 0]
    assert max(y for _, y in lines[0].points) == 99.0
    assert [(curve.role, curve.marker, len(curve.points)) for curve in signs] == [(3, "■", SIGNS), (0, "●", 0)]
    assert [(key.name, key.value) for key in shown.keys] == [("a", "5"), ("b", "4"), ("c", "–")]


def test_a_range_of_an_overlay_is_cut_at_its_ends(tmp_path: Path) -> None:
    run = Shown("a", track(tmp_path / "a", [float(x) for x in range(100)]), 0, "●")
    shown = overlay([run], "loss", Look(scope=Scope("steps", Range(10.5, 20))))
    assert shown.curves[0].points[0] == (10.5, 10.5)
    assert shown.curves[0].points[-1] == (20, 20)
    assert all(10.5 <= x <= 20 for x, _ in shown.curves[1].points)


def test_a_mark_keeps_its_place_and_a_free_place_is_taken_again() -> None:
    marks = Marks()
    assert all(marks.toggle(name) for name in "abcdefg")
    assert not marks.toggle("h")
    marks.toggle("c")
    assert marks.toggle("h")
    assert (marks.places["b"], marks.places["h"], marks.places["g"]) == (1, 2, 6)
    marks.keep({"b", "h"})
    assert marks.places == {"b": 1, "h": 2}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("", {"world-tiny", "world", "world-bpe", "too-hot", "cut-off"}),
        ("FAILED", {"too-hot"}),
        ("lost pretrain", {"cut-off"}),
        ("token", {"world-bpe"}),
        ("world pretrain fin", {"world-tiny"}),
        ("nothing", set()),
    ],
)
def test_every_word_of_a_filter_is_looked_for_in_name_stage_status_and_dataset(
    populated: Workspace, words: str, names: set[str]
) -> None:
    assert {entry.spec.name for entry in Board(populated).look() if entry.matches(words)} == names


def test_words_are_not_found_across_two_fields(workspace: Workspace) -> None:
    add_run(workspace, "pretrain", "alpha")
    (entry,) = Board(workspace).look()
    assert not entry.matches("alphapretrain")
