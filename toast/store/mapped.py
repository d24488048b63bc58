"""A compiled vocabulary with the methods of the library's tokenizer that are used here.

The library is loaded for what the compiled form leaves to it: its parts, and texts that only it reads. Immutable.
"""

from __future__ import annotations

from toast import json_text
from toast.store.folder import read_tokenizer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

KNOWN, PLAIN = 1, 8  # of a token: toast/vocabulary/src/form.h


class Added:
    """A token that is looked for in texts."""

    def __init__(self, content: str, *, special: bool, normalized: bool) -> None:
        self.content, self.special, self.normalized = content, special, normalized


def _tokens(found: list[tuple[int, str, bool, bool]]) -> dict[int, Added]:
    return {i: Added(content, special=special, normalized=loose) for i, content, special, loose in found}


class Normalizer:
    """The library's, loaded when it is first asked."""

    def __init__(self, owner: Mapped) -> None:
        self._owner = owner

    def normalize_str(self, text: str) -> str:
        return self._owner.library.normalizer.normalize_str(text)


class Mapped:
    """The tokenizer of a folder's tokenizer.json by its compiled form."""

    model = None  # its parts are not here

    def __init__(self, vocabulary: Any, path: str) -> None:
        self._vocabulary, self._path = vocabulary, path
        self._library: Any = None
        self._all_added: dict[int, Added] | None = None
        settings = json_text.loads(vocabulary.settings)
        self._before, self._after, self._trim = settings["before"], settings["after"], settings["trim"]
        self._pair, self._parts_at_blanks = settings["pair"], settings["parts_at_blanks"]
        self.spells_bytes: bool = settings["bytes"]
        self.source: str = settings["source"]
        self.unknown: int | None = settings["unknown"]  # the token for what is not known
        self.normalizer = Normalizer(self) if settings["normalizes"] else None
        self.pre_tokenizer = True if settings["cuts"] else None

    @property
    def library(self) -> Any:
        if self._library is None:
            self._library = read_tokenizer(self._path)
        return self._library

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Any:
        """ids, offsets, special_tokens_mask as the library's Encoding has them."""
        around = (self._before, self._after) if add_special_tokens else ((), ())
        found = self._vocabulary.encode(text, *around, self._trim)
        return self.library.encode(text, add_special_tokens=add_special_tokens) if found is None else found

    def template(self, *, pair: bool) -> list[tuple[int | str, int]] | None:
        """What stands around a text, "A", or around those of a pair, "A" and "B", each with its type; None where only
        the library knows it."""
        if pair:
            return self._pair
        return [(part, 0) for part in (*self._before, "A", *self._after)]

    def cuts_at_blanks(self) -> bool:
        return self._parts_at_blanks or len(self._vocabulary.words("a b")) > 1

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return self._vocabulary.decode(ids, skip_special_tokens)

    @property
    def _added(self) -> dict[int, Added]:
        if self._all_added is None:
            self._all_added = _tokens(self._vocabulary.added())
        return self._all_added

    def added_in(self, text: str) -> dict[int, Added]:
        """Of the added tokens the special ones, those between bars (<|...|>) and those that are in a text."""
        return _tokens(self._vocabulary.added_in(text))

    def get_added_tokens_decoder(self) -> dict[int, Added]:
        return self._added

    def get_vocab_size(self) -> int:
        return sum(map(KNOWN.__and__, self._vocabulary.all_flags))

    def get_vocab(self) -> dict[str, int]:
        names = ((self._name(i), i) for i in range(self._vocabulary.size))
        return {name: i for name, i in names if name is not None}

    def _name(self, id: int) -> str | None:
        """A token as the vocabulary has it: that of an added one may be shown normalized."""
        return self._added[id].content if id in self._added else self.id_to_token(id)

    def id_to_token(self, id: int) -> str | None:
        if id < 0 or id >> 32:
            raise OverflowError(f"{id}: no token has this id")
        flags = self._vocabulary.flags(id)
        if not flags & KNOWN:
            return None
        text = self._vocabulary.text(id)
        if self.spells_bytes and not flags & PLAIN:
            from toast.vocabulary.alphabet import letters

            return "".join(map(letters().__getitem__, text))
        return text.decode(errors="replace")

    def token_to_id(self, token: str) -> int | None:
        found = self._vocabulary.find_added(token)
        if found is not None:
            return found
        if not self.spells_bytes:
            return self._vocabulary.find(token.encode())
        from toast.vocabulary.alphabet import alphabet

        try:
            return self._vocabulary.find(bytes(map(alphabet().__getitem__, token)))
        except KeyError:  # a token that is no text
            plain = (i for i, flags in enumerate(self._vocabulary.all_flags) if flags & PLAIN)
            return next((i for i in plain if self.id_to_token(i) == token), None)

    def texts(self) -> list[bytes]:
        """The bytes of every token; b"" for one that is no text."""
        found = self._vocabulary.texts()
        if not self.spells_bytes:
            return found
        return [b"" if flags & PLAIN else text for text, flags in zip(found, self._vocabulary.all_flags, strict=True)]
