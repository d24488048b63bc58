"""Multinomial logistic regression with an L2 penalty, its calibration and its measures, in numpy.

Owns the optimiser (L-BFGS, Nocedal 1980), cross-validation and temperature (Guo et al. 2017).
Knows nothing of texts, models or files.
"""

import numpy as np

PENALTIES = [1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5]  # of the mean loss; strong first
SAMPLE = 2000  # examples that features and penalty are chosen on, about


def fit(X, y, weights, start, penalty, steps=60):
    """Minimise mean weighted log loss + penalty / 2 |W|^2 from `start`.

    X (N, D + 1) with a first column of ones, y (N,) class numbers, weights (N,), start (K, D + 1).
    The first column, the intercept, is not penalised.
    """
    rows, weights = np.arange(len(y)), weights / weights.sum()
    decay = np.full(start.shape[1], penalty, X.dtype)
    decay[0] = 0

    def loss(W):
        scores = X @ W.T
        scores -= scores.max(axis=1, keepdims=True)
        exps = np.exp(scores)
        sums = exps.sum(axis=1)
        value = weights @ (np.log(sums) - scores[rows, y]) + 0.5 * (decay * W * W).sum()
        exps *= (weights / sums)[:, None]
        exps[rows, y] -= weights
        return value, exps.T @ X + decay * W

    return minimise(loss, start, steps)


def minimise(function, x, steps, memory=10, tolerance=1e-4):
    """L-BFGS with backtracking: function(x) -> (value, gradient); x of any shape."""
    value, gradient = function(x)
    past = []
    for _ in range(steps):
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


def _inverse_hessian(past, gradient):
    """The two-loop recursion: an approximation of H^-1 gradient."""
    q, alphas = gradient.copy(), []
    for step, change in reversed(past):
        alpha = (step * q).sum() / (step * change).sum()
        q -= alpha * change
        alphas.append(alpha)
    if past:
        step, change = past[-1]
        q *= (step * change).sum() / (change * change).sum()
    for (step, change), alpha in zip(past, reversed(alphas)):
        q += (alpha - (change * q).sum() / (step * change).sum()) * step
    return q


class Learnt:
    """weight (K, D + 1) with the intercept last, over the first D columns of the features."""

    def __init__(self, weight, temperature, penalty):
        self.weight, self.temperature, self.penalty = weight, temperature, penalty


def learn(X, y, K, widths) -> Learnt:
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
        for loss, penalty in _path(X[some, : width + 1], y[some], K, weights[some])
    ]
    _, penalty, width = min(tried)
    X = np.ascontiguousarray(X[:, : width + 1])
    held = _held_out(X, y, K, weights, [penalty])
    W = fit(X, y, weights, np.zeros((K, width + 1), X.dtype), penalty)
    return Learnt(np.roll(W, -1, axis=1), calibrate(next(held), y)[0], penalty)


def _path(X, y, K, weights):
    """[(log loss, penalty)] from strong penalties to weak, until the loss has risen twice."""
    found = []
    for penalty, scores in zip(PENALTIES, _held_out(X, y, K, weights, PENALTIES)):
        found.append((calibrate(scores, y)[1], penalty))
        if len(found) > 2 and found[-3][0] < found[-2][0] < found[-1][0]:
            break
    return found


def _held_out(X, y, K, weights, penalties):
    """For each penalty the scores (N, K) of rows by models that have not seen them."""
    fold = folds(y, 5 if len(y) <= 1000 else 3)
    starts = [np.zeros((K, X.shape[1]), X.dtype)] * (fold.max() + 1)
    for penalty in penalties:
        scores = np.zeros((len(y), K), X.dtype)
        for part, start in enumerate(starts):
            seen = fold != part
            starts[part] = W = fit(X[seen], y[seen], weights[seen], start, penalty, 40)
            scores[~seen] = X[~seen] @ W.T
        yield scores


def folds(y, count):
    """A fold for each row, the classes spread evenly; the same rows always get the same."""
    order = np.random.default_rng(0).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), int)
    fold[order] = np.arange(len(y)) % min(count, max(2, len(y)))
    return fold


def calibrate(scores, y):
    """(temperature, log loss): of softmax(scores / temperature), least over a grid of temperatures."""
    found = [(log_loss(scores / t, y), t) for t in np.geomspace(0.2, 5, 41)]
    loss, temperature = min(found)
    return float(temperature), loss


def log_loss(scores, y):
    scores = scores - scores.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(y)), y]))


# ---------------------------------------------------------------- measures


def calibration_error(P, y, bins=15):
    """Expected calibration error (Naeini et al. 2015): bins of equal width, of the best label."""
    sure, right = P.max(axis=1), P.argmax(axis=1) == y
    bin = np.minimum((sure * bins).astype(int), bins - 1)
    return float(sum(abs(sure[bin == b].sum() - right[bin == b].sum()) for b in range(bins)) / len(y))


def macro_f1(table):
    """Mean over the classes of the F1 of a confusion table (true, predicted)."""
    both = table.sum(axis=0) + table.sum(axis=1)
    seen = both > 0
    return float(np.mean(2 * np.diag(table)[seen] / both[seen]))
