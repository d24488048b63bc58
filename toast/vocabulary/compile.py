"""A tokenizer.json as a compiled vocabulary, or Unknown where the library is needed.

Owns the tokens and their tables, which are made in C++ (src/build.cpp). What the steps around them come to is for
`steps.py` and `normalizer.py`; where the file is kept is the store's business. Runs once for a vocabulary, beside the
library, which is asked where it knows.
"""

from __future__ import annotations

import json
from array import array

from toast.vocabulary import characters
from toast.vocabulary.alphabet import alphabet
from toast.vocabulary.patterns import Unknown, automata
from toast.vocabulary.steps import MODELS, Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

NONE = (1 << 32) - 1
KNOWN, SPECIAL, PLAIN = 1, 4, 8  # of a token: form.h
ADDED_SPECIAL, LSTRIP, RSTRIP, NORMALIZED = 1, 2, 4, 16
PENALTY = 10.0  # by which what is unknown scores less than any token
HIGHEST = 10.0  # score of the least token, up to which no two unknown characters are better than it


def compiled(library: Any, source: str = "") -> bytes:
    """The file for the library's tokenizer of a tokenizer.json. Unknown for what it cannot hold. source: where the
    tokenizer.json is."""
    from toast.vocabulary import _ext

    try:
        # as the library writes it: defaults are filled in, and numbers are those that it reads
        return _ext.build(_parts(json.loads(library.to_str()), library, source))
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, RecursionError) as error:
        raise Unknown(f"{type(error).__name__}: {error}") from None


def _parts(document: Json, library: Any, source: str) -> Json:
    """What build() takes."""
    steps = Steps(document)
    model = document["model"]
    vocab: dict[str, int] = _ids(model["vocab"]) if steps.kind == "Unigram" else model["vocab"]
    merges = _merges(model["merges"], vocab) if steps.kind == "BPE" else array("I")
    made = set(merges[2::3]) if steps.kind == "BPE" else set(vocab.values())
    tokens = Tokens(vocab, library, made, spells_bytes=not steps.characters)
    symbols = tokens.symbols(vocab)
    falls_back = steps.characters and bool(model.get("byte_fallback"))
    unknown = _unknown(model, vocab)
    if (model.get("byte_fallback") and NONE in symbols) or (
        steps.characters and unknown == NONE and (steps.kind != "BPE" or not falls_back)
    ):
        raise Unknown("characters without tokens")
    told = {"source": source, "unknown": None if unknown == NONE else unknown}
    class_at, classes, splits, states = _automata(steps)
    return {
        "options": [steps.characters, falls_back, unknown, bool(model.get("fuse_unk")),
                    bool(model.get("ignore_merges")), steps.blanks, steps.prefix, steps.cuts_blanks, steps.decoder,
                    steps.strip, MODELS[steps.kind], steps.drops_space, len(steps.patterns),
                    model.get("max_input_chars_per_word") or max(map(len, tokens.texts)), 0],
        "settings": json.dumps(steps.settings() | told).encode(),
        "class_at": class_at, "classes": classes, "splits": splits.tobytes(), "states": states.tobytes(),
        "texts": tokens.texts, "flags": bytes(tokens.flags), "findable": bytes(tokens.findable),
        "merges": merges.tobytes(), "symbols": symbols, "added": tokens.added,
        "scores": _scores(model["vocab"], len(tokens.texts)) if steps.kind == "Unigram" else b"",
        "prefix": (model.get("continuing_subword_prefix") or "").encode(),
        **steps.normalizer.parts(len(steps.patterns)),
    }  # fmt: skip


