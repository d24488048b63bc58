"""Constraints on tiny models that know nothing: whatever they would say, what comes out validates."""

import json
import os
import random
import re
from functools import cache

import pytest
from command import command

from toast.errors import UsageError
from toast.generation import decoder
from toast.generation.constrain import Constraint, Unfinished
from toast.generation.generate import Generation, Sequence, prefill
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


@pytest.mark.parametrize("name", NAMES)
def test_random_schemas(name):
    """Every answer validates or is an error; at least 9 in 10 are answers."""
    good = 0
    for seed in range(60):
        schema = a_schema(random.Random(seed))
        try:
            text = answer(name, "schema", json.dumps(schema), limit=160, seed=seed)
        except Unfinished:
            continue
        jsonschema.validate(json.loads(text), schema)
        good += 1
    assert good >= 54


def test_what_is_not_supported_is_named():
    for kind, text, said in [
        ("schema", '{"not": {"type": "string"}}', "not"),
        ("schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
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
    for given in (str(tmp_path / "s.json"), json.dumps(schema)):
        jsonschema.validate(json.loads(toast("-n", "60", "--schema", given, "hi").ok().out), schema)
    assert toast("--choice", "yes,no", "is it?").ok().out in (b"yes\n", b"no\n")
    assert json.loads(toast("--choice", "yes,no", "--json", "is it?").ok().out)["finish_reason"] == "stop"
    (tmp_path / "g.lark").write_text('start: "x"+ "y"')
    ran = toast("-n", "2", "--grammar", str(tmp_path / "g.lark"), "hi")
    assert re.fullmatch(rb"x+y\n|", ran.out) and (ran.status == 0) == bool(ran.out)


def test_nothing_comes_out_of_a_failure():
    ran = toast("-n", "3", "--regex", "a{50}b", "hi").fails("before it satisfied --regex")
    assert ran.out == b""
    toast("--schema", '{"not": {}}', "hi").fails("not supported", "not")
    toast("--schema", "/no/such/file", "hi").fails("cannot open")
    toast("--choice", "a,b", "--regex", "a", "hi").fails("exclude each other")
    toast("--choice", "a,b", "--stop", "a", "hi").fails("exclude each other")


def test_each():
    ran = toast("--each", "--choice", "yes,no", "really?", stdin=b"one\ntwo\nthree\n").ok()
    assert re.fullmatch(rb"((yes|no)\n){3}", ran.out)
    ran = toast("--each", "-n", "3", "--regex", "a{50}b", stdin=b"one\ntwo\n")
    assert ran.status == 2 and ran.out == b"\n\n" and ran.err.count(b"before it satisfied") == 2, ran


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
