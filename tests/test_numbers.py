"""Weights and settings that give no numbers: every command says so of the model, and no output holds NaN."""

import json
import os

import mlx.core as mx
import pytest
import tiny
from command import command
from fuzz import copied, guard, ran, read_json, write_json

from toast import pipes
from toast.encoding.sentence_transformers import normalize
from toast.errors import BadInput, BadModel
from toast.generation.generate import Generation, Sequence
from toast.generation.prompt_lookup import Drafter
from toast.generation.sample import Sampler

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
LINES = b"the cat sat\na dog ran\n"
TOLD = "its weights are not numbers"
TOAST = [
    ["hi"], ["--json", "hi"], ["-t", "0.8", "hi"], ["-t", "0.8", "--top-p", "0.9", "hi"],
    ["-t", "0.8", "--top-k", "5", "hi"],
    ["-t", "1", "--min-p", "0.1", "--repeat-penalty", "1.2", "hi"], ["--dry", "1", "hi"], ["--logprobs", "2", "hi"],
    ["--samples", "2", "-t", "1", "hi"], ["--each", "hi"], ["--each", "--json", "-t", "0.7", "hi"],
    ["--regex", "[a-z]+", "hi"], ["--choice", "a,b", "hi"], ["--each", "--choice", "a,b", "hi"],
]  # fmt: skip


def spoil(folder, name, number, at=0):
    """Put a number into the tensor whose name ends so, in a model of float32 or float16."""
    path = os.path.join(folder, "model.safetensors")
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        entry = next(value for key, value in header.items() if key.endswith(name))
        kind = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}[entry["dtype"]]
        file.seek(8 + length + entry["data_offsets"][0] + at * kind.size)
        file.write(bytes(memoryview(mx.array([number]).astype(kind).view(mx.uint8))))


def spoilt(to, source, name, number, at=0):
    folder = copied(source, to)
    spoil(folder, name, number, at)
    return folder


def refused(found, folder):
    assert found.status == 2 and not found.out and TOLD in found.err and folder in found.err, found
    assert found.err.count(TOLD) == 1, found


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    source = os.path.join(ORACLES, "llama-causal")
    return spoilt(tmp_path_factory.mktemp("numbers") / "llama", source, "layers.1.input_layernorm.weight", float("nan"))


@pytest.mark.parametrize("words", TOAST, ids=" ".join)
def test_answers(llama, tmp_path, words):
    words = ["-m", llama, "-n", "8", "--no-cache", *words]
    refused(guard(lambda: ran("toast", *words, stdin=LINES, home=tmp_path)), llama)


def test_labels_of_a_language_model(llama, tmp_path):
    refused(guard(lambda: ran("classify", "-m", llama, "-l", "a,b", stdin=LINES, home=tmp_path)), llama)


@pytest.mark.parametrize("settings", [{"rope_theta": 0}, {"rope_theta": -1}, {"rope_theta": float("nan")},
                                      {"rms_norm_eps": float("nan")}, {"rms_norm_eps": "x"}, {"hidden_size": 10**12},
                                      {"num_hidden_layers": 10**9}, {"vocab_size": -5}])  # fmt: skip
def test_settings(tmp_path, settings):
    folder = copied(os.path.join(ORACLES, "llama-causal"), tmp_path / "model")
    write_json(os.path.join(folder, "config.json"), read_json(os.path.join(folder, "config.json")) | settings)
    found = guard(lambda: ran("toast", "-m", folder, "-n", "2", "hi", home=tmp_path))
    assert found.status == 2 and next(iter(settings)) in found.err, found


