"""Text to token ids and back, by the tokenizer.json of a model folder.

Owns which tokens are control tokens, and that no text spells one: a text's ids are ordinary ones unless it is to be
parsed. Owns the stream of characters that tokens become: a character is never split. Does not know prompts.
"""

from __future__ import annotations

from itertools import islice

from toast.filters import MARKS
from toast.long_words import BLOCK, Shortened, can_shorten
from toast.store import compiled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tokenizers import Encoding

PIECE = 1 << 16  # characters of a text that are encoded at once, about
TRIES, NEAR = 16, 100  # ends of lines that are tried; characters around one that are looked at
BEFORE = ("\n", "0", "a", ")")  # what may stand before a text that is to be read as the middle of one
BARS = ("|", "\uff5c")  # <|...|> is a control token, whatever its flags say; DeepSeek's bars are wide


class Tokenizer:
    """The tokenizer of a model folder; truncation and padding that the file asks for are off. Immutable.

    template: the source of the model's chat template. controls: control token -> id, of the special tokens and of
    those added ones that the template, or a mark of reasoning, is made of.
    """

    def __init__(self, folder: str, template: str = "") -> None:
        self.core = compiled.tokenizer(folder)
        written = template + "".join(map("".join, MARKS))
        added = compiled.added_in(self.core, written)
        self.special = {i for i, token in added.items() if token.special}
        found = {token.content: i for i, token in added.items() if token.special or _is_mark(token.content, written)}
        self.controls = {content: i for content, i in found.items() if len(content) > 1}
        self._ids = frozenset(self.controls.values())
        self._starts = {content[0] for content in self.controls}
        # added tokens that are looked for in the normalized text
        loose = any(added[i].normalized for i in self._ids) and self.core.normalizer is not None
        self._normalize = self.core.normalizer.normalize_str if loose else None
        steps = (self.core.normalizer, self.core.pre_tokenizer, self.core.model)
        bert = [type(step).__name__ for step in steps] == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        self._shortens = (
            bert
            and self.core.model.max_input_chars_per_word < BLOCK
            and can_shorten(token.content for token in added.values())
        )

    def _shortened(self, text: str) -> Shortened:
        """A text without what its tokens do not depend on, if it is long."""
        return Shortened(text, at_all=self._shortens and len(text) > PIECE)

    def first(self, text: str, count: int) -> list[int]:
        """encode(text)[:count], of which no more is read than is needed: the first tokens of a window are those of
        the whole once a window twice as long has the same."""
        size, before = 16 * count + 64, None
        while size < len(text):
            found = self.encode(text[:size])[:count]
            if len(found) == count and found == before:
                return found
            size, before = 2 * size, found
        return self.encode(text)[:count]

    def encode(self, text: str, *, special: bool = False, parse: bool = False) -> list[int]:
        """Token ids; control tokens in the text are spelled in ordinary ones, unless it is to be parsed.

        special: with those that the model wants around a text."""
        found = self.core.encode(self._shortened(text).text, add_special_tokens=special)
        ids = found.ids
        if parse or self._ids.isdisjoint(ids):
            return ids
        if not special:
            return [i for _, piece in self._spelled(text) for i in piece.ids]
        around = found.special_tokens_mask
        inner = [k for k, put in enumerate(around) if not put]
        if not inner or self._ids.isdisjoint(ids[inner[0] : inner[-1] + 1]):
            return ids
        return ids[: inner[0]] + self.encode(text) + ids[inner[-1] + 1 :]

    def encode_after(self, before: str, text: str) -> list[int]:
        """`encode(text)` as it is right after a control token, `before`; "" for the beginning."""
        return [i for _, piece in self._spelled(text, before) for i in piece.ids]

    def encode_middle(self, text: str) -> list[int]:
        """`encode(text)` as it is in the middle of a text."""
        return [i for _, piece in self._spelled(text, None) for i in piece.ids]

    def parsed(self, text: str) -> Encoding:
        """Ids and offsets of a text whose control tokens are to be such."""
        return self.core.encode(text, add_special_tokens=False)

    def controls_in(self, text: str) -> list[int]:
        """The control tokens of a text that is parsed."""
        return [i for i in self.parsed(text).ids if i in self._ids]

    def is_control(self, id: int) -> bool:
        return id in self._ids

    def spelt_in(self, text: str) -> list[tuple[int, int]]:
        """Where a text spells control tokens, or ends with the beginning of one: (start, stop), in order."""
        spans = []
        for content in self.controls:
            at = text.find(content)
            while at >= 0:
                spans.append((at, at + len(content)))
                at = text.find(content, at + 1)
        if self._normalize is not None and self._normalized_in(_without(text, _united(spans))):
            return [(0, len(text))]
        for start in range(max(0, len(text) - max(map(len, self.controls), default=0)), len(text)):
            if self._is_beginning(text[start:]):
                spans.append((start, len(text)))
                break
        return _united(spans)

    def _is_beginning(self, text: str) -> bool:
        """Whether a control token begins with a text."""
        if self._normalize is not None:
            text = self._normalize(text) or text
        return text[0] in self._starts and any(content.startswith(text) for content in self.controls)

    def _normalized_in(self, text: str) -> bool:
        text = self._normalize(text) if self._normalize else text
        return any((self._normalize(c) if self._normalize else c) in text for c in self.controls)

    def _spelled(self, text: str, before: str | None = "") -> Iterator[tuple[int, Encoding]]:
        """(start, encoding) of parts that make the text up, and in none of which is a control token.

        before: a control token that the text follows, "" where it begins, None for the middle of a text."""
        todo = [(0, text, before)]
        while todo:
            at, part, before = todo.pop()
            found, skipped = self._following(before, part)
            cuts = () if self._ids.isdisjoint(found.ids) else self._cuts(part, found, skipped)
            if not cuts:
                yield at - skipped, found
                continue
            edges = [0, *cuts, len(part)]
            parts = [(at + a, part[a:b], None if a else before) for a, b in zip(edges, edges[1:], strict=False)]
            todo += reversed(parts)

    def _following(self, before: str | None, text: str) -> tuple[Encoding, int]:
        """(encoding of the text behind something, how many characters its offsets count too many)."""
        if before == "":
            return self.parsed(text), 0
        for front in BEFORE if before is None else (before,):
            found = self.parsed(front + text)
            if before is None:
                drop = sum(stop <= len(front) for _, stop in found.offsets)
                whole = all(start >= len(front) for start, _ in found.offsets[drop:])
            else:  # SentencePiece's blank after it belongs to the text, wherever its offsets are
                drop = 1 + next((k for k, i in enumerate(found.ids) if i in self._ids), -1)
                whole = drop > 0
            if whole:
                found.truncate(len(found.ids) - drop, direction="left")
                return found, len(front)
        return self.parsed(text), 0

    def _cuts(self, text: str, found: Encoding, skipped: int) -> list[int]:
        """Places inside of the control tokens of a text, so that cut there it has none."""
        cuts = []
        for i, (a, b) in zip(found.ids, found.offsets, strict=True):
            if i not in self._ids:
                continue
            a, b = max(0, a - skipped), b - skipped
            content = self.core.id_to_token(i) or ""
            at = text.find(content, a, b)
            if at >= 0:
                cuts.append(at + 1)
            elif b - a > 1 and self._normalized_in(text[a:b]):  # else: an unknown character
                cuts.append((a + b) // 2)
        return cuts

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token is in the text: (start, stop) in characters."""
        short = self._shortened(text)
        spans = ((at + a, at + b) for at, piece in self.pieces(short.text) for a, b in piece.offsets)
        return [(short.place(a), short.place(b)) for a, b in spans]

    def pieces(self, text: str) -> Iterator[tuple[int, Encoding]]:
        """(start, encoding) of pieces of a long text, whose tokens are those of the whole: the library's
        time and memory for one text grow faster than its length."""
        at = 0
        while at < len(text):
            stop = self._seam(text, at + PIECE)
            for start, piece in self._spelled(text[at:stop]):
                yield at + start, piece
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


def _is_mark(content: str, written: str) -> bool:
    """Whether an added token that is not special is a control token all the same: <think>, <tool_call>."""
    bars = content[:1] == "<" and content[1:2] in BARS and content[-2:-1] in BARS
    return bars or (content.strip(" \t\r\n\u2581") != "" and content in written)


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with a NUL in the place of each span."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return "\0".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))


def _united(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that overlap made one."""
    found: list[tuple[int, int]] = []
    for a, b in sorted(spans):
        if found and a < found[-1][1]:
            found[-1] = (found[-1][0], max(b, found[-1][1]))
        else:
            found.append((a, b))
    return found


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
