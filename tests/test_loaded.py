"""A loaded model is immutable: two Calls with other options in one process give what two cold processes give."""

import json
import os
import shutil

import mlx.core as mx
import numpy as np
import pytest
import tiny
from command import command
from test_models import ORACLES, TINY
from threads import together

from embed.cli import embed, search
from rerank.cli import classify, rerank
from toast import kernels, loaded, models
from toast.cli import toast, tokenize
from toast.command import Call, run
from toast.encoding.colbert import ColBERT
from toast.encoding.cross_encoder import scorer
from toast.encoding.encoder import EmbeddingModel
from toast.generation.engine import LanguageModel
from toast.store.quantize import quantize

LLAMA, QWEN, BERT, CROSS, NLI, JUDGE, LABELS, PYLATE, STANFORD = (
    os.path.join(ORACLES, name)
    for name in (
        "llama-causal",
        "qwen3-causal",
        "bert-embed-mean",
        "bert-crossencoder",
        "roberta-nli",
        "qwen3-reranker",
        "bert-classifier",
        "tiny-colbert-pylate",
        "tiny-colbert-stanford",
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
    "rerank, ColBERT": [
        ("rerank", ["-m", PYLATE, "--scores", "cat"], TEXTS),
        ("rerank", ["-m", PYLATE, "--raw-scores", "--long", "truncate", "a blue sky " * 30], TEXTS),
    ],
    "rerank, ColBERT of Stanford": [
        ("rerank", ["-m", STANFORD, "--scores", "cat"], TEXTS),
        ("rerank", ["-m", STANFORD, "--raw-scores", "--long", "truncate", "a blue sky"], TEXTS),
    ],
    "classify, its own labels": [
        ("classify", ["-m", LABELS], TEXTS),
        ("classify", ["-m", LABELS, "--multi", "--json", "--threshold", "0"], TEXTS),
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
    "each, JSON": [
        ("toast", ["-m", LLAMA, "-n", "7", "--each", "--json", "-t", "1", "--seed", "3"], b"one\ntwo\n"),
        ("toast", ["-m", LLAMA, "-n", "40", "--each", "--choice", "yes,no"], b"one\ntwo\nthree\n"),
    ],
    "schema": [
        ("toast", ["-m", QWEN, "-n", "60", "--schema", '{"type": "array", "items": {"type": "boolean"}}', "hi"], b""),
        ("toast", ["-m", QWEN, "-n", "60", "--schema", '{"enum": [1, "two", null]}', "--json", "hi"], b""),
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


def agree(pair, env):
    """Both Calls here give what two cold processes give, one after the other and from two threads."""
    want = [cold(*call, env) for call in pair]
    assert all(status == 0 and out for status, out, _ in want), want
    assert [here(*call, env) for call in (*pair, *pair)] == want * 2  # one after the other
    loaded.forget()  # from here on both threads ask for a model that is not there yet
    found = together(*([lambda call=call: [here(*call, env) for _ in range(4)] for call in pair]))
    assert found == [[one] * 4 for one in want]


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_two_calls_are_two_cold_processes(pair, tmp_path):
    agree(pair, {"TOAST_HOME": str(tmp_path), "TOAST_PREFIX_MB": "0"})


EXAMPLES = [("a cat", "animal"), ("blue sky", "sky")]


def test_two_uses_of_a_probe(tmp_path):
    rows = [{"text": f"{text} {n}", "label": label} for n in range(9) for text, label in EXAMPLES]
    lines = [json.dumps(row) + "\n" for row in rows]
    words = ["classify", "--learn", "-", "-o", str(tmp_path / "x.probe"), "-m", BERT]
    command(*words, stdin="".join(lines).encode(), env={"TOAST_HOME": str(tmp_path)}).ok(quiet=False)
    probe = ["-m", str(tmp_path / "x.probe")]
    pair = [("classify", probe, TEXTS), ("classify", [*probe, "--json", "--threshold", "0"], TEXTS)]
    agree(pair, {"TOAST_HOME": str(tmp_path)})


# ---------------------------------------------------------------- nothing is left to be computed


def halved(folder, tmp_path, *below):
    """A copy of a model folder; the tensors of its folders `below` as float16, which are widened when loaded."""
    made = str(tmp_path / "half")
    shutil.copytree(folder, made)
    for name in below:
        file = os.path.join(made, name, "model.safetensors")
        mx.save_safetensors(file, {key: value.astype(mx.float16) for key, value in mx.load(file).items()})
    return made


def with_modules(tmp_path):
    """An embedding model with a Dense module and a LayerNorm after its pooling."""
    folder, rows = tiny.bert(tmp_path / "dense", D=8), np.ones((3, 8), np.float32)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "LayerNorm": "3_LayerNorm"}
    settings = {"2_Dense": {"in_features": 8, "out_features": 3, "use_residual": True}, "3_LayerNorm": {"dimension": 3}}
    tensors = {
        "2_Dense": {"linear.weight": rows, "linear.bias": rows[:, 0], "residual.weight": rows},
        "3_LayerNorm": {"norm.weight": rows[:, 0], "norm.bias": rows[:, 0]},
    }
    for name in settings:
        tiny.write_json(folder, f"{name}/config.json", settings[name])
        tiny.write_safetensors(f"{folder}/{name}/model.safetensors", tensors[name])
    entries = [{"path": path, "type": f"x.models.{kind}"} for kind, path in kinds.items()]
    tiny.write_json(folder, "modules.json", entries)
    return folder


def states(path):
    model = models.encoder(path)
    return lambda: model(mx.array([[2, 5, 6, 3]]), mx.array([4]))


def vectors(path):
    model = EmbeddingModel(path)
    return lambda: model.states(model.tokens.encode(["the cat"]))[2]


def likeness(path):
    model = ColBERT(path)
    return lambda: model.scores(model.query("cat"), model.encode(["a cat"]))


def logits(path):
    model = scorer(path)
    return lambda: model.logits(model.encode([("cat", "a cat")]))


def eight_bits(path, tmp_path):
    quantize(path, tmp_path / "small", bits=8, group=32)
    return str(tmp_path / "small")


USES = {  # what the main thread loads -> the use of it on another
    **{name: lambda tmp, name=name: states(os.path.join(ORACLES, name)) for name in TINY},
    "bert, 8 bits": lambda tmp: states(eight_bits(BERT, tmp)),
    "deberta, 8 bits": lambda tmp: states(eight_bits(os.path.join(ORACLES, "tiny-deberta-v3"), tmp)),
    "float16": lambda tmp: states(halved(BERT, tmp, "")),
    "modules": lambda tmp: vectors(with_modules(tmp)),
    "modules, float16": lambda tmp: vectors(halved(with_modules(tmp), tmp, "2_Dense", "3_LayerNorm")),
    "pylate": lambda tmp: likeness(PYLATE),
    "pylate, float16": lambda tmp: likeness(halved(PYLATE, tmp, "1_Dense")),
    "stanford": lambda tmp: likeness(STANFORD),
    "stanford, float16": lambda tmp: likeness(halved(STANFORD, tmp, "")),
    "cross-encoder": lambda tmp: logits(CROSS),
    "Qwen3-Reranker": lambda tmp: logits(JUDGE),
}


@pytest.mark.parametrize("variant", ["auto", "off"])
@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_model_is_used_on_other_threads(use, variant, tmp_path):
    """MLX's lazy arrays belong to the thread that began them, and without the kernels its loader makes such."""
    kernels.install(variant)
    run_it = use(tmp_path)
    found = together(*[lambda: np.array(run_it())] * 2)
    assert all(isinstance(one, np.ndarray) for one in found), found
    here = np.array(run_it())
    assert all((one == here).all() for one in found)


def test_two_conversations_are_two_cold_ones(tmp_path):
    """--session keeps what was said; nothing of one conversation is in the other."""
    turns = [[["-s", "be brief", "the cat"], ["and then"]], [["-n", "5", "a dog"], ["-t", "1", "--seed", "4", "why"]]]

    def talk(ask, home, n):
        env = {"TOAST_HOME": str(tmp_path / home), "TOAST_PREFIX_MB": "0"}
        said = [ask("toast", ["-m", QWEN, "-n", "9", "--session", f"talk{n}", *words], b"", env) for words in turns[n]]
        return said, (tmp_path / home / "sessions" / f"talk{n}.jsonl").read_bytes()

    want = [talk(cold, "cold", n) for n in range(2)]
    assert all(status == 0 and out for said, _ in want for status, out, _ in said), want
    assert [talk(here, "here", n) for n in range(2)] == want
    loaded.forget()
    assert together(*(lambda n=n: talk(here, "threads", n) for n in range(2))) == want


@pytest.mark.parametrize("variant", ["auto", "off"])
@pytest.mark.parametrize("name", ["llama-causal", "llama3-rope-causal", "qwen3-causal"])
def test_a_thread_may_use_what_another_has_loaded(name, variant):
    """Nothing is pending in a loaded model: a lazy array could be computed by the thread that began it alone."""
    kernels.install(variant)
    folder = os.path.join(ORACLES, name)
    language, other = together(*[lambda: loaded.at(folder, LanguageModel)] * 2)
    assert language is other
    logits = language.model(mx.array([[1, 2, 3]]), cache=language.caches())
    assert mx.all(mx.isfinite(logits)).item()
