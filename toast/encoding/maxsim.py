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
# and the middles, where half of such candidates are relevant, lie around these.
COSINE, MAXSIM, OFFSET = 4.0, 8.0, -8.6


def maxsim(query: mx.array, weights: mx.array, *, states: mx.array, lengths: mx.array) -> mx.array:
    """Each query token's best match, averaged by weight: (Q, D), (Q,), (B, L, D), (B,) -> (B,).

    Vectors have length 1; the weights sum to 1; of each row of states, `lengths` tokens count.
    """
    similar = states @ query.T
    inside = (mx.arange(states.shape[1]) < lengths[:, None])[..., None]
    return mx.sum(mx.max(mx.where(inside, similar, -mx.inf), axis=1) * weights, axis=1)


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
        tokens = maxsim(self.states, self.weights, states=normalize(states), lengths=lengths)
        return (COSINE * cosine + MAXSIM * tokens + OFFSET)[:, None]
