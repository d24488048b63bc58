"""What gives labels to texts: engines of one face, chosen by what the model is.

An engine has `labels`, counts in `cut` the texts that were over its limit, and answers
`probabilities(texts)`: for each text a score of each label. Knows nothing of records or of output.
"""

import os

import mlx.core as mx

from rerank.blocks import Blocks
from toast import kernels, pipes, store
from toast.encoding import length_batches
from toast.encoding.encoder import Encoder
from toast.errors import BadModel, UsageError
from toast.task import need

# Zero-shot by an embedder: cosines of a text and its label's description, as logits.
SHARPNESS, MIDDLE = 18.0, 0.25
HYPOTHESIS = "This example is {}."  # of the zero-shot literature (Yin et al. 2019)


def open_engine(call, name: str, labels: list, multi: bool):
    """The engine for a model; labels: (name, description) pairs, none for the model's own.

    multi: each label is decided by itself. Raises UsageError, BadModel.
    """
    kernels.install_for(call)
    path = call.path(name)
    if os.path.exists(path) and not (os.path.isdir(path) or path.endswith(".gguf")):
        from rerank import probe

        return probe.Probed(call, path, labels, multi)
    path = store.find(call, name)
    kind = need(name, path, "label", "generate", "embed")
    if kind == "label":
        return _classifier(name, path, labels, multi)
    if not labels:
        raise UsageError(f"{name} has no labels of its own", "-l bug,feature,question")
    if kind == "generate":
        from rerank import choices

        return choices.Choices(call, name, path, labels, multi)
    return Descriptions(call, name, labels, multi)


def _classifier(name, path, labels, multi):
    from toast.encoding.cross_encoder import scorer

    model = scorer(path)
    if len(model.labels) == 1:
        raise BadModel(f"{name} ranks records for a query", f'rerank -m {name} "QUERY"')
    if labels and any(label.lower().startswith("entail") for label in model.labels):
        return Entailment(model, labels, multi)
    return Classifier(name, model, labels, multi)


class Classifier(Blocks):
    """A sequence classifier with its own labels, or some of them."""

    def __init__(self, name, model, labels, multi):
        self.model, self.labels = model, [label for label, _ in labels] or model.labels
        for label in self.labels:
            if label not in model.labels:
                raise UsageError(f"{name} has no label {label!r}", f"it has {', '.join(model.labels[:20])}")
        self.columns = mx.array([model.labels.index(label) for label in self.labels])
        self.independent = multi or model.activation is mx.sigmoid

    def block(self, texts):
        logits = self.compute(self.model.encode(texts), self.model.logits)[:, self.columns]
        return mx.sigmoid(logits) if self.independent else mx.softmax(logits, axis=-1)


class Entailment(Blocks):
    """An NLI model: how far a text entails that it is about the label (Yin et al. 2019)."""

    def __init__(self, model, labels, multi, hypothesis=HYPOTHESIS):
        self.model, self.labels, self.multi = model, [label for label, _ in labels], multi
        self.hypotheses = [hypothesis.format(description) for _, description in labels]
        names = [label.lower() for label in model.labels]
        self.entailed = next(i for i, label in enumerate(names) if label.startswith("entail"))
        # as transformers: without a label of that name it is the first, or the last if that entails
        found = [i for i, label in enumerate(names) if label.startswith("contra")]
        self.contradicted = found[0] if found else -1 if self.entailed == 0 else 0

    def block(self, texts):
        pairs = [(text, hypothesis) for text in texts for hypothesis in self.hypotheses]
        encodings = self.model.encode(pairs, truncate="only_first")
        each = len(self.labels)
        cut = [any(e.overflowing for e in encodings[i : i + each]) for i in range(0, len(pairs), each)]
        logits = length_batches.compute(self.model.logits, length_batches.pieces(encodings, "truncate")[0])
        self.cut += sum(cut)
        logits = logits.reshape(len(texts), each, -1)
        entailed = logits[..., self.entailed]
        if self.multi:
            return mx.sigmoid(entailed - logits[..., self.contradicted])
        return mx.softmax(entailed, axis=-1)


class Descriptions(Blocks):
    """An embedder: cosines of the text and the labels' descriptions, on a fixed scale."""

    @property
    def cut(self):
        return self.encoder.cut

    def __init__(self, call, name, labels, multi):
        self.labels, self.multi = [label for label, _ in labels], multi
        self.encoder = Encoder(call, name, kind="query")
        self.targets = self.encoder.encode([description for _, description in labels])
        if self.encoder.cut:
            call.cut(f"{pipes.plural(self.encoder.cut, 'label description')} over the model's limit cut")
            self.encoder.cut = 0
        self.encoder.use("document")

    def block(self, texts):
        logits = SHARPNESS * (self.encoder.encode(texts) @ self.targets.T - MIDDLE)
        return mx.sigmoid(logits) if self.multi else mx.softmax(logits, axis=-1)
