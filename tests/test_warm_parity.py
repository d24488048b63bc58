"""Warm and cold give the same: both streams and the status, for every option of every command, by either client."""

import json
import os
import re
import shutil
import time

import pytest
from command import command
from warm import CLIENTS, Warm, declared

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
BERT, QWEN, LLAMA, CROSS, JUDGE, NLI = (
    os.path.join(ORACLES, name)
    for name in (
        "bert-embed-mean",
        "qwen3-causal",
        "llama-causal",
        "bert-crossencoder",
        "qwen3-reranker",
        "roberta-nli",
    )
)
TEXTS = b"the cat sat\na dog ran\n\nthe sky is blue \xff\n" + b"the cat sat on the mat " * 90 + b"\n"
OBJECTS = b'{"text": "a cat", "q": "cats", "g": 1, "id": "a"}\n{"text": "a dog", "q": "dogs", "g": 2, "id": "b"}\n'
# command -> (its words, standard input) to which each option is added
BASE = {
    "toast": (["-m", QWEN, "-n", "9", "say it"], b"a text\n"),
    "tokenize": (["-m", QWEN], b"the cat sat"),
    "embed": (["-m", BERT, "--json"], TEXTS),
    "index": (["-m", BERT], TEXTS),
    "search": (["-m", BERT, "a cat"], TEXTS),
    "rerank": (["-m", BERT, "a cat"], TEXTS),
    "classify": (["-m", BERT, "-l", "cat,dog"], TEXTS),
}
RECORDS = {"jsonl": (["--jsonl"], OBJECTS), "field": (["--field", "q"], OBJECTS), "nul": (["-0"], b"a cat\0a dog\0")}
EACH = {name: (["--each", *words], stdin) for name, (words, stdin) in RECORDS.items()}
PROBE = b'{"text": "a cat", "label": "x"}\n{"text": "a dog", "label": "y"}\n' * 4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of what the uses below read."""
    folder = tmp_path_factory.mktemp("files")
    files = {
        "a.txt": b"a file\n", "b.txt": b"another\n", "q.txt": b"cat\ndog\n", "labels.txt": b"cat: an animal\nsky\n",
        "g.lark": b'start: "yes" | "no"\n', "probe.jsonl": PROBE, "list.txt": b"a.txt\nb.txt\n", "o.jsonl": OBJECTS,
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
    for name in ("i.db", "j.db"):
        command("index", "-m", BERT, "-o", name, "a.txt", "b.txt", cwd=folder).ok()
    return folder


# (command, parameter) -> (words that stand for it, other standard input, other base); what is not here says so itself
def uses():
    """Files are in the working directory."""
    toast = {
        **EACH, "instruction": ["@a.txt"], "operands": ["a.txt", "b.txt"], "model": ["-m", LLAMA], "adapter": None,
        "system": ["-s", "be brief"], "files": ["-f", "a.txt", "--file=b.txt"], "prefill": ["--prefill", "Well"],
        "template": ["--template", "x=1"], "think": ["--think", "off"], "stop": ["--stop", "e"],
        "schema": ["--schema", '{"enum": [1, true]}'], "regex": ["--regex", "[ab]{3}"], "choice": ["--choice", "a,b"],
        "grammar": ["--grammar", "g.lark"], "session": ["--session", "talk"], "forget": ["--session", "t", "--forget"],
        "code": ["-x"], "logprobs": ["--logprobs", "2"], "samples": ["--samples", "2", "-t", "1"],
        "each": ["--each"],
    }  # fmt: skip
    tokenize = {
        "files": ["a.txt", "b.txt"], "model": ["-m", BERT], "decode": (["--decode"], b"5 6 7\n"),
        "nul": ["--split", "2", "-0"], "special": ["--special", "--ids"],
    }  # fmt: skip
    model = {"model": ["-m", BERT], "source": ["--source", "shard-3", "--json"]}
    embed = {**RECORDS, **model, "files": ["a.txt", "b.txt"]}
    index = {
        **RECORDS, **model, "paths": ["a.txt", "."], "output": ["-o", "x.db"],
        "update": (["-u", "i.db", "a.txt"], b"", []),
        "merge": (["--merge", "i.db", "j.db"], b"", []), "files_from": ["--files-from", "list.txt"],
        "id": (["--id", "id"], OBJECTS),
        "source": (["--source", "shard-3", "--jsonl"], OBJECTS),
        "exclude": (["-m", BERT, "--exclude", "b*", "."], b"", []),
    }  # fmt: skip
    search = {
        **RECORDS, **model, "query": ["-i", "i.db"], "files": ["a.txt", "i.db"], "index": ["-i", "i.db"],
        "queries": (["--queries", "q.txt"], TEXTS, ["-m", BERT]), "path": ["--path", "a*", "i.db"],
        "like": (["--like", "a.txt", "i.db"], b"", ["-m", BERT]), "dupes": (["--dupes"], TEXTS, ["-m", BERT]),
        "where": (["--where", "g=1", "--jsonl"], OBJECTS), "rerank_model": ["--rerank", "--rerank-model", CROSS],
        "rerank": ["--rerank", "--rerank-model", BERT], "threshold": ["--threshold", "0.2"],
    }  # fmt: skip
    rerank = {
        **RECORDS, "query": ["a.txt"], "files": ["a.txt"], "model": ["-m", CROSS], "group": (["--group", "g"], OBJECTS),
        "query_field": (["--query-field", "q"], OBJECTS, ["-m", BERT]), "threshold": ["--threshold", "0.5"],
        "instruction": ["-m", JUDGE, "--instruction", "find cats"],
    }  # fmt: skip
    classify = {
        **RECORDS, **model, "files": ["a.txt"], "labels": ["-l", "x,y"], "threshold": ["--threshold", "0"],
        "label_file": (["-m", BERT, "-L", "labels.txt"], TEXTS, []), "only": ["--only", "cat"],
        "invert": ["--only", "cat", "--invert"],
        "none": ["--multi", "--none", "other"], "source": ["--source", "s", "--json"],
        "errors": (["-m", BERT, "-l", "x,y", "--report", "probe.jsonl", "--errors"], b"", []),
        "hypothesis": (["-m", NLI, "-l", "x,y", "--hypothesis", "about {}"], TEXTS, []),
        "group": (["-m", BERT, "--group", "2"], TEXTS, []),
        "report": (["-m", BERT, "-l", "x,y", "--report", "probe.jsonl"], b"", []),
        "learn": (["-m", BERT, "--learn", "probe.jsonl", "-o", "x.probe"], b"", []),
        "output": (["-m", BERT, "--learn", "-", "-o", "x.probe"], PROBE, []),
    }  # fmt: skip
    return {"toast": toast, "tokenize": tokenize, "embed": embed, "index": index, "search": search, "rerank": rerank,
            "classify": classify}  # fmt: skip


PARAMETERS = [(name, p.name) for name in BASE for p in declared(name).parameters]


def lines(name, parameter, given):
    """[(words, standard input)] that use a parameter in all its ways."""
    base, stdin = BASE[name]
    if parameter.name in given:
        found = given[parameter.name]
        if found is None:  # what the models at hand have not got
            return []
        words, other, instead = (*found, base)[:3] if isinstance(found, tuple) else (found, stdin, base)
        return [([*instead, *words], other)]
    flag = parameter.flags[-1]
    if flag == "--warm":
        return [([*base, flag, "9m"], stdin)]
    if parameter.type is bool:
        return [([*base, flag], stdin)]
    if parameter.choices:
        return [([*base, flag, choice], stdin) for choice in parameter.choices]
    assert parameter.type in (int, float), f"{name} {flag}: a use of it belongs into this file"
    return [([*base, flag, "2" if parameter.type is int else "0.5"], stdin)]


@pytest.fixture(scope="module")
def warm():
    found = Warm().start()
    yield found
    found.end()


def seen(result):
    """What a run shows, but for how long things took."""
    return result.status, result.out, re.sub(rb"[0-9.]+ (s|a second)\b", b"", result.err)


def left(folder):
    """What a run has left in its folder and its store, but for what passes."""
    found = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


@pytest.mark.parametrize("name, option", PARAMETERS, ids=lambda x: x)
def test_every_option(warm, files, name, option, tmp_path):
    """Each client has a folder of its own, as has the cold one."""
    for place in ("cold", *CLIENTS):
        shutil.copytree(files, tmp_path / place)

    def at(place):
        home = {"TOAST_PREFIX_MB": "0", "TOAST_DEBUG": None, "TOAST_HOME": str(tmp_path / place / "home")}
        return {"env": home, "cwd": tmp_path / place}

    parameter = next(p for p in declared(name).parameters if p.name == option)
    for words, stdin in lines(name, parameter, uses()[name]):
        want = command(name, *words, "-p", "here", stdin=stdin, **at("cold"))  # the last -p counts
        for client in CLIENTS:
            before = warm.status()["served"].get(name, 0)
            found = warm.run(client, name, *words, stdin=stdin, **at(client))
            assert seen(found) == seen(want), (client, found, want)
            assert left(tmp_path / client) == left(tmp_path / "cold"), client
            here = words[-2:] == ["-p", "here"]
            assert warm.status()["served"].get(name, 0) == before + (not here), (client, words, "ran elsewhere")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["--nonesuch"], ["-m"], ["-m", "nonesuch"]], ids=" ".join)
def test_what_is_told_of_a_command(warm, words):
    for name in BASE:
        want = command(name, *words, stdin=b"a\n", env={"TOAST_WARM": "off"})
        for client in CLIENTS:
            found = warm.run(client, name, *words, stdin=b"a\n")
            assert (found.status, found.out, found.err) == (want.status, want.out, want.err), (client, found, want)


def test_what_was_computed_before_changes_nothing(warm, tmp_path):
    """Indexes, texts and prompts asked for again, some in other words; and an index that is another one by then."""
    (tmp_path / "a.txt").write_text("the cat sat on the mat\na dog ran in the rain\n\nthe sky is blue\n" * 3)
    command("index", "-m", BERT, "-o", "x.db", "a.txt", cwd=tmp_path).ok()
    time.sleep(2.1)  # an index that is newer may be written again at the same time

    def same(name, *words, stdin=b""):
        want = command(name, *words, "-p", "here", stdin=stdin, cwd=tmp_path, env={"TOAST_PREFIX_MB": "0"})
        for _ in range(2):
            found = warm.run(CLIENTS[0], name, *words, stdin=stdin, cwd=tmp_path)
            assert (found.status, found.out, found.err) == (want.status, want.out, want.err)

    for query in ("dog", "the cat sat", "sky"):
        same("search", query, "x.db")
    for query in ("cat mat", "cat dog"):
        for options in ([], ["--mode", "lexical"], ["--mode", "vector"], ["--json"]):
            same("search", query, "x.db", *options)
        same("search", query, "a.txt", "-m", BERT)
        same("rerank", query, "-m", BERT, stdin=TEXTS)
        same("toast", query, "-m", LLAMA, "-n", "20")
    same("embed", "-m", BERT, "--json", stdin=TEXTS)
    same("classify", "-m", BERT, "-l", "cat,dog", stdin=TEXTS)
    (tmp_path / "a.txt").write_text("a cow in the grass\n")
    command("index", "-u", "x.db", "a.txt", cwd=tmp_path).ok()
    for query in ("cat mat", "cow"):
        same("search", query, "x.db")


def test_status_tells_what_was_done(warm):
    command("embed", "-m", BERT, "--json", stdin=b"a\n", env=warm.env).ok()
    found = json.loads(command("toasted", "status", "--json", env=warm.env).ok().out)
    assert found["served"]["embed"] > 0 and BERT in found["models"] and json.dumps(found)
