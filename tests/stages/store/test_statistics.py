"""Intervals and agreement, against scipy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kendalltau

from stages.store.statistics import compare, kendall_tau, mean_interval, share


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_of_a_share_is_wilsons(case: tuple[int, int]) -> None:
    hits, count = case
    found, expected = share(hits, count), binomtest(hits, count).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.low <= hits / count <= found.high


def test_a_share_of_nothing_says_nothing() -> None:
    assert share(0, 0).value is None
    assert str(share(0, 0)) == "—"
    assert str(share(9, 10)) == "90.0 % (59.6–98.2)"


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=9))
def test_tau_is_that_of_scipy_ties_included(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    expected = float(kendalltau(a, b).statistic)
    found = kendall_tau(a, b)
    assert found is None if math.isnan(expected) else found == pytest.approx(expected)


def test_pairs_are_counted_by_what_both_say() -> None:
    assert compare([1, 2, 2, 3], [1, 3, 2, 2]) == (3, 1, 2, 0)
    assert sum(compare([1, 1, 1], [1, 1, 2])) == 3


def test_the_mean_has_its_interval() -> None:
    assert mean_interval([]) is None
    assert mean_interval([2.0]) == (2.0, 2.0, 2.0)
    mean, low, high = mean_interval([1.0, 2.0, 3.0]) or (0, 0, 0)
    assert (mean, round(high - mean, 4)) == (2.0, round(1.959964 / math.sqrt(3), 4))
    assert mean - low == pytest.approx(high - mean)