ENCODERS = {
    "bert": (None, ["embed"], ["embed", "--json"], ["embed", "--precision", "int8"], ["search", "cat"],
             ["index", "-o", "x.db"], ["rerank", "cat"], ["classify", "-l", "a,b"],
             ["classify", "--learn", "e.jsonl", "-o", "x.probe"]),
    "cross": ("bert-crossencoder", ["rerank", "--json", "cat"]),
    "labels": ("bert-classifier", ["classify", "--json"]),
    "nli": ("roberta-nli", ["classify", "-l", "a,b"]),
    "judge": ("qwen3-reranker", ["rerank", "cat"]),
    "colbert": ("tiny-colbert-pylate", ["rerank", "cat"]),
}  # fmt: skip


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(tmp_path, name, number):
    source, *commands = ENCODERS[name]
    whole = tiny.bert(tmp_path / "whole") if source is None else os.path.join(ORACLES, source)
    norm = "layers.0.input_layernorm.weight" if name == "judge" else "ayer.0.attention.output.LayerNorm.weight"
    folder = spoilt(tmp_path / "model", whole, norm, number)
    (tmp_path / "e.jsonl").write_text("".join(f'{{"text": "cat {i}", "label": "{i % 2}"}}\n' for i in range(9)))
    for verb, *words in commands:
        found = guard(lambda verb=verb, words=words: ran(
            verb, "-m", folder, *words, stdin=b"" if "--learn" in words else LINES, home=tmp_path))  # fmt: skip
        assert found.status == 2 and TOLD in found.err and folder in found.err, found
        assert b"nan" not in found.out.lower() and b"inf" not in found.out.lower(), found
    assert not {"x.db", "x.probe"} & set(os.listdir(tmp_path))


def test_rows_of_infinite_length_are_no_zeros():
    rows = normalize(mx.array([[3.0, 4.0], [0.0, 0.0], [1e30, 1e30]]))
    assert rows[:2].tolist() == [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    assert mx.all(mx.isnan(rows[2])).item()


def test_one_token_without_numbers(tmp_path):
    """It spoils the texts that have it alone; they are named, and cost themselves."""
    whole = tiny.bert(tmp_path / "whole")
    vocab = read_json(os.path.join(whole, "tokenizer.json"))["model"]["vocab"]
    width = read_json(os.path.join(whole, "config.json"))["hidden_size"]
    folder = spoilt(tmp_path / "model", whole, "word_embeddings.weight", float("nan"), vocab["dog"] * width)
    stdin = b'{"text": "the cat"}\n{"text": "a dog"}\n{"text": "a bird"}\n'
    for verb, *words in (["embed"], ["rerank", "cat"], ["classify", "-l", "cat,bird"]):
        words = [*words, "--json", "-m", folder, "--jsonl"]
        found = ran(verb, *words, stdin=stdin, home=tmp_path)
        assert found.status == 2 and found.err.startswith(f"{verb}: standard input, line 2: {folder}: {TOLD}"), found
        found = ran(verb, *words, "--on-error", "skip", stdin=stdin, home=tmp_path)
        rows = [json.loads(line) for line in found.out.splitlines()]
        assert found.status == 2 and sorted(row["text"] for row in rows) == ["a bird", "the cat"], found
        assert found.err.count("\n") == 1 and "line 2" in found.err, found
    # of rows that a header has counted none is left out: the record is named, in a file and in a pipe
    gaps = b'{"text": "the cat"}\n\n{"text": "a bird"}\n{"text": "a dog"}\n'
    (tmp_path / "a").write_text("the cat\n" * 3)
    (tmp_path / "b").write_text("the cat\n" * 5000 + "a dog\n")
    for words in (["-m", folder], ["-m", folder, "--raw"]):
        found = ran("embed", "--jsonl", *words, stdin=gaps, home=tmp_path)
        assert found.status == 2 and found.err.startswith(f"embed: standard input, line 4: {folder}: {TOLD}"), found
        command("embed", *words, "a", "b", cwd=tmp_path).fails(f"embed: b, line 5001: {folder}: {TOLD}")


class Spoilt:
    """A model whose logits are numbers for its first calls; the best token is 3."""

    def __init__(self, good):
        self.good = good

    def __call__(self, ids, cache=None):
        self.good -= 1
        row = mx.array([0.0, 1.0, 2.0, 5.0, float("nan") if self.good < 0 else 0.0])
        return mx.broadcast_to(row, (1, ids.shape[1], 5))


class Cache:
    def trim(self, count):
        pass


def test_drafted_tokens():
    """Verified drafts are looked at as well as single steps."""
    ids = [3, 3, 3, 3, 3, 3, 3, 3]
    drafter = Drafter(ids)
    drafter.step = 1.0
    run = Generation(
        Spoilt(1), [Cache()], Sampler(), sequence=Sequence(limit=20, loop_stop=False), drafter=drafter, name="m"
    )
    with pytest.raises(BadModel, match=TOLD):
        list(run.run(3))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_such_numbers(number):
    with pytest.raises(BadInput, match="NaN or infinite"):
        pipes.json_line({"a": [{"b": number}]})
