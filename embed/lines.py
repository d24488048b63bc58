"""Which line of a chunk answers a query: the one with the rarest of its words, rare in the chunk too; else the nearest
by its vector.

A heading is what is answered about; it is shown where a chunk has nothing else. Knows nothing of whence chunks come.
"""

from __future__ import annotations

from math import log

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
        words = [self.weights.keys() & stems for stems in self.extractor.stems(texts)]
        if self.near and self._most(words) < ENOUGH * self.whole and len(texts) > 1:
            scores = self.near(texts)
        else:
            scores = self._by_words(words)
        return shown[max(range(len(shown)), key=lambda i: scores[i])]

    def _most(self, words: list[set[str]]) -> float:
        """The most weight that a line has."""
        return max(sum(self.weights[stem] for stem in sorted(stems)) for stems in words)

    def _by_words(self, words: list[set[str]]) -> list[float]:
        """The weight of each line's words, by BM25's rarity among these lines: what all have tells none apart."""
        count = len(words)
        weights = {}
        for stem in set().union(*words):
            held = sum(stem in stems for stems in words)
            weights[stem] = self.weights[stem] * log(1 + (count - held + 0.5) / (held + 0.5))
        return [sum(weights[stem] for stem in sorted(stems)) for stems in words]


def _bodies(lines: Sequence[str], suffix: str) -> list[int]:
    """The lines that are neither blank nor headings; those that are not blank, where there are no others."""
    said = [i for i, line in enumerate(lines) if line.strip()] or [0]
    return [i for i in said if not _is_heading(lines, i, suffix)] or said


def _is_heading(lines: Sequence[str], i: int, suffix: str) -> bool:
    after = lines[i + 1] if i + 1 < len(lines) else ""
    if suffix in MARKDOWN:
        return bool(HEADING.match(lines[i]) or SETEXT.match(lines[i]) or SETEXT.match(after) and lines[i].strip())
    return suffix in RST and bool(UNDERLINE.match(lines[i]) or UNDERLINE.match(after))
