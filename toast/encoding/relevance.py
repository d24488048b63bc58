"""How well texts answer a query, by whatever kind of model is at hand.

Owns the choice of the scorer, windows of long texts and the scale of scores. Does not know where
texts come from, nor what becomes of the scores.
"""

from __future__ import annotations

import math

from toast import loaded
from toast.encoding import length_batches
from toast.errors import BadModel, BadText, UsageError, no_numbers_of, not_numbers
from toast.task import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import mlx.core as mx

    from toast.command import Call
    from toast.encoding.cross_encoder import Classifier, YesNo

TEXTS = 256  # texts tokenised at once: encodings are large


def open_scorer(call: Call, name: str, instruction: str | None = None) -> Relevance:
    """A use of the scorer for a model: cross-encoder, Qwen3-Reranker, late interaction, any embedding model.

    instruction: what counts as an answer, for models that are told. Raises UsageError for others,
    BadModel for a model that cannot score pairs.
    """
    kind = need(call, name, "judge", "label", "match", "embed")
    if instruction and kind != "judge":
        raise UsageError(f"{name} takes no instruction", "--instruction is for Qwen3-Reranker")
    if kind == "match":
        from toast.encoding.colbert import ColBERT

        return Relevance(_LateInteraction(loaded.load(call, name, ColBERT)), name)
    if kind != "embed":
        return Relevance(_Pairs(_pair_scorer(call, name), instruction), name)
    from toast.encoding.encoder import Encoder
    from toast.encoding.maxsim import MaxSim

    return Relevance(MaxSim(Encoder(call, name)), name)


def _pair_scorer(call: Call, name: str) -> Classifier | YesNo:
    from toast.encoding.cross_encoder import scorer

    found = loaded.load(call, name, scorer)
    if len(found.labels) != 1:
        raise BadModel(f"{name} is a classifier with {len(found.labels)} labels", f"classify -m {name}")
    return found


class _Pairs:
    """A use of a scorer of (query, text) pairs, asked one query at a time."""

    def __init__(self, scorer: Classifier | YesNo, instruction: str | None) -> None:
        self.scorer, self.instruction, self.logits = scorer, instruction, scorer.logits

    def ask(self, query: str, long: str) -> None:
        """The query of the texts to come, cut so that they have room beside it; where they are cut themselves,
        the longer of the two is, as sentence-transformers does it."""
        self.longest = long == "truncate" and self.scorer.cuts_longest
        self.query = query if self.longest else self.scorer.fitting(query, self.instruction)
        self.query_cut = self.query != query

    def encode(self, texts: list[str], long: str) -> list[Any]:
        """Texts -> Encodings of the query with each."""
        pairs = [(self.query, self.scorer.tokens.shortened(text)) for text in texts]
        truncate = "longest_first" if self.longest else "only_second"
        encode, whole = self.scorer.encode, long == "best"
        found = list(encode(pairs, truncate=truncate, instruction=self.instruction, whole=whole))
        if self.longest and not self.query_cut:
            all_of_it = self.scorer.tokens.count(self.query)
            self.query_cut = any(row.overflowing and row.sequence_ids.count(0) < all_of_it for row in found)
        return found


class _LateInteraction:
    """A use of a ColBERT; its logits are sums of cosines, one for each token of the query."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def ask(self, query: str, long: str) -> None:
        """The query of the texts to come."""
        self.query = self.model.query(query)
        self.query_cut = bool(self.model.query_row(query).overflowing)

    def encode(self, texts: list[str], long: str) -> list[Any]:
        """Texts -> Rows."""
        return self.model.encode(texts, whole=long == "best")

    def logits(self, rows: list[Any]) -> mx.array:
        """(B, 1) float32."""
        return self.model.scores(self.query, rows)[:, None]

    def score(self, logit: float, prior: float = 0.0, worth: float = 0.0) -> float:
        """The mean cosine; a prior, from 0 to 1, counts as `worth` tokens of the query."""
        return min(max((logit + worth * prior) / (self.query.shape[0] + worth), 0.0), 1.0)


class Relevance:
    """Scores of texts against a query. cut, queries_cut: how many were over the limit so far.

    score(logit): the logit on a scale from 0 to 1, the same from call to call; score(logit, prior, worth): with a
    prior in [0, 1] that is worth so many logits, sigmoid(logit + worth (prior - 0.5)).
    """

    def __init__(self, scorer: Any, name: str = "the model") -> None:
        self.scorer, self.name, self.cut, self.queries_cut = scorer, name, 0, 0
        self.asked: tuple[str, str] | None = None
        self.score = getattr(scorer, "score", _score)

    def logits(self, query: str, texts: list[str], long: str = "best") -> list[float]:
        """Unbounded scores, the higher the better; a text's does not depend on the others.

        long: texts over the model's limit take the `best` of their windows, are cut (`truncate`)
        or are an `error` (BadText).
        """
        if (query, long) != self.asked:
            self.scorer.ask(query, long)
            self.asked, known_cut = (query, long), False
        else:
            known_cut = self.scorer.query_cut
        found: list[float] = []
        for start in range(0, len(texts), TEXTS):
            try:
                found += self._some(texts[start : start + TEXTS], long)
            except BadText as error:
                raise error.moved(start) from None
        self.queries_cut += self.scorer.query_cut and not known_cut
        return found

    def _some(self, texts: list[str], long: str) -> list[float]:
        parts, owners, cut = length_batches.pieces(self.scorer.encode(texts, long), long)
        self.cut += cut
        best = [-math.inf] * len(texts)
        logits: Any = length_batches.compute(self.scorer.logits, parts)[:, 0].tolist()
        bad = sorted({owner for owner, logit in zip(owners, logits, strict=True) if not math.isfinite(logit)})
        if bad:
            raise not_numbers(self.name) if len(bad) == len(texts) else no_numbers_of(self.name, bad)
        for owner, logit in zip(owners, logits, strict=True):
            best[owner] = max(best[owner], logit)
        return best


def _score(logit: float, prior: float = 0.5, worth: float = 0.0) -> float:
    return sigmoid(logit + worth * (prior - 0.5))


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit < 0:
        return math.exp(logit) / (1 + math.exp(logit))
    return 1 / (1 + math.exp(-logit))
