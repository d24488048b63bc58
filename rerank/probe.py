"""Probes: a linear classifier on an embedder's vectors, learnt from examples, in one small file.

Owns the file (safetensors, so it holds numbers and nothing that runs; docs/formats.md) and its tie
to the embedder. The arithmetic of learning is `logistic.py`'s; applying a probe needs no numpy.
"""

from __future__ import annotations

import json
import os

import mlx.core as mx

from rerank.blocks import Blocks
from toast import files, pipes
from toast.encoding import length_batches
from toast.encoding.encoder import Encoder
from toast.encoding.relevance import TEXTS
from toast.encoding.sentence_transformers import finite, normalize
from toast.errors import BadInput, BadModel, UsageError, os_error
from toast.records import Records
from toast.store import is_probe, safetensors
from toast.store.fingerprint import digest, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call

    Labels = list[tuple[str, str]]  # (name, description)

FORMAT = "toast probe 1"
LARGEST = 256 << 20  # bytes of a file that may be a probe


class Features:
    """What a probe sees of a text: its vector and, after it, the state of its first token.

    Where the leading word decides (what, who, how many) the second is worth more than the first.
    """

    def __init__(self, call: Call, model: str) -> None:
        self.encoder = Encoder(call, model)
        leading = self.encoder.tokens.encode(["a"])[0].special_tokens_mask.index(0)
        self.first, self.dims = self.encoder.skip or leading, self.encoder.dims

    def __call__(self, texts: list[str]) -> mx.array:
        """(N, dims + hidden size) float32, both parts of length 1."""
        return finite(self.encoder.name, length_batches.compute(self._rows, self.encoder.pieces(texts)[0]))

    def _rows(self, encodings: list[Any]) -> mx.array:
        states, lengths, pooled = self.encoder.states(encodings)
        first = states[mx.arange(len(encodings)), mx.minimum(self.first, lengths - 1)]
        return mx.concatenate([normalize(pooled), normalize(first)], axis=1)


class Probed(Blocks):
    """A probe and its embedder: softmax of a linear function of a text's features."""

    def __init__(self, call: Call, path: str, labels: Labels, *, multi: bool) -> None:
        self.labels, weight, facts = read(call, path)
        if multi:
            raise UsageError("a probe gives one label to a record, so --multi has no meaning")
        _same_labels(path, labels, self.labels)
        if digest(call, facts["model"]) != facts["digest"]:
            raise BadModel(f"{path} was learnt with another model than {facts['model']!r} is now", "learn it again")
        self.features = Features(call, facts["model"])
        self.name, self.weight, self.bias = path, weight[:, :-1].T, weight[:, -1]

    @property
    def cut(self) -> int:
        return self.features.encoder.cut

    def block(self, texts: list[str]) -> mx.array:
        features, columns = self.features(texts), len(self.weight)
        if columns not in (self.features.dims, features.shape[1]):
            raise BadModel(f"{self.name} has {columns} features, its embedder {features.shape[1]}", "learn it again")
        return mx.softmax(features[:, :columns] @ self.weight + self.bias, axis=-1)


def _same_labels(path: str, given: Labels, own: list[str]) -> None:
    for label, _ in given:
        if label not in own:
            raise UsageError(f"{path} has no label {label!r}", "a probe has the labels it was learnt with")


# ---------------------------------------------------------------- the file


def read(call: Call, path: str) -> tuple[list[str], mx.array, dict]:
    """(labels, weight (K, D + 1) float32 with the intercept last, {"model", "digest"}).

    Raises BadModel for any file that is no whole probe.
    """
    try:
        with open(pipes.open_again(call, path, LARGEST), "rb") as file:
            data = file.read(LARGEST) if pipes.is_fed(file.fileno()) else b""
    except OSError as error:
        raise os_error(error, f"open {path}") from None
    try:
        facts, tensors = safetensors.unpack(data)
        dtype, (K, columns), numbers = tensors["weight"]
        labels: Any = json.loads(facts["labels"])
        view: Any = numbers.cast("f")
        weight = mx.array(view).reshape(K, columns)
        texts = isinstance(labels, list) and all(map(is_label, labels)) and len(set(labels)) == len(labels)
        whole = facts["format"] == FORMAT and dtype == mx.float32 and len(labels) == K >= 2 and columns >= 2
        named = all(isinstance(facts[key], str) and facts[key].isprintable() for key in ("model", "digest"))
        if not (texts and whole and named and mx.all(mx.isfinite(weight)).item()):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        if is_probe(path):
            raise BadModel(f"{path} is a damaged probe", "learn it again") from None
        raise BadModel(
            f"{path} is neither a model nor a probe", "a folder, a .gguf file or what --learn wrote"
        ) from None
    return labels, weight, facts


