"""Fit the scaling law of Hoffmann et al. 2022 (arXiv 2203.15556), approach 3, to the losses of finished runs.

    L̂(N, D) = E + A / N^α + B / D^β
    min over (a, b, e, α, β)   Σ Huber_δ( LSE(a − α log N, b − β log D, e) − log L )      equation 3 and appendix D.3

with A = exp a, B = exp b, E = exp e and δ = 1e-3, so that single runs that went wrong hardly count. The paper takes
L-BFGS from a grid of 4,500 beginnings. Here each beginning is a pair of exponents, for which E, A and B follow by
linear least squares, and all of them descend together by Levenberg and Marquardt's method, the Huber loss as weights
of the squares. Intervals are the middle 95 % of fits to runs drawn again with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.store.errors import UserError
from stages.store.scaling import Fit, Forecast, Interval, Law

if TYPE_CHECKING:
    from stages.desk import Job

Array = NDArray[np.float64]

DELTA = 1e-3
"""Residual of log L from which on it counts by its size and not by its square."""
EXPONENTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.4)
"""α and β of the beginnings."""
LEAST, MOST = (-30.0, -30.0, -12.0, 0.01, 0.01), (60.0, 60.0, 4.0, 3.0, 3.0)
"""Bounds of a, b, e, α, β: far beyond what is ever measured."""
ROUNDS, REFITS = 200, 40
"""Steps of the descent: of the fit, and of each resample, which begins at the fit."""
RESAMPLES = 400
LEAST_RUNS, LEAST_SIZES, LEAST_BUDGETS = 6, 3, 2
"""Five constants cannot be told from fewer."""


class Points(NamedTuple):
    """Runs as logarithms: of parameters, tokens and losses, each (n,) or (s, n)."""

    n: Array
    d: Array
    loss: Array


def of(job: Job, points: Sequence[Sequence[float]], ask: Sequence[Sequence[float]] = ()) -> Any:
    """The desk's verb: `points` are (parameters, tokens, loss), `ask` are (parameters, tokens) to forecast."""
    return msgspec.to_builtins(fit(points, ask, check=job.check))


def fit(
    points: Sequence[Sequence[float]],
    ask: Sequence[Sequence[float]] = (),
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    check: Any = lambda: None,
) -> Fit:
    """The law that fits (parameters, tokens, loss) best, intervals of its constants, and forecasts of `ask`.

    UserError when the runs are too few or too much alike to tell the constants, or a figure is not positive.
    """
    table = np.array([list(point) for point in points], dtype=np.float64).reshape(-1, 3)
    _refuse(table)
    logs = Points(*np.log(table.T))
    thetas = _descend(_beginnings(table), logs, ROUNDS)
    check()
    best = thetas[int(np.argmin(_cost(thetas, logs)))]
    others = _resampled(best, table, logs, resamples, seed)
    law, laws = _law(best), [_law(theta) for theta in others]
    names = ("E", "A", "B", "alpha", "beta")
    intervals = {name: _interval(getattr(law, name), [getattr(one, name) for one in laws]) for name in names}
    intervals["share"] = _interval(law.shares[0], [one.shares[0] for one in laws])
    forecasts = [
        Forecast(size, tokens, _interval(law.loss(size, tokens), [one.loss(size, tokens) for one in laws]))
        for size, tokens in ask
    ]
    error = float(np.sqrt(np.mean(_residuals(best[None], logs) ** 2)))
    return Fit(law, intervals, error, len(table), forecasts)


def _refuse(table: Array) -> None:
    if not np.all(np.isfinite(table)) or not np.all(table > 0):
        raise UserError("A run's parameters, tokens or loss are no positive number.")
    runs, sizes, budgets = len(table), len(np.unique(table[:, 0])), len(np.unique(table[:, 1]))
    if runs < LEAST_RUNS or sizes < LEAST_SIZES or budgets < LEAST_BUDGETS:
        raise UserError(
            f"{runs} finished runs of {sizes} sizes and {budgets} budgets do not tell the five constants of the law.",
            f"It takes {LEAST_RUNS} runs, {LEAST_SIZES} sizes and {LEAST_BUDGETS} budgets at least.",
        )


