"""What labels say about those who gave them."""

from __future__ import annotations

import msgspec
import pytest

from stages.store.labels import Candidate, Labels, Prompt
from stages.store.labels.figures import Figures, figures, progress
from stages.store.labels.judged import Choice, judged
from stages.store.labels.store import open_labels
from stages.store.records import Message

TEXTS = ["a", "bb", "ccc", "dddd"]


def tasks(count: int) -> list[tuple[Prompt, list[Candidate]]]:
    return [
        (
            Prompt(messages=[Message("user", f"{number}?")], part="reward"),
            [Candidate(run="r", k=k, text=text) for k, text in enumerate(TEXTS)],
        )
        for number in range(count)
    ]


def test_a_person_who_likes_long_answers_shows_in_the_length_bias_and_not_in_the_place(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(60))
    while (shown := labels.next(chosen.id, "ada")) is not None:
        ranks = [5 - len(one.text) for one in shown.completions]
        labels.save(shown.label("rank", "ada", ranks=ranks, seconds=2.0))
    found = figures(judged(labels))
    assert (found.longer_wins.value, found.longer_wins.of) == (1.0, 360)
    assert sum(place.hits for place in found.best_by_place) == 60
    assert all(place.low < 0.4 for place in found.best_by_place)
    assert (found.median_seconds, found.by_annotator, found.by_kind) == (2.0, {"ada": 60}, {"rank": 60})


def test_a_person_who_always_takes_the_first_shows_in_the_place(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(40))
    while (shown := labels.next(chosen.id, "ada")) is not None:
        labels.save(shown.label("rank", "ada", ranks=[1, 2, 2, 2]))
    first, *others = figures(judged(labels)).best_by_place
    assert first.value == 1.0
    assert [place.hits for place in others] == [0, 0, 0]


def test_agreement_with_oneself_is_over_prompts_asked_again(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(120), repeat_share=0.2)
    while (shown := labels.next(chosen.id, "ada")) is not None:
        order = sorted(shown.completions, key=lambda one: one.id, reverse=shown.repeats is not None)
        labels.save(shown.label("rank", "ada", ranks=[1 + order.index(one) for one in shown.completions]))
    (found,) = figures(judged(labels, Choice(repeats=True))).self_agreement
    assert found.prompts > 5
    assert found.pairs.value == 0.0
    assert found.tau is not None and found.tau[0] == pytest.approx(-1.0)


def test_two_people_agree_in_part_and_their_conflicts_are_listed(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(10), people=2)
    for annotator in ("ada", "ben"):
        with open_labels(labels.path) as own:
            while (shown := own.next(chosen.id, annotator)) is not None:
                contrary = annotator == "ben" and shown.place < 3
                ranks = [5 - len(one.text) if contrary else len(one.text) for one in shown.completions]
                own.save(shown.label("rank", annotator, ranks=ranks))
    found = figures(judged(labels))
    (between,) = found.between
    assert (between.who, between.prompts, between.pairs.hits, between.pairs.of) == ("ada and ben", 10, 42, 60)
    assert between.tau is not None and between.tau[0] == pytest.approx(0.4)
    assert [conflict.tau for conflict in found.conflicts] == pytest.approx([-1.0] * 3)


def test_no_labels_give_no_figures(labels: Labels) -> None:
    found = figures(judged(labels))
    assert (found.labels, found.median_seconds, found.per_hour, found.best_by_place) == (0, None, None, [])
    assert found.longer_wins.value is None


def disagree(labels: Labels, count: int = 2) -> int:
    """Two people who rank the other way round; the id of their set."""
    set_id = labels.add_set("mine", "rank", tasks(count), people=2).id
    for annotator in ("ada", "ben"):
        with open_labels(labels.path) as own:
            while (shown := own.next(set_id, annotator)) is not None:
                lengths = [len(one.text) for one in shown.completions]
                own.save(shown.label("rank", annotator, ranks=[5 - n if annotator == "ben" else n for n in lengths]))
    return set_id


def everything(labels: Labels) -> Figures:
    return figures(judged(labels, Choice(repeats=True, overruled=True)))


def test_a_settled_conflict_is_no_conflict_and_the_agreement_stays_as_it_was(labels: Labels) -> None:
    set_id = disagree(labels)
    before = everything(labels)
    assert [one.place for one in before.conflicts] == [0, 1]
    shown = labels.at(set_id, 0)
    assert shown is not None
    settles = labels.rankings_at(set_id, 0)
    assert len(settles) == 2
    settled = labels.save(shown.label("rank", "eve", ranks=[1, 2, 2, 4], settles=settles))
    after = everything(labels)
    assert ([one.place for one in after.conflicts], after.settled) == ([1], 1)
    assert after.between == before.between
    assert {one.label.id for one in judged(labels) if one.label.place == 0} == {settled.id}, "it speaks for the prompt"
    labels.undo(settled)
    assert everything(labels) == before


def test_who_judges_a_settled_prompt_anew_can_be_in_conflict_again(labels: Labels) -> None:
    set_id = disagree(labels, 1)
    shown = labels.at(set_id, 0)
    assert shown is not None
    settles = labels.rankings_at(set_id, 0)
    labels.save(shown.label("rank", "eve", ranks=[1, 2, 3, 4], settles=settles))
    old = labels.label_of(set_id, 0, "ben")
    assert old is not None
    labels.save(shown.label("rank", "ben", ranks=[4, 3, 2, 1], supersedes=old.id))
    (conflict,) = everything(labels).conflicts
    assert set(conflict.annotators) == {"ben", "eve"}


def test_a_person_who_turns_round_is_in_conflict_with_themselves_until_that_is_settled(labels: Labels) -> None:
    chosen = labels.add_set("mine", "rank", tasks(1))
    shown = labels.next(chosen.id, "ada")
    assert shown is not None
    first = labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
    again = msgspec.structs.replace(shown, repeats=first.id)
    labels.save(again.label("rank", "ada", ranks=[4, 3, 2, 1]))
    (conflict,) = everything(labels).self_conflicts
    assert (conflict.annotators, conflict.tau) == (("ada", "ada"), -1.0)
    labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4], settles=labels.rankings_at(chosen.id, 0)))
    after = everything(labels)
    assert (after.self_conflicts, after.conflicts, after.settled) == ([], [], 1)
    assert [one.who for one in after.self_agreement] == ["ada"]


def test_progress_is_told_by_set_and_by_person(labels: Labels) -> None:
    disagree(labels, 3)
    labels.add_set("empty", "write", [])
    empty, mine = progress(labels)
    assert (empty.prompts, empty.judged, empty.by_annotator) == (0, 0, {})
    assert (mine.prompts, mine.judged, mine.by_annotator) == (3, 3, {"ada": 3, "ben": 3})
    assert progress(labels, "mine") == [mine]
    assert sum(everything(labels).by_day.values()) == 6
