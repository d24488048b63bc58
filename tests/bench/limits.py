"""Constrained answers within tight limits: 40 constraints, limits of 8 to 60 tokens, each answer checked.

    python tests/bench/limits.py [--model FOLDER ...] [--runs 300] [-v]

A run counts where an answer of that length is known to exist: one of the constraint's own short answers fits. Prints
for each model how many of those gave an answer; ends with status 1 where one was wrong, or under 99 of 100 gave one.
"""

import argparse
import json
import os
import random
import re
import sys
import time

import jsonschema

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
ORACLES = os.path.join(os.path.dirname(HERE), "oracles")

from toast import kernels  # noqa: E402
from toast.errors import ToastError  # noqa: E402
from toast.generation import decoder  # noqa: E402
from toast.generation.constrain import Constraint, Unfinished  # noqa: E402
from toast.generation.generate import Generation, Sequence, prefill  # noqa: E402
from toast.generation.sample import Sampler  # noqa: E402
from toast.generation.tokenizer import Tokenizer  # noqa: E402


def an_object(**properties):
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
TREE = {
    "$ref": "#/$defs/t",
    "$defs": {"t": an_object(v=INTEGER, kids={"type": "array", "items": {"$ref": "#/$defs/t"}})},
}
LIST = {"$ref": "#/$defs/l", "$defs": {"l": an_object(next={"anyOf": [{"$ref": "#/$defs/l"}, {"type": "null"}]})}}
NINE = an_object(**dict.fromkeys("abcdefghi", INTEGER))
# (schema, short answers of it)
SCHEMAS = [
    (STRING, ['""']),
    (INTEGER, ["0"]),
    (NUMBER, ["0"]),
    ({"type": "boolean"}, ["true", "false"]),
    ({}, ["0", "{}", "[]", '""', "null"]),
    ({"type": "string", "format": "date-time"}, ['"2000-01-01T00:00:00Z"']),
    ({"type": "string", "format": "date"}, ['"2000-01-01"']),
    ({"type": "string", "format": "time"}, ['"00:00:00Z"']),
    ({"type": "string", "format": "duration"}, ['"P1D"', '"P1W"']),
    ({"type": "string", "format": "email"}, ['"a@b.co"', '"me@me.com"']),
    ({"type": "string", "format": "ipv4"}, ['"0.0.0.0"']),
    ({"type": "string", "format": "uuid"}, ['"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"']),
    ({"type": "string", "minLength": 12}, ['"aaaaaaaaaaaa"', '"international"']),
    ({"type": "string", "pattern": "^[a-z]{20,}$"}, ['"aaaaaaaaaaaaaaaaaaaa"']),
    ({"type": "string", "pattern": "^\\d{3}-\\w{2}$"}, ['"000-aa"']),
    ({"type": "integer", "minimum": 100000, "maximum": 999999}, ["100000"]),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.001}, ["0.001"]),
    ({"enum": ["a very long text of many words, indeed", "another one that is as long", "x"]}, ['"x"']),
    ({"enum": [None, "none", 12345678]}, ["null"]),
    (an_object(name=STRING, age=INTEGER), ['{"name": "", "age": 0}']),
    (NINE, [json.dumps(dict.fromkeys("abcdefghi", 0))]),
    ({"type": "array", "items": STRING, "minItems": 3}, ['["", "", ""]']),
    ({"type": "array", "items": an_object(a=STRING), "minItems": 1}, ['[{"a": ""}]']),
    (TREE, ['{"v": 0, "kids": []}']),
    (LIST, ['{"next": null}']),
    ({"anyOf": [NINE, {"type": "null"}]}, ["null"]),
    ({"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 2}, ['["a", "b"]']),
    ({"type": "object", "patternProperties": {"^x": INTEGER}, "additionalProperties": False, "minProperties": 2},
     ['{"x": 0, "xa": 0}']),
    ({"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1}, ['{"": true}']),
    ({"type": "object", "patternProperties": {"^[ab]$": INTEGER}, "additionalProperties": False}, ["{}", '{"a": 0}']),
    ({"type": "object", "propertyNames": {"pattern": "^k"}, "additionalProperties": STRING}, ["{}"]),
    ({"type": "string", "not": {"const": ""}}, ['"a"']),
    ({"type": "array", "items": INTEGER, "contains": {"const": 5}}, ["[5]"]),
]  # fmt: skip
REGEXES = [
    (r"\d{4}-\d{2}-\d{2}", ["0000-00-00"]),
    (r"(yes|no|perhaps that is the case), because \w+", ["no, because a"]),
    (r"[A-Z]{10,}!", ["AAAAAAAAAA!"]),
    (r"(a{50}|b)c+", ["bc"]),
]
GRAMMARS = [
    ('start: e\ne: e "+" t | t\nt: "(" e ")" | /[0-9]+/', r"[0-9()+]+", ["0"]),
    ('start: "[" item ("," item)* "]"\nitem: /[a-z]{3,}/', r"\[[a-z]{3,}(,[a-z]{3,})*\]", ["[aaa]", "[the]"]),
    ('start: s+ "end."\ns: /[a-z ]+/ "; "', r"([a-z ]+; )+end\.", ["a; end."]),
]


def constraints():
    """(kind, text, right(answer) -> whether it is, short answers)."""
    for schema, short in SCHEMAS:
        yield "schema", json.dumps(schema), by_schema(schema), short
    for regex, short in REGEXES:
        yield "regex", regex, re.compile(regex, re.ASCII).fullmatch, short
    for grammar, regex, short in GRAMMARS:
        yield "grammar", grammar, re.compile(regex).fullmatch, short


def by_schema(schema):
    def unique(pairs):
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def right(text):
        try:
            jsonschema.validate(json.loads(text, object_pairs_hook=unique), schema)
        except (ValueError, AssertionError, jsonschema.ValidationError):
            return False
        return True

    return right


class Model:
    def __init__(self, folder):
        self.model, config = decoder.load(folder)
        self.tokenizer, self.size = Tokenizer(folder), config["vocab_size"]
        self.ends = set().union(*decoder.end_tokens(folder, config))

    def constraint(self, kind, text):
        return Constraint(self.tokenizer, self.ends, size=self.size, kind=kind, text=text)

    def answer(self, constraint, limit, **sampling):
        guide, caches = constraint.guide(limit), decoder.caches(self.model)
        prefill(self.model, caches, self.tokenizer.encode("An example of it as short JSON"))
        sequence = Sequence(self.ends, limit, guide)
        list(Generation(self.model, caches, Sampler(**sampling), sequence=sequence).run(7))
        guide.check()
        return self.tokenizer.core.decode(sequence.ids)


def run(model, count, say=lambda *words: None):
    """(wrong, answers, runs that could have one) of so many runs."""
    made = [(c, model.constraint(c[0], c[1])) for c in constraints()]
    wrong = good = possible = 0
    for n in range(count):
        (kind, text, right, short), constraint = made[n % len(made)]
        limit = random.Random(n).randint(8, 60)
        fewest = min(len(model.tokenizer.encode(answer)) for answer in short)
        fits, began = fewest <= limit, time.perf_counter()
        try:
            answer = model.answer(constraint, limit, seed=n, temperature=n % 2)
        except ToastError as error:
            if not isinstance(error, Unfinished) or fits:
                say(f"{limit:3} of {fewest}: {kind} {text}: {error}")
            answer = None
        took = time.perf_counter() - began
        if took > 3:
            say(f"{took:.1f} s: {limit} {kind} {text}")
        if answer is not None and not right(answer):
            say(f"WRONG: {kind} {text}: {answer}")
            wrong += 1
        good, possible = good + (fits and answer is not None), possible + fits
    return wrong, good, possible


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", metavar="FOLDER")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("-v", action="store_true")
    args = parser.parse_args()
    kernels.install()
    folders = args.model or [os.path.join(ORACLES, name) for name in ("qwen3-causal", "llama-causal")]
    failed = False
    for folder in folders:
        wrong, good, possible = run(Model(folder), args.runs, print if args.v else lambda *words: None)
        print(f"{os.path.basename(folder)}: {good} of {possible} that could have an answer have one, {wrong} wrong")
        failed |= wrong > 0 or good < 0.99 * possible
    return failed


if __name__ == "__main__":
    sys.exit(main())
