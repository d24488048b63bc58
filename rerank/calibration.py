"""How far scores can be believed: temperature, and the measures of a report, in numpy.

Knows nothing of texts, models or files.
"""

from __future__ import annotations

import numpy as np

DOUBT = 0.3  # how far from 1 a temperature is expected, a logarithm
RARE = 0.02  # of held-out texts are as far from what is known as strangers
LEAST = 0.1  # what the scores of a stranger still count, so that there is a best one


def softmax(scores: np.ndarray) -> np.ndarray:
    """Of the last axis."""
    exps = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exps / exps.sum(axis=-1, keepdims=True)


def log_losses(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-log softmax(scores)[y]: scores (..., N, K), y (N,) -> (..., N)."""
    scores = scores - scores.max(axis=-1, keepdims=True)
    right = np.take_along_axis(scores, np.broadcast_to(y[:, None], (*scores.shape[:-1], 1)), axis=-1)[..., 0]
    return np.log(np.exp(scores).sum(axis=-1)) - right


def temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """By what to divide scores (N, K) of held-out rows, so that softmax is as sure as it is right (Guo et al. 2017).

    Few rows tell little of it, so it stays near 1 (a normal prior of its logarithm). N rows without an error do not
    tell a rate of errors below 1 / (N + 2) (Laplace): then nothing is made sharper, and the mean score of the best
    label is at most 1 less that rate.
    """
    grid = np.geomspace(0.2, 200, 121)
    losses = [log_losses(scores / t, y).sum() + (np.log(t) / DOUBT) ** 2 / 2 for t in grid]
    best = float(grid[int(np.argmin(losses))])
    if (scores.argmax(axis=1) != y).any():
        return best
    most = (len(y) + 1) / (len(y) + 2)
    grid = np.array([t for t in grid if t >= max(1.0, best)])
    return float(next((t for t in grid if softmax(scores / t).max(axis=1).mean() <= most), grid[-1]))


class Reach:
    """How like a text must be to the next vector that a model was learnt from, for its scores to count: those of one
    from `high` on count whole, of one at `low` next to nothing."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def share(self, near: np.ndarray) -> np.ndarray:
        """What scores are multiplied by, of each similarity."""
        return np.clip((near - self.low) / (self.high - self.low), LEAST, 1.0)


def reach(known: np.ndarray, others: np.ndarray, *, apart: np.ndarray) -> tuple[Reach, np.ndarray]:
    """(reach, the similarity of each row to the next that is known). known (M, D), others (N, D), of length 1.

    apart (N, M): which of the known a row is compared with: none that it would not have been held out from.
    """
    near = np.where(apart, others @ known.T, -1.0).max(axis=1)
    high = float(min(np.median(near), 1.0))
    rare = float(np.quantile(near, min(0.25, RARE + 1 / len(near))))
    return Reach(max(-1.0, min(rare, high - 0.01)), high), near


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
