"""A loaded model is immutable: two Calls with other options in one process give what two cold processes give."""

import os
import threading

import pytest
from command import command
from test_models import ORACLES

from embed.cli import embed, search
from rerank.cli import classify, rerank
from toast.cli import toast, tokenize
from toast.command import Call, run

LLAMA, QWEN, BERT, CROSS, NLI, JUDGE = (
    os.path.join(ORACLES, name)
    for name in (
        "llama-causal",
        "qwen3-causal",
        "bert-embed-mean",
        "bert-crossencoder",
        "roberta-nli",
        "qwen3-reranker",
    )
)
LONG = b"the cat sat on the mat " * 90 + b"\na dog\n\n"
TEXTS = b"the cat sat\na dog ran\nthe sky is blue\n" + LONG

# pairs that ask one model for different things: (command, its words, standard input)
PAIRS = {
    "embed": [
        ("embed", ["-m", BERT], TEXTS),
        ("embed", ["-m", BERT, "--dims", "8", "--long", "mean", "--json"], TEXTS),
    ],
    "embed, forms": [
        ("embed", ["-m", BERT, "--as", "query", "--raw", "--precision", "int8"], TEXTS),
        ("embed", ["-m", BERT, "--no-normalize", "--precision", "binary", "--batch", "1"], TEXTS),
    ],
    "search": [
        ("search", ["-m", BERT, "cat", "--json", "-k", "2"], TEXTS),
        ("search", ["-m", BERT, "a dog", "--mode", "vector", "--rerank", "--rerank-model", BERT], TEXTS),
    ],
    "rerank": [
        ("rerank", ["-m", CROSS, "--scores", "cat"], TEXTS),
        ("rerank", ["-m", CROSS, "--raw-scores", "--long", "truncate", "blue sky"], TEXTS),
    ],
    "rerank, MaxSim": [
        ("rerank", ["-m", BERT, "--scores", "cat"], TEXTS),
        ("rerank", ["-m", BERT, "--scores", "--long", "truncate", "a blue dog"], TEXTS),
    ],
    "rerank, instruction": [
        ("rerank", ["-m", JUDGE, "--scores", "cat"], TEXTS),
        ("rerank", ["-m", JUDGE, "--scores", "--instruction", "find dogs", "cat"], TEXTS),
    ],
    "classify": [
        ("classify", ["-m", BERT, "-l", "animal,weather"], TEXTS),
        ("classify", ["-m", BERT, "-l", "cat,dog,sky", "--multi", "--json", "--threshold", "0"], TEXTS),
    ],
    "classify, NLI": [
        ("classify", ["-m", NLI, "-l", "animal,weather"], TEXTS),
        ("classify", ["-m", NLI, "-l", "cat,dog", "--multi", "--threshold", "0"], TEXTS),
    ],
    "classify, language model": [
        ("classify", ["-m", LLAMA, "-l", "good,bad"], b"a cat\na dog\n"),
        ("classify", ["-m", LLAMA, "-l", "one,two,three", "--json"], b"a cat\n"),
    ],
    "sampling": [
        ("toast", ["-m", LLAMA, "-n", "9", "hi"], b""),
        ("toast", ["-m", LLAMA, "-n", "12", "-t", "1", "--seed", "7", "hi"], b""),
    ],
    "system": [
        ("toast", ["-m", QWEN, "-n", "9", "-s", "be brief", "hi"], b""),
        ("toast", ["-m", QWEN, "-n", "9", "--json", "hi"], b"a text"),
    ],
    "constraint": [
        ("toast", ["-m", QWEN, "-n", "30", "--regex", "[ab]{3,5}c", "hi"], b""),
        ("toast", ["-m", QWEN, "-n", "30", "--choice", "yes,no", "hi"], b"maybe"),
    ],
    "each": [
        ("toast", ["-m", LLAMA, "-n", "7", "--each"], b"one\ntwo\nthree\n"),
        ("toast", ["-m", LLAMA, "-n", "5", "--logprobs", "2"], b"two\n"),
    ],
    "tokenize": [
        ("tokenize", ["-m", QWEN, "--ids"], b"the cat sat"),
        ("tokenize", ["-m", QWEN, "--max", "2"], b"the cat sat"),
    ],
}
COMMANDS = {
    "toast": toast, "tokenize": tokenize, "embed": embed, "search": search, "rerank": rerank, "classify": classify,
}  # fmt: skip


def cold(name, words, stdin, env):
    ran = command(name, *words, stdin=stdin, env=env)
    return ran.status, ran.out, ran.err


def here(name, words, stdin, env):
    """The same Call in this process, its streams private files."""
    streams = {name: os.memfd_create(name) for name in ("stdin", "stdout", "stderr")}
    os.pwrite(streams["stdin"], stdin, 0)
    call = Call(name, {**os.environ, **env}, os.open(".", os.O_RDONLY), **streams)
    status = run(COMMANDS[name], list(words), call)
    found = [os.pread(fd, 1 << 20, 0) for fd in list(streams.values())[1:]]
    for fd in (*streams.values(), call.cwd):
        os.close(fd)
    return int(status), *found


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_two_calls_are_two_cold_processes(pair, tmp_path):
    env = {"TOAST_HOME": str(tmp_path), "TOAST_PREFIX_MB": "0"}
    want = [cold(*call, env) for call in pair]
    assert all(status == 0 and out for status, out, _ in want), want
    assert [here(*call, env) for call in (*pair, *pair)] == want * 2  # one after the other
    found = {}

    def many(n):
        found[n] = [here(*pair[n % 2], env) for _ in range(4)]

    threads = [threading.Thread(target=many, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [want[n]] * 4 for n in range(2)}
