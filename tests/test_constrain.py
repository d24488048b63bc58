"""Constraints on tiny models that know nothing: whatever they would say, what comes out validates."""

import datetime
import json
import os
import random
import re
from functools import cache

import mlx.core as mx
import pytest
from bench import limits
from command import command

from toast.errors import UsageError
from toast.generation import decoder
from toast.generation.constrain import Constraint, Unfinished
from toast.generation.formats import FORMATS
from toast.generation.generate import Generation, Sequence, prefill
from toast.generation.json_check import Names
from toast.generation.sample import Sampler
from toast.generation.tokenizer import Tokenizer

jsonschema = pytest.importorskip("jsonschema")
ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
QWEN = os.path.join(ORACLES, "qwen3-causal")
NAMES = {"qwen3-causal": 680, "llama-causal": 660}


@cache
def loaded(name):
    path = os.path.join(ORACLES, name)
    model, config = decoder.load(path)
    return model, Tokenizer(path), set().union(*decoder.end_tokens(path, config))


def answer(name, kind, text, limit=120, seed=0, temperature=1.0):
    model, tokenizer, ends = loaded(name)
    guide = Constraint(tokenizer, ends, size=NAMES[name], kind=kind, text=text).guide(limit)
    caches = decoder.caches(model)
    prefill(model, caches, [5, 6])
    run = Generation(model, caches, Sampler(temperature=temperature, seed=seed), sequence=Sequence(ends, limit, guide))
    list(run.run(7))
    guide.check()
    return tokenizer.core.decode(run.sequence.ids)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("regex", ["[ab]{3,5}c", "[0-9]{4}-[0-9]{2}", "(yes|no)!", "é+x"])
def test_regex(name, regex):
    for seed in range(4):
        assert re.fullmatch(regex, answer(name, "regex", regex, seed=seed))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '{"name": "Olga", "age": 3}',
            r'none of name, age says .* "properties": {"name": {"type": "string"}}, "required": \["name"\]}',
        ),
        ('{"done": true}', '"done": {"type": "boolean"}'),
        (
            '{"a": {"b": 1}, "b": 1, "c": 1, "d": 1, "e": 1}',
            r'none of a, b, c, d, \.\.\. says .*"a": {"type": "object"}',
        ),
        ('{"age": {"type": "integer"}}', '"properties": {"age": {"type": "integer"}}'),
        ('{"title": "any", "author": "x"}', 'none of author says .*"author": {"type": "string"}'),
    ],
)
def test_an_example_is_no_schema(text, told):
    with pytest.raises(UsageError, match=told):
        answer("qwen3-causal", "schema", text)


@pytest.mark.parametrize(
    "text",
    [
        '{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "any"}', '{"description": "words"}',
        '{"$defs": {"a": {"type": "string"}}}', '{"nullable": true}', "{}", "true",
    ],
)  # fmt: skip
def test_a_schema_of_annotations_allows_everything(text):
    json.loads(answer("qwen3-causal", "schema", text))


def test_choice_and_grammar():
    found = {answer("qwen3-causal", "choice", 'yes,no,"maybe"', seed=s) for s in range(12)}
    assert found <= {"yes", "no", '"maybe"'} and len(found) > 1
    grammar = 'start: "[" item ("," item)* "]"\nitem: /[0-9]/'
    assert re.fullmatch(r"\[\d(,\d)*\]", answer("qwen3-causal", "grammar", grammar))


