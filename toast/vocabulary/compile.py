"""A tokenizer.json as a compiled vocabulary: what its steps come to, or Unknown where the library is needed.

Owns which steps are understood. The tables are made in C++ (src/build.cpp), the automata in `patterns.py`; where the
file is kept is the store's business. Runs once for a vocabulary, beside the library, which is asked where it knows.
"""

from __future__ import annotations

import json
from array import array

from toast.vocabulary import characters, normal
from toast.vocabulary.alphabet import alphabet
from toast.vocabulary.patterns import Parser, Unknown, automata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # ByteLevel's own
BLANK = "\u2581"
NONE = (1 << 32) - 1
KNOWN, SPECIAL, PLAIN = 1, 4, 8  # of a token: form.h
ADDED_SPECIAL, LSTRIP, RSTRIP, NORMALIZED = 1, 2, 4, 16
PREFIXES = {"always": 2, "first": 3, "never": 4}  # of Metaspace: form.h


def compiled(document: Json, library: Any, source: str = "") -> bytes:
    """The file for a tokenizer.json and the library's tokenizer of it. Unknown for what it cannot hold. source: where
    the tokenizer.json is."""
    from toast.vocabulary import _ext

    try:
        return _ext.build(_parts(document, library, source))
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, RecursionError) as error:
        raise Unknown(f"{type(error).__name__}: {error}") from None


