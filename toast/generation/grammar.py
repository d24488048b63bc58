"""What the user wrote (a schema, a regular expression, a grammar, choices) as a grammar of llguidance.

Owns what the texts mean: `\\d`, `\\w`, `\\s` are ASCII, blanks around choices are none, formats are short forms of what
their standards allow, and what the engine does not enforce is named. Knows no tokens.
"""

from __future__ import annotations

import json
import re

from toast.errors import UsageError
from toast.generation.formats import FORMATS
from toast.generation.json_check import Check
from toast.generation.objects import close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# one spelling of the blanks: with free ones, a small model may write blanks until its limit
JSON: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": True}
# a Lark grammar's strings and comments, which stay, and its regular expressions
LARK = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/((?:\\.|[^/\\\n])+)/')
PLAIN = re.compile(r"(?:\\[^\w\s]|[^\\\[\](){}|*+?.^$])+")  # of a regular expression: what stands for itself
EXCLUDED = ("exclusiveMinimum", "exclusiveMaximum")
UNKNOWN_FORMAT = "Unknown format: "
ONE, MANY, NAMED = (
    ("additionalProperties", "items", "additionalItems", "not", "if", "then", "else", "contains", "propertyNames",
     "unevaluatedItems", "unevaluatedProperties"),
    ("allOf", "anyOf", "oneOf", "prefixItems", "items"),
    ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"),
)  # fmt: skip


# of which a schema has one, unless it allows everything; `title` and the like ask for nothing
KEYWORDS = {
    *ONE, *MANY, *NAMED, "type", "enum", "const", "$ref", "$dynamicRef", "$recursiveRef", "minProperties",
    "maxProperties", "required", "dependentRequired", "dependencies", "minContains", "maxContains", "minItems",
    "maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum", *EXCLUDED,
    "multipleOf",
} - {"$defs", "definitions"}  # fmt: skip
# what says nothing of an answer, and stands in schemas all the same
ANNOTATIONS = {
    "$schema", "$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$comment", "$vocabulary", "$defs",
    "definitions", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "nullable",
    "contentEncoding", "contentMediaType", "contentSchema", "discriminator", "externalDocs",
}  # fmt: skip
EXACT = 1 << 53  # the engine's numbers are doubles
BOUNDS = ("minimum", "maximum", *EXCLUDED, "multipleOf")
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", type(None): "null"}


class Grammar:
    """text: what the engine reads. large: whether it may need more than the engine's own limits. json: whether what it
    allows is JSON. literals: texts that a schema names. loose_keys: whether an object's names may run out."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.large, self.json = kind, kind == "choice", kind == "schema"
        self.check: Check | None = None  # of what the engine cannot enforce
        self.literals: list[str] = []
        self.loose_keys = self.doubtful = False
        self.text: str = getattr(self, f"_{kind}")(text)

    def heed(self, warnings: list[str]) -> list[str]:
        """Take what the engine says that it leaves out; lines that tell of it."""
        formats = [told for told in warnings if told.startswith(UNKNOWN_FORMAT)]
        if self.doubtful or len(formats) < len(warnings):
            self.check = Check(self.schema)
        names = ", ".join(sorted({told.removeprefix(UNKNOWN_FORMAT) for told in formats}))
        return [f"--schema: the format {names} is not enforced"] if names else []

    def _regex(self, text: str) -> str:
        from llguidance import LLMatcher

        self.literals = _plain(text)
        return LLMatcher.grammar_from_regex(_ascii(text))

    def _grammar(self, text: str) -> str:
        from llguidance import LLMatcher

        def put(part: re.Match[str]) -> str:
            self.literals += _plain(part[1]) if part[1] else _quoted(part[0])
            return f"/{_ascii(part[1])}/" if part[1] else part[0]

        return LLMatcher.grammar_from_lark(LARK.sub(put, text))

    def _choice(self, text: str) -> str:
        """Between commas; a line each where the text ends in a line break.

        One terminal: of rules the engine takes 2000 at most."""
        from llguidance import LLMatcher

        parts = text.split("\n" if text.endswith("\n") else ",")
        choices = list(dict.fromkeys(filter(None, map(str.strip, parts))))
        if not choices:
            raise UsageError("--choice needs words: --choice yes,no")
        return LLMatcher.grammar_from_lark("start: CHOICE\nCHOICE: " + " | ".join(map(json.dumps, choices)))

    def _schema(self, text: str) -> str:
        from llguidance import LLMatcher

        try:
            self.schema, schema = json.loads(text), json.loads(text)
        except RecursionError:
            raise UsageError("--schema is nested too deeply") from None
        except ValueError as error:
            raise UsageError(f"--schema is not JSON: {error}") from None
        if not isinstance(schema, (dict, bool)):
            raise UsageError("--schema is not a JSON schema: neither an object nor true or false")
        if isinstance(schema, dict) and (strange := _strange(schema)):  # an example, or its fields
            raise UsageError(f"--schema: none of {_names(strange)} says what an answer must be", _like(strange))
        try:
            close(schema)
            for part in _subschemas(schema):
                self._read(part)
            return LLMatcher.grammar_from_json_schema(json.dumps({} if schema is True else schema), overrides=JSON)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--schema is not supported as it is: {brief(str(error))}") from None

    def _read(self, part: dict[str, Any]) -> None:
        """Note what matters of a part of a schema, and put the short form of its format in the format's place."""
        self.loose_keys |= "patternProperties" in part
        # the engine lets an excluded bound in where the range is narrow; and 5.6 / 0.1 is 56 to not every validator
        excluded = part.get("type") != "integer" and not part.keys().isdisjoint(EXCLUDED)
        self.doubtful |= excluded or isinstance(part.get("multipleOf"), float)
        values = part.get("enum")
        values = [*(values if isinstance(values, list) else []), *_const(part)]
        _expect_exact([*values, *(part.get(name) for name in BOUNDS)])
        self.literals += [json.dumps(value, ensure_ascii=False) for value in values]
        if isinstance(part.get("pattern"), str):
            self.literals += _plain(part["pattern"])
        pattern = FORMATS.get(part["format"]) if isinstance(part.get("format"), str) else None
        if pattern is None:
            return
        del part["format"]
        if "pattern" in part:
            part["allOf"] = [*part.get("allOf", []), {"pattern": pattern}]
        else:
            part["pattern"] = pattern


