"""GPT-2's alphabet: a printable character for each byte, in which vocabularies of bytes are written."""

from __future__ import annotations

from functools import cache

# printable bytes stand for themselves, the others for the characters from U+0100 on
PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}


def letters() -> list[str]:
    """The character of each byte."""
    others = iter(range(0x100, 0x200))
    return [chr(b if b in PRINTABLE else next(others)) for b in range(0x100)]


@cache
def alphabet() -> dict[str, int]:
    """Character -> the byte that it stands for."""
    return {char: byte for byte, char in enumerate(letters())}