def _automata(steps: Steps) -> tuple[bytes, bytes, array[int], array[int]]:
    """(block of each character's class, the blocks, SPLITS, STATES) of the patterns that cut, and those replaced."""
    class_values, count, tables = automata([*steps.patterns, *steps.normalizer.patterns])
    states, splits = array("H"), array("I")
    keeps = [*steps.keeps, *[True for _ in steps.normalizer.patterns]]
    for entries, rest in zip(tables, keeps, strict=True):
        splits.extend([len(entries) // (count + 1), count, len(states), rest])
        states.extend(entries)
    return *characters.table(class_values), splits, states


def _ids(pieces: list[Any]) -> dict[str, int]:
    """Token -> id of a Unigram model."""
    found = {piece: id for id, (piece, _) in enumerate(pieces)}
    if len(found) < len(pieces):
        raise Unknown("a token that is there twice")
    return found


def _unknown(model: Json, vocab: dict[str, int]) -> int:
    if model["type"] == "Unigram":
        return NONE if model["unk_id"] is None else model["unk_id"]
    return NONE if model.get("unk_token") is None else vocab[model["unk_token"]]


def _scores(pieces: list[Any], size: int) -> bytes:
    """The scores of a Unigram model by id, and that of what is unknown."""
    scores = array("d", bytes(8 * (size + 1)))
    scores[: len(pieces)] = array("d", (score for _, score in pieces))
    scores[size] = min(score for _, score in pieces) - PENALTY
    if scores[size] > HIGHEST - PENALTY:
        raise Unknown("scores that are no logarithms")
    return scores.tobytes()


def _merges(merges: list[Any], vocab: dict[str, int]) -> array[int]:
    """left, right and what they make, in the order of their ranks."""
    found = array("I")
    for pair in merges:
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        found.extend((vocab[left], vocab[right], vocab[left + right]))
    return found


class Tokens:
    """The tokens by their ids: bytes, flags, whether a text becomes them; and those that are looked for in a text.

    made: the ids that merges make."""

    def __init__(self, vocab: dict[str, int], library: Any, made: set[int], *, spells_bytes: bool) -> None:
        self.alphabet = alphabet() if spells_bytes else None
        added = library.get_added_tokens_decoder()
        size = max([*vocab.values(), *added, -1]) + 1
        if len(set(vocab.values())) != len(vocab) or size > 2 * (len(vocab) + len(added)) + 1000:
            raise Unknown("ids that are no numbering")
        self.texts, self.flags, self.findable = [b""] * size, bytearray(size), bytearray(size)
        for token, id in vocab.items():
            self._put(id, token)
            self.findable[id] = not self.flags[id] & PLAIN
        special = {token.content for token in added.values() if token.special}
        self.added = [self._added(id, token, library) for id, token in sorted(added.items())]
        for id in added:
            shown = library.id_to_token(id)
            if vocab.get(added[id].content, id) != id or (self.flags[id] and added[id].content not in vocab):
                raise Unknown("an added token that has the id of another")
            if shown != added[id].content and self.findable[id]:
                if id in made or len(added[id].content) == 1:
                    raise Unknown("a token that texts become is shown as another")
                self.findable[id] = 0
            if not self.findable[id]:
                self._put(id, shown)
            self.flags[id] |= SPECIAL * (shown in special)

    def _put(self, id: int, token: str) -> None:
        self.flags[id] = KNOWN
        if self.alphabet is not None:
            try:
                self.texts[id] = bytes([self.alphabet[c] for c in token])
                return
            except KeyError:
                self.flags[id] |= PLAIN
        self.texts[id] = token.encode()

    def _added(self, id: int, token: Any, library: Any) -> tuple[int, int, bytes, bytes]:
        if token.single_word:
            raise Unknown("an added token that is a word of its own")
        sought = token.content
        if token.normalized and library.normalizer is not None:
            sought = library.normalizer.normalize_str(sought)
        flags = ADDED_SPECIAL * token.special | LSTRIP * token.lstrip | RSTRIP * token.rstrip
        return id, flags | NORMALIZED * token.normalized, token.content.encode(), sought.encode()

    def symbols(self, vocab: dict[str, int]) -> list[int]:
        """The token of each byte; NONE for one that has none."""
        if self.alphabet is not None:
            names = {byte: char for char, byte in self.alphabet.items()}
        else:
            names = {byte: f"<0x{byte:02X}>" for byte in range(0x100)}
        return [vocab.get(names[byte], NONE) for byte in range(0x100)]
