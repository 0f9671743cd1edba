"""Orders with ties, and ratings, as keys make them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.judging.order import Order, Ratings


def order(count: int, keys: str) -> Order:
    made = Order(count)
    for key in keys:
        if key == "=":
            made.tie()
        elif key == "<":
            made.back()
        else:
            made.append(int(key) - 1)
    return made


def test_digits_append_and_ties_join() -> None:
    assert order(4, "2=41").ranks() == [2, 1, 3, 1]
    assert str(order(4, "2=41")) == "2 = 4 > 1"
    assert order(4, "3").ranks() == [2, 2, 1, 2]
    assert order(4, "").ranks() == [1, 1, 1, 1]


def test_a_tie_waits_for_its_digit_and_can_be_taken_back() -> None:
    assert str(order(3, "1=")) == "1 = …"
    assert order(3, "1==2").ranks() == [1, 2, 3]
    assert order(3, "1=<2").ranks() == [1, 2, 3]
    assert not Order(3).tie()
    assert not order(2, "12=").tying


def test_backspace_takes_one_candidate_back() -> None:
    assert str(order(4, "1=23<")) == "1 = 2"
    assert str(order(4, "1=23<<")) == "1"
    assert str(order(4, "1<<")) == ""


def test_what_is_there_or_is_not_among_them_is_not_appended() -> None:
    made = order(3, "1")
    assert not made.append(0)
    assert not made.append(3)
    assert made.ranks() == [1, 2, 2]


@given(st.integers(2, 9), st.text("123456789=<", max_size=30))
def test_any_keys_give_ranks_that_restore_to_the_same_order(count: int, keys: str) -> None:
    made = order(count, keys)
    ranks = made.ranks()
    assert sorted(set(ranks)) == list(range(1, len(set(ranks)) + 1))
    again = Order(count)
    again.restore(ranks)
    assert again.ranks() == ranks


def test_ratings_go_on_to_the_next_that_has_none() -> None:
    ratings = Ratings(3)
    assert not ratings.rate(8)
    for score in (5, 7, 5):
        assert not ratings.complete
        ratings.rate(score)
    assert ratings.complete
    assert (ratings.scores, ratings.ranks()) == ([5, 7, 5], [2, 1, 2])
    ratings.current = 1
    assert ratings.back()
    assert (ratings.scores, ratings.complete) == ([5, None, 5], False)


def test_where_a_candidate_stands_is_said_with_its_ties() -> None:
    assert [order(4, "31=2").standing(number) for number in range(4)] == ["=2nd", "=2nd", "1st", ""]
