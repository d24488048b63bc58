"""What engines share: texts in blocks, long ones cut and counted. Knows no model and no label."""

from __future__ import annotations

from toast.encoding import length_batches
from toast.encoding.relevance import TEXTS
from toast.encoding.sentence_transformers import finite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import mlx.core as mx


class Blocks:
    """Texts over any limit are cut; blocks bound what is held at once."""

    labels: list[str]
    name: str  # of the model
    over = 0

    @property
    def cut(self) -> int:
        """Texts that were over the limit so far."""
        return self.over

    def probabilities(self, texts: list[str]) -> list[list[float]]:
        """A score of each label, for each text."""
        rows: list[list[float]] = []
        for start in range(0, len(texts), TEXTS):
            found: Any = finite(self.name, self.block(texts[start : start + TEXTS])).tolist()
            rows += found
        return rows

    def block(self, texts: list[str]) -> mx.array:
        """Scores (N, labels) of a few texts; each engine has its own."""
        raise AssertionError("an engine without scores")

    def compute(self, encodings: list[Any], function: Callable[[list[Any]], mx.array]) -> mx.array:
        parts, _, cut = length_batches.pieces(encodings, "truncate")
        self.over += cut
        return length_batches.compute(function, parts)
