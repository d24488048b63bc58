"""Embedding models: what a folder holds, and one use of it: records of text in, vectors out.

Owns prompts, batches of similar length and what happens to long records. Knows nothing of
architectures (`toast/models`) or of what a vector is written as (`embed/encode.py`).
"""

from __future__ import annotations

from array import array

import mlx.core as mx

from toast import kept, loaded, models
from toast.encoding import length_batches
from toast.encoding.sentence_transformers import SentenceTransformer, finite, normalize
from toast.encoding.tokens import Tokens, batch
from toast.errors import BadInput
from toast.task import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.command import Call

KEPT = 8  # batches of a use


class EmbeddingModel:
    """An embedding model as its folder holds it: immutable, for any number of uses at once."""

    def __init__(self, folder: str) -> None:
        self.sentence = SentenceTransformer(folder)
        self.model = models.encoder(self.sentence.folder)
        bare, skips = (getattr(self.model, name, False) for name in ("bare", "skips_unknown"))
        limit, lower = self.sentence.max_length, self.sentence.lower
        self.tokens = Tokens(self.sentence.folder, limit, lower=lower, bare=bare, skips_unknown=skips)
        self.key = object()  # of what is kept of it

    def states(self, encodings: list[Any], skip: int = 0) -> tuple[mx.array, mx.array, mx.array]:
        """(token states (B, L, D), lengths (B,), their pooled vectors (B, D'), not normalised).

        skip: tokens of the prompt."""
        ids, lengths, types = batch(encodings)
        hidden = self.model(ids, lengths, types)
        return hidden, lengths, self.sentence.pool(hidden, lengths, skip)


class Encoder:
    """One use of an embedding model. `cut` counts the records that were over the model's limit.

    kind: `query` or `document`, which chooses the model's prompt. dims: cut vectors to this many
    numbers and renormalise (Matryoshka, Kusupati et al. 2022). long: what becomes of records over
    the model's limit: `truncate`, `error`, or `mean` of their pieces, weighted by length. size: texts of a batch.
    """

    def __init__(
        self, call: Call, name: str, *, kind: str = "document", dims: int | None = None, normalized: bool = True,
        long: str = "truncate", size: int = length_batches.BATCH,
    ) -> None:  # fmt: skip
        need(call, name, "embed")
        self.name, self.embedding = name, loaded.load(call, name, EmbeddingModel)
        self.tokens, most = self.embedding.tokens, self.embedding.sentence.dims
        if dims and dims > most:
            raise BadInput(f"--dims {dims} is more than the {most} that {name} has")
        self.dims, self.normalized, self.long, self.size = dims or most, normalized, long, size
        self.batches = 0  # that were kept
        self._use(kind)

    def but(self, kind: str) -> Encoder:
        """Another use of the same model, which only differs in the prompt."""
        other = object.__new__(Encoder)
        other.__dict__.update(self.__dict__)
        other._use(kind)
        return other

    def _use(self, kind: str) -> None:
        self.prompt, self.cut = self.embedding.sentence.prompt(kind), 0
        # counted as sentence-transformers does: the first special token is part of the prompt
        self.skip = len(self.tokens.encode([self.prompt])[0].ids) - 1 if self.prompt else 0

    def encode(self, texts: list[str]) -> mx.array:
        """Texts -> vectors (N, dims) float32, in the same order."""
        if not texts:
            return mx.zeros((0, self.dims))
        parts, owners = self.pieces(texts)
        vectors = length_batches.compute(self._vectors, parts, self.size)
        if len(parts) > len(texts):
            extra = self.tokens.special_tokens()
            vectors = _average(vectors, owners, [max(1, len(p.ids) - extra) for p in parts])
        vectors = vectors[:, : self.dims]
        return finite(self.name, normalize(vectors) if self.normalized else vectors)

    def pieces(self, texts: list[str]) -> tuple[list[Any], list[int]]:
        """Encodings within the limit and, for each, the index of its text."""
        encodings = self.encodings(texts, whole=self.long == "mean")
        parts, owners, cut = length_batches.pieces(encodings, self.long)
        self.cut += cut
        return parts, owners

    def encodings(self, texts: list[str], *, whole: bool) -> list[Any]:
        """Texts behind the prompt -> Encodings, as Tokens.encode."""
        return self.tokens.encode([self.prompt + self.tokens.shortened(text) for text in texts], whole=whole)

    def states(self, encodings: list[Any]) -> tuple[mx.array, ...]:
        """(token states (B, L, D), lengths (B,), their pooled vectors (B, D'), not normalised)."""
        return self._once("states", encodings, lambda: self.embedding.states(encodings, self.skip))

    def _vectors(self, encodings: list[Any]) -> mx.array:
        return self._once("vectors", encodings, lambda: self.embedding.states(encodings, self.skip)[2:])[0]

    def _once(self, what: str, encodings: list[Any], make: Callable[[], tuple[mx.array, ...]]) -> tuple[mx.array, ...]:
        """What make() gives of a batch; that of the first ones is kept where this process stays, for who asks again."""
        if kept.memory is None or self.batches == KEPT:
            return make()
        self.batches += 1
        ids = tuple(array("i", [*row.ids, *row.type_ids]).tobytes() for row in encodings)

        def computed() -> tuple[mx.array, ...]:
            found = make()
            mx.eval(found)
            return found

        def size(found: tuple[mx.array, ...]) -> int:
            return sum(x.nbytes for x in found) + sum(map(len, ids))

        return kept.of(self.embedding.key, (what, self.skip, ids), computed, size=size)


def _average(vectors: mx.array, owners: list[int], lengths: list[int]) -> mx.array:
    """Means of the rows that have the same owner, weighted by length: (N, D)."""
    weights = mx.array(lengths, mx.float32)[:, None]
    index = mx.array(owners)
    shape = (owners[-1] + 1, vectors.shape[1])
    total = mx.zeros(shape).at[index].add(vectors * weights)
    return total / mx.zeros((shape[0], 1)).at[index].add(weights)
