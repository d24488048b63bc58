"""Multinomial logistic regression with an L2 penalty, its calibration and its measures, in numpy.

Owns the optimiser (L-BFGS, Nocedal 1980), cross-validation and temperature (Guo et al. 2017).
Knows nothing of texts, models or files.
"""

from __future__ import annotations

import numpy as np

from toast.cancel import checkpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

PENALTIES = [1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5]  # of the mean loss; strong first
SAMPLE = 2000  # examples that features and penalty are chosen on, about


def fit(
    X: np.ndarray, y: np.ndarray, weights: np.ndarray, *, start: np.ndarray, penalty: float, steps: int = 60
) -> np.ndarray:
    """Minimise mean weighted log loss + penalty / 2 |W|^2 from `start`.

    X (N, D + 1) with a first column of ones, y (N,) class numbers, weights (N,), start (K, D + 1).
    The first column, the intercept, is not penalised.
    """
    rows, weights = np.arange(len(y)), weights / weights.sum()
    decay = np.full(start.shape[1], penalty, X.dtype)
    decay[0] = 0

    def loss(W: np.ndarray) -> tuple[Any, np.ndarray]:
        scores = X @ W.T
        scores -= scores.max(axis=1, keepdims=True)
        exps = np.exp(scores)
        sums = exps.sum(axis=1)
        value = weights @ (np.log(sums) - scores[rows, y]) + 0.5 * (decay * W * W).sum()
        exps *= (weights / sums)[:, None]
        exps[rows, y] -= weights
        return value, exps.T @ X + decay * W

    return minimise(loss, start, steps)


def minimise(
    function: Callable[[np.ndarray], tuple[Any, np.ndarray]], x: np.ndarray, steps: int, *,
    memory: int = 10, tolerance: float = 1e-4,
) -> np.ndarray:  # fmt: skip
    """L-BFGS with backtracking: function(x) -> (value, gradient); x of any shape."""
    value, gradient = function(x)
    past: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(steps):
        checkpoint()
        direction = -_inverse_hessian(past, gradient)
        slope = (direction * gradient).sum()
        if slope >= 0:
            past, direction, slope = [], -gradient, -(gradient * gradient).sum()
        rate = 1.0 if past else 1 / max(1.0, np.abs(gradient).sum())
        while True:
            moved = x + rate * direction
            new, after = function(moved)
            if new <= value + 1e-4 * rate * slope or rate < 1e-10:
                break
            rate /= 2
        step, change = moved - x, after - gradient
        if (step * change).sum() > 1e-12:
            past = [*past, (step, change)][-memory:]
        done = value - new < tolerance * 1e-2 * max(abs(new), 1e-3) and np.abs(after).max() < tolerance
        x, value, gradient = moved, new, after
        if done or rate < 1e-10:
            break
    return x


def _inverse_hessian(past: list[tuple[np.ndarray, np.ndarray]], gradient: np.ndarray) -> np.ndarray:
    """The two-loop recursion: an approximation of H^-1 gradient."""
    q, alphas = gradient.copy(), []
    for step, change in reversed(past):
        alpha = (step * q).sum() / (step * change).sum()
        q -= alpha * change
        alphas.append(alpha)
    if past:
        step, change = past[-1]
        q *= (step * change).sum() / (change * change).sum()
    for (step, change), alpha in zip(past, reversed(alphas), strict=True):
        q += (alpha - (change * q).sum() / (step * change).sum()) * step
    return q


class Learnt:
    """weight (K, D + 1) with the intercept last, over the first D columns of the features."""

    def __init__(self, weight: np.ndarray, temperature: float, penalty: float) -> None:
        self.weight, self.temperature, self.penalty = weight, temperature, penalty


