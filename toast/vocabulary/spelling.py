"""What becomes of each character by itself, in lower case or without accents: the library is asked, for all of them.

Knows no vocabulary; what is done with it is src/steps.cpp.
"""

from __future__ import annotations

import json
from array import array

from toast.vocabulary import normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]
    Values = list[tuple[int, int, int]]  # (first, after the last, bits)

RESPELLED, GONE, APART, ASKED = 16, 32, 64, 128  # form.h
CODES = [*range(0x80), *normal.SYLLABLES, *normal.CODES]
# private or without a meaning: all as their first
ALIKE = ((0x32400, 0xE0000), (0xE0200, 0xF0000), (0xF0000, 0xFFFFE), (0xFFFFE, 0x100000), (0x100000, 0x10FFFE),
         (0x10FFFE, 0x110000))  # fmt: skip


def tables(steps: list[Json], parts: bytes) -> tuple[Values, bytes, bytes]:
    """(bits of characters; those that become others as code, begin, size; what they begin in, after these parts)."""
    spell = _normalizer(steps).normalize_str
    moved = set(_moved()) if any(map(_strips, steps)) else set()
    values: Values = []
    rows, codes = array("I"), array("I", parts)
    for code, end in (*((code, code + 1) for code in CODES), *ALIKE):
        given = chr(code)
        found = spell(given)
        kind = ASKED * (code in moved and found != "")
        if found == f" {given} ":
            kind |= APART
        elif not found:
            kind |= GONE
        elif found != given:
            kind |= RESPELLED
            rows.extend((code, len(codes), len(found)))
            codes.extend(map(ord, found))
        if kind:
            values.append((code, end, kind))
    order = sorted(zip(rows[::3], rows[1::3], rows[2::3], strict=True))
    return values, array("I", (x for row in order for x in row)).tobytes(), codes.tobytes()


def _strips(step: Json) -> bool:
    """Whether characters are taken apart and only some marks left out."""
    if step["type"] != "BertNormalizer":
        return False
    return step["lowercase"] if step["strip_accents"] is None else step["strip_accents"]


def _normalizer(steps: list[Json]) -> Any:
    from tokenizers import Tokenizer, models

    document = json.loads(Tokenizer(models.BPE()).to_str())
    document["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return Tokenizer.from_str(json.dumps(document)).normalizer


def _moved() -> list[int]:
    """Characters that change places with a mark after them, if neither is left out."""
    from tokenizers import normalizers

    found = normal.each(normalizers.NFD(), f"{{}}{normal.LOWEST}")
    return [code for code, text in zip(normal.CODES, found, strict=True) if text[:1] == normal.LOWEST]
