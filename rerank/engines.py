"""What gives labels to texts: engines of one face, chosen by what the model is.

An engine has `labels`, counts in `cut` the texts that were over its limit, and answers
`probabilities(texts)`: for each text a score of each label. Knows nothing of records or of output.
"""

from __future__ import annotations

import os

import mlx.core as mx

from rerank.blocks import Blocks
from toast import loaded, pipes
from toast.encoding.encoder import Encoder
from toast.encoding.sentence_transformers import normalize
from toast.errors import UsageError
from toast.store import catalog
from toast.task import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rerank.labels import Label
    from toast.command import Call

# Zero-shot by an embedder: cosines of a text and its label's description, as logits.
SHARPNESS, MIDDLE = 18.0, 0.25
HYPOTHESIS = "This example is {}."  # of the zero-shot literature (Yin et al. 2019)
LONG = ("best", "mean", "truncate", "error")


class Use:
    """What a Call asks of an engine. labels: none for the model's own; multi: each label is decided by itself;
    long: what becomes of texts over the limit; hypothesis: a template of NLI models, `{}` for the label."""

    def __init__(
        self, labels: list[Label], *, multi: bool = False, long: str = LONG[0], hypothesis: str | None = None
    ) -> None:
        if hypothesis is not None and "{}" not in hypothesis:
            raise UsageError("--hypothesis has no {} for the label", f'--hypothesis "{HYPOTHESIS}"')
        self.labels, self.multi, self.long, self.hypothesis = labels, multi, long, hypothesis

    @property
    def names(self) -> list[str]:
        return [label.name for label in self.labels]

    def need_two(self, *, own: bool = False) -> None:
        """UsageError where one label alone is asked for, which all records would have. own: of a model's own ones."""
        if len(self.labels) == 1 and not self.multi:
            chooses = f"--only {self.names[0]}, without -l: its records, of all the labels that the model has"
            raise UsageError("one label decides nothing", chooses if own else "-l bug,feature, -L FILE, or --multi")


def open_engine(call: Call, name: str, use: Use) -> Any:
    """The engine for a model. Raises UsageError, BadModel."""
    path = call.path(name)
    is_file = os.path.exists(path) and not (os.path.isdir(path) or path.endswith(".gguf"))
    if is_file and not catalog.known(name):  # a name of ours means the same in every folder
        from rerank import probe

        engine: Any = probe.Probed(call, path, use)
    else:
        engine = _model(call, name, use)
    if use.hypothesis is not None and not isinstance(engine, Entailment):
        raise UsageError(f"{name} tests no hypotheses", "--hypothesis is for NLI models with -l")
    return engine


def _model(call: Call, name: str, use: Use) -> Any:
    if catalog.known(name):
        use.need_two()  # before it is fetched
    kind = need(call, name, "label", "generate", "embed", "adapt")
    if kind == "label":
        return _classifier(call, name, use)
    use.need_two()
    if not use.labels:
        raise UsageError(f"{name} has no labels of its own", "-l bug,feature,question")
    if kind in ("generate", "adapt"):
        from rerank import choices

        return choices.Choices(call, name, use)
    return Descriptions(call, name, use)


def _classifier(call: Call, name: str, use: Use) -> Blocks:
    from toast.encoding.cross_encoder import scorer

    model: Any = loaded.load(call, name, scorer)
    if use.labels and any(label.lower().startswith("entail") for label in model.labels):
        use.need_two()
        engine = Entailment(model, use, name=name)
        _tell_cut(call, engine.descriptions_cut)
        return engine
    for told in model.renamed:
        call.warn(f"{name}: {told}")
    return Scored(name, model, use) if len(model.labels) == 1 else Classifier(name, model, use)


def _tell_cut(call: Call, descriptions: int) -> None:
    if descriptions:
        call.cut(f"{pipes.plural(descriptions, 'label description')} over the model's limit cut")


