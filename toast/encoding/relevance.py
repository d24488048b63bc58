"""How well texts answer a query, by whatever kind of model is at hand.

Owns the choice of the scorer, windows of long texts and the scale of scores. Does not know where
texts come from, nor what becomes of the scores.
"""

import math

from toast import kernels, store
from toast.encoding import length_batches
from toast.errors import BadModel, UsageError
from toast.task import need

BLOCK = 256  # texts tokenised at once: encodings are large


def open_scorer(call, name: str, instruction: str | None = None) -> "Relevance":
    """The scorer for a model: cross-encoder, Qwen3-Reranker, late interaction, any embedding model.

    instruction: what counts as an answer, for models that are told. Raises UsageError for others,
    BadModel for a model that cannot score pairs.
    """
    kernels.install_for(call)
    path = store.find(call, name)
    kind = need(name, path, "judge", "label", "match", "embed")
    if instruction and kind != "judge":
        raise UsageError(f"{name} takes no instruction", "--instruction is for Qwen3-Reranker")
    if kind == "match":
        return Relevance(_Late(path))
    if kind != "embed":
        return Relevance(_Pairs(_pair_scorer(name, path, instruction)))
    from toast.encoding.encoder import Encoder
    from toast.encoding.maxsim import Matcher

    return Relevance(Matcher(Encoder(call, name)))


def _pair_scorer(name, path, instruction):
    from toast.encoding.cross_encoder import scorer

    found = scorer(path)
    if len(found.labels) != 1:
        raise BadModel(f"{name} is a classifier with {len(found.labels)} labels", f"classify -m {name}")
    if instruction:
        found.instruction = instruction
    return found


class _Pairs:
    """A scorer of (query, text) pairs, asked one query at a time."""

    def __init__(self, scorer):
        self.scorer, self.logits = scorer, scorer.logits

    def ask(self, query):
        self.query = query

    def encode(self, texts, truncate):
        return self.scorer.encode([(self.query, text) for text in texts], truncate)


class _Late:
    """A late-interaction model; its logits are sums of cosines, one for each token of the query."""

    def __init__(self, path):
        from toast.encoding.colbert import Late

        self.model = Late(path)

    def ask(self, query):
        self.query = self.model.query(query)

    def encode(self, texts, truncate):
        return self.model.encode(texts)

    def logits(self, rows):
        return self.model.scores(self.query, rows)[:, None]

    def score(self, logit, other=0.0, worth=0.0):
        """The mean cosine; another score, from 0 to 1, counts as `worth` tokens of the query."""
        return min(max((logit + worth * other) / (self.query.shape[0] + worth), 0.0), 1.0)


class Relevance:
    """Scores of texts against a query. cut, queries_cut: how many were over the limit so far.

    score(logit): the logit on a scale from 0 to 1, the same from call to call; score(logit, other, worth):
    joined with another score, from 0 to 1, the whole of which is worth so many logits.
    """

    def __init__(self, scorer):
        self.scorer, self.cut, self.queries_cut, self.query = scorer, 0, 0, None
        self.score = getattr(scorer, "score", _score)

    def logits(self, query: str, texts: list[str], long: str = "best") -> list[float]:
        """Unbounded scores, the higher the better; a text's does not depend on the others.

        long: texts over the model's limit take the `best` of their windows, are cut (`truncate`)
        or are an `error` (BadInput).
        """
        if query != self.query:
            self.queries_cut += bool(self.scorer.ask(query))
            self.query = query
        found = []
        for start in range(0, len(texts), BLOCK):
            found += self._block(texts[start : start + BLOCK], long)
        return found

    def _block(self, texts, long):
        truncate = "longest_first" if long == "truncate" else "only_second"
        parts, owners, cut = length_batches.pieces(self.scorer.encode(texts, truncate), long)
        self.cut += cut
        best = [-math.inf] * len(texts)
        for owner, logit in zip(owners, length_batches.compute(self.scorer.logits, parts)[:, 0].tolist()):
            best[owner] = max(best[owner], logit)
        return best


def _score(logit, other=0.5, worth=0.0):
    return sigmoid(logit + worth * (other - 0.5))


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit < 0:
        return math.exp(logit) / (1 + math.exp(logit))
    return 1 / (1 + math.exp(-logit))