def a_schema(random, depth=0):
    """A random schema out of what people use."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "pattern"]
    kind = random.choice(kinds + (["object", "object", "array", "anyOf"] * 2 if depth < 3 else []))
    if kind == "object":
        names = random.sample(["id", "name", "tags", "é", "a b", 'q"'], random.randint(0, 4))
        found = {"type": "object", "properties": {n: a_schema(random, depth + 1) for n in names}}
        return found | {"required": [n for n in names if random.random() < 0.7], "additionalProperties": False}
    if kind == "array":
        least = random.randint(0, 2)
        found = {"type": "array", "items": a_schema(random, depth + 1), "minItems": least}
        return found | {"maxItems": least + random.randint(0, 3)} if random.random() < 0.5 else found
    if kind == "anyOf":
        return {"anyOf": [a_schema(random, depth + 1) for _ in range(2)]}
    if kind == "enum":
        return {"enum": random.sample(["red", 1, None, True, "é", 2.5], 3)}
    if kind == "const":
        return {"const": random.choice(["x", 7, False])}
    if kind == "pattern":
        return {"type": "string", "pattern": "^[a-z]{2,4}$"}
    if kind == "string" and random.random() < 0.5:
        return {"type": "string", "minLength": 1, "maxLength": random.randint(1, 9)}
    if kind == "integer" and random.random() < 0.5:
        return {"type": "integer", "minimum": -5, "maximum": 300}
    return {"type": kind}


# each schema on one of the two vocabularies, and with `make test-all` on both
@pytest.mark.parametrize("name, seeds", [
    ("qwen3-causal", range(0, 60, 2)), ("llama-causal", range(1, 60, 2)),
    pytest.param("qwen3-causal", range(1, 60, 2), marks=pytest.mark.long),
    pytest.param("llama-causal", range(0, 60, 2), marks=pytest.mark.long),
])  # fmt: skip
def test_random_schemas(name, seeds):
    """Every answer validates or is an error; at least 9 in 10 are answers."""
    good = 0
    for seed in seeds:
        schema = a_schema(random.Random(seed))
        try:
            text = answer(name, "schema", json.dumps(schema), limit=160, seed=seed)
        except Unfinished:
            continue
        jsonschema.validate(json.loads(text), schema)
        good += 1
    assert good >= 27


def test_what_is_not_supported_is_named():
    for kind, text, said in [
        ("schema", '{"$ref": "http://example.org/s"}', "not supported"),
        ("schema", '{"not": 1}', "no JSON schema"),
        ("schema", "{", "not JSON"),
        ("schema", "[1]", "not a JSON schema"),
        ("regex", "(", "--regex"),
        ("grammar", "start: nothing", "nothing"),
        ("choice", ",", "needs words"),
    ]:
        with pytest.raises(UsageError, match=said):
            answer("qwen3-causal", kind, text)


def test_an_unfinished_answer_is_an_error():
    with pytest.raises(Unfinished):
        answer("qwen3-causal", "regex", "a{50}b", limit=5)


@pytest.mark.parametrize("regex", [r"\d\w\s", r"[\d][\w-][\s]", r"[^\D][^\W][^\S]", r"\d{1}\w+?\s"])
def test_classes_are_ascii(regex):
    schema = json.dumps({"type": "string", "pattern": f"^{regex}$"})
    for seed in range(4):
        for kind, text in (("regex", regex), ("grammar", f"start: X\nX: /{regex}/")):
            assert re.fullmatch(r"[0-9][A-Za-z0-9_-]+[ \t\n\r\f\v]", answer("qwen3-causal", kind, text, seed=seed))
        assert re.fullmatch(r"[0-9][A-Za-z0-9_-]+\s", json.loads(answer("qwen3-causal", "schema", schema, seed=seed)))


def test_a_slash_is_no_class():
    assert answer("qwen3-causal", "regex", r"a\\d/b") == r"a\d/b"
    assert answer("qwen3-causal", "grammar", 'start: "\\\\d/" // \\d/') == r"\d/"


def test_choices():
    assert answer("qwen3-causal", "choice", " blue ,, red rose ,") in ("blue", "red rose")
    assert answer("llama-causal", "choice", "a,b\n c \n\n") in ("a,b", "c")
    many = list(map(str, range(1, 20001)))
    assert answer("qwen3-causal", "choice", ",".join(many)) in many
    for text in ("<|im_end|>", "a<|im_start|>b", "</s>"):  # text, and no control token
        assert answer("qwen3-causal", "choice", text) == text


def test_control_tokens_in_a_schema_are_text():
    schema = {"const": "<|im_start|>user"}
    assert json.loads(answer("qwen3-causal", "schema", json.dumps(schema))) == "<|im_start|>user"


# a valid answer within a limit that leaves little more than the shortest one, by a model that would not stop
TIGHT = [
    ({"type": "string"}, 3),
    ({"type": "number"}, 2),
    ({"type": "string", "format": "date-time"}, 25),
    ({"type": "string", "format": "time"}, 15),
    ({"type": "string", "format": "duration"}, 8),
    ({"type": "string", "format": "email"}, 12),
    ({"type": "string", "pattern": "^[a-z]{12,}$"}, 16),
    ({"type": "array", "items": {"type": "string"}, "minItems": 3}, 14),
    ({"$ref": "#/$defs/l", "$defs": {"l": {"type": "object", "properties": {"n": {"anyOf": [
        {"$ref": "#/$defs/l"}, {"type": "null"}]}}, "required": ["n"], "additionalProperties": False}}}, 12),
    ({"enum": ["a text that has no room here, whatever else may be said of it", "x"]}, 4),
    ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False,
      "minProperties": 2}, 24),
    ({"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 3}, 24),
    ({"type": "object", "propertyNames": {"pattern": "^k"}, "minProperties": 1}, 16),
    ({"type": "string", "not": {"const": ""}}, 5),
    ({"type": "array", "items": {"type": "integer"}, "contains": {"const": 5}}, 9),
    ({"if": {"type": "integer"}, "then": {"minimum": 10}, "else": False}, 8),
    ({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
      "dependentRequired": {"a": ["b"]}, "required": ["a"], "additionalProperties": False}, 24),
    ({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "minProperties": 1}, 16),
    ({"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 5}]}, 6),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.001}, 9),
]  # fmt: skip


@pytest.mark.parametrize("schema, limit", TIGHT)
def test_an_end_within_the_limit(schema, limit):
    for seed in range(2):
        text = answer("qwen3-causal", "schema", json.dumps(schema), limit=limit, seed=seed)
        jsonschema.validate(json.loads(text, object_pairs_hook=unique), schema)


def unique(pairs):
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


@pytest.mark.parametrize("kind, text, regex, limit", [
    ("regex", "(a{50}|b)c+", "bc+", 6),
    ("regex", "[a-z ]*end", "[a-z ]*end", 8),
    ("grammar", 'start: e\ne: e "+" t | t\nt: "(" e ")" | /[0-9]+/', r"[0-9()+]+", 8),
    ("grammar", 'start: s+ "end."\ns: /[a-z ]+/ "; "', "([a-z ]+; )+end[.]", 12),
])  # fmt: skip
def test_grammars_end_within_the_limit(kind, text, regex, limit):
    for seed in range(2):
        found = answer("llama-causal", kind, text, limit=limit, seed=seed)
        assert re.fullmatch(regex, found) and found.count("(") == found.count(")")


def test_the_bench_of_tight_limits():
    wrong, good, possible = limits.run(limits.Model(QWEN), 20)
    assert not wrong and possible > 15 and good >= possible - 1


def test_names_come_once():
    """Wherever objects are, however the names are written, far from the limit too."""
    schema = {"type": "object", "additionalProperties": {"type": "object", "patternProperties": {"^[ab]$": {}},
              "additionalProperties": False}}  # fmt: skip
    for seed in range(3):
        try:
            text = answer("llama-causal", "schema", json.dumps(schema), limit=120, seed=seed)
        except Unfinished:
            continue
        json.loads(text, object_pairs_hook=unique)


def test_names():
    names = Names()
    assert names.add(b'{"a": {"a": "a", "b": [{"a": 1}, {"a": 2}]}, "b') and names.copy().add(b'": 1}')
    assert not names.copy().add(b'": 1, "a"') and names.copy().add(b'": 1, "\\"": 2, "c": "a"}')
    assert not names.copy().add(b'": 1, "\\u0061": 2')


def test_hurry_leads_to_the_shortest_end():
    model, tokenizer, ends = loaded("qwen3-causal")
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}},
              "required": ["a", "b"], "additionalProperties": False}  # fmt: skip
    guide = Constraint(tokenizer, ends, size=680, kind="schema", text=json.dumps(schema)).guide(4000)
    start = tokenizer.encode('{"a": "some text')
    for token in start:
        guide.accept(token)
    guide.hurry()
    sequence = Sequence(ends, 4000, guide)
    while sequence.reason is None:
        sequence.take(sequence.choose(Sampler(), mx.random.normal((680,), key=mx.random.key(len(sequence.ids)))).item())
    guide.check()
    assert len(sequence.ids) < 20 and json.loads(tokenizer.decode(start + sequence.ids))["b"] is None


def test_unknown_formats_are_annotations():
    schema = json.dumps({"type": "string", "format": "phone", "maxLength": 3})
    ran = toast("-v", "-n", "20", "--schema", schema, "hi").ok(quiet=False)
    assert b"the format phone is not enforced" in ran.err and isinstance(json.loads(ran.out), str)
    assert toast("-n", "20", "--schema", schema, "hi").ok().err == b""


@pytest.mark.parametrize("name", ["date", "date-time", "time"])
def test_dates_are_those_of_the_calendar(name):
    read = {"date": datetime.date, "date-time": datetime.datetime, "time": datetime.time}[name].fromisoformat
    for seed in range(8):
        read(json.loads(answer("qwen3-causal", "schema", json.dumps({"type": "string", "format": name}), seed=seed)))
    for day, right in (("2000-02-29", True), ("2024-02-29", True), ("1900-02-29", False), ("2023-02-29", False),
                       ("2023-02-28", True), ("2023-04-31", False), ("2023-12-31", True)):  # fmt: skip
        assert bool(re.search(FORMATS["date"], day)) is right


# ---------------------------------------------------------------- on the command line


def toast(*words, **options):
    return command("toast", "-m", QWEN, *words, **options)


def test_commands(tmp_path):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    (tmp_path / "s.json").write_text(json.dumps(schema))
    path = str(tmp_path / "s.json")
    for given in (path, f"@{path}", json.dumps(schema)):
        jsonschema.validate(json.loads(toast("-n", "60", "--schema", given, "hi").ok().out), schema)
    assert toast("--choice", "yes,no", "is it?").ok().out in (b"yes\n", b"no\n")
    assert json.loads(toast("--choice", "yes,no", "--json", "is it?").ok().out)["finish_reason"] == "stop"
    (tmp_path / "g.lark").write_text('start: "x"+ "y"')
    ran = toast("-n", "2", "--grammar", str(tmp_path / "g.lark"), "hi")
    assert re.fullmatch(rb"x+y\n|", ran.out) and (ran.status == 0) == bool(ran.out)


@pytest.mark.parametrize("constraint", [("--regex", "[a-z ]{9,}\\."), ("--schema", '{"type":"string","minLength":9}')])
def test_an_answer_that_its_limit_made_shorter_is_cut(constraint):
    tight = toast(*constraint, "-n", "14", "--json", "a story")
    assert tight.status == 0 and json.loads(tight.out)["finish_reason"] == "length", tight
    ran = toast(*constraint, "-n", "14", "--strict", "a story")
    assert ran.status == 3 and b"the answer stopped at 14 tokens" in ran.err, ran
    assert toast("--choice", "yes,no", "-n", "3", "--strict", "is it?").status == 0


@pytest.mark.parametrize("schema", ['{"const": 9007199254740993}', '{"enum": [1, -9007199254740993]}',
                                    '{"items": {"minimum": 9007199254740993}}'])  # fmt: skip
def test_numbers_that_doubles_would_change_are_refused(schema):
    toast("--schema", schema, "x").fails("9007199254740993 is beyond 2^53")


def test_a_choice_that_is_a_file(tmp_path):
    (tmp_path / "colours").write_text("red\nblue\n")
    toast("--choice", "colours", "x", cwd=tmp_path).fails("the name of a file", "--choice @colours")


CITY = {"type": "object", "properties": {"city": {"type": "boolean"}}}
ZIP = {"type": "object", "properties": {"zip": {"type": "boolean"}}}
OPEN = [  # something is said of other names, or of the same object elsewhere
    CITY | {"additionalProperties": True}, {"allOf": [CITY, ZIP]}, CITY | {"minProperties": 2},
    CITY | {"required": ["zip"]}, {"$defs": {"c": CITY}, "$ref": "#/$defs/c", "required": ["zip"]},
    CITY | {"allOf": [{"required": ["zip"]}]}, {"oneOf": [CITY, ZIP | {"required": ["zip"]}]},
    {"allOf": [{"$ref": "#/components/schemas/S"}, ZIP], "components": {"schemas": {"S": CITY}}},
    {"$ref": "#/components/schemas/S", "components": {"schemas": {"S": {"allOf": [{"$ref": "#/$defs/c"}, ZIP]}}},
     "$defs": {"c": CITY}}, {"$ref": "#/$defs/c", "$defs": {"c": {"allOf": [{"$ref": "#/$defs/d"}, ZIP]}, "d": CITY}},
    {"anyOf": [CITY, {"properties": {"a": {"$ref": "#here"}}}], "$defs": {"c": {"$anchor": "here"}}},
]  # fmt: skip
CLOSED = [
    CITY, CITY | {"required": ["city"]}, {"allOf": [CITY]}, {"anyOf": [CITY, {"type": "null"}]},
    {"$ref": "#/$defs/c", "$defs": {"c": CITY}}, CITY | {"not": {"required": ["city"]}},
    {"$ref": "#/components/schemas/S", "components": {"schemas": {"S": CITY}}},
    {"type": "object", "properties": {"city": {"type": "string", "not": {"const": ""}}}},
    {"type": "object", "properties": {"city": {"allOf": [{"pattern": "^a"}, {"pattern": "b$"}], "type": "string"}}},
    {"type": "object", "properties": {"city": {"oneOf": [CITY, ZIP]}}},
]  # fmt: skip


def may_begin(schema, text):
    """Whether an answer by a schema may begin with a text."""
    _, tokenizer, ends = loaded("qwen3-causal")
    start = Constraint(tokenizer, ends, size=NAMES["qwen3-causal"], kind="schema", text=json.dumps(schema)).start
    ids = tokenizer.encode(text)
    return start.validate_tokens(ids) == len(ids)


@pytest.mark.parametrize("schema", OPEN, ids=json.dumps)
def test_what_is_said_of_other_names_leaves_an_object_open(schema):
    assert may_begin(schema, '{"zip": ') or may_begin(schema, '{"city": true, "zip": ')


@pytest.mark.parametrize("schema", CLOSED, ids=json.dumps)
def test_an_object_has_the_properties_that_are_named(schema):
    """Who names fields wants these, as with other programs; what is said of a value inside is said of that alone."""
    assert may_begin(schema, '{"city": ') and not may_begin(schema, '{"z')


def test_so_have_the_objects_inside():
    whole = {"type": "object", "properties": {"a": CITY, "b": {"type": "array", "items": {"$ref": "#/$defs/c"}}},
             "$defs": {"c": CITY}, "required": ["a", "b"]}  # fmt: skip
    assert may_begin(whole, '{"a": {"city": true}, "b": [{"city": ')
    assert not may_begin(whole, '{"a": {"z') and not may_begin(whole, '{"a": {}, "b": [{"z')


@pytest.mark.parametrize("schema", [CITY, OPEN[1], OPEN[6], CLOSED[9]], ids=json.dumps)
def test_what_is_left_or_closed_is_valid_as_it_was_written(schema):
    for seed in range(2):
        try:
            text = answer("qwen3-causal", "schema", json.dumps(schema), limit=60, seed=seed)
        except Unfinished:
            continue
        jsonschema.validate(json.loads(text), schema)


def test_nothing_comes_out_of_a_failure():
    ran = toast("-n", "3", "--regex", "a{50}b", "hi").fails("before it satisfied --regex")
    assert ran.out == b""
    assert toast("-n", "9", "--schema", '{"not": {}}', "hi").fails("not valid by --schema").out == b""
    toast("--schema", "/no/such/file", "hi").fails("cannot open")
    toast("--choice", "a,b", "--regex", "a", "hi").fails("exclude each other")
    toast("--choice", "a,b", "--stop", "a", "hi").fails("exclude each other")


def test_each():
    ran = toast("--each", "--choice", "yes,no", "really?", stdin=b"one\ntwo\nthree\n").ok()
    assert re.fullmatch(rb"((yes|no)\n){3}", ran.out)
    ran = toast("--each", "-n", "3", "--regex", "a{50}b", stdin=b"one\ntwo\n")
    assert ran.status == 2 and ran.out == b"\n\n" and ran.err.count(b"before it satisfied") == 2, ran


def test_a_mark_of_reasoning_in_a_choice_is_text():
    for words in ((), ("--think", "off"), ("--json",)):
        out = toast(*words, "--choice", "<think>a</think>b", "hi").ok(quiet=False).out
        assert (json.loads(out)["text"] if words == ("--json",) else out.decode().rstrip("\n")) == "<think>a</think>b"


def test_choices_of_a_file(tmp_path):
    (tmp_path / "list").write_text("one, two\n\n three \n")
    assert toast("--choice", f"@{tmp_path}/list", "which?").ok().out in (b"one, two\n", b"three\n")
    toast("--choice", f"@{tmp_path}/none", "which?").fails("cannot open")
    (tmp_path / "list").write_text("\n \n")
    toast("--choice", f"@{tmp_path}/list", "which?").fails("needs words")


def test_batches_are_steered_too():
    words = ("-n", "14", "--schema", json.dumps({"type": "array", "items": {"type": "string"}, "minItems": 3}))
    ran = toast("--each", *words, "go", stdin=b"one\ntwo\nthree\n").ok(quiet=False)  # one reasons
    alone = [toast(*words, "go", stdin=line).ok(quiet=False).out for line in (b"one\n", b"two\n", b"three\n")]
    assert ran.out == b"".join(alone) and all(len(json.loads(line)) >= 3 for line in alone)
    ran = toast("--samples", "4", "-t", "1", *words, "go").ok(quiet=False)
    assert all(len(json.loads(line)) >= 3 for line in ran.out.splitlines()) and len(set(ran.out.splitlines())) > 1
    ran = toast("--each", "-n", "9", "--schema", '{"not": {}}', stdin=b"one\ntwo\n")
    assert ran.status == 2 and ran.out == b"\n\n" and ran.err.count(b"not valid by --schema") == 2, ran


def test_what_the_parser_says_is_a_short_line(tmp_path):
    """Neither its state nor the file; and files have a bound."""
    (tmp_path / "long").write_text("// comment\n" * 1000 + "A" * 5000)
    for words, said in (
        (["--grammar", tmp_path / "long"], "--grammar"),
        (["--regex", "a{100000}{1000}"], "the constraint failed"),
    ):
        ran = command("toast", "-m", QWEN, "-n", "4", *words, "hi").fails(said)
        assert len(ran.err) < 300 and b"<" not in ran.err
    command("toast", "-m", QWEN, "--grammar", "/dev/zero", "hi").fails("/dev/zero is longer than the 1048576 bytes")


@pytest.mark.parametrize("depth", [100, 900, 20000])
def test_a_deeply_nested_schema(tmp_path, depth):
    (tmp_path / "deep").write_text('{"properties":{"a":' * depth + "{}" + "}}" * depth)
    command("toast", "-m", QWEN, "--schema", tmp_path / "deep", "hi").fails("--schema is ")
