"""Long texts for BERT's kind of tokenizer: what it reads as one unknown word, however long, is made shorter.

BertPreTokenizer cuts at blanks and punctuation and sets CJK characters apart, so letters and digits in a row are
one word, and WordPiece gives a word over its limit one unknown token. Every letter counts: none is normalised to
nothing. Knows no tokenizers; standard library alone.
"""

from __future__ import annotations

from bisect import bisect_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator

BLOCK = 2048  # characters that are looked at together: far more than a known word has
CJK = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"


class Shortened:
    """text: with the same tokens as the whole, if no known word has BLOCK characters."""

    def __init__(self, whole: str, *, at_all: bool = True) -> None:
        self.ends: list[int] = []  # in the shortened text, where something was left out
        self.lost = [0]  # characters left out before each of them
        parts: list[str] = []
        size = 0
        for start, stop in _kept(whole) if at_all else [(0, len(whole))]:
            if parts:
                self.ends.append(size)
                self.lost.append(start - size)
            parts.append(whole[start:stop])
            size += stop - start
        self.text = "".join(parts)

    def place(self, at: int) -> int:
        """Where a place in the shortened text is in the whole."""
        return at + self.lost[bisect_left(self.ends, at)]


def _kept(text: str) -> Iterator[tuple[int, int]]:
    """(start, stop) of what stays: of blocks in a row that are one word, or blank, the first and the last."""
    begun, block, kind, before, last = 0, "", "", "", ""
    for at in range(0, len(text), BLOCK):
        other = text[at : at + BLOCK]
        kind = kind if block == other else _kind(other)
        block = other
        if kind and kind == last == before:  # the one before this is inside
            if begun < at - BLOCK:
                yield begun, at - BLOCK
            begun = at
        before, last = last, kind
    yield begun, len(text)


def _kind(block: str) -> str:
    """`word` where all is of one word, `blank` where all is blank."""
    if block.isascii():
        if block.encode().isalnum():
            return "word"
    elif block.isalnum() and not _cjk().search(block):
        return "word"
    return "" if block.strip(" \t\r\n") else "blank"


def _cjk() -> re.Pattern[str]:
    import re  # which keeps what it has compiled

    return re.compile(CJK)


def can_shorten(added: Iterable[str]) -> bool:
    """Whether no token that is looked for before words are cut could be inside of one."""
    return not any(any(c.isalnum() for c in token) and token.strip("[]<>|/") == token for token in added)