def _parts(document: Json, library: Any, source: str) -> Json:
    """What build() takes."""
    steps = Steps(document)
    model = document["model"]
    vocab: dict[str, int] = model["vocab"]
    merges = _merges(model["merges"], vocab)
    tokens = Tokens(vocab, library, set(merges[2::3]), spells_bytes=not steps.characters)
    symbols = tokens.symbols(vocab)
    falls_back = steps.characters and bool(model.get("byte_fallback"))
    unknown = NONE if model.get("unk_token") is None else vocab[model["unk_token"]]
    if (model.get("byte_fallback") and NONE in symbols) or (steps.characters and not falls_back and unknown == NONE):
        raise Unknown("characters without tokens")
    told = {"source": source, "unknown": None if unknown == NONE else unknown}
    class_values, count, tables = automata(steps.patterns)
    states, splits = array("H"), array("I")
    for entries, keeps in zip(tables, steps.keeps, strict=True):
        splits.extend([len(entries) // (count + 1), count, len(states), keeps])
        states.extend(entries)
    class_at, classes = characters.table(class_values)
    values, taken, parts, composed = normal.tables() if steps.nfc else ([], b"", b"", b"")
    quick_at, quick = characters.table(values)
    return {
        "options": [steps.characters, falls_back, unknown, bool(model.get("fuse_unk")),
                    bool(model.get("ignore_merges")), steps.nfc, steps.blanks, steps.prefix, steps.cuts_blanks,
                    steps.decoder, steps.strip],
        "settings": json.dumps(steps.settings() | told).encode(),
        "class_at": class_at, "classes": classes, "splits": splits.tobytes(), "states": states.tobytes(),
        "quick_at": quick_at, "quick": quick, "taken": taken, "parts": parts, "composed": composed,
        "texts": tokens.texts, "flags": bytes(tokens.flags), "findable": bytes(tokens.findable),
        "merges": merges.tobytes(), "symbols": symbols,
        "added": tokens.added,
    }  # fmt: skip


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


class Steps:
    """What the steps of a tokenizer.json come to. Unknown for any other."""

    def __init__(self, document: Json) -> None:
        model = document["model"]
        if (
            model["type"] != "BPE"
            or model.get("dropout")
            or model.get("continuing_subword_prefix")
            or model.get("end_of_word_suffix")
        ):
            raise Unknown("a model of another kind")
        self.nfc, self.blanks, self.prefix, self.cuts_blanks, self.strip = False, False, 0, False, 0
        self.patterns: list[Any] = []
        self.keeps: list[bool] = []
        cuts = flat(document.get("pre_tokenizer"), "pretokenizers")
        self.characters = not any(step["type"] == "ByteLevel" for step in cuts)
        if self.characters and model.get("ignore_merges"):
            raise Unknown("words of characters that are taken whole")
        self._normalizer(flat(document.get("normalizer"), "normalizers"))
        self._cuts(cuts)
        self.cuts_words = bool(document.get("pre_tokenizer"))
        self._decoder(flat(document.get("decoder"), "decoders"))
        self.before: list[int] = []
        self.after: list[int] = []
        self.trim = 0
        for step in flat(document.get("post_processor"), "processors"):
            self._around(step)

    def settings(self) -> Json:
        return {"before": self.before, "after": self.after, "trim": self.trim, "bytes": not self.characters,
                "cuts": self.cuts_words, "normalizes": self.nfc or self.blanks}  # fmt: skip

    def _normalizer(self, steps: list[Json]) -> None:
        for step in steps:
            kind = step["type"]
            if kind == "NFC" and not self.characters and not self.nfc:
                self.nfc = True
            elif kind == "Prepend" and step["prepend"] == BLANK and self.characters and not self.blanks:
                self.prefix = 1
            elif (
                kind == "Replace"
                and step["pattern"] == {"String": " "}
                and step["content"] == BLANK
                and self.characters
            ):
                self.blanks = True
            else:
                raise Unknown(f"{kind} of a text")
        if self.prefix and not self.blanks:
            raise Unknown("a prefix without blanks")

    def _cuts(self, steps: list[Json]) -> None:
        for i, step in enumerate(steps):
            if step["type"] == "ByteLevel" and not self.characters and i == len(steps) - 1:
                if step["add_prefix_space"]:
                    raise Unknown("a blank before a text")
                if step.get("use_regex", True):
                    self._cut(Parser(WORDS).parse(), keeps=True)
            elif self.characters:
                self._cut_characters(step)
            else:
                self._cut_bytes(step)

    def _cut(self, tree: Any, *, keeps: bool) -> None:
        self.patterns.append(tree)
        self.keeps.append(keeps)

    def _cut_bytes(self, step: Json) -> None:
        if step["type"] == "Digits":
            found = ("set", characters.digits())
            self._cut(found if step["individual_digits"] else ("times", found, 1, None), keeps=True)
            return
        habit = step["type"], step.get("behavior"), step.get("invert")
        [(kind, pattern)] = step["pattern"].items()
        if habit == ("Split", "Isolated", False):
            keeps = True
        elif habit == ("Split", "Removed", True):
            keeps = False
        else:
            raise Unknown(f"{habit}")
        tree = Parser(pattern).parse() if kind == "Regex" else ("all", [("set", characters.single(c)) for c in pattern])
        self._cut(tree, keeps=keeps)

    def _cut_characters(self, step: Json) -> None:
        if step["type"] == "Metaspace" and step["replacement"] == BLANK and not self.blanks:
            self.blanks, self.cuts_blanks = True, step.get("split", True)
            self.prefix = PREFIXES[step["prepend_scheme"]]
        elif step["type"] == "Split" and step["pattern"] == {"String": " "} and self.blanks:
            pass  # there is no blank left
        else:
            raise Unknown(f"{step['type']} of characters")

    def _decoder(self, steps: list[Json]) -> None:
        kinds = [step["type"] for step in steps]
        if not self.characters:
            if kinds != ["ByteLevel"]:
                raise Unknown(f"{kinds}")
            self.decoder = 0
        elif kinds == ["Metaspace"]:
            self.decoder, self.strip = 2, int(steps[0]["prepend_scheme"] != "never")
        else:
            replace = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}
            if kinds[:3] != ["Replace", "ByteFallback", "Fuse"] or steps[0] != replace or len(steps) > 4:
                raise Unknown(f"{kinds}")
            self.decoder = 1
            for step in steps[3:]:
                if step["type"] != "Strip" or step["content"] != " " or step["stop"]:
                    raise Unknown(f"{kinds}")
                self.strip = step["start"]

    def _around(self, step: Json) -> None:
        """What is put around a text, and whether blanks belong to a token's place."""
        if step["type"] == "ByteLevel":
            if step["trim_offsets"]:
                self.trim = 2 if step["add_prefix_space"] else 1
            if self.before or self.after:
                raise Unknown("steps after a template")
            return
        if step["type"] != "TemplateProcessing" or self.before or self.after:
            raise Unknown(f"{step['type']} around a text")
        side = self.before
        for part in step["single"]:
            [(kind, value)] = part.items()
            if value["type_id"]:
                raise Unknown("types of tokens")
            if kind == "Sequence":
                if value["id"] != "A" or side is self.after:
                    raise Unknown("a template of its own kind")
                side = self.after
            else:
                side += step["special_tokens"][value["id"]]["ids"]
        if side is not self.after:
            raise Unknown("a template without a text")


def flat(step: Json | None, name: str) -> list[Json]:
    """A step, or those that it is a sequence of."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [part for inner in step[name] for part in flat(inner, name)]
    return [step]
