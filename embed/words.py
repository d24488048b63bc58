"""Text to the words of an index: what FTS5 is given to read, for documents and for queries alike.

Knows nothing of tables or ranking.
"""

from functools import cache

# Marks belong to words: without them Indic and Arabic words fall apart at their vowel signs.
PLAIN = "unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
TOKENIZER = f"porter {PLAIN}"

# Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han.
UNSPACED = (
    "\u0e00-\u0fff", "\u1000-\u109f", "\u1780-\u17ff", "\u3040-\u30ff", "\u3400-\u4dbf", "\u4e00-\u9fff",
    "\uf900-\ufaff", "\U00020000-\U0003ffff",
)  # fmt: skip


@cache
def _runs():
    """The pattern of their runs: compiling it takes longer than most queries."""
    import re

    return re.compile(f"[{''.join(UNSPACED)}]+")


def terms(text: str) -> str:
    """The text with runs of an unspaced script cut into overlapping pairs of characters.

    The last pair is one character: with it, every character begins a term.
    """
    spaced = text.isascii() or not any(first <= c <= last for c in set(text) for first, _, last in UNSPACED)
    return text if spaced else _runs().sub(_pairs, text)


def _pairs(run) -> str:
    run = run[0]
    return f" {' '.join(run[i : i + 2] for i in range(len(run)))} "
