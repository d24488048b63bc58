"""Multinomial logistic regression with an L2 penalty, its calibration and its measures, in numpy.

Owns the optimiser (L-BFGS, Nocedal 1980), cross-validation and temperature (Guo et al. 2017).
Knows nothing of texts, models or files.
"""

import numpy as np

PENALTIES = [3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5]  # of the mean loss; strong first


def fit(X, y, weights, start, penalty, steps=100):
    """Minimise mean weighted log loss + penalty / 2 |W|^2 from `start`.

    X (N, D + 1) with a last column of ones, y (N,) class numbers, weights (N,) that sum to 1,
    start (K, D + 1). The last column, the intercept, is not penalised.
    """
    rows, decay = np.arange(len(y)), np.full(start.shape[1], penalty, X.dtype)
    decay[-1] = 0

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


def learn(X, y, K):
    """(W (K, D + 1), temperature, penalty): the penalty and the temperature by cross-validation.

    X (N, D) float32, y (N,) in 0..K-1. Classes count alike in the loss by the square root of their
    inverse frequency, a middle way between none and full balance.
    """
    X = np.concatenate([X, np.ones((len(X), 1), X.dtype)], axis=1)
    sizes = np.bincount(y, minlength=K)
    weights = (1 / np.sqrt(np.maximum(sizes, 1)))[y].astype(X.dtype)
    fold = folds(y, 5 if len(y) <= 2000 else 3)
    held = {penalty: np.zeros((len(y), K), X.dtype) for penalty in PENALTIES}
    for part in range(fold.max() + 1):
        train, test = fold != part, fold == part
        W = np.zeros((K, X.shape[1]), X.dtype)
        for penalty in PENALTIES:  # from strong to weak, each from the last one's solution
            W = fit(X[train], y[train], weights[train] / weights[train].sum(), W, penalty, 30)
            held[penalty][test] = X[test] @ W.T
    best = min(PENALTIES, key=lambda penalty: calibrate(held[penalty], y)[1])
    W = np.zeros((K, X.shape[1]), X.dtype)
    for penalty in PENALTIES[: PENALTIES.index(best) + 1]:
        W = fit(X, y, weights / weights.sum(), W, penalty, 100 if penalty == best else 30)
    return W, calibrate(held[best], y)[0], best


def folds(y, count):
    """A fold for each row, the classes spread evenly; the same rows always get the same."""
    order = np.random.default_rng(0).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), int)
    fold[order] = np.arange(len(y)) % min(count, max(2, len(y)))
    return fold


def calibrate(scores, y):
    """(temperature, log loss): of softmax(scores / temperature), least over a grid of temperatures."""
    found = [(log_loss(scores / t, y), t) for t in np.geomspace(0.1, 10, 81)]
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
