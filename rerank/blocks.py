"""What engines share: texts in blocks, long ones in pieces, those without a token. Knows no model and no label."""

from __future__ import annotations

import mlx.core as mx

from toast.encoding import length_batches
from toast.encoding.relevance import TEXTS
from toast.encoding.sentence_transformers import finite
from toast.errors import BadText

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = list[float] | None  # the scores of a text; None for a text that says nothing


class Blocks:
    """Blocks bound what is held at once. long: over the limit a text is cut (`truncate`), an `error`, or each label
    has the `best` or the `mean` (by length) of the logits of its pieces."""

    labels: list[str]
    name: str  # of the model
    long = "best"
    cut = 0  # texts that were over the limit so far
    each = 1  # encodings of a text
    multi = False  # each label is decided by itself
    bounded = True  # scores are from 0 to 1

    def probabilities(self, texts: list[str]) -> list[Row]:
        """A score of each label, for each text; None for one without a token."""
        rows: list[Row] = []
        for start in range(0, len(texts), TEXTS):
            try:
                rows += self._block(texts[start : start + TEXTS])
            except BadText as error:
                raise error.moved(start) from None
        return rows

    def encode(self, texts: list[str]) -> list[Any]:
        """Encodings, `each` for a text; each engine has its own."""
        raise AssertionError("an engine without encodings")

    def logits(self, encodings: list[Any]) -> mx.array:
        """(B, columns); each engine has its own."""
        raise AssertionError("an engine without scores")

    def activation(self, logits: mx.array) -> mx.array:
        """Scores (N, labels) of the logits (N, columns)."""
        return mx.sigmoid(logits) if self.multi else mx.softmax(logits, axis=-1)

    @property
    def whole(self) -> bool:
        """Whether all pieces of a text are wanted."""
        return self.long in ("best", "mean")

    def _block(self, texts: list[str]) -> list[Row]:
        encodings = self.encode(texts)
        nothing = [len(encoding.ids) for encoding in self.encode([""])]
        said = [bool(text.strip()) and len(encodings[i * self.each].ids) > nothing[0] for i, text in enumerate(texts)]
        try:
            parts, owners, _ = length_batches.pieces(encodings, self.long)
        except BadText as error:
            raise error.moved(0, each=self.each) from None
        self.cut += sum(
            any(encoding.overflowing for encoding in encodings[i : i + self.each])
            for i in range(0, len(encodings), self.each)
        )
        logits = length_batches.compute(self.logits, parts)
        if len(parts) > len(encodings):
            logits = together(logits, owners, [len(part.ids) for part in parts] if self.long == "mean" else None)
        found: Any = finite(self.name, self.activation(logits)).tolist()
        return [row if words else None for row, words in zip(found, said, strict=True)]


def together(logits: mx.array, owners: list[int], lengths: list[int] | None) -> mx.array:
    """Logits (P, C) of pieces -> (N, C) of their texts: the largest, or the mean by length. owners: ascending."""
    index, shape = mx.array(owners), (owners[-1] + 1, logits.shape[1])
    if lengths is None:
        return mx.full(shape, -mx.inf).at[index].maximum(logits)
    weights = mx.array(lengths, mx.float32)[:, None]
    total = mx.zeros(shape).at[index].add(logits * weights)
    return total / mx.zeros((shape[0], 1)).at[index].add(weights)
