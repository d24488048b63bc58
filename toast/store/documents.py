"""What several kinds of vocabularies have in common as a tokenizer.json: types of tokens, bytes, blanks, merges.

Knows nothing of files, nor of any one kind.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

UNKNOWN, CONTROL, USER, UNUSED, BYTE = 2, 3, 4, 5, 6  # token types
NEVER = -1e9  # the score of a piece that no text has
LEVEL: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def token(id: int, content: str, *, special: bool = True) -> Json:
    """An entry of added_tokens."""
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": special}  # fmt: skip


def bytes_in(words: Json) -> Json:
    """The parts of a document whose tokens are bytes."""
    return {"normalizer": None, "pre_tokenizer": words, "decoder": LEVEL}


def characters(*, first: bool) -> Json:
    """The parts of a document whose blanks are \u2581; first: a text begins with one that it does not have."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    spaces: list[Json] = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                          {"type": "Fuse"}]  # fmt: skip
    if first:
        spaces.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    before = [{"type": "Prepend", "prepend": "▁"}] if first else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, replace]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": spaces},
    }


def merges(scores: list[float], vocab: dict[str, int]) -> list[list[str]]:
    """All pairs of pieces that make a piece, the best first."""
    pairs = []
    for token, index in vocab.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocab and right in vocab:
                pairs.append((-scores[index], vocab[left], vocab[right], left, right))
    return [[left, right] for *_, left, right in sorted(pairs)]
