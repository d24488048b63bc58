"""BERT's tokens of a few short texts, without the library, which takes longer to start than they do.

Owns the usual kind of tokenizer.json: BertNormalizer, BertPreTokenizer, WordPiece, TemplateProcessing. Every
other kind is left to the library, and so is a text that Unicode's versions read differently. What comes out
is equal to the library's, to the last offset. Knows nothing of limits.
"""

from __future__ import annotations

from toast.errors import BadModel
from toast.long_words import BLOCK, can_shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Piece = tuple[int, int, int]  # (id, start, stop)

FIRST = 50  # pieces looked for in the file itself; who asks for more gets a table of all
MOST = 4000  # pieces after which no further word is looked at: long unknown ones ask for thousands
CHINESE = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
           (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F))  # fmt: skip


class Unsure(Exception):
    """A text that only the library can read, or reads faster."""


class Encoding:
    """What the library's Encoding says of one text or pair; nothing here is ever cut."""

    overflowing = ()

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.type_ids: list[int] = []
        self.offsets: list[tuple[int, int]] = []
        self.special_tokens_mask: list[int] = []

    def add(self, pieces: Iterable[Piece], kind: int, *, special: bool) -> None:
        """Append (id, start, stop) of each piece."""
        for id, start, stop in pieces:
            self.ids.append(id)
            self.type_ids.append(kind)
            self.offsets.append((start, stop))
            self.special_tokens_mask.append(int(special))


def read(path: str) -> WordPiece | None:
    """The tokenizer of a tokenizer.json; None where the library is needed."""
    import json

    with open(path, "rb") as file:
        data = file.read()
    start = data.find(b"{", data.find(b'"vocab"')) + 1
    # the vocabulary is the last of the model, and the model of the file: the rest is a small JSON
    end = data[-80:].translate(None, b" \t\r\n")
    if not (start and end.endswith(b"}}}") and end[-4:-3].isdigit() and _plainly_escaped(data)):
        return None
    try:
        settings = json.loads(data[:start] + b"}}}")
        return WordPiece(settings, Vocabulary(data, start)) if _usual(settings) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # whatever is wrong, the library says it


def _plainly_escaped(data: bytes) -> bool:
    """Whether a backslash stands only before a quote or another one, so that a word has one spelling."""
    rest = iter(data.split(b"\\")[1:])
    for part in rest:
        if not part:
            next(rest, None)  # what follows an escaped backslash
        elif not part.startswith(b'"'):
            return False
    return True


def _usual(settings: dict[str, Any]) -> bool:
    names = ("normalizer", "pre_tokenizer", "post_processor", "model")
    kinds = ["BertNormalizer", "BertPreTokenizer", "TemplateProcessing", "WordPiece"]
    return (
        [settings[name]["type"] for name in names] == kinds
        and settings["model"]["vocab"] == {}
        and settings["normalizer"]["clean_text"]
        and not any(token["normalized"] for token in settings["added_tokens"])
    )


