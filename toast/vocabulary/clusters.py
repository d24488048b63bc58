"""What the library takes for one grapheme cluster, as bits of characters: it is asked, since it knows an older Unicode.

Source: Unicode Standard Annex 29, Unicode Text Segmentation. Only clusters of less than 6 bytes matter: SentencePiece's
table is looked up for those, and for single characters (src/steps.cpp).
"""

from __future__ import annotations

from array import array

from toast.vocabulary import normal

JOINS, PREPENDS, CONTROL, FOLLOWS = 1, 2, 4, 8  # form.h
SYLLABLES = (0xAC00, 0xD7A4)  # of Hangul
# what characters may follow in a cluster: a picture, a consonant, letters of Hangul
FOLLOWED = ("\u00a9\u200d", "\u0915\u094d", "\u1100", "\u1161")


def kinds() -> list[tuple[int, int, int]]:
    """(first, after the last, bits) of characters that go together with others. A table that makes one letter of
    whatever it is asked about, up to 5 bytes, tells which do."""
    from tokenizers import normalizers

    one = normalizers.Precompiled(_all_alike())
    joined, prepended, held = (normal.each(one, form) for form in ("a{}", "{}a", "{}\u0301"))
    followed = [normal.each(one, f"{before}{{}}\u0301") for before in FOLLOWED]
    found = [(0, 0x20, CONTROL), (0x7F, 0x80, CONTROL), (*SYLLABLES, FOLLOWS)]
    for code, *told in zip(normal.CODES, joined, prepended, held, *followed, strict=True):
        kind = JOINS * (told[0] == "x") | PREPENDS * (told[1] == "x")
        if code < 0x10000:  # a longer one is in no cluster of 5 bytes with a mark
            kind |= CONTROL * (told[2] != "x")
            whole = [len(text) == len(before) + 2 for text, before in zip(told[3:], FOLLOWED, strict=True)]
            kind |= FOLLOWS * (any(whole) and not kind & JOINS)
        if kind:
            found.append((code, code + 1, kind))
    return found


def _all_alike() -> bytes:
    """SentencePiece's table by which each byte but a line feed leads to "x"."""
    leaf, offset = 1 << 8, 256 << 10
    units = [offset, *[0] * 255, *(byte | leaf | offset if byte not in (0, 10) else 0 for byte in range(256))]
    return len(units * 4).to_bytes(4, "little") + array("I", units).tobytes() + b"x\0"
