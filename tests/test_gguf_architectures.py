"""Tiny checkpoints as GGUF: ours are llama.cpp's to the last bit, and read back they compute what transformers does."""

import json
import os
from binascii import crc32
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
import seeded
from tiny import write_json, write_safetensors

from toast import transform
from toast.generation import decoder
from toast.store import convert, gguf_keys, vocab_keys
from toast.store.config import normalised
from toast.store.gguf import Gguf

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
NAMES = sorted(name.removesuffix(".json") for name in os.listdir(os.path.join(ORACLES, "gguf")))
WRITTEN = [name for name in NAMES if name != "llama4_text"]  # whose text alone MLX-LM reads as another model
CLOSE = 1e-3
CLOSER = 2e-4  # where nothing but names and the order of rows changes
WORDS = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": ["a", "b"],
         "tokenizer.ggml.merges": []}  # fmt: skip


@cache
def fixture(name):
    def read(folder):
        with open(os.path.join(ORACLES, folder, f"{name}.json"), encoding="utf-8") as file:
            return json.load(file)

    found = read("gguf")
    return found if "config" in found else found | read("architectures")


class Call:
    """As much of a Call as the verb takes."""

    cwd, env, stderr, verbose = 0, {}, 2, False

    def path(self, name):
        return os.path.abspath(name)

    def info(self, text):
        pass


@pytest.fixture
def no_words(monkeypatch):
    monkeypatch.setattr(vocab_keys, "metadata", lambda *_, **__: WORDS)


def checkpoint(folder, name):
    found = fixture(name)
    write_json(str(folder), "config.json", found["config"])
    write_safetensors(str(folder / "model.safetensors"), seeded.tensors(found["tensors"]))


def differs(folder, name):
    """The largest difference of logits from transformers'."""
    model, _ = decoder.load(str(folder))
    runs = fixture(name)["runs"]
    found = [np.array(model(mx.array([run["ids"]]))[0, -1].astype(mx.float32)) for run in runs]
    return max(np.abs(x - run["logits"]).max() for x, run in zip(found, runs, strict=True))


def same(ours, theirs):
    if isinstance(theirs, float) or isinstance(ours, float):
        return abs(ours - theirs) <= 1e-6 * abs(theirs)
    return ours == theirs


@pytest.mark.parametrize("name", WRITTEN)
def test_a_checkpoint_as_gguf_and_back(tmp_path, name, no_words):
    (tmp_path / "m").mkdir()
    checkpoint(tmp_path / "m", name)
    transform.convert(Call(), str(tmp_path / "m"), str(tmp_path / "m.gguf"), kind="F32")
    file = Gguf(str(tmp_path / "m.gguf"))
    theirs = fixture(name)["gguf"]
    assert {n: list(t.shape) for n, t in file.tensors.items()} == {n: shape for n, (shape, _) in theirs.items()}
    for tensor, (_, sum_) in ((n, theirs[n]) for n in theirs if not n.endswith(("ssm_a", "rope_freqs.weight"))):
        held = file.tensors[tensor]
        assert crc32(file.read(held.start, held.nbytes)) == sum_, tensor
    (tmp_path / "back").mkdir()
    convert.gguf_to_folder(str(tmp_path / "m.gguf"), str(tmp_path / "back"))
    assert differs(tmp_path / "back", name) <= CLOSER


LEFT_OUT = ("rope.scaling.type", "rope.freq_base_swa", "attention.layer_norm_rms_epsilon", "full_attention_interval",
            "nextn_predict_layers", "expert_used_count")  # fmt: skip
# where llama.cpp's conversion writes what is not in the checkpoint: another length, no attention in a hybrid
OTHER = {"glm": ("context_length",), "granitemoehybrid": ("context_length", "attention.head_count_kv")}


@pytest.mark.parametrize("name", NAMES)
def test_metadata_is_llama_cpp_s(name):
    """What it does not need is left out: scaling of type none, what other keys say, too."""
    found = fixture(name)
    ours = gguf_keys.metadata(normalised(found["config"]))
    for key, value in found["metadata"].items():
        assert key in ours or key.endswith(LEFT_OUT), key
        assert key.endswith(LEFT_OUT + OTHER.get(name, ())) or same(ours[key], value), key


@pytest.mark.parametrize("kind, close", [("F16", 0.01), ("Q8_0", 0.05)])
def test_other_types(tmp_path, kind, close, no_words):
    (tmp_path / "m").mkdir()
    checkpoint(tmp_path / "m", "llama")
    transform.convert(Call(), str(tmp_path / "m"), str(tmp_path / "m.gguf"), kind=kind)
    file = Gguf(str(tmp_path / "m.gguf"))
    assert {t.type for t in file.tensors.values()} == {"F32", kind} | ({"F16"} if kind == "Q8_0" else set())
    (tmp_path / "back").mkdir()
    convert.gguf_to_folder(str(tmp_path / "m.gguf"), str(tmp_path / "back"))
    assert differs(tmp_path / "back", "llama") <= close * np.abs(fixture("llama")["runs"][0]["logits"]).max() * 10
