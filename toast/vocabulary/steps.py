"""What the steps of a tokenizer.json come to: how a text is cut, what is put around it, how ids are read back.

Raises Unknown for what the compiled form has no place for. What is done to a text first is for `normalizer.py`.
"""

from __future__ import annotations

from toast.vocabulary import characters
from toast.vocabulary.normalizer import BLANK, Normalizer, pattern
from toast.vocabulary.patterns import Parser, Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Json = dict[str, Any]

WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # ByteLevel's own
PREFIXES = {"always": 2, "first": 3, "never": 4}  # of Metaspace: form.h
BYTES, PIECES, METASPACE, SPACED, TIDY = range(5)  # decoders: form.h
MODELS = {"BPE": 0, "Unigram": 1, "WordPiece": 2}  # form.h


class Steps:
    """What the steps of a tokenizer.json come to. Unknown for any other."""

    def __init__(self, document: Json) -> None:
        model = document["model"]
        self.kind: str = model["type"]
        inside = self.kind == "BPE" and (model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"))
        if self.kind not in MODELS or model.get("dropout") or inside:
            raise Unknown("a model of another kind")
        self.cuts_blanks, self.drops_space, self.strip = False, False, 0
        self.patterns: list[Any] = []
        self.keeps: list[bool] = []
        cuts = flat(document.get("pre_tokenizer"), "pretokenizers")
        self.characters = not any(step["type"] == "ByteLevel" for step in cuts)
        if (self.characters and model.get("ignore_merges")) or (self.kind != "BPE" and not self.characters):
            raise Unknown("words of characters that are taken whole, or of bytes that are not merged")
        self.normalizer = Normalizer(flat(document.get("normalizer"), "normalizers"))
        self.blanks, self.prefix = self.normalizer.blanks, int(self.normalizer.prepends)
        if self.blanks and not self.characters:
            raise Unknown("blanks of bytes")
        self._cuts(cuts)
        self.cuts_words = bool(document.get("pre_tokenizer"))
        self._decoder(flat(document.get("decoder"), "decoders"))
        self.before: list[int] = []
        self.after: list[int] = []
        self.pair: list[Any] | None = None
        self.trim = 0
        for step in flat(document.get("post_processor"), "processors"):
            self._around(step)

    def settings(self) -> Json:
        return {"before": self.before, "after": self.after, "pair": self.pair, "trim": self.trim,
                "bytes": not self.characters, "cuts": self.cuts_words, "normalizes": self.normalizer.is_some,
                "parts_at_blanks": self.cuts_blanks or self.drops_space}  # fmt: skip

    def _cuts(self, steps: list[Json]) -> None:
        kinds = [step["type"] for step in steps]
        if self.characters and kinds[:2] == ["WhitespaceSplit", "Metaspace"] and not self.blanks:
            self.drops_space, steps = True, steps[1:]
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
        if habit == ("Split", "Isolated", False):
            keeps = True
        elif habit == ("Split", "Removed", True):
            keeps = False
        else:
            raise Unknown(f"{habit}")
        self._cut(pattern(step["pattern"]), keeps=keeps)

    def _cut_characters(self, step: Json) -> None:
        if step["type"] == "Metaspace" and step["replacement"] == BLANK and not self.blanks:
            self.blanks, self.cuts_blanks = True, step["split"]
            self.prefix = PREFIXES[step["prepend_scheme"]]
        elif step["type"] == "Metaspace" and step["replacement"] == BLANK and step["prepend_scheme"] == "never":
            self.cuts_blanks = step["split"]  # there is no blank left
        elif step["type"] == "Split" and step["pattern"] == {"String": " "} and self.blanks:
            pass  # there is no blank left
        elif step["type"] == "BertPreTokenizer" and not self.blanks:
            self._cut(("times", ("set", characters.no_space()), 1, None), keeps=False)
            self._cut(("set", characters.punctuation()), keeps=True)
        else:
            raise Unknown(f"{step['type']} of characters")

    def _decoder(self, steps: list[Json]) -> None:
        kinds = [step["type"] for step in steps]
        if not self.characters:
            if kinds != ["ByteLevel"]:
                raise Unknown(f"{kinds}")
            self.decoder = BYTES
        elif not kinds:
            self.decoder = SPACED
        elif kinds == ["WordPiece"] and steps[0]["prefix"] == "##":
            self.decoder, self.strip = TIDY, int(steps[0]["cleanup"])
        elif kinds == ["Metaspace"]:
            self.decoder, self.strip = METASPACE, int(steps[0]["prepend_scheme"] != "never")
        else:
            replace = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}
            if kinds[:3] != ["Replace", "ByteFallback", "Fuse"] or steps[0] != replace or len(steps) > 4:
                raise Unknown(f"{kinds}")
            self.decoder = PIECES
            for step in steps[3:]:
                if step["type"] != "Strip" or step["content"] != " " or step["stop"]:
                    raise Unknown(f"{kinds}")
                self.strip = step["start"]

    def _around(self, step: Json) -> None:
        """What is put around a text, and whether blanks belong to a token's place."""
        kind = step["type"]
        if self.pair is not None:
            raise Unknown(f"{kind} after a template")
        if kind in ("ByteLevel", "RobertaProcessing") and step["trim_offsets"]:
            self.trim = 2 if step["add_prefix_space"] else 1
        if kind == "ByteLevel":
            return
        if kind in ("RobertaProcessing", "BertProcessing"):
            first, last, of_second = step["cls"][1], step["sep"][1], int(kind[0] == "B")
            between = [(last, 0)] if of_second else [(last, 0), (last, 0)]
            single = [first, "A", last]
            self.pair = [(first, 0), ("A", 0), *between, ("B", of_second), (last, of_second)]
        elif kind == "TemplateProcessing":
            single = [part for part, _ in _template(step, "single")]
            self.pair = list(_template(step, "pair"))
            if single.count("A") != 1 or "B" in single or any(of for _, of in _template(step, "single")):
                raise Unknown("a template of its own kind")
        else:
            raise Unknown(f"{kind} around a text")
        at = single.index("A")
        self.before, self.after = single[:at], single[at + 1 :]


def _template(step: Json, name: str) -> Iterator[tuple[int | str, int]]:
    """(the id of a token, or "A" or "B" for a text; its type) of what a template puts together."""
    for part in step[name]:
        [(kind, value)] = part.items()
        ids = [value["id"]] if kind == "Sequence" else step["special_tokens"][value["id"]]["ids"]
        yield from ((id, value["type_id"]) for id in ids)


def flat(step: Json | None, name: str) -> list[Json]:
    """A step, or those that it is a sequence of."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [part for inner in step[name] for part in flat(inner, name)]
    return [step]
