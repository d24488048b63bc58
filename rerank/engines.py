"""What gives labels to texts: engines of one face, chosen by what the model is.

An engine has `labels`, counts in `cut` the texts that were over its limit, and answers
`probabilities(texts)`: for each text a score of each label. Knows nothing of records or of output.
"""

from __future__ import annotations

import os

import mlx.core as mx

from rerank.blocks import Blocks
from toast import loaded, pipes
from toast.encoding import length_batches
from toast.encoding.encoder import Encoder
from toast.errors import BadModel, UsageError
from toast.task import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call

    Labels = list[tuple[str, str]]  # (name, description)

# Zero-shot by an embedder: cosines of a text and its label's description, as logits.
SHARPNESS, MIDDLE = 18.0, 0.25
HYPOTHESIS = "This example is {}."  # of the zero-shot literature (Yin et al. 2019)


def open_engine(call: Call, name: str, labels: Labels, *, multi: bool) -> Any:
    """The engine for a model; labels: (name, description) pairs, none for the model's own.

    multi: each label is decided by itself. Raises UsageError, BadModel.
    """
    path = call.path(name)
    if os.path.exists(path) and not (os.path.isdir(path) or path.endswith(".gguf")):
        from rerank import probe

        return probe.Probed(call, path, labels, multi=multi)
    kind = need(call, name, "label", "generate", "embed", "adapt")
    if kind == "label":
        return _classifier(call, name, labels, multi=multi)
    if not labels:
        raise UsageError(f"{name} has no labels of its own", "-l bug,feature,question")
    if kind in ("generate", "adapt"):
        from rerank import choices

        return choices.Choices(call, name, labels, multi=multi)
    return Descriptions(call, name, labels, multi=multi)


def _classifier(call: Call, name: str, labels: Labels, *, multi: bool) -> Blocks:
    from toast.encoding.cross_encoder import scorer

    model: Any = loaded.load(call, name, scorer)
    if len(model.labels) == 1:
        raise BadModel(f"{name} ranks records for a query", f'rerank -m {name} "QUERY"')
    if labels and any(label.lower().startswith("entail") for label in model.labels):
        engine = Entailment(model, labels, multi=multi, name=name)
        _tell_cut(call, engine.descriptions_cut)
        return engine
    return Classifier(name, model, labels, multi=multi)


def _tell_cut(call: Call, descriptions: int) -> None:
    if descriptions:
        call.cut(f"{pipes.plural(descriptions, 'label description')} over the model's limit cut")


class Classifier(Blocks):
    """A sequence classifier with its own labels, or some of them."""

    def __init__(self, name: str, model: Any, labels: Labels, *, multi: bool) -> None:
        self.name, self.model, self.labels = name, model, [label for label, _ in labels] or model.labels
        for label in self.labels:
            if label not in model.labels:
                raise UsageError(f"{name} has no label {label!r}", f"it has {', '.join(model.labels[:20])}")
        self.columns = mx.array([model.labels.index(label) for label in self.labels])
        self.independent = multi or model.activation is mx.sigmoid

    def block(self, texts: list[str]) -> mx.array:
        logits = self.compute(self.model.encode(texts), self.model.logits)[:, self.columns]
        return mx.sigmoid(logits) if self.independent else mx.softmax(logits, axis=-1)


class Entailment(Blocks):
    """An NLI model: how far a text entails that it is about the label (Yin et al. 2019)."""

    def __init__(
        self, model: Any, labels: Labels, *, multi: bool, hypothesis: str = HYPOTHESIS, name: str = "the model"
    ) -> None:
        self.name, self.model, self.labels, self.multi = name, model, [label for label, _ in labels], multi
        whole = [hypothesis.format(description) for _, description in labels]
        self.hypotheses = [model.fitting(text) for text in whole]
        self.descriptions_cut = sum(a != b for a, b in zip(whole, self.hypotheses, strict=True))
        names = [label.lower() for label in model.labels]
        self.entailed = next(i for i, label in enumerate(names) if label.startswith("entail"))
        # as transformers: without a label of that name it is the first, or the last if that entails
        found = [i for i, label in enumerate(names) if label.startswith("contra")]
        self.contradicted = found[0] if found else -1 if self.entailed == 0 else 0

    def block(self, texts: list[str]) -> mx.array:
        pairs = [(text, hypothesis) for text in texts for hypothesis in self.hypotheses]
        encodings = self.model.encode(pairs, truncate="only_first")
        each = len(self.labels)
        cut = [any(e.overflowing for e in encodings[i : i + each]) for i in range(0, len(pairs), each)]
        logits = length_batches.compute(self.model.logits, length_batches.pieces(encodings, "truncate")[0])
        self.over += sum(cut)
        logits = logits.reshape(len(texts), each, -1)
        entailed = logits[..., self.entailed]
        if self.multi:
            return mx.sigmoid(entailed - logits[..., self.contradicted])
        return mx.softmax(entailed, axis=-1)


class Descriptions(Blocks):
    """An embedder: cosines of the text and the labels' descriptions, on a fixed scale."""

    def __init__(self, call: Call, name: str, labels: Labels, *, multi: bool) -> None:
        self.name, self.labels, self.multi = name, [label for label, _ in labels], multi
        queries = Encoder(call, name, kind="query")
        self.targets = queries.encode([description for _, description in labels])
        _tell_cut(call, queries.cut)
        self.encoder = queries.but("document")

    @property
    def cut(self) -> int:
        return self.encoder.cut

    def block(self, texts: list[str]) -> mx.array:
        logits = SHARPNESS * (self.encoder.encode(texts) @ self.targets.T - MIDDLE)
        return mx.sigmoid(logits) if self.multi else mx.softmax(logits, axis=-1)
