"""How much a word says: inverse document frequencies of English words, from a fixed table; function words of eight
languages.

Owns `idf.txt`, `function_words.txt` and the words of a text. Knows nothing of models; the tables are the package's own,
so that a weight means the same whatever is searched. tests/bench/idf.py made the first.
"""

from __future__ import annotations

import os
import re
from functools import cache
from math import exp, sqrt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

FUNCTION = 0.7  # the share of texts that a function word is taken to be in

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


def shares(words: Collection[str]) -> dict[str, float]:
    """How large a share of texts each word is expected in, before any text is seen: lower-case words of one text.

    The text's language is the one that most of its function words are of, two at least; else English."""
    table, rare = _table()
    languages = _function_words()
    found = {code: sum(word in listed for word in words) for code, listed in languages.items()}
    code = max(found, key=lambda code: (found[code], code == "en"))
    function = languages[code if found[code] > 1 else "en"]
    return {word: FUNCTION if word in function else exp(-table.get(word, rare)) for word in words}


@cache
def _function_words() -> dict[str, set[str]]:
    """{language: its function words}."""
    return {code: set(listed) for code, *listed in _lines("function_words.txt")}


@cache
def _table() -> tuple[dict[str, float], float]:
    """({word: idf}, the idf of any other word)."""
    levels = _lines("idf.txt")
    return {word: float(idf) for idf, *words in levels for word in words}, float(levels[0][0])


def _lines(name: str) -> list[list[str]]:
    """The words of each line of a table beside this file."""
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
        return [line.split() for line in file if not line.startswith("#")]
