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
    joined, prepended = (normal.each(one, form) for form in ("a{}", "{}a"))
    found = [(0, 0x20, CONTROL), (0x7F, 0x80, CONTROL), (*SYLLABLES, FOLLOWS)]
    for bit, lines in ((JOINS, joined), (PREPENDS, prepended)):
        found += [(code, code + 1, bit) for code, line in zip(normal.CODES, lines, strict=True) if line == "x"]
    short = [code for code in normal.CODES if code < 0x10000]  # a longer one is in no cluster of 5 bytes with a mark
    held = normal.each(one, "{}\u0301", short)
    found += [(code, code + 1, CONTROL) for code, line in zip(short, held, strict=True) if line != "x"]
    for before in FOLLOWED:
        lines = normal.each(one, f"{before}{{}}\u0301", short)
        whole = "x" * (len(before) + 2)
        found += [(code, code + 1, FOLLOWS) for code, line in zip(short, lines, strict=True) if line == whole]
    return found


def _all_alike() -> bytes:
    """SentencePiece's table by which each byte but a line feed leads to "x"."""
    leaf, offset = 1 << 8, 256 << 10
    units = [offset, *[0] * 255, *(byte | leaf | offset if byte not in (0, 10) else 0 for byte in range(256))]
    return len(units * 4).to_bytes(4, "little") + array("I", units).tobytes() + b"x\0"
