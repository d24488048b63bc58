"""Multinomial logistic regression with an L2 penalty around what was expected, many problems at once, in numpy.

Owns the loss and the optimiser (L-BFGS, Nocedal 1980). Knows nothing of texts, models or files.
"""

from __future__ import annotations

import numpy as np

from toast.cancel import checkpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Problems:
    """B problems over the same rows. X (N, D) with a first column of ones, y (N,) class numbers.

    Of each problem: weights (B, N) of its rows, 0 for those that it has not seen; offsets (B, K, N),
    what the scores are without any learning; penalties (B, 2), of the intercepts and of the rest.
    """

    def __init__(
        self, X: np.ndarray, y: np.ndarray, *, weights: np.ndarray, offsets: np.ndarray, penalties: np.ndarray
    ) -> None:
        self.X, self.y, self.offsets = X, y, offsets
        self.weights = (weights / weights.sum(axis=1, keepdims=True)).astype(X.dtype)
        self.decay = np.repeat(penalties[:, 1:], X.shape[1], axis=1).astype(X.dtype)
        self.decay[:, 0] = penalties[:, 0]
        self.shape = (len(weights), offsets.shape[1], X.shape[1])

    def scores(self, W: np.ndarray) -> np.ndarray:
        """W (B, K, D) -> scores (B, K, N) of all rows: one product of matrices for all problems."""
        return (W.reshape(-1, W.shape[2]) @ self.X.T).reshape(*W.shape[:2], -1) + self.offsets

    def loss(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(values (B,), gradients (B, K * D)): mean weighted log loss + penalty / 2 |W|^2, at W (B, K * D)."""
        W = flat.reshape(self.shape)
        scores = self.scores(W)
        scores -= scores.max(axis=1, keepdims=True)
        rows = np.arange(len(self.y))
        right = scores[:, self.y, rows]
        np.exp(scores, out=scores)
        sums = scores.sum(axis=1)
        decayed = self.decay[:, None, :] * W
        values = ((np.log(sums) - right) * self.weights).sum(axis=1) + 0.5 * (decayed * W).sum(axis=(1, 2))
        scores *= (self.weights / sums)[:, None, :]
        scores[:, self.y, rows] -= self.weights
        gradients = (scores.reshape(-1, len(self.y)) @ self.X).reshape(self.shape) + decayed
        return values, gradients.reshape(flat.shape)

    def solve(self, start: np.ndarray | None = None, *, steps: int = 60, tolerance: float = 1e-4) -> np.ndarray:
        """The weights (B, K, D) of least loss; tolerance: as `minimise`."""
        flat = np.zeros((self.shape[0], self.shape[1] * self.shape[2]), self.X.dtype)
        if start is not None:
            flat[:] = start.reshape(flat.shape)
        return minimise(self.loss, flat, steps, tolerance=tolerance).reshape(self.shape)


def minimise(function: Function, x: np.ndarray, steps: int, *, memory: int = 10, tolerance: float = 1e-4) -> np.ndarray:
    """L-BFGS with backtracking, of B problems at once: function(x (B, P)) -> (values (B,), gradients (B, P)).

    It ends where no gradient is longer, in any direction, than the tolerance and no value falls by a hundredth of it.
    """
    values, gradients = function(x)
    past: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    active = np.ones(len(x), bool)
    for _ in range(steps):
        checkpoint()
        direction = -_inverse_hessian(past, gradients)
        slope = _dot(direction, gradients)
        uphill = slope >= 0
        direction[uphill], slope[uphill] = -gradients[uphill], -_dot(gradients, gradients)[uphill]
        rate = np.ones(len(x)) if past else 1 / np.maximum(1.0, np.abs(gradients).sum(axis=1))
        rate = (rate * active).astype(x.dtype)
        moved, new, after = _search(function, (x, values, direction, slope), rate)
        step, change = moved - x, after - gradients
        bend = _dot(step, change)
        past = [*past, (step, change, bend)][-memory:]
        small = np.abs(after).max(axis=1) < tolerance
        active &= ~(small & (values - new < tolerance * 1e-2 * np.maximum(np.abs(new), 1e-3)))
        x, values, gradients = moved, new, after
        if not active.any():
            break
    return x


def _search(
    function: Function, at: tuple[np.ndarray, ...], rate: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(points, values, gradients) along the directions, each step halved until it is worth its length (Armijo)."""
    x, values, direction, slope = at
    for _ in range(30):
        moved = x + rate[:, None] * direction
        new, after = function(moved)
        short = ~(new <= values + 1e-4 * rate * slope + 1e-7 * np.abs(values))
        if not short.any():
            break
        rate = np.where(short, rate / 2, rate).astype(x.dtype)
    moved[short], new[short] = x[short], values[short]
    return moved, new, after


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("bp,bp->b", a, b)


def _inverse_hessian(past: list[tuple[np.ndarray, np.ndarray, np.ndarray]], gradients: np.ndarray) -> np.ndarray:
    """The two-loop recursion: approximations of H^-1 gradient; a step that tells nothing of the bend is left out."""
    q, alphas = gradients.copy(), []
    inverse = [np.where(bend > 1e-12, 1 / np.maximum(bend, 1e-12), 0).astype(q.dtype) for _, _, bend in past]
    for (step, change, _), rho in zip(reversed(past), reversed(inverse), strict=True):
        alpha = rho * _dot(step, q)
        q -= alpha[:, None] * change
        alphas.append(alpha)
    if past:
        _, change, bend = past[-1]
        size = _dot(change, change)
        q *= np.where((bend > 1e-12) & (size > 0), bend / np.maximum(size, 1e-30), 1)[:, None].astype(q.dtype)
    for (step, change, _), rho, alpha in zip(past, inverse, reversed(alphas), strict=True):
        q += (alpha - rho * _dot(change, q))[:, None] * step
    return q