def _expect_exact(values: list[Any]) -> None:
    """ValueError of a whole number that the engine, which counts in doubles, would change."""
    for value in values:
        if isinstance(value, int) and not -EXACT <= value <= EXACT:
            raise ValueError(f"{value} is beyond 2^53, and would be another number; as text it is exact")


def _strange(schema: dict[str, Any]) -> dict[str, Any]:
    """What no schema has, of an object without a keyword of one."""
    if not KEYWORDS.isdisjoint(schema):
        return {}
    return {name: value for name, value in schema.items() if name not in ANNOTATIONS}


def _names(schema: dict[str, Any]) -> str:
    """The first names of an object, as a message has them."""
    return brief(", ".join(list(schema)[:4]) + ", ..." * (len(schema) > 4))


def _like(example: dict[str, Any]) -> str:
    """How a schema begins for what is like an example."""
    name, value = next(iter(example.items()))
    asks = isinstance(value, dict) and not KEYWORDS.isdisjoint(value)
    field = value if asks else {"type": TYPES.get(type(value), "object")}
    schema = {"type": "object", "properties": {name: field}, "required": [name]}
    return "write " + brief(json.dumps(schema, ensure_ascii=False))


def _const(part: dict[str, Any]) -> list[Any]:
    return [part["const"]] if "const" in part else []


def _plain(regex: str) -> list[str]:
    """Texts that a regular expression names."""
    return [re.sub(r"\\(.)", r"\1", run) for run in PLAIN.findall(regex)]


def _quoted(part: str) -> list[str]:
    """The text of a string of a Lark grammar; nothing of a comment."""
    try:
        return [json.loads(part)]
    except ValueError:
        return []


def _ascii(regex: str) -> str:
    from llguidance import regex_to_lark

    return regex_to_lark(regex, "dws")


def _subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all within it, each once; what stands in `enum`, `const` or `default` is none."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword, value in list(schema.items()):
        parts: list[Any] = []
        if isinstance(value, dict):
            parts = [value] if keyword in ONE else list(value.values()) if keyword in NAMED else []
        elif isinstance(value, list) and keyword in MANY:
            parts = value
        for part in parts:
            yield from _subschemas(part)


def brief(told: str) -> str:
    """The engine's message in a line; the dump of its state and the whole grammar may follow."""
    told = " ".join(told.partition("<state>")[0].partition("<grammar>")[0].split())
    return told if len(told) <= 200 else f"{told[:200]}..."
