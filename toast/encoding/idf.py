"""How much a word says: inverse document frequencies of English words, from a fixed table.

Owns `idf.txt` and the words of a text. Knows nothing of models; the table is the package's own,
so that a weight means the same whatever is searched. tests/bench/idf.py made it.
"""

from __future__ import annotations

import os
import re
from math import sqrt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WORD = re.compile(r"\w+")


def token_weights(encoding: Any, text: str, start: int = 0) -> list[float]:
    """A weight for each token: its word's idf over the square root of how many tokens the word is.

    Special tokens, punctuation and what lies before character `start` weigh nothing; if that
    leaves nothing, every token weighs the same.
    """
    table, rare = _table()
    owner: list[int | None] = [None] * len(text)
    idf: dict[int, float] = {}
    for match in WORD.finditer(text, start):
        idf[match.start()] = table.get(match.group().lower(), rare)
        owner[match.start() : match.end()] = [match.start()] * len(match.group())
    owners = [next((o for o in owner[a:b] if o is not None), None) for a, b in encoding.offsets]
    weights = [idf[o] / sqrt(owners.count(o)) if o is not None else 0.0 for o in owners]
    return weights if any(weights) else [1.0] * len(weights)


def _table() -> tuple[dict[str, float], float]:
    """({word: idf}, the idf of any other word)."""
    with open(os.path.join(os.path.dirname(__file__), "idf.txt"), encoding="utf-8") as file:
        levels = [line.split() for line in file if not line.startswith("#")]
    return {word: float(idf) for idf, *words in levels for word in words}, float(levels[0][0])
