"""GPT-2's alphabet: a printable character for each byte, in which vocabularies of bytes are written."""

from __future__ import annotations

# printable bytes stand for themselves, the others for the characters from U+0100 on
PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}


_others = iter(range(0x100, 0x200))
_letters = [chr(b if b in PRINTABLE else next(_others)) for b in range(0x100)]
_alphabet = {char: byte for byte, char in enumerate(_letters)}


def letters() -> list[str]:
    """The character of each byte."""
    return _letters


def alphabet() -> dict[str, int]:
    """Character -> the byte that it stands for."""
    return _alphabet
