"""labels.db: what is stored, what is given out next, and what is in force."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from stages.store.errors import UserError, WorkFailed
from stages.store.labels import Candidate, Labels, Shown, open_labels
from stages.store.workspace import installation_root
from tests.stages.store.labels.conftest import tasks


def give(labels: Labels, set_id: int, annotator: str, *, after: int = -1) -> Shown:
    shown = labels.next(set_id, annotator, after=after)
    assert shown is not None
    return shown


def test_a_ranking_comes_back_as_it_was_given(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(2))
    shown = give(labels, chosen.id, "ada")
    saved = labels.save(shown.label("rank", "ada", ranks=[2, 1, 2, 4], seconds=3.5, note="close"))
    with open_labels(labels.path) as again:
        (found,) = again.labels(chosen.id)
        assert found == saved
        assert found.shown == [one.id for one in shown.completions]
        assert again.count(chosen.id) == again.count(chosen.id, "ada") == 1


def test_candidates_are_shown_in_shuffled_orders(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    orders = {tuple(one.id for one in give(labels, chosen.id, "ada").completions) for _ in range(40)}
    assert len(orders) > 5
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_equal_completions_are_collapsed_and_taking_a_run_in_twice_changes_nothing(labels: Labels) -> None:
    (prompt, candidates), *_ = tasks(1)
    twins = [*candidates, Candidate(run="a-run", k=9, text=candidates[0].text)]
    first = labels.add_set("mine", "rank", [(prompt, twins)])
    assert len(give(labels, first.id, "ada").completions) == 4
    assert labels.add_set("mine", "rank", [(prompt, twins)]) == first


def test_prompts_come_in_order_each_once_and_then_none(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(3))
    places = []
    while (shown := labels.next(chosen.id, "ada")) is not None:
        places.append(shown.place)
        labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
    assert places == [0, 1, 2]


def test_two_people_are_not_given_the_same_prompt(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(2))
    with open_labels(labels.path) as other:
        first, second = give(labels, chosen.id, "ada"), give(other, chosen.id, "ben")
        assert first.prompt_id != second.prompt_id
        labels.save(first.label("rank", "ada", ranks=[1, 1, 1, 1]))
        other.save(second.label("rank", "ben", ranks=[1, 1, 1, 1]))
        assert labels.next(chosen.id, "ada") is None
        assert other.next(chosen.id, "ben") is None


def test_a_prompt_that_was_shown_and_not_judged_is_free_when_its_reader_leaves(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    with open_labels(labels.path) as other:
        give(other, chosen.id, "ben")
        assert labels.next(chosen.id, "ada") is None
    assert give(labels, chosen.id, "ada").place == 0


def test_who_was_cut_off_is_given_the_same_prompt_again(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(2))
    program = (
        "import os, sys; from pathlib import Path; from stages.store.labels import open_labels; "
        "labels = open_labels(Path(sys.argv[1])); print(labels.next(int(sys.argv[2]), 'ada').place, flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program, str(labels.path), str(chosen.id)],
        env={**os.environ, "PYTHONPATH": str(installation_root())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout.strip(), ended.returncode) == ("0", -9)
    assert give(labels, chosen.id, "ada").place == 0


def test_a_set_for_two_people_gives_each_prompt_to_two(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1), people=2)
    for annotator in ("ada", "ben"):
        shown = give(labels, chosen.id, annotator)
        assert labels.count(chosen.id) == 0
        labels.save(shown.label("rank", annotator, ranks=[1, 2, 3, 4]))
    assert labels.next(chosen.id, "eve") is None
    assert labels.count(chosen.id) == 1


def test_undo_frees_the_prompt_and_the_file_keeps_every_row(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    shown = give(labels, chosen.id, "ada")
    saved = labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
    labels.undo(saved)
    assert labels.labels(chosen.id) == []
    assert [row.kind for row in labels.labels(chosen.id, history=True)] == ["rank", "undo"]
    assert give(labels, chosen.id, "ada").prompt_id == shown.prompt_id


def test_a_label_that_replaces_another_names_it(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    shown = give(labels, chosen.id, "ada")
    old = labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
    new = labels.save(shown.label("rank", "ada", ranks=[4, 3, 2, 1], supersedes=old.id))
    assert labels.labels(chosen.id) == [new]
    assert labels.label_of(chosen.id, shown.place, "ada") == new


def test_taking_a_replacement_back_puts_what_it_replaced_in_force_again(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    shown = give(labels, chosen.id, "ada")
    old = labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
    new = labels.save(shown.label("rank", "ada", ranks=[4, 3, 2, 1], supersedes=old.id))
    labels.undo(new)
    assert labels.labels(chosen.id) == [old]
    other = labels.save(shown.label("rank", "ada", ranks=[1, 1, 1, 1], supersedes=old.id))
    assert labels.labels(chosen.id) == [other]
    labels.undo(other)
    labels.undo(old)
    assert labels.labels(chosen.id) == []
    assert labels.count(chosen.id, "ada") == 0


def test_what_another_window_took_back_meanwhile_is_not_replaced(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    shown = give(labels, chosen.id, "ada")
    old = labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
    with open_labels(labels.path) as other:
        other.undo(old)
    with pytest.raises(UserError, match="meanwhile"):
        labels.save(shown.label("rank", "ada", ranks=[4, 3, 2, 1], supersedes=old.id))
    with pytest.raises(UserError, match="meanwhile"):
        labels.undo(old)


def test_who_judges_a_prompt_on_two_screens_counts_once_and_the_later_judgement_stands(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    shown = give(labels, chosen.id, "ada")
    with open_labels(labels.path) as other:
        first = other.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
    second = labels.save(shown.label("rank", "ada", ranks=[4, 3, 2, 1]))
    assert (second.supersedes, labels.labels(chosen.id)) == (first.id, [second])
    again = labels.save(msgspec.structs.replace(shown, repeats=first.id).label("rank", "ada", ranks=[1, 1, 1, 1]))
    settled = labels.save(shown.label("rank", "ada", ranks=[1, 2, 2, 2], settles=[second.id]))
    assert labels.labels(chosen.id) == [second, again, settled], "a prompt asked again, and one settled, stand beside"


def test_an_answer_takes_the_place_of_an_answer_and_a_ranking_that_of_a_ranking(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    shown = give(labels, chosen.id, "ada")
    labels.write(shown, "ada", "Mine.", best=True)
    ranking, written = labels.write(shown, "ada", "Mine, mended.", best=True)
    assert labels.labels(chosen.id) == [ranking, written]
    anew = labels.save(shown.label("rank", "ada", ranks=[4, 3, 2, 1]))
    assert labels.labels(chosen.id) == [written, anew]
    labels.undo(anew)
    assert labels.labels(chosen.id) == [ranking, written]


def test_taking_a_better_answer_back_takes_its_ranking_back_and_keeps_the_order_of_the_others(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    shown = give(labels, chosen.id, "ada")
    ranking, written = labels.write(shown, "ada", "Mine.", best=True, others=[2, 1, 3, 3], note="so")
    assert (ranking.ranks, ranking.note) == ([1, 3, 2, 4, 4], "so")
    assert labels.last(chosen.id, "ada") == written
    labels.undo(written)
    assert labels.labels(chosen.id) == []


def test_nothing_in_the_file_changes_or_removes_a_label(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    labels.save(give(labels, chosen.id, "ada").label("rank", "ada", ranks=[1, 2, 3, 4]))
    with sqlite3.connect(labels.path) as raw:
        for statement in ("UPDATE labels SET ranks = '[]'", "DELETE FROM labels"):
            with pytest.raises(sqlite3.IntegrityError, match="labels are never"):
                raw.execute(statement)


def test_an_answer_written_to_be_the_best_is_ranked_above_the_others(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    shown = give(labels, chosen.id, "ada")
    ranking, written = labels.write(shown, "ada", "A better answer.", best=True)
    assert ranking.ranks == [1, 2, 2, 2, 2]
    (mine, *theirs) = labels.completions(ranking.shown)
    assert (mine.text, mine.author, mine.id) == ("A better answer.", "ada", written.completion)
    assert {one.id for one in theirs} == {one.id for one in shown.completions}


def test_some_prompts_are_asked_again_after_a_while(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(200), repeat_share=0.1)
    seen: dict[int, int] = {}
    gaps = []
    while (shown := labels.next(chosen.id, "ada")) is not None:
        saved = labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
        if shown.repeats is not None:
            gaps.append(saved.id - seen.pop(shown.prompt_id))  # a prompt asked a third time fails here
        else:
            seen[shown.prompt_id] = saved.id
    assert 8 <= len(gaps) <= 40
    assert min(gaps) > 20
    assert labels.count(chosen.id, "ada") == 200


def test_a_set_has_a_digest_of_what_it_holds(labels: Labels, tmp_path: Path) -> None:
    """A prompt, a judgement or its undoing gives another digest; the set's name, and other sets, do not matter."""
    chosen, found = labels.add_set("mine", "rank", tasks(2)), []

    def looked() -> None:
        found.append((labels.latest(chosen.id), labels.digest(labels.find_set("mine"))))

    looked()
    assert found[0][0] is None
    saved = labels.save(give(labels, chosen.id, "ada").label("rank", "ada", ranks=[1, 2, 3, 4], seconds=3.0))
    looked()
    labels.undo(saved)
    looked()
    labels.add_set("mine", "rank", tasks(3))
    looked()
    assert len({digest for _, digest in found}) == 4 and all(len(digest) == 64 for _, digest in found)
    assert found[1][0] == (saved.id, saved.created)
    labels.add_set("other", "rank", tasks(5))
    looked()
    assert found[-1] == found[-2]
    with open_labels(tmp_path / "again.db") as again:
        again.add_set("named-otherwise", "rank", tasks(2))
        assert again.digest(again.sets()[0]) == found[0][1]


def test_a_set_has_one_way_of_judging_and_unknown_sets_are_named(labels: Labels) -> None:
    labels.add_set("mine", "rank", tasks(1))
    with pytest.raises(UserError, match="judged by rank"):
        labels.add_set("mine", "rate", tasks(1))
    with pytest.raises(UserError, match="mine"):
        labels.find_set("mime")


def test_a_file_that_is_no_label_file_or_too_new_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, it is a long enough text to be looked at" * 20)
    with pytest.raises(WorkFailed, match="damaged"):
        open_labels(tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE things (id)")
    with pytest.raises(UserError, match="not of labels"):
        open_labels(tmp_path / "other.db")
    with sqlite3.connect(tmp_path / "new.db") as new:
        new.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="newer version"):
        open_labels(tmp_path / "new.db")