class Classifier(Blocks):
    """A sequence classifier with its own labels, or some of them: probabilities, or what a regression gives."""

    def __init__(self, name: str, model: Any, use: Use) -> None:
        self.name, self.model, self.long = name, model, use.long
        self.labels = use.names or model.labels
        for label in self.labels:
            if label not in model.labels:
                raise UsageError(f"{name} has no label {label!r}", f"it has {', '.join(model.labels[:20])}")
        if model.exclusive and not model.regression:
            use.need_two(own=True)
        self.columns = mx.array([model.labels.index(label) for label in self.labels])
        self.multi = use.multi or model.exclusive is False
        self.bounded = not model.regression

    def encode(self, texts: list[str]) -> list[Any]:
        return self.model.encode(texts, whole=self.whole)

    def logits(self, encodings: list[Any]) -> mx.array:
        return self.model.logits(encodings)[:, self.columns]

    def activation(self, logits: mx.array) -> mx.array:
        return logits if self.model.regression else super().activation(logits)


class Scored(Blocks):
    """A model with one output, which scores a text and gives it no label."""

    def __init__(self, name: str, model: Any, use: Use) -> None:
        if use.labels or use.multi:
            raise UsageError(
                f"{name} gives a score and no labels", f'rerank -m {name} "QUERY", or classify -m {name} without labels'
            )
        self.name, self.model, self.long, self.labels = name, model, use.long, []
        self.bounded = not model.regression and model.activation in (mx.sigmoid, mx.tanh)

    def encode(self, texts: list[str]) -> list[Any]:
        return self.model.encode(texts, whole=self.whole)

    def logits(self, encodings: list[Any]) -> mx.array:
        return self.model.logits(encodings)

    def activation(self, logits: mx.array) -> mx.array:
        return logits if self.model.regression else self.model.activation(logits)


class Entailment(Blocks):
    """An NLI model: how far a text entails that it is about the label (Yin et al. 2019)."""

    def __init__(self, model: Any, use: Use, *, name: str = "the model") -> None:
        self.name, self.model, self.labels, self.multi, self.long = name, model, use.names, use.multi, use.long
        template = use.hypothesis or HYPOTHESIS
        whole = [template.replace("{}", label.about) for label in use.labels]
        self.hypotheses, self.each = [model.fitting(text) for text in whole], len(whole)
        self.descriptions_cut = sum(a != b for a, b in zip(whole, self.hypotheses, strict=True))
        names = [label.lower() for label in model.labels]
        self.entailed = next(i for i, label in enumerate(names) if label.startswith("entail"))
        # as transformers: without a label of that name it is the first, or the last if that entails
        found = [i for i, label in enumerate(names) if label.startswith("contra")]
        self.contradicted = found[0] if found else -1 if self.entailed == 0 else 0

    def encode(self, texts: list[str]) -> list[Any]:
        pairs = [(text, hypothesis) for text in texts for hypothesis in self.hypotheses]
        return self.model.encode(pairs, truncate="only_first", whole=self.whole)

    def logits(self, encodings: list[Any]) -> mx.array:
        """(pairs, 1)."""
        found = self.model.logits(encodings)
        entailed = found[:, self.entailed]
        return (entailed - found[:, self.contradicted] if self.multi else entailed)[:, None]

    def activation(self, logits: mx.array) -> mx.array:
        return super().activation(logits.reshape(-1, self.each))


class Descriptions(Blocks):
    """An embedder: cosines of the text and the labels' descriptions, on a fixed scale."""

    def __init__(self, call: Call, name: str, use: Use) -> None:
        self.name, self.labels, self.multi, self.long = name, use.names, use.multi, use.long
        queries = Encoder(call, name, kind="query")
        self.targets = queries.encode([label.about for label in use.labels])
        _tell_cut(call, queries.cut)
        self.encoder = queries.but("document")

    def encode(self, texts: list[str]) -> list[Any]:
        return self.encoder.encodings(texts, whole=self.whole)

    def logits(self, encodings: list[Any]) -> mx.array:
        vectors = normalize(self.encoder.states(encodings)[2])
        return SHARPNESS * (vectors @ self.targets.T - MIDDLE)
