"""What the normalizer of a tokenizer.json comes to: steps, and the tables that they look characters up in.

Owns which steps are understood; any other is Unknown. What they do is src/steps.cpp.
"""

from __future__ import annotations

from array import array

from toast.vocabulary import characters, clusters, normal, spelling
from toast.vocabulary.patterns import Parser, Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

BLANK = "\u2581"
COMPOSE, MAP, REPLACE, STRIP, SPELL = range(5)  # steps: form.h
ALONE = ("Lowercase", "BertNormalizer", "StripAccents", "Nmt")  # steps that look at one character after the other
ENDS = r"\A +| +\z"  # a pattern of SentencePiece's own: blanks around a text


def pattern(found: Json) -> Any:
    """The tree of a step's pattern."""
    [(kind, text)] = found.items()
    if kind == "Regex":
        return Parser(text).parse()
    return "all", [("set", characters.single(c)) for c in text]


class Normalizer:
    """The steps. patterns: trees of what is replaced; blanks: at the end blanks become U+2581, after one was put before
    a text if it prepends."""

    def __init__(self, steps: list[Json]) -> None:
        self.is_some = bool(steps)
        self.steps: list[tuple[int, int, int, int]] = []
        self.patterns: list[Any] = []
        self.inserted, self.charsmap, self.form = b"", b"", ""
        self.spelling: list[Json] = []  # steps in a row that look at one character after the other
        self.blanks = self.prepends = False
        for step, after in zip(steps, [*steps[1:], {"type": ""}], strict=False):
            if step["type"] in ALONE or (step["type"] in ("NFD", "NFKD") and after["type"] == "StripAccents"):
                self._spell(step)
            else:
                self._add(step)
        if self.prepends and not self.blanks:
            raise Unknown("a prefix without blanks")

    def _add(self, step: Json) -> None:
        kind = step["type"]
        if self.blanks:
            raise Unknown(f"{kind} after blanks")
        if kind == "Replace" and step["pattern"] == {"String": " "} and step["content"] == BLANK:
            self.blanks = True
        elif self.prepends:
            raise Unknown(f"{kind} after a prefix")
        elif kind == "Prepend" and step["prepend"] == BLANK:
            self.prepends = True
        elif kind == "Replace":
            self._replace(step)
        elif kind in ("NFC", "NFKC") and not self.form:
            self.form = kind
            self.steps.append((COMPOSE, 0, 0, 0))
        elif kind == "Precompiled" and not self.charsmap:
            from binascii import a2b_base64

            self.charsmap = a2b_base64(step["precompiled_charsmap"])
            self.steps.append((MAP, 0, 0, 0))
        elif kind == "Strip":
            self.steps.append((STRIP, step["strip_left"], step["strip_right"], 0))
        else:
            raise Unknown(f"{kind} of a text")

    def _spell(self, step: Json) -> None:
        if self.blanks or self.prepends or (self.spelling and self.steps[-1][0] != SPELL):
            raise Unknown(f"{step['type']} after others")
        if not self.spelling:
            self.steps.append((SPELL, 0, 0, 0))
        self.spelling.append(step)

    def _replace(self, step: Json) -> None:
        if step["pattern"] == {"Regex": ENDS} and step["content"] == "":
            self.steps.append((STRIP, 1, 1, 1))
            return
        text = step["content"].encode()
        self.steps.append((REPLACE, len(self.patterns), len(self.inserted), len(text)))
        self.patterns.append(pattern(step["pattern"]))
        self.inserted += text

    def parts(self, cuts: int) -> dict[str, bytes]:
        """The sections of a compiled vocabulary. cuts: patterns that are before these."""
        values, taken, parts, composed = normal.tables(self.form) if self.form else ([], b"", b"", b"")
        quick_at, quick = characters.table(values)
        kinds = clusters.kinds() if self.charsmap else []
        spelled = b""
        if self.spelling:
            also, spelled, parts = spelling.tables(self.spelling, parts)
            kinds = [*kinds, *also]
        kind_at, kind_of = characters.table_of_bits(kinds)
        size = int.from_bytes(self.charsmap[:4], "little") // 4 * 4
        steps = array("I")
        for kind, a, b, c in self.steps:
            steps.extend((kind, a + cuts * (kind == REPLACE), b, c))
        return {
            "quick_at": quick_at, "quick": quick, "taken": taken, "parts": parts, "composed": composed,
            "steps": steps.tobytes(), "inserted": self.inserted, "charsmap": self.charsmap[4 : 4 + size],
            "replaced": self.charsmap[4 + size :], "kind_at": kind_at, "kinds": kind_of, "spelled": spelled,
        }  # fmt: skip
