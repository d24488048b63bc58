"""What the tokens of a vocabulary are in bytes, and texts that become tokens anywhere but at a beginning: what the
engine of constraints asks of a tokenizer.

Control tokens are no text here, and no text becomes one. Knows no constraint.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.generation.tokenizer import Tokenizer

# GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on
PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
BLANK = "\u2581"  # SentencePiece's


class Vocabulary:
    """tokens: the bytes of each id, b"" for an id without any. Has the form that llguidance asks for."""

    bos_token_id = None
    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        core = tokenizer.core
        self._tokenizer, self.eos_token_id = tokenizer, end
        added = core.get_added_tokens_decoder()
        apart = {i for i, t in added.items() if t.special or tokenizer.is_control(i) or _is_tag(t.content)} | {end}
        self.special_token_ids = sorted(apart)
        self.tokens = [b""] * (max(core.get_vocab().values(), default=-1) + 1)
        spell = _speller(core)
        for token, i in core.get_vocab().items():
            self.tokens[i] = token.encode() if i in added or i in apart else spell(token)

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode_middle(text)


def _is_tag(content: str) -> bool:
    return content[:1] == "<" and content[-1:] == ">"


def _speller(core: Any) -> Any:
    """token -> its bytes."""
    decoder = json.loads(core.decoder.__getstate__()) if core.decoder is not None else {}
    parts = decoder.get("decoders", [decoder])
    if not any(part.get("type") == "ByteLevel" for part in parts):
        return _sentencepiece
    others = iter(range(0x100, 0x200))
    byte = {chr(b if b in PRINTABLE else next(others)): b for b in range(0x100)}

    def spell(token: str) -> bytes:
        try:
            return bytes([byte[c] for c in token])
        except KeyError:  # a token that is no text
            return b""

    return spell


def _sentencepiece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token[-1] == ">":
        return bytes([int(token[3:5], 16)])
    return token.replace(BLANK, " ").encode()
