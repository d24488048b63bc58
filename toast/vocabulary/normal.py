"""Which texts are in Unicode's form NFC already, so far as that can be told character by character.

Source: Unicode Standard Annex 15, Detecting Normalization Forms. Knows no vocabulary.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAYBE = 255  # the character may change, or go together with the one before
PICTURES = range(0x1F000, 0x1FB00)  # where a character that Python does not know yet is a symbol
LAST = 0x32400, range(0xE0000, 0xE0200)  # behind these nothing is normalized


def quick() -> list[tuple[int, int, int]]:
    """(first, after the last, kind) of characters: MAYBE, or a combining class that must not fall; others are free."""
    found: list[tuple[int, int, int]] = []
    for code, kind in _kinds():
        if found and found[-1][1:] == (code, kind):
            found[-1] = found[-1][0], code + 1, kind
        else:
            found.append((code, code + 1, kind))
    return found


def _kinds() -> Iterator[tuple[int, int]]:
    import unicodedata as now

    second = _seconds()
    codes = [code for code in (*range(0x80, LAST[0]), *LAST[1]) if not 0xD800 <= code < 0xE000]
    moved = _moved(codes)
    for code in codes:
        char = chr(code)
        combining = now.combining(char)
        unknown = now.category(char) == "Cn" and code not in PICTURES
        changes = now.normalize("NFC", char) != char
        if unknown or changes or code in second or moved(code) != (combining > 1):
            yield code, MAYBE
        elif combining:
            yield code, min(combining, 254)


def _seconds() -> set[int]:
    """Characters that go together with one before them."""
    import unicodedata as now

    found = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # Hangul's vowels and final consonants
    for code in range(0xC0, LAST[0]):
        parts = now.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<") and not 0xD800 <= code < 0xE000:
            found.add(int(parts[1], 16))
    return found


def _moved(codes: list[int]) -> Callable[[int], bool]:
    """Whether the library's normalizer puts a mark of the lowest class before a character: it may know others."""
    from tokenizers import normalizers

    given = "\n".join(f"{chr(code)}\u0334" for code in codes)
    lines = normalizers.NFC().normalize_str(given).split("\n")
    found = {code for code, line in zip(codes, lines, strict=True) if line[:1] == "\u0334"}
    return found.__contains__
