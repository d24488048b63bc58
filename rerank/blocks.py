"""What engines share: texts in blocks, long ones cut and counted. Knows no model and no label."""

from toast.encoding import length_batches
from toast.encoding.relevance import BLOCK


class Blocks:
    """Texts over any limit are cut; blocks bound what is held at once."""

    cut = 0

    def probabilities(self, texts: list[str]) -> list[list[float]]:
        rows = []
        for start in range(0, len(texts), BLOCK):
            rows += self.block(texts[start : start + BLOCK]).tolist()
        return rows

    def compute(self, encodings, function):
        parts, _, cut = length_batches.pieces(encodings, "truncate")
        self.cut += cut
        return length_batches.compute(function, parts)
