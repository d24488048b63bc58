"""Probes: a linear classifier on an embedder's vectors, learnt from examples, in one small file.

Owns the file (safetensors, so it holds numbers and nothing that runs; docs/formats.md) and its use. How one is learnt
is `learn.py`'s; applying one needs no numpy.
"""

from __future__ import annotations

import json
from zlib import crc32

import mlx.core as mx

from rerank.blocks import Blocks
from rerank.labels import fault
from toast import pipes
from toast.encoding.encoder import Encoder
from toast.encoding.sentence_transformers import normalize
from toast.errors import BadModel, UsageError, os_error
from toast.store import is_probe, safetensors
from toast.store.fingerprint import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rerank.engines import Use
    from toast.command import Call

FIRST, FORMAT = "toast probe 1", "toast probe 2"
KINDS = ("one", "many")  # labels of a text
LARGEST = 256 << 20  # bytes of a file that may be a probe
AGAIN = "learn it again"
LEAST = 0.1  # what the scores of a text still count that is like nothing known
STRANGE = 4.0  # by how much its logits are lower, where each label is decided by itself


class Probe:
    """What the file holds. weight: (K, columns + 1) float32, the intercept last; known: (M, dims) float32, vectors of
    what it was learnt from; reach: the similarity to the next of these at which a text says nothing, and from which
    on it says all; thresholds: of labels that have one; model, digest: the embedder."""

    def __init__(
        self, labels: list[str], weight: mx.array, *, model: str, digest: str, many: bool = False,
        known: mx.array | None = None, reach: tuple[float, float] = (-2.0, -1.0),
        thresholds: dict[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.labels, self.weight, self.model, self.digest, self.many = labels, weight, model, digest, many
        self.known, self.reach, self.thresholds = known, reach, thresholds or {}

    def pack(self) -> list[bytes | memoryview]:
        """The parts of the file."""
        facts = {
            "format": FORMAT, "labels": json.dumps(self.labels), "model": self.model, "digest": self.digest,
            "kind": KINDS[self.many], "reach": json.dumps([round(x, 6) for x in self.reach]),
            "thresholds": json.dumps(self.thresholds),
        }  # fmt: skip
        tensors = {"weight": self.weight} | ({} if self.known is None else {"known": self.known})
        facts["sum"] = checksum(facts, {name: safetensors.data(array) for name, array in tensors.items()})
        return safetensors.pack(tensors, facts, alignment=8, separators=(", ", ": "))


def checksum(facts: dict[str, str], tensors: dict[str, Any]) -> str:
    """CRC-32, in hex, of the facts but `sum`, sorted, as Python's json.dumps writes them, and of the tensors' bytes."""
    found = crc32(json.dumps({name: facts[name] for name in sorted(facts) if name != "sum"}).encode())
    for name in sorted(tensors):
        found = crc32(tensors[name], found)
    return f"{found:08x}"


def read(call: Call, path: str) -> Probe:
    """The probe in a file; BadModel for any file that is no whole one."""
    try:
        with open(pipes.open_again(call, path, LARGEST), "rb") as file:
            data = file.read(LARGEST) if pipes.is_fed(file.fileno()) else b""
    except OSError as error:
        raise os_error(error, f"open {path}") from None
    try:
        return unpack(data)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        if is_probe(path):
            raise BadModel(f"{path} is a damaged probe", AGAIN) from None
        raise BadModel(
            f"{path} is neither a model nor a probe", "a folder, a .gguf file or what --learn wrote"
        ) from None


def unpack(data: bytes) -> Probe:
    """The probe that these bytes are; ValueError, or one of its like, when they are none."""
    facts, tensors = safetensors.unpack(data)
    if not all(isinstance(value, str) for value in facts.values()):
        raise ValueError("the metadata are no texts")
    weight = _matrix(tensors["weight"])
    labels: Any = json.loads(facts["labels"])
    if not (isinstance(labels, list) and all(isinstance(label, str) and not fault(label) for label in labels)):
        raise ValueError("its labels cannot be written")
    K, columns = weight.shape
    many = facts["format"] == FORMAT and KINDS.index(facts["kind"]) == 1
    if len(set(labels)) != len(labels) or len(labels) != K or (K < 2 and not many) or columns < 2:
        raise ValueError("as many labels as rows")
    if not all(facts[name].isprintable() for name in ("model", "digest")):
        raise ValueError("no name")
    probe = Probe(labels, weight, model=facts["model"], digest=facts["digest"], many=many)
    if facts["format"] == FIRST:
        return probe
    if facts["format"] != FORMAT or facts["sum"] != checksum(facts, {name: t[2] for name, t in tensors.items()}):
        raise ValueError("another version, or another sum")
    low, high = map(float, json.loads(facts["reach"]))
    if not -2 <= low < high <= 1:
        raise ValueError("no reach")
    probe.reach, probe.thresholds = (low, high), json.loads(facts["thresholds"])
    if not all(label in labels and isinstance(least, (int, float)) for label, least in probe.thresholds.items()):
        raise ValueError("no thresholds")
    probe.known = _matrix(tensors["known"]) if "known" in tensors else None
    return probe


def _matrix(tensor: tuple[mx.Dtype, list[int], memoryview]) -> mx.array:
    dtype, (rows, columns), numbers = tensor
    view: Any = numbers.cast("f")
    found = mx.array(view).reshape(rows, columns)
    if dtype != mx.float32 or not mx.all(mx.isfinite(found)).item():
        raise ValueError("no numbers")
    return found


# ---------------------------------------------------------------- use


class Features:
    """What a probe sees of a text: its vector and, after it, the state of its first token.

    Where the leading word decides (what, who, how many) the second is worth more than the first.
    """

    def __init__(self, call: Call, model: str) -> None:
        self.encoder = Encoder(call, model)
        leading = self.encoder.tokens.encode(["a"])[0].special_tokens_mask.index(0)
        self.first, self.dims = self.encoder.skip or leading, self.encoder.dims

    def __call__(self, encodings: list[Any]) -> mx.array:
        """(B, dims + hidden size) float32, both parts of length 1."""
        states, lengths, pooled = self.encoder.states(encodings)
        first = states[mx.arange(len(encodings)), mx.minimum(self.first, lengths - 1)]
        return mx.concatenate([normalize(pooled), normalize(first)], axis=1)


class Probed(Blocks):
    """A probe and its embedder: scores by a linear function of a text's features, nearer to none the further the
    text is from all that the probe was learnt from."""

    def __init__(self, call: Call, path: str, use: Use) -> None:
        probe = read(call, path)
        for label in use.names:
            if label not in probe.labels:
                raise UsageError(f"{path} has no label {label!r}", "a probe has the labels it was learnt with")
        if use.multi and not probe.many:
            raise UsageError("this probe gives one label to a record, so --multi has no meaning", "learn from lists")
        if not probe.many:
            use.need_two(own=True)
        if digest(call, probe.model) != probe.digest:
            raise BadModel(f"{path} was learnt with another model than {probe.model!r} is now", AGAIN)
        self.features = Features(call, probe.model)
        self.encoder = self.features.encoder
        self.name, self.long, self.multi, self.probe = path, use.long, probe.many, probe
        self.labels, self.many, self.thresholds = use.names or probe.labels, probe.many, probe.thresholds
        rows = mx.array([probe.labels.index(label) for label in self.labels])
        self.weight, self.bias = probe.weight[rows, :-1].T, probe.weight[rows, -1]
        self.known = None if probe.known is None else probe.known.T

    def encode(self, texts: list[str]) -> list[Any]:
        return self.features.encoder.encodings(texts, whole=self.whole)

    def logits(self, encodings: list[Any]) -> mx.array:
        features, columns, dims = self.features(encodings), len(self.weight), self.features.dims
        known = self.known is None or len(self.known) == dims
        if columns not in (dims, features.shape[1]) or not known:
            raise BadModel(f"{self.name} has {columns} features, its embedder {features.shape[1]}", AGAIN)
        logits = features[:, :columns] @ self.weight + self.bias
        if self.known is None:
            return logits
        low, high = self.probe.reach
        near = mx.max(features[:, :dims] @ self.known, axis=1, keepdims=True)
        share = mx.clip((near - low) / (high - low), LEAST, 1.0)
        return logits * share - (STRANGE * (1 - share) if self.multi else 0)
