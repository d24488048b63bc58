"""What the library's forms NFC and NFKC do to characters, as tables: it is asked, since it knows an older Unicode.

Source: Unicode Standard Annex 15, Unicode Normalization Forms. Knows no vocabulary; the algorithm is src/normal.cpp.
"""

from __future__ import annotations

from array import array
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = list[tuple[int, int, int]]  # (first, after the last, value)

MAYBE = 64  # in a value: the character may change, or go together with the one before; below: rank of combining class
UNSURE = 255
SYLLABLES = range(0xAC00, 0xD7A4)  # of Hangul: taken apart by arithmetic
VOWELS, FINALS = range(0x1161, 0x1176), range(0x11A8, 0x11C3)
CODES = [
    code for a, b in ((0x80, 0xAC00), (0xD7A4, 0xD800), (0xE000, 0x32400), (0xE0000, 0xE0200)) for code in range(a, b)
]
LOWEST, CEDILLA = "\u0334", "\u0327"  # combining classes 1 and 202


@cache
def tables(form: str) -> tuple[Values, bytes, bytes, bytes]:
    """(value of characters, decompositions as code, begin, size; what they begin in; compositions as two and one)."""
    from tokenizers import normalizers

    apart = each(normalizers.NFD(), "{}")
    whole = each(getattr(normalizers, form)(), "{}")
    full = each(normalizers.NFKD(), "{}") if form == "NFKC" else apart
    rows, parts, pairs = array("I"), array("I"), list[tuple[int, int, int]]()
    for code, taken, all_taken in zip(CODES, apart, full, strict=True):
        if all_taken != chr(code):
            rows.extend((code, len(parts), len(all_taken)))
            parts.extend(map(ord, all_taken))
        if taken == chr(code):
            continue
        first = normalizers.NFC().normalize_str(taken[:-1])
        if len(first) == 1 and normalizers.NFC().normalize_str(taken) == chr(code):
            pairs.append((ord(first), ord(taken[-1]), code))
    composed = array("I", (code for pair in sorted(pairs) for code in pair))
    second = {pair[1] for pair in pairs} | {*VOWELS, *FINALS}
    changed = {code for code, now in zip(CODES, whole, strict=True) if now != chr(code)} | second
    return _values(changed, dict(zip(CODES, full, strict=True))), rows.tobytes(), parts.tobytes(), composed.tobytes()


def each(normalizer: object, form: str, codes: Sequence[int] = CODES) -> list[str]:
    """What becomes of each character in a form like "{}"."""
    before, after = form.split("{}")
    given = before + f"{after}\n{before}".join(map(chr, codes)) + after
    return normalizer.normalize_str(given).split("\n")  # type: ignore[attr-defined]


def _values(changed: set[int], taken: dict[int, str]) -> Values:
    from unicodedata import combining

    from tokenizers import normalizers

    over = [line[:1] == LOWEST for line in each(normalizers.NFD(), f"{{}}{LOWEST}")]  # the library's class is over 1
    under = [line[:1] != CEDILLA for line in each(normalizers.NFD(), f"{CEDILLA}{{}}")]  # it is from 1 to 201
    classes = [combining(chr(code)) for code in CODES]
    ranks = {value: rank for rank, value in enumerate(sorted({0, *classes}))}
    found: Values = []
    for code, own, high, low in zip(CODES, classes, over, under, strict=True):
        value = UNSURE
        if taken[code] != chr(code) or (not high and not low):
            value = 0  # its parts count; or a mark that is too new
        elif chr(code) == LOWEST or (own and (own > 1) == high and (own < 202) == low):
            value = ranks[own]
        value = value | MAYBE if code in changed else value
        if value and found and found[-1][1:] == (code, value):
            found[-1] = found[-1][0], code + 1, value
        elif value:
            found.append((code, code + 1, value))
    return found
