"""Text to the words of an index: what FTS5 is given to read, for documents and for queries alike.

Knows nothing of tables or ranking.
"""

import re

# Marks belong to words: without them Indic and Arabic words fall apart at their vowel signs.
PLAIN = "unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
TOKENIZER = f"porter {PLAIN}"

# Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han.
UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def terms(text: str) -> str:
    """The text with runs of an unspaced script cut into overlapping pairs of characters.

    The last pair is one character: with it, every character begins a term.
    """
    return text if text.isascii() else UNSPACED.sub(_pairs, text)


def _pairs(run) -> str:
    run = run[0]
    return f" {' '.join(run[i : i + 2] for i in range(len(run)))} "