def is_label(label: object) -> bool:
    return isinstance(label, str) and label != "" and label.isprintable()


def write(path: str, labels: list[str], weight: mx.array, *, model: str, model_digest: str) -> None:
    """Put the file in place as a whole; weight: (len(labels), columns) float32."""
    facts = {"format": FORMAT, "labels": json.dumps(labels), "model": model, "digest": model_digest}
    parts = safetensors.pack({"weight": weight}, facts, alignment=8, separators=(", ", ": "))
    try:
        files.replace(os.path.realpath(path), parts)
    except OSError as error:
        raise os_error(error, f"write {path}") from None


# ---------------------------------------------------------------- learning


def examples(records: Records) -> tuple[list[str], list[str]]:
    """(texts, labels) of JSON records with the field `label`; raises BadInput."""
    texts, labels = [], []
    for record in records:
        data = record.data or {}
        label = data.get("label")
        if isinstance(label, bool) or not isinstance(label, (str, int)) or not is_label(str(label)):
            what = f"label {label!r} is no printable text" if "label" in data else "no field 'label'"
            where = records.where(records.files[0], record.number)
            raise BadInput(f"{where}: {what}", 'an example is a line like {"text": "...", "label": "..."}')
        texts.append(record.text)
        labels.append(str(label))
    return texts, labels


def learn(call: Call, model: str, file: str, *, output: str | None, field: str | None) -> None:
    """Learn a probe from the examples of a JSONL file and write it."""
    if output is None:
        raise UsageError("--learn and -o go together", f"classify --learn {file} -o model.probe")
    files.check_output(call, output)
    records = Records(call, [file], jsonl=True, field=field)
    _check_apart(call, file, output, where=records.where(file))
    texts, named = examples(records)
    labels = sorted(set(named))
    if len(labels) < 2:
        known = f"{pipes.plural(len(labels), 'label')} in {pipes.plural(len(texts), 'example')}"
        raise BadInput(f"{file}: {known}", "a probe chooses between two or more")
    features = Features(call, model)

    import numpy as np

    from rerank import logistic

    index = {label: i for i, label in enumerate(labels)}
    X = _matrix(call, features, texts)
    learnt = logistic.learn(
        X, np.array([index[label] for label in named]), len(labels), widths=[features.dims, X.shape[1]]
    )
    weight = mx.array((learnt.weight / learnt.temperature).astype("<f4"))
    write(call.path(output), labels, weight, model=name_of(call, model), model_digest=digest(call, model))
    note = f"penalty {learnt.penalty:g}, temperature {learnt.temperature:.2f}, {weight.shape[1] - 1} features"
    call.info(f"{len(texts)} examples, {len(labels)} labels, {note}")


def _check_apart(call: Call, file: str, output: str, *, where: str) -> None:
    """UsageError where the probe would replace its own examples."""
    if not os.path.exists(call.path(output)):
        return
    source = os.fstat(call.stdin) if file == "-" else os.stat(call.path(file))
    if os.path.samestat(source, os.stat(call.path(output))):
        raise UsageError(f"the probe would replace its own examples, {where}", "-o another file")


def _matrix(call: Call, features: Features, texts: list[str]) -> Any:
    """The features of all texts as numpy has them: (N, D) float32."""
    import numpy as np

    rows = []
    with pipes.progress(call, len(texts)) as bar:
        for start in range(0, len(texts), TEXTS):
            rows.append(np.array(features(texts[start : start + TEXTS])))
            bar.update(len(rows[-1]))
    return np.concatenate(rows)
