"""Relevance without a second model: an embedder's vectors and its token states, in one pass.

Owns MaxSim (Khattab & Zaharia 2020), its weights and the calibration to a logit. Constants are
fixed and nothing is computed from the candidates, so a score means the same from call to call.
Does not know where texts come from, nor ranking.
"""

from __future__ import annotations

import mlx.core as mx

from toast.encoding import idf
from toast.encoding.sentence_transformers import normalize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.encoding.encoder import Encoder

# Fitted to the judgements of three collections (TREC-QA, Cranfield, SciFact): their logistic slopes
# and the middles, where half of such candidates are relevant, lie around these. docs/notebook.md has what was tried.
COSINE, MAXSIM, NEAREST, OFFSET = 2.4, 6.4, 3.2, -8.8
NEAR = 20  # tokens of a text that are looked at the other way round


def likeness(query: mx.array, states: mx.array, lengths: mx.array) -> mx.array:
    """Cosines of all tokens of texts and of a query: (Q, D), (B, L, D), (B,) -> (B, L, Q), -1 beyond `lengths`.

    Vectors have length 1: no cosine is less, and a text without a token is like nothing.
    """
    inside = (mx.arange(states.shape[1]) < lengths[:, None])[..., None]
    return mx.where(inside, states @ query.T, -1.0)


def maxsim(similar: mx.array, weights: mx.array) -> mx.array:
    """Each query token's best match, averaged by weight: (B, L, Q), (Q,) -> (B,). The weights sum to 1."""
    return mx.sum(mx.max(similar, axis=1) * weights, axis=1)


def nearest(similar: mx.array, lengths: mx.array) -> mx.array:
    """The best match of each of a text's tokens, averaged over the best NEAR: (B, L, Q), (B,) -> (B,).

    Of a text that has what is asked somewhere and goes on of other things, that part counts."""
    best = mx.max(similar, axis=2)
    best = mx.pad(best, [(0, 0), (0, max(0, NEAR - best.shape[1]))], constant_values=-1.0)
    best = -mx.sort(-best, axis=1)[:, :NEAR]
    count = mx.clip(lengths, 1, NEAR)[:, None]
    return mx.sum(mx.where(mx.arange(NEAR) < count, best, 0) / count, axis=1)


class MaxSim:
    """Logits of relevance to one query at a time, by an `Encoder`."""

    def __init__(self, encoder: Encoder) -> None:
        self.documents, self.queries = encoder.but("document"), encoder.but("query")

    def ask(self, query: str, long: str) -> None:
        """The query that texts are matched with from now on."""
        encoder = self.queries
        text = encoder.prompt + query
        encoding = encoder.tokens.encode([text])[0]
        weights = idf.token_weights(encoding, text, len(encoder.prompt))
        hidden, _, pooled = encoder.states([encoding])
        heavy = mx.array([i for i, weight in enumerate(weights) if weight])
        self.states = normalize(hidden[0])[heavy]
        self.weights = mx.array([weight / sum(weights) for weight in weights if weight])
        self.vector = normalize(pooled)[0]
        self.query_cut = bool(encoding.overflowing)

    def encode(self, texts: list[str], long: str = "truncate") -> list[Any]:
        """Texts -> Encodings, as Tokens.encode."""
        return self.documents.encodings(texts, whole=long == "best")

    def logits(self, encodings: list[Any]) -> mx.array:
        """(B, 1) float32."""
        states, lengths, pooled = self.documents.states(encodings)
        cosine = mx.sum(normalize(pooled) * self.vector, axis=1)
        similar = likeness(self.states, normalize(states), lengths)
        tokens = MAXSIM * maxsim(similar, self.weights) + NEAREST * nearest(similar, lengths)
        return (COSINE * cosine + tokens + OFFSET)[:, None]