def learn(X: np.ndarray, y: np.ndarray, K: int, *, widths: list[int]) -> Learnt:
    """The best of several sets of features: the first `width` columns of X, for each of `widths`.

    X (N, D) float32, y (N,) in 0..K-1. Features and penalty have the least log loss in
    cross-validation, the temperature comes from the held-out scores. Classes count by the square
    root of their frequency: a middle way between as they come and all alike.
    """
    X = np.concatenate([np.ones((len(X), 1), X.dtype), X], axis=1)
    sizes = np.bincount(y, minlength=K)
    weights = (1 / np.sqrt(np.maximum(sizes, 1)))[y].astype(X.dtype)
    some = folds(y, max(1, len(y) // SAMPLE)) == 0
    tried = [
        (loss, penalty, width)
        for width in widths
        for loss, penalty in _path(X[some, : width + 1], y[some], K, weights=weights[some])
    ]
    _, penalty, width = min(tried)
    X = np.ascontiguousarray(X[:, : width + 1])
    held = _held_out(X, y, K, weights=weights, penalties=[penalty])
    W = fit(X, y, weights, start=np.zeros((K, width + 1), X.dtype), penalty=penalty)
    return Learnt(np.roll(W, -1, axis=1), calibrate(next(held), y)[0], penalty)


def _path(X: np.ndarray, y: np.ndarray, K: int, *, weights: np.ndarray) -> list[tuple[float, float]]:
    """[(log loss, penalty)] from strong penalties to weak, until the loss has risen twice."""
    found: list[tuple[float, float]] = []
    for penalty, scores in zip(PENALTIES, _held_out(X, y, K, weights=weights, penalties=PENALTIES), strict=True):
        found.append((calibrate(scores, y)[1], penalty))
        if len(found) > 2 and found[-3][0] < found[-2][0] < found[-1][0]:
            break
    return found


def _held_out(
    X: np.ndarray, y: np.ndarray, K: int, *, weights: np.ndarray, penalties: list[float]
) -> Iterator[np.ndarray]:
    """For each penalty the scores (N, K) of rows by models that have not seen them."""
    fold = folds(y, 5 if len(y) <= 1000 else 3)
    starts = [np.zeros((K, X.shape[1]), X.dtype)] * (fold.max() + 1)
    for penalty in penalties:
        scores = np.zeros((len(y), K), X.dtype)
        for part, start in enumerate(starts):
            seen = fold != part
            starts[part] = W = fit(X[seen], y[seen], weights[seen], start=start, penalty=penalty, steps=40)
            scores[~seen] = X[~seen] @ W.T
        yield scores


def folds(y: np.ndarray, count: int) -> np.ndarray:
    """A fold for each row, the classes spread evenly; the same rows always get the same."""
    order = np.random.default_rng(0).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), int)
    fold[order] = np.arange(len(y)) % min(count, max(2, len(y)))
    return fold


def calibrate(scores: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(temperature, log loss): of softmax(scores / temperature), least over a grid of temperatures."""
    found = [(log_loss(scores / t, y), t) for t in np.geomspace(0.2, 5, 41)]
    loss, temperature = min(found)
    return float(temperature), loss


def log_loss(scores: np.ndarray, y: np.ndarray) -> float:
    """The mean of -log softmax(scores)[y]: scores (N, K), y (N,)."""
    scores = scores - scores.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(y)), y]))


# ---------------------------------------------------------------- measures


def calibration_error(P: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Naeini et al. 2015): bins of equal width, of the best label."""
    sure, right = P.max(axis=1), P.argmax(axis=1) == y
    bin = np.minimum((sure * bins).astype(int), bins - 1)
    return float(sum(abs(sure[bin == b].sum() - right[bin == b].sum()) for b in range(bins)) / len(y))


def macro_f1(table: np.ndarray) -> float:
    """Mean over the classes of the F1 of a confusion table (true, predicted)."""
    both = table.sum(axis=0) + table.sum(axis=1)
    seen = both > 0
    return float(np.mean(2 * np.diag(table)[seen] / both[seen]))
