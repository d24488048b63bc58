"""Text to token ids and back, by the tokenizer.json of a model folder.

Owns the stream of characters that tokens become: a character is never split. Does not know prompts.
"""

from __future__ import annotations

import os
from itertools import islice

from toast.errors import BadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tokenizers import Encoding

PIECE = 1 << 16  # characters of a text that are encoded at once, about
TRIES, NEAR = 16, 100  # ends of lines that are tried; characters around one that are looked at


class Tokenizer:
    """The tokenizer of a model folder; truncation and padding that the file asks for are off."""

    def __init__(self, folder: str) -> None:
        import tokenizers

        file = os.path.join(folder, "tokenizer.json")
        if not os.path.isfile(file):
            raise BadModel(f"{folder}: no tokenizer.json")
        try:
            self.core = tokenizers.Tokenizer.from_file(file)
        except Exception as error:  # what tokenizers raises
            raise BadModel(f"{file}: {error}") from None
        self.core.no_truncation()
        self.core.no_padding()
        self.special = {i for i, token in self.core.get_added_tokens_decoder().items() if token.special}

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids; `special`: with those that the model wants around a text."""
        return self.core.encode(text, add_special_tokens=special).ids

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token is in the text: (start, stop) in characters."""
        return [(at + a, at + b) for at, piece in self.pieces(text) for a, b in piece.offsets]

    def pieces(self, text: str) -> Iterator[tuple[int, Encoding]]:
        """(start, encoding) of pieces of a long text, whose tokens are those of the whole: the library's
        time and memory for one text grow faster than its length."""
        at = 0
        while at < len(text):
            stop = self._seam(text, at + PIECE)
            yield at, self.core.encode(text[at:stop], add_special_tokens=False)
            at = stop

    def _seam(self, text: str, after: int) -> int:
        """Where lines end that no token reaches over, soon after a place; else the end of the text."""
        import re

        # with or without the last line break: some vocabularies have one token for blank lines
        ends = re.compile(r"(?<=\S)\s{0,8}\n(?=\S)").finditer(text, after)
        for end in islice(ends, TRIES if self.core.pre_tokenizer is not None else 0):
            for at in (end.end(), end.end() - 1):
                if self._is_seam(text, at):
                    return at
        return len(text)

    def _is_seam(self, text: str, at: int) -> bool:
        left, right = text[max(0, at - NEAR) : at], text[at : at + NEAR]
        return self.encode(left + right) == self.encode(left) + self.encode(right)

    def decode(self, ids: list[int]) -> str:
        """Text of the ids, special tokens left out; bytes that are no UTF-8 become U+FFFD."""
        return self.core.decode(ids)

    def id(self, token: str) -> int | None:
        return self.core.token_to_id(token)


class Detokenizer:
    """Tokens come one by one; characters go out as soon as they are whole.

    The pieces joined are the decoded whole. keep: ids of special tokens that are to be seen.
    """

    def __init__(self, tokenizer: Tokenizer, keep: Iterable[int] = ()) -> None:
        self.decode = tokenizer.core.decode
        self.hidden = tokenizer.special.difference(keep)
        self.ids: list[int] = []
        self.start, self.done = 0, 0  # ids[start:done] is context, its text is out

    def add(self, token: int) -> str:
        """The text that this token completes, perhaps none."""
        if token in self.hidden:
            return ""
        self.ids.append(token)
        return self._text(last=False)

    def finish(self) -> str:
        """What is left: bytes that never became a character, as U+FFFD."""
        return self._text(last=True)

    def _text(self, *, last: bool) -> str:
        before = self.decode(self.ids[self.start : self.done], skip_special_tokens=False)
        now = self.decode(self.ids[self.start :], skip_special_tokens=False)
        if len(now) <= len(before) or (now.endswith("\ufffd") and not last):
            return ""
        self.start, self.done = self.done, len(self.ids)
        return now[len(before) :]