def _beginnings(table: Array) -> Array:
    """(s, 5): for each pair of exponents, and a share of the least loss for E, the A and B of least squares."""
    size, tokens, loss = table.T
    found = []
    for alpha in EXPONENTS:
        for beta in EXPONENTS:
            for share in (0.2, 0.6, 0.9):
                E = share * loss.min()
                basis = np.stack([size**-alpha, tokens**-beta], axis=1)
                A, B = np.maximum(np.linalg.lstsq(basis, loss - E, rcond=None)[0], 1e-6)
                found.append((np.log(A), np.log(B), np.log(E), alpha, beta))
    return np.clip(np.array(found), LEAST, MOST)


def _terms(theta: Array, points: Points) -> tuple[Array, Array]:
    """log L̂ (s, n) of `theta` (s, 5), and the share of each of the three terms in it (s, n, 3)."""
    a, b, e, alpha, beta = (theta[:, index, None] for index in range(5))
    terms = np.stack(np.broadcast_arrays(a - alpha * points.n, b - beta * points.d, e), axis=-1)
    highest = terms.max(axis=-1, keepdims=True)
    parts = np.exp(terms - highest)
    total = parts.sum(axis=-1, keepdims=True)
    return (highest + np.log(total))[..., 0], parts / total


def _residuals(theta: Array, points: Points) -> Array:
    return _terms(theta, points)[0] - points.loss


def _cost(theta: Array, points: Points) -> Array:
    """The Huber loss of each row of `theta`, summed over the runs."""
    r = np.abs(_residuals(theta, points))
    return np.where(r <= DELTA, r * r / 2, DELTA * (r - DELTA / 2)).sum(axis=-1)


def _descend(theta: Array, points: Points, rounds: int) -> Array:
    """Levenberg-Marquardt on every row of `theta` at once, the weights of the Huber loss renewed at each step."""
    damping, cost = np.full(len(theta), 1e-3), _cost(theta, points)
    for _ in range(rounds):
        predicted, shares = _terms(theta, points)
        r = predicted - points.loss
        weight = np.minimum(1.0, DELTA / np.maximum(np.abs(r), 1e-300))
        n, d = np.broadcast_arrays(points.n, r)[0], np.broadcast_arrays(points.d, r)[0]
        J = np.stack(
            [shares[..., 0], shares[..., 1], shares[..., 2], -n * shares[..., 0], -d * shares[..., 1]], axis=-1
        )
        H = np.einsum("sni,sn,snj->sij", J, weight, J)
        gradient = np.einsum("sni,sn->si", J, weight * r)
        ridge = damping[:, None] * (np.einsum("sii->si", H) + 1e-12)
        step = np.linalg.solve(H + ridge[:, :, None] * np.eye(5), gradient[..., None])[..., 0]
        tried = np.clip(theta - step, LEAST, MOST)
        found = _cost(tried, points)
        better = found < cost
        theta = np.where(better[:, None], tried, theta)
        cost = np.where(better, found, cost)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-12, 1e12)
    return theta


def _resampled(best: Array, table: Array, logs: Points, count: int, seed: int) -> Array:
    """(count, 5): fits to runs drawn with replacement. A draw of too few sizes or budgets is drawn again."""
    generator, rows = np.random.default_rng(seed), list[NDArray[np.int64]]()
    while len(rows) < count:
        drawn = generator.integers(0, len(table), len(table))
        if len(np.unique(table[drawn, 0])) >= LEAST_SIZES and len(np.unique(table[drawn, 1])) >= LEAST_BUDGETS:
            rows.append(drawn)
    if not rows:
        return best[None]
    chosen = np.array(rows)
    return _descend(np.repeat(best[None], count, axis=0), Points(*(log[chosen] for log in logs)), REFITS)


def _law(theta: Array) -> Law:
    a, b, e, alpha, beta = (float(value) for value in theta)
    return Law(E=float(np.exp(e)), A=float(np.exp(a)), B=float(np.exp(b)), alpha=alpha, beta=beta)


def _interval(value: float, values: Sequence[float]) -> Interval:
    low, high = np.quantile(np.array(values), [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
