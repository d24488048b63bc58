"""What the tokens of a vocabulary are in bytes, and texts that become tokens anywhere but at a beginning: what the
engine of constraints asks of a tokenizer.

Control tokens are no text here, and no text becomes one. Knows no constraint.
"""

from __future__ import annotations

import json
import re
from functools import cached_property, lru_cache

from toast.store.mapped import Mapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from toast.generation.tokenizer import Tokenizer

SHORT = 3  # bytes of tokens that tell one state of a constraint from another
LONGEST = 8  # bytes of tokens that close
CLOSERS = re.compile(rb"""["'\]})> ]+""")
BLANK = "\u2581"  # SentencePiece's


class Vocabulary:
    """tokens: the bytes of each id, b"" for an id without any. ends: those that end a text.

    Has the form that llguidance asks for."""

    bos_token_id = None
    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer, ends: Iterable[int]) -> None:
        core, self.ends = tokenizer.core, frozenset(ends)
        self.eos_token_id = min(self.ends, default=0)
        self._encode = lru_cache(1024)(tokenizer.encode_middle)  # the same text is often forced
        added = core.get_added_tokens_decoder()
        apart = {i for i, t in added.items() if t.special or tokenizer.is_control(i) or _is_tag(t.content)} | self.ends
        self.special_token_ids = sorted(apart)
        self.tokens = _texts(core)
        for i in apart.union(added):
            if i < len(self.tokens):
                self.tokens[i] = (added[i].content if i in added else core.id_to_token(i) or "").encode()

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """Text -> its token."""
        return {text: i for i, text in enumerate(self.tokens) if text and i not in self.ends}

    @cached_property
    def groups(self) -> dict[int, list[int]]:
        """First byte -> the tokens that begin with it, the longest first."""
        found: dict[int, list[int]] = {}
        for i in sorted(self.ids.values(), key=lambda i: -len(self.tokens[i])):
            found.setdefault(self.tokens[i][0], []).append(i)
        return found

    @cached_property
    def singles(self) -> int:
        """Tokens of one byte, as bits."""
        return _flags(i for text, i in self.ids.items() if len(text) == 1)

    @cached_property
    def short(self) -> int:
        """Tokens of at most SHORT bytes and those that end a text, as bits."""
        return _flags([*self.ends, *(i for text, i in self.ids.items() if len(text) <= SHORT)])

    @cached_property
    def closers(self) -> int:
        """Tokens that close what is open, as bits."""
        return _flags(i for text, i in self.ids.items() if len(text) <= LONGEST and CLOSERS.fullmatch(text))

    @cached_property
    def words(self) -> list[int]:
        """Values of JSON."""
        return [self.ids[text] for text in (b"null", b"true", b"false") if text in self.ids]


def _is_tag(content: str) -> bool:
    return content[:1] == "<" and content[-1:] == ">"


def _texts(core: Any) -> list[bytes]:
    """The bytes of every token by its id; b"" for one that is no text."""
    if isinstance(core, Mapped):
        return core.texts() if core.spells_bytes else [_sentencepiece(text.decode()) for text in core.texts()]
    vocabulary = core.get_vocab()
    found = [b""] * (max(vocabulary.values(), default=-1) + 1)
    spell = _speller(core)
    for token, i in vocabulary.items():
        found[i] = spell(token)
    return found


def _speller(core: Any) -> Any:
    """token -> its bytes."""
    decoder = json.loads(core.decoder.__getstate__()) if core.decoder is not None else {}
    parts = decoder.get("decoders", [decoder])
    if not any(part.get("type") == "ByteLevel" for part in parts):
        return _sentencepiece
    from toast.vocabulary.alphabet import alphabet

    byte = alphabet()

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


def _flags(ids: Iterable[int]) -> int:
    found = bytearray()
    for i in ids:
        if i >> 3 >= len(found):
            found.extend(bytes((i >> 3) + 1 - len(found)))
        found[i >> 3] |= 1 << (i & 7)
    return int.from_bytes(found, "little")
