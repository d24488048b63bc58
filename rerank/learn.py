"""`classify --learn`: a probe from examples, and a line that says what it is worth.

Owns the way from examples to the file. What an example is, is `examples.py`'s; the arithmetic is `averaging.py`'s.
"""

from __future__ import annotations

import os

import mlx.core as mx
import numpy as np

from rerank import averaging, calibration, examples, probe
from rerank.engines import MIDDLE, SHARPNESS
from rerank.labels import Label
from toast import files, pipes
from toast.encoding import length_batches
from toast.encoding.encoder import Encoder
from toast.encoding.relevance import TEXTS
from toast.encoding.sentence_transformers import finite
from toast.errors import BadInput, UsageError, os_error
from toast.options import refuse_unreachable
from toast.store import is_probe
from toast.store.fingerprint import digest, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rerank.examples import Example
    from toast.command import Call

FEW = 20  # examples, below which an accuracy may be chance: its standard error is up to 0.11 there
KNOWN = 512  # vectors of examples that a probe keeps, at most


def learn(
    call: Call, model: str, file: str, *, given: list[Label], whence: str = "-l", output: str | None,
    field: str | None,
) -> None:  # fmt: skip
    """Learn a probe from examples, and from what the labels are called or described as, and write it.

    given, whence: labels of a file or of -l, if any."""
    like = f"classify --learn {file} -o model.probe"
    if output is None:
        raise UsageError("--learn and -o go together", like)
    output = files.output(call, output, what="probe", ours=is_probe, like=like)
    if output is None:
        pipes.refuse_terminal(call, "-o FILE, or > FILE")
    taught = _with_text(call, examples.read(call, file, field=field))
    known = _labels(call, file, taught, given=given, whence=whence)
    for label in known:
        refuse_unreachable(f"the threshold of {label.name!r},", label.threshold)
    lesson = Lesson(call, model, taught, known=known)
    lesson.learn()
    call.warn(lesson.verdict())
    call.info(lesson.detail)
    write(call, output, lesson.probe(call, model))


def _with_text(call: Call, taught: list[Example]) -> list[Example]:
    """Those that have a text; the others, which teach nothing, are told of."""
    empty = [example for example in taught if not example.text.strip()]
    if empty:
        call.warn(f"{pipes.plural(len(empty), 'example')} without text left out, the first at {empty[0].where}")
    return [example for example in taught if example.text.strip()]


def _labels(call: Call, file: str, taught: list[Example], *, given: list[Label], whence: str) -> list[Label]:
    """The labels to learn: those given, else those of the examples."""
    if not taught:
        raise BadInput(f"{file}: no examples", examples.LIKE)
    names = examples.names_of(call, taught)
    listed = bool(taught[0].listed)
    found = given or [Label(name) for name in names]
    if len(found) < 2 - listed:
        count = pipes.plural(len(found), "label")
        told = f"{whence}: {count}" if given else f"{file}: {count} in {pipes.plural(len(taught), 'example')}"
        raise BadInput(told, "a probe chooses between two or more")
    mine = {label.name for label in found}
    for example in taught:
        for name in example.labels:
            if name not in mine:
                told = f"{example.where}: label {name!r} is not one of {', '.join(sorted(mine)[:20])}"
                raise BadInput(told, f"the labels of {whence}")
    for label in found:
        if label.name not in names:
            call.warn(f"label {label.name!r} has no example: it is known by its description alone")
    return found


def write(call: Call, output: str | None, learnt: probe.Probe) -> None:
    """The file in place as a whole, or on standard output."""
    parts = learnt.pack()
    if output is None:
        for part in parts:
            pipes.write_all(call.stdout, part)
        return
    try:
        files.replace(os.path.realpath(call.path(output)), parts)
    except OSError as error:
        raise os_error(error, f"write {output}") from None


