"""Probes: a linear classifier on an embedder's vectors, learnt from examples, in one small file.

Owns the file (safetensors, so it holds numbers and nothing that runs; docs/formats.md) and its tie
to the embedder. The arithmetic of learning is `logistic.py`'s; applying a probe needs no numpy.
"""

import json
import os

import mlx.core as mx

from rerank.blocks import Blocks
from toast import files, pipes
from toast.encoding import length_batches
from toast.encoding.encoder import Encoder
from toast.encoding.relevance import BLOCK
from toast.encoding.sentence_transformers import normalize
from toast.errors import BadInput, BadModel, UsageError, os_error
from toast.records import Records
from toast.store import is_probe
from toast.store.fingerprint import digest, name_of

FORMAT = "toast probe 1"
LARGEST = 256 << 20  # bytes of a file that may be a probe


class Features:
    """What a probe sees of a text: its vector and, after it, the state of its first token.

    Where the leading word decides (what, who, how many) the second is worth more than the first.
    """

    def __init__(self, call, model):
        self.encoder = Encoder(call, model)
        leading = self.encoder.tokens.encode(["a"])[0].special_tokens_mask.index(0)
        self.first, self.dims = self.encoder.skip or leading, self.encoder.dims

    def __call__(self, texts):
        """(N, dims + hidden size) float32, both parts of length 1."""
        return length_batches.compute(self._rows, self.encoder.pieces(texts)[0])

    def _rows(self, encodings):
        states, lengths, pooled = self.encoder.states(encodings)
        first = states[mx.arange(len(encodings)), mx.minimum(self.first, lengths - 1)]
        return mx.concatenate([normalize(pooled), normalize(first)], axis=1)


class Probed(Blocks):
    """A probe and its embedder: softmax of a linear function of a text's features."""

    def __init__(self, call, path, labels, multi):
        self.labels, weight, facts = read(path)
        if multi:
            raise UsageError("a probe gives one label to a record, so --multi has no meaning")
        _same_labels(path, labels, self.labels)
        if digest(call, facts["model"]) != facts["digest"]:
            raise BadModel(f"{path} was learnt with another model than {facts['model']!r} is now", "learn it again")
        self.features = Features(call, facts["model"])
        self.path, self.weight, self.bias = path, weight[:, :-1].T, weight[:, -1]

    @property
    def cut(self):
        return self.features.encoder.cut

    def block(self, texts):
        features, columns = self.features(texts), len(self.weight)
        if columns not in (self.features.dims, features.shape[1]):
            raise BadModel(f"{self.path} has {columns} features, its embedder {features.shape[1]}", "learn it again")
        return mx.softmax(features[:, :columns] @ self.weight + self.bias, axis=-1)


def _same_labels(path, given, own):
    for label, _ in given:
        if label not in own:
            raise UsageError(f"{path} has no label {label!r}", "a probe has the labels it was learnt with")


# ---------------------------------------------------------------- the file


def read(path: str) -> tuple[list[str], mx.array, dict]:
    """(labels, weight (K, D + 1) float32 with the intercept last, {"model", "digest"}).

    Raises BadModel for any file that is no whole probe.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST)
    except OSError as error:
        raise os_error(error, f"open {path}") from None
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        facts, tensor = header["__metadata__"], header["weight"]
        labels, (K, columns) = json.loads(facts["labels"]), tensor["shape"]
        if not (type(K) is type(columns) is int and 4 * K * columns == len(data) - start):
            raise ValueError
        weight = mx.array(memoryview(data[start:]).cast("f")).reshape(K, columns)
        texts = isinstance(labels, list) and all(map(is_label, labels)) and len(set(labels)) == len(labels)
        whole = facts["format"] == FORMAT and tensor["dtype"] == "F32" and len(labels) == K >= 2 and columns >= 2
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


def is_label(label) -> bool:
    return isinstance(label, str) and label != "" and label.isprintable()


def write(path: str, labels, rows: bytes, columns: int, model: str, model_digest: str) -> None:
    """Put the file in place as a whole; rows: (len(labels), columns) little-endian float32."""
    facts = {"format": FORMAT, "labels": json.dumps(labels), "model": model, "digest": model_digest}
    weight = {"dtype": "F32", "shape": [len(labels), columns], "data_offsets": [0, len(rows)]}
    header = json.dumps({"__metadata__": facts, "weight": weight}).encode()
    header += b" " * (-len(header) % 8)
    path = os.path.realpath(path)
    part = f"{path}.{os.getpid()}"
    try:
        with open(part, "xb") as file:
            files.keep_mode(file.fileno(), path)
            file.write(len(header).to_bytes(8, "little") + header + rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if os.path.exists(part):
            os.unlink(part)
        raise os_error(error, f"write {path}") from None


# ---------------------------------------------------------------- learning


def examples(records) -> tuple[list[str], list[str]]:
    """(texts, labels) of JSON records with the field `label`; raises BadInput."""
    texts, labels = [], []
    for record in records:
        label = record.data.get("label")
        if isinstance(label, bool) or not isinstance(label, (str, int)) or not is_label(str(label)):
            what = f"label {label!r} is no printable text" if "label" in record.data else "no field 'label'"
            where = records.where(records.files[0], record.number)
            raise BadInput(f"{where}: {what}", 'an example is a line like {"text": "...", "label": "..."}')
        texts.append(record.text)
        labels.append(str(label))
    return texts, labels


def learn(call, model: str, file: str, output: str | None, field: str | None) -> None:
    """Learn a probe from the examples of a JSONL file and write it."""
    if output is None:
        raise UsageError("--learn and -o go together", f"classify --learn {file} -o model.probe")
    files.check_output(call, output)
    records = Records(call, [file], jsonl=True, field=field)
    if os.path.exists(call.path(output)):
        source = os.fstat(call.stdin) if file == "-" else os.stat(call.path(file))
        if os.path.samestat(source, os.stat(call.path(output))):
            raise UsageError(f"the probe would replace its own examples, {records.where(file)}", "-o another file")
    texts, named = examples(records)
    labels = sorted(set(named))
    if len(labels) < 2:
        raise BadInput(
            f"{file}: {pipes.plural(len(labels), 'label')} in {pipes.plural(len(texts), 'example')}",
            "a probe chooses between two or more",
        )
    features = Features(call, model)

    import numpy as np

    from rerank import logistic

    index = {label: i for i, label in enumerate(labels)}
    y = np.array([index[label] for label in named])
    rows = []
    with pipes.progress(call, len(texts)) as bar:
        for start in range(0, len(texts), BLOCK):
            rows.append(np.array(features(texts[start : start + BLOCK])))
            bar.update(len(rows[-1]))
    X = np.concatenate(rows)
    learnt = logistic.learn(X, y, len(labels), [features.dims, X.shape[1]])
    rows = (learnt.weight / learnt.temperature).astype("<f4")
    write(call.path(output), labels, rows.tobytes(), rows.shape[1], name_of(call, model), digest(call, model))
    note = f"penalty {learnt.penalty:g}, temperature {learnt.temperature:.2f}, {rows.shape[1] - 1} features"
    call.info(f"{len(texts)} examples, {len(labels)} labels, {note}")