class Vocabulary:
    """Piece -> id, read from data[start:], a JSON object without blanks before its colons."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data, self.start = data, start
        self.known: dict[str, int | None] = {}
        self.table: dict[bytes, bytes] | None = None

    def get(self, piece: str) -> int | None:
        if piece not in self.known:
            if self.table is None and len(self.known) >= FIRST:
                self.table = self._all()
            written = piece.replace("\\", "\\\\").replace('"', '\\"').encode()
            self.known[piece] = self._find(written) if self.table is None else self._look_up(written, self.table)
        return self.known[piece]

    def _find(self, written: bytes) -> int | None:
        at = self.data.find(b'"%b":' % written, self.start)
        return None if at < 0 else _number(self.data[at + len(written) + 2 : at + len(written) + 20])

    def _all(self) -> dict[bytes, bytes]:
        parts = _without_escapes(self.data[self.start :]).split(b'"')
        return dict(zip(parts[1::2], parts[2::2], strict=False))

    def _look_up(self, written: bytes, table: dict[bytes, bytes]) -> int | None:
        after = table.get(_without_escapes(written))
        return None if after is None else _number(after)


def _without_escapes(written: bytes) -> bytes:
    return written.replace(b"\\\\", b"\1").replace(b'\\"', b"\0")


def _number(after: bytes) -> int:
    """The number in `: 7592, ...`."""
    digits = after[1:].replace(b"}", b",").partition(b",")[0].strip()
    if not digits.isdigit():
        raise BadModel(f"tokenizer.json: {after[:20]!r} where a piece's number should be")
    return int(digits)


class Readings(dict):
    """Character -> what BertNormalizer makes of it, with spaces around what BertPreTokenizer sets apart."""

    def __init__(self, normalizer: dict[str, Any]) -> None:
        self.lower, strip = normalizer["lowercase"], normalizer["strip_accents"]
        self.strip = self.lower if strip is None else strip
        self.chinese = normalizer["handle_chinese_chars"]

    def __missing__(self, char: str) -> str:
        self[char] = found = self._ascii(char) if char.isascii() else self._other(char)
        return found

    def _ascii(self, char: str) -> str:
        if char.isalnum():
            return char.lower() if self.lower else char
        return " " if char in " \t\n\r" else f" {char} " if char.isprintable() else ""

    def _other(self, char: str) -> str:
        import unicodedata as now

        kind, old = now.category(char), now.ucd_3_2_0
        # marks change places among themselves; later versions than 3.2 the library may not know
        if kind in ("Cn", "Cs") or kind != old.category(char) or now.combining(char):
            raise Unsure
        if kind[0] == "C" or char == "\ufffd":
            return ""
        if char.isspace():
            return " "
        spelled = now.normalize("NFD", char) if self.strip else char
        letters = [c for c in spelled if now.category(c) != "Mn" or not self.strip]
        found = "".join(c.lower() for c in letters) if self.lower else "".join(letters)
        apart = self.chinese and any(a <= ord(char) <= b for a, b in CHINESE)
        found = "".join(f" {c} " if now.category(c)[0] == "P" or _punctuation(c) else c for c in found)
        return f" {found} " if apart else found


def _punctuation(c: str) -> bool:
    return c.isascii() and not c.isalnum() and c.isprintable() and c != " "


class WordPiece:
    """The tokenizer itself. Raises Unsure, whenever it is asked, for what it cannot read."""

    cuts_at_blanks = True

    def __init__(self, settings: dict[str, Any], vocabulary: Vocabulary) -> None:
        model, template = settings["model"], settings["post_processor"]
        self.prefix, self.most = model["continuing_subword_prefix"], model["max_input_chars_per_word"]
        self.vocabulary, self.readings = vocabulary, Readings(settings["normalizer"])
        self.added = {token["content"]: token["id"] for token in settings["added_tokens"]}
        self.shortens = self.most < BLOCK and can_shorten(self.added)  # as of long_words.py
        unknown = vocabulary.get(model["unk_token"])
        if unknown is None:
            raise LookupError(model["unk_token"])
        self.unknown = unknown
        self.templates = [_steps(template, name) for name in ("single", "pair")]

    def id(self, token: str) -> int | None:
        return self.added[token] if token in self.added else self.vocabulary.get(token)

    def encode(self, texts: tuple[str, ...], *, special: bool = True) -> Encoding:
        """One text or two; special: with the tokens around them."""
        found, parts = Encoding(), [self._pieces(text) for text in texts]
        for number, pieces, kind in self.templates[len(texts) - 1]:
            if pieces is None:
                found.add(parts[number], kind, special=False)
            elif special:
                found.add(pieces, kind, special=True)
        return found

    def _pieces(self, text: str) -> list[Piece]:
        if any(token in text for token in self.added):
            raise Unsure
        return [piece for word, places in self._words(text) for piece in self._split(word, places)]

    def _words(self, text: str) -> Iterator[tuple[str, list[int]]]:
        """(word, the place in the text of each of its characters)."""
        word = ""
        places: list[int] = []
        for i, char in enumerate(text + " "):
            for c in self.readings[char]:
                if c != " ":
                    word += c
                    places.append(i)
                elif word:
                    yield word, places
                    word, places = "", []

    def _split(self, word: str, places: list[int]) -> list[Piece]:
        """(id, start, stop) of the pieces: the longest known one first; one unknown if that fails."""
        if len(self.vocabulary.known) > MOST:
            raise Unsure
        whole = [(self.unknown, places[0], places[-1] + 1)]
        at, found = 0, []
        while at < len(word):
            id, end = self._longest(word, at) if len(word) <= self.most else (None, at)
            if id is None:
                return whole
            found.append((id, places[at], places[end - 1] + 1))
            at = end
        return found

    def _longest(self, word: str, at: int) -> tuple[int | None, int]:
        for end in range(len(word), at, -1):
            id = self.vocabulary.get(self.prefix * (at > 0) + word[at:end])
            if id is not None:
                return id, end
        return None, at


def _steps(template: dict[str, Any], name: str) -> list[tuple[int, list[Piece] | None, int]]:
    """(which text, None, type) or (0, its pieces, type) for each step of a template."""
    steps: list[tuple[int, list[Piece] | None, int]] = []
    for step in template[name]:
        [(kind, value)] = step.items()
        if kind == "Sequence":
            steps.append(("AB".index(value["id"]), None, value["type_id"]))
        else:
            ids = template["special_tokens"][value["id"]]["ids"]
            steps.append((0, [(id, 0, 0) for id in ids], value["type_id"]))
    return steps
