"""What is learnt from examples beside what the labels' descriptions say: linear models averaged by cross-validation.

Owns which settings are tried, the folds and the weights of the average. Few examples leave the average near the
descriptions, many near the best setting (Bayesian model averaging; Hoeting et al. 1999, with cross-validated
likelihoods). The arithmetic of a fit is `logistic.py`'s. Knows nothing of texts, models or files.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from rerank import calibration
from rerank.logistic import Problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    Setting = tuple[float, ...]  # first, prior, penalty of the intercepts, penalty of the rest
    Tried = tuple[Setting, np.ndarray, np.ndarray]  # with weights (K, D + 1) and held-out scores (N, K)

# Chosen on nine collections, 2 to 64 examples of a label (docs/notebook.md). All penalties are for a sum over rows.
FIRSTS = (0.0, 0.5, 1.5)  # what the state of the first token counts beside the vector
PRIORS = {1.0: 0.0, 0.5: -1.0, 0.25: -2.0, 0.0: -3.0}  # what the descriptions count -> how likely that is, a logarithm
INTERCEPTS = (0.0, 4.0)  # penalties of the intercepts: how far the labels are as frequent as they seem
PENALTIES = (2.0, 0.5, 0.12, 0.03)
MIDDLE, PATH = (
    0.5,
    (2.0, 0.7, 0.25, 0.08, 0.025, 0.008),
)  # of many examples, of which the descriptions' part matters little
EVIDENCE = 2.0  # what a held-out example counts: the models of the folds have seen less than the last one will
MANY = 3000  # rows that settings are chosen on, fewer of many labels
CLOSE = 1e-3  # how near to the least loss a fit comes: more says nothing on other rows
WORK = 2e8  # multiplications of a step of all problems, above which fewer settings are tried


class Learnt:
    """weight (K, D + 1), the intercept last, beside `prior` times the descriptions' scores; held: (N, K) scores of
    rows by models that had not seen them."""

    def __init__(self, weight: np.ndarray, prior: float, *, held: np.ndarray) -> None:
        self.weight, self.prior, self.held = weight, prior, held


class Rows:
    """The rows that are learnt from. X (N, D), of which the first `dims` columns are vectors and the rest states of
    first tokens; y (N,) in 0..K-1; offsets (N, K): what the descriptions say, on the scale of logits."""

    def __init__(self, X: np.ndarray, y: np.ndarray, offsets: np.ndarray, *, dims: int) -> None:
        self.X, self.y, self.offsets, self.dims, self.K = X, y, offsets, dims, offsets.shape[1]
        self.fold = folds(y, 10 if len(y) <= 20 else 5 if len(y) <= 200 else 3 if len(y) <= 5000 else 2)
        self._kept: dict[float, tuple[np.ndarray, np.ndarray | None]] = {}

    def some(self, count: int) -> Rows:
        """About so many of them."""
        if len(self.y) <= count * 1.5:
            return self
        part = folds(self.y, round(len(self.y) / count)) == 0
        return Rows(self.X[part], self.y[part], self.offsets[part], dims=self.dims)

    def features(self, first: float) -> tuple[np.ndarray, np.ndarray | None]:
        """(X with a column of ones before, what turns weights of its other columns into those of X's; None: they are).

        With fewer rows than columns, in coordinates of the rows: a penalty does not see the difference."""
        if first not in self._kept:
            self._kept = {first: self._features(first)}
        return self._kept[first]

    def _features(self, first: float) -> tuple[np.ndarray, np.ndarray | None]:
        X = self.X[:, : self.dims] if not first else self.X * self._scale(first)
        back = None
        if len(X) < X.shape[1]:
            U, sizes, back = np.linalg.svd(X.astype(np.float64), full_matrices=False)
            X = (U * sizes).astype(np.float32)
        return np.concatenate([np.ones((len(X), 1), X.dtype), X], axis=1), back

    def _scale(self, first: float) -> np.ndarray:
        scale = np.ones(self.X.shape[1], self.X.dtype)
        scale[self.dims :] = first
        return scale

    def whole(self, W: np.ndarray, first: float, back: np.ndarray | None) -> np.ndarray:
        """Weights (K, d + 1) of `features` -> (K, D + 1) of X, the intercept last."""
        own = W[:, 1:] if back is None else W[:, 1:] @ back
        full = np.zeros((self.K, self.X.shape[1] + 1), np.float64)
        full[:, : own.shape[1]] = own
        full[:, :-1] *= self._scale(first)
        full[:, -1] = W[:, 0]
        return full

    def narrow(self, weight: np.ndarray, first: float) -> np.ndarray | None:
        """The other way round: what all problems may start from, (folds + 1, K, d + 1); None in other coordinates."""
        X, back = self.features(first)
        if back is not None:
            return None
        scale = self._scale(first)[: X.shape[1] - 1]
        own = np.concatenate([weight[:, -1:], weight[:, : len(scale)] / np.where(scale, scale, 1)], axis=1)
        return np.repeat(own[None], self.fold.max() + 2, axis=0)

    def weights(self) -> np.ndarray:
        """(folds + 1, N): of each fold's problem, and of that of all rows. Classes count by the square root of their
        frequency, a middle way between as they come and all alike, in the folds as in all."""
        own = np.bincount(self.y, minlength=self.K)
        rows = []
        for part in range(-1, self.fold.max() + 1):
            seen = self.fold != part
            there = np.bincount(self.y[seen], minlength=self.K)
            rows.append(np.where(seen, (np.sqrt(own) / np.maximum(there, 1))[self.y], 0))
        return np.stack([*rows[1:], rows[0]])


def folds(y: np.ndarray, count: int) -> np.ndarray:
    """A fold for each row, the classes spread evenly; the same rows always get the same."""
    order = np.random.default_rng(0).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), int)
    fold[order] = np.arange(len(y)) % min(count, max(2, len(y)))
    return fold


def learn(rows: Rows) -> Learnt:
    """The average of the models of all settings, each by how well it does on rows that it has not seen."""
    some = rows.some(max(MANY // 3, min(MANY, 20 * MANY // rows.K)))
    tried = _tried(some)
    share = _shares(tried, some.y)
    if some is rows:
        weight = sum(part * full for part, (_, full, _) in zip(share, tried, strict=True))
        held = sum(part * scores for part, (_, _, scores) in zip(share, tried, strict=True))
        prior = float(sum(part * setting[1] for part, (setting, _, _) in zip(share, tried, strict=True)))
        return Learnt(weight, prior, held=held)
    setting, weight, _ = tried[int(np.argmax(share))]
    start = rows.narrow(weight, setting[0])
    [(_, weight, held)] = _try(rows, setting[0], [setting], start=start)[0]
    return Learnt(weight, setting[1], held=held)


def _tried(rows: Rows) -> list[Tried]:
    """The models of all settings, or of fewer where they would take long."""
    each = len(rows.y) * rows.K * min(len(rows.y), rows.X.shape[1]) * (rows.fold.max() + 2)
    for priors, loose in ((tuple(PRIORS), INTERCEPTS), ((1.0, 0.5, 0.0), (0.0,))):
        if each * len(FIRSTS) * len(priors) * len(loose) * len(PENALTIES) <= WORK:
            return [one for first in FIRSTS for one in _try(rows, first, _grid(first, priors, loose))[0]]
    return _path(rows)


def _grid(first: float, priors: tuple[float, ...], loose: tuple[float, ...]) -> list[Setting]:
    return list(product((first,), priors, loose, PENALTIES))


def _path(rows: Rows) -> list[Tried]:
    """The models of few settings, from strong penalties to weak, each from the one before, until they lose."""
    found: list[Tried] = []
    for first in (FIRSTS[0], FIRSTS[-1]):
        start, best = None, np.inf
        for penalty in PATH:
            tried, start = _try(rows, first, [(first, MIDDLE, 0.0, penalty)], start=start)
            loss = float(calibration.log_losses(tried[0][2], rows.y).mean())
            found += tried
            if loss > best:
                break
            best = loss
    return found


def _try(
    rows: Rows, first: float, settings: list[Setting], *, start: np.ndarray | None = None
) -> tuple[list[Tried], np.ndarray]:
    """(the models of some settings, the weights of the last problems, to start others from)."""
    X, back = rows.features(first)
    each, N = rows.weights(), len(rows.y)
    found: list[Tried] = []
    step = max(1, int(4e6 / (len(each) * rows.K * max(N, X.shape[1]))))
    for at in range(0, len(settings), step):
        part = settings[at : at + step]
        offsets = np.repeat([prior * rows.offsets.T for _, prior, _, _ in part], len(each), axis=0).astype(X.dtype)
        penalties = np.repeat([[loose / N, penalty / N] for _, _, loose, penalty in part], len(each), axis=0)
        problems = Problems(X, rows.y, weights=np.tile(each, (len(part), 1)), offsets=offsets, penalties=penalties)
        start = W = problems.solve(start if len(settings) == 1 else None, tolerance=CLOSE)
        scores = problems.scores(W).reshape(len(part), len(each), rows.K, N)
        W = W.reshape(len(part), len(each), rows.K, -1)
        for i, setting in enumerate(part):
            found.append((setting, rows.whole(W[i, -1], first, back), scores[i, rows.fold, :, np.arange(N)]))
    assert start is not None
    return found, start


def _shares(tried: list[Tried], y: np.ndarray) -> np.ndarray:
    """What each setting counts. Where some make no error on held-out rows, those with the strongest penalty alone:
    nothing speaks for being surer."""
    held = np.stack([scores for _, _, scores in tried])
    penalty = np.array([setting[3] for setting, _, _ in tried])
    evidence = -EVIDENCE * calibration.log_losses(held, y).sum(axis=1)
    evidence += [PRIORS[setting[1]] for setting, _, _ in tried]
    right = (held.argmax(axis=2) == y).all(axis=1)
    if right.any():
        evidence[~(right & (penalty == penalty[right].max()))] = -np.inf
    shares = np.exp(evidence - evidence.max())
    return shares / shares.sum()
