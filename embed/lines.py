"""Which line of a chunk answers a query: the one with the rarest of its words, else the nearest by its vector.

A heading is what is answered about; it is shown where a chunk has nothing else. Knows nothing of whence chunks come.
"""

from __future__ import annotations

from embed.chunk import HEADING, MARKDOWN, RST, SETEXT, UNDERLINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embed.words import TermExtractor

ENOUGH = 0.15  # of the weight of all of a query's words: below it a line's words are no reason to show it


class Aim:
    """What a query looks for in a line. weights: stem -> what its word weighs; near: texts -> their cosines to the
    query, where there are vectors."""

    def __init__(
        self, weights: dict[str, float], extractor: TermExtractor, near: Callable[[list[str]], list[float]] | None
    ) -> None:
        self.weights, self.extractor, self.near = weights, extractor, near
        self.whole = sum(weights.values()) or 1.0

    def best(self, lines: Sequence[str], suffix: str = "") -> int:
        """The number of the line to show; the first of equal ones. suffix: of the file, without its dot."""
        if len(lines) == 1:
            return 0
        shown = _bodies(lines, suffix)
        texts = [lines[i] for i in shown]
        shares = [sum(self.weights.get(stem, 0.0) for stem in stems) for stems in self.extractor.stems(texts)]
        if self.near and max(shares) < ENOUGH * self.whole and len(texts) > 1:
            shares = self.near(texts)
        return shown[max(range(len(shown)), key=lambda i: shares[i])]


def _bodies(lines: Sequence[str], suffix: str) -> list[int]:
    """The lines that are neither blank nor headings; those that are not blank, where there are no others."""
    said = [i for i, line in enumerate(lines) if line.strip()] or [0]
    return [i for i in said if not _is_heading(lines, i, suffix)] or said


def _is_heading(lines: Sequence[str], i: int, suffix: str) -> bool:
    after = lines[i + 1] if i + 1 < len(lines) else ""
    if suffix in MARKDOWN:
        return bool(HEADING.match(lines[i]) or SETEXT.match(lines[i]) or SETEXT.match(after) and lines[i].strip())
    return suffix in RST and bool(UNDERLINE.match(lines[i]) or UNDERLINE.match(after))