class Lesson:
    """What is learnt of some examples: features (N, D), of which the first `dims` are vectors; described (K, dims):
    the vectors of the labels' descriptions."""

    def __init__(self, call: Call, model: str, taught: list[Example], *, known: list[Label]) -> None:
        self.labels, self.many = [label.name for label in known], taught[0].listed
        self.thresholds = {label.name: label.threshold for label in known if label.threshold is not None}
        features = probe.Features(call, model)
        self.dims = features.dims
        self.described = np.array(Encoder(call, model, kind="query").encode([label.about for label in known]))
        self.X = _matrix(call, features, [example.text for example in taught])
        index = {name: i for i, name in enumerate(self.labels)}
        self.has = np.zeros((len(taught), len(known)), int)
        for i, example in enumerate(taught):
            self.has[i, [index[name] for name in example.labels]] = 1
        self.offsets = (SHARPNESS * (self.X[:, : self.dims] @ self.described.T - MIDDLE)).astype(np.float32)

    def learn(self) -> None:
        """weight (K, D + 1) and known, by which a probe scores; held: (N, K) probabilities of held-out examples."""
        self.rows = self._rows(self.has.argmax(axis=1), self.offsets)
        self._keep_known()
        self.detail = f"{len(self.known)} vectors kept"
        if self.many:
            each = [self._one(i) for i in range(len(self.labels))]
            self.weight = np.concatenate([weight for weight, _ in each])
            self.held = np.stack([held for _, held in each], axis=1)
            return
        learnt = averaging.learn(self.rows)
        faded = learnt.held * self.reach.share(self.near)[:, None]
        warm = calibration.temperature(faded, self.rows.y)
        self.detail = f"descriptions count {learnt.prior:.2f}, temperature {warm:.2f}, {len(self.known)} vectors kept"
        self.weight = self._with_descriptions(learnt.weight, learnt.prior, self.described) / warm
        self.held = calibration.softmax(faded / warm)

    def _rows(self, y: np.ndarray, offsets: np.ndarray) -> averaging.Rows:
        return averaging.Rows(self.X, y, offsets, dims=self.dims)

    def _keep_known(self) -> None:
        """Vectors of some examples, evenly of all labels, and of the descriptions; how like them held-out ones are."""
        parts = averaging.folds(self.rows.y, max(1, -(-len(self.X) // KNOWN)))
        kept = parts == 0
        self.known = np.concatenate([self.X[kept, : self.dims], self.described]).astype(np.float32)
        apart = np.ones((len(self.X), len(self.known)), bool)
        apart[:, : kept.sum()] = self.rows.fold[:, None] != self.rows.fold[None, kept]
        self.reach, self.near = calibration.reach(self.known, self.X[:, : self.dims], apart=apart)

    def _one(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        """(weight (1, D + 1), held-out probabilities (N,)) of whether a text has a label."""
        offsets = np.stack([np.zeros(len(self.X)), self.offsets[:, label]], axis=1).astype(np.float32)
        rows = self._rows(self.has[:, label], offsets)
        learnt = averaging.learn(rows)
        share = self.reach.share(self.near)[:, None]
        faded = (learnt.held - learnt.held[:, :1]) * share
        faded[:, 1:] -= probe.STRANGE * (1 - share)
        warm = calibration.temperature(faded, rows.y)
        own = self._with_descriptions(
            (learnt.weight[1] - learnt.weight[0])[None], learnt.prior, self.described[label][None]
        )
        own[:, -1] -= learnt.prior * SHARPNESS * MIDDLE
        return own / warm, calibration.softmax(faded / warm)[:, 1]

    def _with_descriptions(self, weight: np.ndarray, prior: float, described: np.ndarray) -> np.ndarray:
        """The descriptions' scores are linear in a text's vector, too."""
        weight = weight.copy()
        weight[:, : self.dims] += prior * SHARPNESS * described
        return weight

    def verdict(self) -> str:
        """What the probe is worth, in a line."""
        names = f"{pipes.plural(len(self.X), 'example')}, {pipes.plural(len(self.labels), 'label')}"
        few = f"; of under {FEW} examples that says little" if len(self.X) < FEW else ""
        if self.many:
            held, alone = _f1(self.held >= 0.5, self.has), _f1(self.offsets >= 0, self.has)
            return f"{names}: F1 {held:.2f} in cross-validation; by the label names alone {alone:.2f}{few}"
        y = self.rows.y
        held, alone = (np.mean(scores.argmax(axis=1) == y) for scores in (self.held, self.offsets))
        largest = np.bincount(y).max() / len(y)
        return (
            f"{names}: accuracy {held:.2f} in cross-validation; by the label names alone {alone:.2f}, "
            f"by the largest class {largest:.2f}{few}"
        )

    def probe(self, call: Call, model: str) -> probe.Probe:
        """What goes into the file."""
        return probe.Probe(
            self.labels, mx.array(self.weight.astype("<f4")), model=name_of(call, model), digest=digest(call, model),
            many=self.many, known=mx.array(self.known), reach=(self.reach.low, self.reach.high),
            thresholds=self.thresholds,
        )  # fmt: skip


def _f1(given: np.ndarray, has: np.ndarray) -> float:
    """Micro-averaged F1 of (N, K) decisions."""
    return float(2 * (given & (has > 0)).sum() / max(1, given.sum() + has.sum()))


def _matrix(call: Call, features: probe.Features, texts: list[str]) -> np.ndarray:
    """The features of all texts, of a long one's beginning: (N, D) float32."""
    rows, cut, encoder = [], 0, features.encoder
    with pipes.progress(call, len(texts)) as bar:
        for start in range(0, len(texts), TEXTS):
            encodings = encoder.encodings(texts[start : start + TEXTS], whole=False)
            cut += sum(bool(encoding.overflowing) for encoding in encodings)
            rows.append(np.array(finite(encoder.name, length_batches.compute(features, encodings))))
            bar.update(len(rows[-1]))
    if cut:
        call.cut(f"{pipes.plural(cut, 'example')} over the model's limit cut")
    return np.concatenate(rows)
