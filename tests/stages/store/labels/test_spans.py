"""Spans and tallies say what the labels say, whatever is labelled, replaced and taken back, and by whom."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.store.errors import WorkFailed
from stages.store.labels import Label, Labels, open_labels
from stages.store.labels.spans import EVERYBODY, rebuild, undone
from tests.stages.store.labels.conftest import tasks

PLACES = 7
PEOPLE = ("ada", "ben", "eve")

acts = st.tuples(
    st.sampled_from(["rank", "rank", "skip", "flag", "import", "replace", "undo", "undo"]),
    st.integers(0, PLACES - 1),
    st.sampled_from(PEOPLE),
)


def act(labels: Labels, set_id: int, kind: str, place: int, annotator: str) -> None:
    shown = labels.at(set_id, place)
    assert shown is not None
    earlier = labels.label_of(set_id, place, annotator)
    match kind:
        case "rank":
            labels.save(shown.label("rank", annotator, ranks=[1, 2, 3, 4]))
        case "skip" | "flag":
            labels.save(shown.label(kind, annotator))
        case "import":
            labels.save(shown.label("rank", annotator, ranks=[1, 1, 1, 1], origin="file:x"))
        case "replace" if earlier is not None:
            labels.save(shown.label("rank", annotator, ranks=[4, 3, 2, 1], supersedes=earlier.id))
        case "undo":
            last = labels.last(set_id, annotator)
            if last is not None:
                labels.undo(last)


def books(labels: Labels) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """All spans and all tallies but those of nothing."""
    spans = labels._db.execute("SELECT * FROM spans ORDER BY 1, 2, 3").fetchall()
    return spans, labels._db.execute("SELECT * FROM tallies WHERE places <> 0 ORDER BY 1, 2").fetchall()


def judged(labels: list[Label], annotator: str | None = None) -> dict[int, set[str]]:
    """By place: who judged it; of one person with everything, of all only what was given here."""
    found: dict[int, set[str]] = {}
    for one in labels:
        if one.kind != "flag" and (one.annotator == annotator if annotator else not one.origin):
            found.setdefault(one.place, set()).add(one.annotator)
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.lists(acts, max_size=40))
def test_the_books_are_what_the_labels_say_after_every_act(people: int, done: list[tuple[str, int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder, open_labels(Path(folder) / "labels.db") as labels:
        labels._db.execute("PRAGMA synchronous = OFF")
        set_id = labels.add_set("mine", "rank", tasks(PLACES), people=people).id
        for kind, place, annotator in done:
            act(labels, set_id, kind, place, annotator)
        in_force = labels.labels(set_id)
        full = {place for place, who in judged(in_force).items() if len(who) >= people}
        assert labels.count(set_id) == len(full)
        for annotator in PEOPLE:
            own = set(judged(in_force, annotator))
            assert labels.count(set_id, annotator) == len(own)
            assert list(undone(labels._db, set_id, annotator, -1)) == sorted(set(range(PLACES)) - own - full)
        kept = books(labels)
        rebuild(labels._db)
        assert books(labels) == kept


def test_what_is_done_in_one_go_is_one_span_however_it_came_about(tmp_path: Path) -> None:
    with open_labels(tmp_path / "labels.db") as labels:
        set_id = labels.add_set("mine", "rank", tasks(PLACES)).id
        for place in (0, 2, 4, 3, 6, 1, 5):
            act(labels, set_id, "rank", place, "ada")
        whole = (set_id, EVERYBODY, 0, PLACES - 1), (set_id, "ada", 0, PLACES - 1)
        assert books(labels)[0] == list(whole)


def test_a_label_that_could_not_be_stored_leaves_the_books_alone(tmp_path: Path) -> None:
    path = tmp_path / "labels.db"
    with open_labels(path) as labels:
        set_id = labels.add_set("mine", "rank", tasks(PLACES)).id
        act(labels, set_id, "rank", 0, "ada")
        kept = books(labels)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM labels").fetchone()  # while it reads, nothing can be committed
        labels._db.execute("PRAGMA busy_timeout = 20")
        with pytest.raises(WorkFailed, match="busy"):
            act(labels, set_id, "rank", 3, "ada")
        reader.close()
        assert books(labels) == kept
