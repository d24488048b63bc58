"""Decoders from MLX-LM's files against the reference values in tests/oracles (float32, CPU)."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache

import mlx.core as mx
import numpy as np
import pytest

from toast.errors import BadModel
from toast.generation import decoder

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
FIXTURES = ["llama-causal", "qwen3-causal", "llama3-rope-causal"]


@cache
def oracle(name):
    path = os.path.join(ORACLES, name)
    with open(os.path.join(path, "oracle.json"), encoding="utf-8") as file:
        return path, json.load(file), dict(np.load(os.path.join(path, "oracle.npz")))


@cache
def model(name):
    return decoder.load(oracle(name)[0])[0]


def greedy(model, ids, count):
    caches, out = decoder.caches(model), []
    for _ in range(count):
        out.append(mx.argmax(model(mx.array([ids]), cache=caches)[0, -1]).item())
        ids = out[-1:]
    return out


@pytest.mark.parametrize("name", FIXTURES)
def test_first_logits(name):
    _, facts, arrays = oracle(name)
    for i, run in enumerate(facts["runs"]):
        if run["ids"]:
            logits = np.array(model(name)(mx.array([run["ids"]]), cache=decoder.caches(model(name)))[0, -1])
            assert np.abs(logits - arrays["first_logits"][i]).max() <= facts["tolerance_max_abs"]["first_logits"]


@pytest.mark.parametrize("name", FIXTURES)
def test_greedy_ids(name):
    for run in oracle(name)[1]["runs"]:
        if run["ids"]:
            assert greedy(model(name), run["ids"], 24) == run["greedy_ids"]


DATA = os.environ.get("TOAST_TEST_DATA", "")


@pytest.mark.skipif(not os.path.isdir(DATA), reason="TOAST_TEST_DATA is not set")
def test_stories260k(tmp_path):
    """A llama2.c checkpoint (its first format: 7 int32, then float32 in a fixed order) says its 100 tokens."""
    source = os.path.join(DATA, "weights", "stories260K")
    raw = open(os.path.join(source, "stories260K.bin"), "rb").read()
    D, F, N, H, K, V, L = np.frombuffer(raw, np.int32, 7).tolist()
    flat, at = np.frombuffer(raw, np.float32, offset=28), 0
    kv = D // H * K
    order = [("embed_tokens", (V, D)), ("input_layernorm", (N, D)), ("self_attn.q_proj", (N, D, D)),
             ("self_attn.k_proj", (N, kv, D)), ("self_attn.v_proj", (N, kv, D)), ("self_attn.o_proj", (N, D, D)),
             ("post_attention_layernorm", (N, D)), ("mlp.gate_proj", (N, F, D)), ("mlp.down_proj", (N, D, F)),
             ("mlp.up_proj", (N, F, D)), ("norm", (D,))]  # fmt: skip
    tensors = {}
    for name, shape in order:
        block = flat[at : at + np.prod(shape)].reshape(shape)
        at += block.size
        if name in ("embed_tokens", "norm"):
            tensors[f"model.{name}.weight"] = mx.array(block)
        else:
            tensors |= {f"model.layers.{i}.{name}.weight": mx.array(x) for i, x in enumerate(block)}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    config = {"model_type": "llama", "hidden_size": D, "intermediate_size": F, "num_hidden_layers": N,
              "num_attention_heads": H, "num_key_value_heads": K, "vocab_size": V, "rms_norm_eps": 1e-5,
              "max_position_embeddings": L, "rope_traditional": True, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    reference = json.load(open(os.path.join(source, "reference-greedy.json")))
    made = greedy(decoder.load(str(tmp_path))[0], reference["prompt_ids"], len(reference["greedy_ids"]))
    assert made == reference["greedy_ids"] and len(made) == 100


def test_quantized_layers_follow_their_own_settings(tmp_path):
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    path = oracle("llama-causal")[0]
    reference, config = decoder.load(path)
    forms = {"model.layers.0.mlp.up_proj": 8, "model.layers.1.self_attn.o_proj": None}

    def form(name, module):
        bits = forms.get(name, 4)
        fits = hasattr(module, "to_quantized") and bits and module.weight.shape[-1] % 32 == 0
        return fits and {"group_size": 32, "bits": bits}

    nn.quantize(reference, 32, 4, class_predicate=form)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(tree_flatten(reference.parameters())))
    settings = {"group_size": 32, "bits": 4, "model.layers.0.mlp.up_proj": {"group_size": 32, "bits": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization": settings}))
    loaded, _ = decoder.load(str(tmp_path))
    assert loaded.model.layers[0].mlp.up_proj.bits == 8
    assert not hasattr(loaded.model.layers[1].self_attn.o_proj, "bits")
    ids = mx.array([[5, 6, 7]])
    assert mx.array_equal(loaded(ids), reference(ids)).item()


@pytest.mark.parametrize(
    "config, said",
    [
        ({"model_type": "../llama"}, "not one that MLX-LM has"),
        ({"model_type": "cache"}, "not one that MLX-LM has"),
        ({"model_type": "no_such"}, "not one that MLX-LM has"),
        ({}, "not one that MLX-LM has"),
        ({"model_type": "llama"}, "not a whole llama model"),
    ],
)
def test_unusable_folders(tmp_path, config, said):
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"w": mx.zeros(3)})
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadModel, match=said):
        decoder.load(str(tmp_path))


def test_missing_tensors_are_named(tmp_path):
    path, _, _ = oracle("llama-causal")
    (tmp_path / "config.json").write_bytes(open(os.path.join(path, "config.json"), "rb").read())
    tensors = mx.load(os.path.join(path, "model.safetensors"))
    del tensors["model.norm.weight"]
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    with pytest.raises(BadModel, match="model.norm.weight"):
        decoder.load(str(tmp_path))


def test_end_tokens(tmp_path):
    assert decoder.end_tokens(str(tmp_path), {"eos_token_id": [2, 3]}) == [set(), {2, 3}, set()]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert decoder.end_tokens(str(tmp_path), {"eos_token_id": 2, "text_config": {"eos_token_id": 3}}) == [{7}, {2}, {3}]
    assert decoder.end_tokens(str(tmp_path / "none"), {}) == [set()] * 3


def test_heavy_packages_stay_out():
    """MLX-LM's own __init__ would bring them."""
    code = (
        "import sys; from toast.generation import decoder; decoder.load(sys.argv[1]);"
        "print([m for m in ('transformers', 'numpy', 'huggingface_hub', 'mlx_lm.utils') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code, oracle("llama-causal")[0]], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stderr


@pytest.mark.slow
def test_file_names_are_those_of_mlx_lm():
    code = "import sys, json; from mlx_lm.utils import MODEL_REMAPPING; print(json.dumps(MODEL_REMAPPING))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == decoder.FILES


def test_all_sources_of_ends_count(tmp_path):
    """A wrong or missing number in one file does not let answers run on over the end of their turn."""
    from toast.generation.engine import LanguageModel

    source, folder = oracle("qwen3-causal")[0], tmp_path / "m"
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 5}))
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}')
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    language = LanguageModel(str(folder))
    assert {0, 5, language.tokenizer.id("<|im_end|>")} <= language.ends and language.end == 0
    (folder / "generation_config.json").unlink()
    assert LanguageModel(str(folder)).end == 5
