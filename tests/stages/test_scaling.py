"""The fit of the scaling law: known laws found again, wrong runs ignored, intervals that hold the truth."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from stages.measuring.scaling import fit
from stages.store.errors import UserError
from stages.store.scaling import Law

CHINCHILLA = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
"""The constants that Hoffmann et al. 2022 report in section 3.3."""
SMALL = Law(E=0.9, A=30.0, B=900.0, alpha=0.45, beta=0.6)
LAWS = {
    "large": (CHINCHILLA, [10**x for x in (7.0, 7.5, 8.0, 8.5, 9.0)], [10**x for x in (8.5, 9.2, 9.9, 10.6)]),
    "small": (SMALL, [8e3, 2e4, 5e4, 1.2e5, 3e5], [2e5, 5e5, 1.2e6]),
}


def points_of(
    law: Law, sizes: list[float], budgets: list[float], noise: float = 0.0
) -> list[tuple[float, float, float]]:
    generator = np.random.default_rng(3)
    return [
        (n, d, law.loss(n, d) * math.exp(noise * generator.standard_normal()))
        for n, d in itertools.product(sizes, budgets)
    ]


@pytest.mark.parametrize("name", LAWS)
def test_the_constants_of_a_known_law_are_found_again(name: str) -> None:
    law, sizes, budgets = LAWS[name]
    found = fit(points_of(law, sizes, budgets), resamples=10).law
    for constant in ("E", "A", "B", "alpha", "beta"):
        assert getattr(found, constant) == pytest.approx(getattr(law, constant), rel=2e-3), constant


@pytest.mark.parametrize("name", LAWS)
def test_a_size_beyond_the_ladder_is_forecast_with_an_interval_that_holds_it(name: str) -> None:
    law, sizes, budgets = LAWS[name]
    ask = (sizes[-1] * 4, budgets[-1])
    (forecast,) = fit(points_of(law, sizes, budgets, noise=0.003), [ask], resamples=200).forecasts
    assert forecast.loss.value == pytest.approx(law.loss(*ask), rel=0.02)
    assert forecast.loss.low <= law.loss(*ask) <= forecast.loss.high
    assert forecast.loss.high - forecast.loss.low < 0.1 * law.loss(*ask)


def test_one_run_that_went_wrong_hardly_moves_the_fit() -> None:
    law, sizes, budgets = LAWS["large"]
    points = points_of(law, sizes, budgets)
    points[7] = (*points[7][:2], points[7][2] * 1.3)
    found = fit(points, resamples=1).law
    assert found.alpha == pytest.approx(law.alpha, rel=0.05)
    assert math.isclose(found.E, law.E, rel_tol=0.02)


def test_the_compute_optimal_line_is_where_the_loss_is_least() -> None:
    for flops in (1e18, 1e21, 5.76e23):
        n, d = CHINCHILLA.optimal(flops)
        assert 6 * n * d == pytest.approx(flops)
        for other in (0.9, 1.1):
            assert CHINCHILLA.loss(n * other, d / other) > CHINCHILLA.best_loss(flops)
    assert CHINCHILLA.shares == pytest.approx((0.45, 0.55), abs=0.005)  # 0.46 and 0.54 in the paper's table 2


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(1e3, 1e5, 2.0)] * 9, "9 finished runs of 1 sizes"),
        ([(10.0**n, 1e5, 2.0) for n in range(2, 9)], "1 budgets"),
        ([(10.0**n, 10.0**d, 2.0) for n in (1, 2) for d in (1, 2, 3)], "2 sizes"),
        ([(10.0**n, 10.0**d, float("nan")) for n in (1, 2, 3) for d in (1, 2, 3)], "no positive number"),
        ([], "0 finished runs"),
    ],
)
def test_too_little_to_tell_the_constants_is_one_sentence(points: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fit(points)
