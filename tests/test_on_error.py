"""`--on-error skip`: a bad record costs itself, is named, and makes the status 2 at the end."""

import json
import os

import numpy
import pytest
from command import command

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
BAD = b'{"text": "the cat"}\nno json\n{"text": 5}\n{"body": "x"}\n\n{"text": "the dog"}\n'
NAMED = ["line 2: not a JSON object", "line 3: field 'text' holds no text", "line 4: no field 'text'"]


def told(result):
    assert result.status == 2
    lines = result.err.decode().splitlines()
    assert len(lines) == len(NAMED) and all(name in line for name, line in zip(NAMED, lines)), result
    return result.out


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


def test_embed(tmp_path, model):
    words = ["embed", "-m", model, "--jsonl", "--on-error", "skip"]
    found = objects(told(command(*words, "--json", stdin=BAD)))
    assert [(row["index"], row["text"]) for row in found] == [(0, "the cat"), (4, "the dog")]
    (tmp_path / "x.npy").write_bytes(told(command(*words, stdin=BAD)))
    rows = numpy.load(tmp_path / "x.npy")
    assert rows.shape[0] == 2 and numpy.allclose(rows[1], found[1]["embedding"])
    command("embed", "-m", model, "--jsonl", "--json", stdin=BAD[20:]).fails("line 1: not a JSON object")


def test_index(tmp_path, model):
    (tmp_path / "a.jsonl").write_bytes(BAD)
    words = ["index", "-m", model, "--jsonl", "-o", "x.db"]
    command(*words, "a.jsonl", cwd=tmp_path).fails("a.jsonl, line 2")
    told(command(*words, "--on-error", "skip", "a.jsonl", cwd=tmp_path))
    found = objects(command("search", "--json", "--mode", "lexical", "the cat dog", "x.db", cwd=tmp_path).ok().out)
    assert sorted(hit["start_line"] for hit in found) == [1, 6]
    # an id that is none, and a number that is no JSON, are bad records, too
    ids = b'{"id": 1, "text": "a"}\n{"text": "b"}\n{"id": [], "text": "c"}\n{"id": 2, "text": "d"}\n'
    words += ["--on-error", "skip", "--id", "id"]
    found = command(*words, stdin=ids, cwd=tmp_path)
    assert found.status == 2 and found.err.count(b"\n") == 2 and b"line 2" in found.err and b"line 3" in found.err
    found = command("search", "-l", "--mode", "lexical", "a b c d", "x.db", cwd=tmp_path)
    assert sorted(found.ok().out.split()) == [b"1", b"2"]


def test_search(tmp_path, model):
    (tmp_path / "a.jsonl").write_bytes(BAD)
    words = ["search", "-m", model, "--jsonl", "--json", "--threshold", "0", "the cat dog"]
    command(*words, stdin=BAD).fails("line 2: not a JSON object")
    command(*words, "a.jsonl", cwd=tmp_path).fails("a.jsonl, line 2")
    found = objects(told(command(*words, "--on-error", "skip", "a.jsonl", cwd=tmp_path)))
    assert sorted(hit["start_line"] for hit in found) == [1, 6]
    warned = command(*words, "--on-error", "warn", stdin=BAD)
    assert warned.status == 0 and len(objects(warned.out)) == 2 and warned.err.count(b"\n") == len(NAMED)


@pytest.mark.parametrize("form", [[], ["--group", "g"], ["--query-field", "q"]])
def test_rerank(model, form):
    query = [] if "--query-field" in form else ["cat"]
    words = ["rerank", "-m", model, "--jsonl", "--json", "--on-error", "skip", *form, *query]
    good = b'{"text": "the cat", "g": 1, "q": "cat"}\n'
    data = good + b'no json\n{"text": 5}\n{"body": "x"}\n' + good.replace(b"the cat", b"a dog")
    found = objects(told(command(*words, stdin=data)))
    assert sorted(row["index"] for row in found) == [0, 4]
    if form:
        found = command(*words, stdin=b'{"text": "a"}\n' + data.splitlines()[0])
        assert found.status == 2 and b"record 1" in found.err and objects(found.out)[0]["index"] == 1


def test_classify(model):
    words = ["classify", "-m", model, "-l", "cat,dog", "--jsonl", "--json"]
    found = objects(told(command(*words, "--on-error", "skip", stdin=BAD)))
    assert [row["text"] for row in found] == ["the cat", "the dog"]
    found = command(*words, stdin=BAD)
    assert found.status == 2 and b"line 2" in found.err


def test_all_bad(tmp_path, model):
    for words in (
        ["embed", "--json"],
        ["rerank", "x"],
        ["classify", "-l", "a,b"],
        ["index", "-o", str(tmp_path / "x")],
    ):
        found = command(*words, "-m", model, "--jsonl", "--on-error", "skip", stdin=b"x\n")
        assert found.status == 2 and b"line 1" in found.err and found.out == b""


LONG = b"the cat\n" + b"cat " * 900 + b"\na dog\n" + b"dog " * 900 + b"\n"
WAYS = {
    "embed": [["embed", "--json"], ["embed"], ["embed", "--raw"]],
    "rerank": [["rerank", "cat", "--json"]],
    "classify": [["classify", "-l", "cat,dog", "--json"]],
    "cross": [["rerank", "cat", "--json"]],
    "choices": [["classify", "-l", "cat,dog", "--json"]],
    "nli": [["classify", "-l", "cat,dog", "--json"]],
}


@pytest.mark.parametrize("name", WAYS)
def test_records_over_the_limit(model, tmp_path, name):
    """--long error: the first is named, or each costs itself, and no other is computed differently."""
    folder = {"cross": "bert-crossencoder", "choices": "llama-causal", "nli": "roberta-nli"}.get(name)
    path = os.path.join(ORACLES, folder) if folder else model
    (tmp_path / "f").write_bytes(LONG)
    for words in WAYS[name]:
        words = [*words, "-m", path, "--long", "error", "f"]
        command(*words, cwd=tmp_path).fails("f, line 2 is longer than", "tokens (--long chooses)")
        found = command(*words, "--on-error", "skip", cwd=tmp_path)
        told = found.err.decode().splitlines()
        assert found.status == 2 and len(told) == 2 and "line 2 is longer" in told[0] and "line 4 is" in told[1], found
        warned = command(*words, "--on-error", "warn", cwd=tmp_path)
        assert (warned.status, warned.out, warned.err) == (0, found.out, found.err)
        (tmp_path / "g").write_bytes(b"the cat\na dog\n")
        good = command(*words[:-1], "g", cwd=tmp_path).ok().out
        assert found.out.replace(b'"index": 2', b'"index": 1') == good
