"""Adapters: the model with one computes what a model with merged weights does, whatever the layout and the base."""

import json
import os
import shutil
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
import tiny
import tiny_adapter
from command import command
from test_kernels_modules import logits as pieced
from test_kernels_modules import narrow, unfuse
from tiny_adapter import LAYERS, LLAMA, WORDS, Change, llama, write_json

from toast import kernels
from toast.errors import BadModel
from toast.generation import decoder
from toast.generation.engine import LanguageModel

IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46]
FORMS = [None, 4, 8]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """{bits: folder}; None: float32."""
    folder = tmp_path_factory.mktemp("bases")
    return {bits: llama(folder / str(bits), bits) for bits in FORMS}


@pytest.fixture(scope="module")
def base(bases):
    return bases[4]


def logits(model, ids=IDS):
    return np.array(model(mx.array([ids]), cache=decoder.caches(model))[0])


def adapted(base, adapter):
    return LanguageModel(base, adapter).model


def toast(*words, **options):
    return command("toast", *words, **options)


# ---------------------------------------------------------------- what it computes


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("layout", ["mlx", "peft"])
@pytest.mark.parametrize("bits", FORMS)
def test_an_adapter_is_merged_weights(bases, tmp_path, bits, layout, dora):
    change = Change(dora=dora)
    found = logits(adapted(bases[bits], getattr(change, layout)(tmp_path / "a", "x")))
    np.testing.assert_allclose(found, logits(change.merged(bases[bits])), atol=2e-4)
    assert np.abs(found - logits(decoder.load(bases[bits])[0])).max() > 0.1


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("bits", FORMS)
def test_both_layouts_are_one(bases, tmp_path, bits, dora):
    change = Change(dora=dora)
    one = logits(adapted(bases[bits], change.mlx(tmp_path / "m", "x")))
    np.testing.assert_allclose(one, logits(adapted(bases[bits], change.peft(tmp_path / "p", "x"))), atol=2e-5)


AS_MLX_LM = """
import json, sys, mlx.core as mx
from pathlib import Path
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
ids = mx.array([json.loads(sys.argv[1])])
for base, path in zip(sys.argv[2::2], sys.argv[3::2]):
    model = load_adapters(load_model(Path(base))[0], path)
    model.eval()
    print(json.dumps(model(ids)[0].tolist()))
"""


def test_as_mlx_lm_loads_it(bases, tmp_path):
    """In one process of its own: MLX-LM takes seconds to start."""
    pairs = []
    for bits in (None, 4):
        for dora in (False, True):
            path = Change(LAYERS[7:], dora=dora).mlx(tmp_path / f"{bits} {dora}", "x", num_layers=1)
            pairs.append((bases[bits], path))
    argv = [sys.executable, "-c", AS_MLX_LM, json.dumps(IDS), *(str(word) for pair in pairs for word in pair)]
    lines = subprocess.run(argv, capture_output=True, check=True).stdout.splitlines()
    for (base, path), line in zip(pairs, lines, strict=True):
        np.testing.assert_allclose(logits(adapted(base, path)), np.array(json.loads(line)), atol=2e-4)


def test_layers_that_are_not_named_stay_as_they_are(bases, tmp_path):
    change = Change(["model.layers.1.mlp.up_proj"])
    model = adapted(bases[None], change.mlx(tmp_path / "a", "x"))
    np.testing.assert_allclose(logits(model), logits(change.merged(bases[None])), atol=1e-5)
    assert [name for name, m in model.named_modules() if type(m).__name__ == "LoRALinear"] == list(change.parts)


@pytest.mark.parametrize("rslora", [False, True])
def test_scales_of_peft(bases, tmp_path, rslora):
    """rank_pattern and alpha_pattern name layers by the ends of their names, or by regular expressions."""
    layers = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"]
    change, small = Change(layers, rank=4, scale=1.0), Change(layers, rank=2, scale=1.0, seed=9)
    change.parts[layers[2]] = small.parts[layers[2]]
    more = {"r": 4, "lora_alpha": 8, "rank_pattern": {"up_proj": 2}, "use_rslora": rslora}
    more["alpha_pattern"] = {r"layers\.0\.self_attn\.q_proj": 4}
    path = change.peft(tmp_path / "a", "x", **more)
    for layer, alpha, rank in zip(layers, (4, 8, 8), (4, 4, 2), strict=True):
        a, b, m = change.parts[layer]
        change.parts[layer] = a, b * alpha / (rank**0.5 if rslora else rank), m
    found = logits(adapted(bases[None], path))
    np.testing.assert_allclose(found, logits(change.merged(bases[None])), atol=1e-4)


def test_an_adapter_of_another_type(bases, tmp_path):
    """bfloat16 matrices beside float32 weights are float32 once, not at every step."""
    change = Change()
    change.parts = {k: tuple(x.astype(mx.bfloat16) for x in v) for k, v in change.parts.items()}
    model = adapted(bases[4], change.peft(tmp_path / "a", "x"))
    assert model.model.layers[0].mlp.up_proj.lora_a.dtype == mx.float32
    change.parts = {k: tuple(x.astype(mx.float32) for x in v) for k, v in change.parts.items()}
    np.testing.assert_allclose(logits(model), logits(change.merged(bases[4])), atol=1e-3)


@pytest.mark.parametrize("bits", FORMS)
def test_whole_arrays(bases, tmp_path, bits):
    """MLX-LM's "full", and what PEFT keeps under modules_to_save or as biases."""
    norm = mx.array(np.linspace(0.5, 1.5, 64, dtype=np.float32))
    full = tmp_path / "full"
    full.mkdir()
    mx.save_safetensors(str(full / "adapters.safetensors"), {"model.layers.1.input_layernorm.weight": norm})
    write_json(full, "adapter_config.json", {"fine_tune_type": "full", "model": bases[bits], "num_layers": 2})
    expected, _ = decoder.load(bases[bits])
    expected.model.layers[1].input_layernorm.weight = norm
    np.testing.assert_array_equal(logits(adapted(bases[bits], str(full))), logits(expected))

    change = Change(["model.layers.0.self_attn.q_proj"])
    saved = change.peft(tmp_path / "saved", "x", modules_to_save=["up_proj", "norm"])
    weight = mx.array(np.random.default_rng(1).normal(0, 0.1, (128, 64)).astype(np.float32))
    file = os.path.join(saved, "adapter_model.safetensors")
    whole = {"model.norm.weight": norm, "model.layers.0.mlp.up_proj.modules_to_save.weight": weight}
    mx.save_safetensors(file, mx.load(file) | {f"base_model.model.{k}": v for k, v in whole.items()})
    expected = change.merged(bases[bits])
    import mlx.nn as nn

    expected.model.norm.weight = norm
    expected.model.layers[0].mlp.up_proj = nn.Linear(64, 128, bias=False)
    expected.model.layers[0].mlp.up_proj.weight = weight
    np.testing.assert_allclose(logits(adapted(bases[bits], saved)), logits(expected), atol=1e-4)


def test_an_embedding(bases, tmp_path):
    """Ties count in MLX-LM's layout; in PEFT's the output layer is left alone."""
    a, b, _ = Change(["model.embed_tokens"]).parts["model.embed_tokens"]  # (r, D), (V, r)
    mlx, peft = tmp_path / "mlx", tmp_path / "peft"
    Change([]).mlx(mlx, "x")
    mx.save_safetensors(
        str(mlx / "adapters.safetensors"), {"model.embed_tokens.lora_a": b, "model.embed_tokens.lora_b": a}
    )
    Change([]).peft(peft, "x")
    name = "base_model.model.model.embed_tokens.lora_embedding_"
    mx.save_safetensors(str(peft / "adapter_model.safetensors"), {f"{name}A": b.T, f"{name}B": a.T})
    expected, _ = decoder.load(bases[None])
    old = expected.model.embed_tokens.weight
    expected.model.embed_tokens.weight = old + 2.0 * (b @ a)
    np.testing.assert_allclose(logits(adapted(bases[None], str(mlx))), logits(expected), atol=1e-3)
    found = np.array(adapted(bases[None], str(peft)).model(mx.array([IDS])) @ old.T)[0]
    np.testing.assert_allclose(logits(adapted(bases[None], str(peft))), found, atol=1e-3)


def test_experts(tmp_path):
    """MLX-LM's layout for the linear layers of all experts at once."""
    config = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1,
              "mlp_only_layers": [], "moe_intermediate_size": 32, "head_dim": 16, "norm_topk_prob": True,
              "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    base = llama(tmp_path / "base", **config)
    rng = np.random.default_rng(2)
    layer = "model.layers.1.mlp.switch_mlp.up_proj"
    a, b = (mx.array(rng.normal(0, 0.3, shape).astype(np.float32)) for shape in ((4, 4, 64), (4, 32, 4)))
    path = Change([]).mlx(tmp_path / "a", "x")
    mx.save_safetensors(os.path.join(path, "adapters.safetensors"), {f"{layer}.lora_a": a, f"{layer}.lora_b": b})
    expected, _ = decoder.load(base)
    expected.model.layers[1].mlp.switch_mlp.up_proj.weight += 2.0 * (b @ a)
    np.testing.assert_allclose(logits(adapted(base, path)), logits(expected), atol=1e-4)


@pytest.mark.parametrize("bits", FORMS)
def test_with_the_kernels(bases, tmp_path, bits):
    """It is as near to plain MLX as the base is: the 8 bits of activations, where weights are quantised."""
    path = Change(scale=0.1).mlx(tmp_path / "a", "x")

    def both():
        return logits(adapted(bases[bits], path)), logits(decoder.load(bases[bits])[0])

    plain = both()
    if kernels.install() == "off":
        pytest.skip("no kernels on this device")
    errors = [np.abs(x - y).max() / np.abs(y).max() for x, y in zip(both(), plain, strict=True)]
    assert errors[0] <= 3 * errors[1] + 1e-4, errors


@pytest.mark.parametrize("layout", ["mlx", "peft"])
@pytest.mark.parametrize("bits", [4, 8])
def test_fused_layers_take_it(bases, tmp_path, monkeypatch, bits, layout):
    """With the bits of the layer and its update one after the other; DoRA goes through the modules."""
    if kernels.install() == "off":
        pytest.skip("no kernels on this device")
    change = Change(["model.layers.0.mlp.down_proj", "model.layers.0.self_attn.o_proj", *LAYERS[7:]])
    model = adapted(bases[bits], getattr(change, layout)(tmp_path / "a", "x"))
    ids = np.random.default_rng(0).integers(3, 600, 300).tolist()
    pieces = [ids[:280], ids[280:299], ids[299:]]
    assert kernels.fused_layers(model) == (2, 2) and kernels.supports_ragged_batch(model)
    change.dora = True
    assert kernels.fused_layers(adapted(bases[bits], change.mlx(tmp_path / "d", "x"))) == (0, 2)
    fused = pieced(model, pieces, decoder.caches(model))
    unfuse(decoder.architecture("", {"model_type": "llama"}), monkeypatch, "LlamaModel", "TransformerBlock")
    for found, expected in zip(fused, pieced(model, pieces, narrow(model)), strict=True):
        np.testing.assert_array_equal(found, expected)


# ---------------------------------------------------------------- the commands


@pytest.fixture(scope="module", params=["mlx", "peft"])
def adapter(request, base, tmp_path_factory):
    return getattr(Change(), request.param)(tmp_path_factory.mktemp("adapters") / request.param, base)


def test_an_adapters_name_is_its_base_with_it(base, adapter, tmp_path):
    words = ["-n", "24", "-t", "0", "--json", "the cat"]
    one = toast("-m", adapter, *words).ok().out
    assert one == toast("-m", base, "--adapter", adapter, *words).ok().out
    assert json.loads(one)["text"] != json.loads(toast("-m", base, *words).ok().out)["text"]
    hub = tmp_path / "hub/models--me--tune"  # a repository in the cache, whose base is one, too
    shutil.copytree(adapter, hub / "snapshots/1")
    shutil.copytree(base, tmp_path / "hub/models--me--base/snapshots/1")
    for repository in (hub, tmp_path / "hub/models--me--base"):
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text("1")
    config = json.loads((hub / "snapshots/1/adapter_config.json").read_text())
    config |= {name: "me/base" for name in ("model", "base_model_name_or_path") if name in config}
    write_json(hub / "snapshots/1", "adapter_config.json", config)
    env = {"HF_HUB_CACHE": tmp_path / "hub"}
    assert toast("-m", "me/tune", *words, env=env).ok().out == one
    assert toast("-m", "me/base", "--adapter", "me/tune", *words, env=env).ok().out == one


def test_each_is_one_by_one(base, adapter):
    words = ["-m", adapter, "-n", "12", "-t", "0"]
    records = [b"the cat sat", b"blue", b"a dog ran fast", b"the cat"]
    lines = toast(*words, "--each", stdin=b"\n".join(records)).ok().out.splitlines()
    assert lines == [b" ".join(toast(*words, stdin=r).ok().out.split()) for r in records]
    one = toast(*words, "--samples", "2", "-t", "1.5", "hi").ok().out.splitlines()
    assert len(set(one)) == 2 and one == toast(*words, "--samples", "2", "-t", "1.5", "hi").out.splitlines()
    assert toast(*words, "--choice", "red,blue", "hi").ok().out in (b"red\n", b"blue\n")
    assert b"tokens in the prompt" in toast(*words, "--dry-run", "hi").err


def test_the_cache_of_prompts_knows_the_adapter(base, adapter, tmp_path):
    text = b"the cat sat on a mat. " * 30
    words = ["-n", "12", "-t", "0"]
    want = [toast("-m", m, *words, "--no-cache", stdin=text).ok().out for m in (base, adapter)]
    code = (
        "from toast import answer; answer.WORTH_KEEPING = 0; from toast.cli import toast; toast()"  # else half a second
    )

    def run(model):
        argv = [sys.executable, "-c", code, "-v", "-m", model, *words]
        ran = subprocess.run(argv, input=text, capture_output=True, env={**os.environ, "TOAST_HOME": str(tmp_path)})
        return ran.stdout, b" 0 known" in ran.stderr

    assert [run(m) for m in (base, adapter)] == [(want[0], True), (want[1], True)]
    assert [run(m) for m in (base, adapter)] == [(want[0], False), (want[1], False)]


def test_other_commands(base, adapter, model):
    for words in (["rerank", "cat"], ["embed"], ["index"]):
        command(*words, "-m", adapter, stdin=b"cat\n").fails(f"{adapter} is an adapter of a language model", "toast -m")
    assert command("classify", "-l", "a,b", "-c", "-m", adapter, stdin=b"cat\n").ok().out.count(b"\n") == 2
    counts = [command("tokenize", "--count", "-m", m, stdin=b"the cat").ok().out for m in (base, adapter)]
    assert counts[0] == counts[1]


def test_an_adapter_with_a_tokenizer_of_its_own(base, tmp_path):
    """And its template: it was trained with them."""
    path = Change().peft(tmp_path / "a", base)
    for name in WORDS:
        shutil.copy(os.path.join(LLAMA, name), path)
    (tmp_path / "a/chat_template.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    assert toast("-m", path, "--dry-run", "hi").out == b"[hi]\n"
    assert toast("-m", base, "--dry-run", "hi").out != b"[hi]\n"
    more = json.loads((tmp_path / "a/tokenizer.json").read_text())
    last = {**more["added_tokens"][-1], "content": "<|new|>", "id": tiny_adapter.V}
    more["added_tokens"].append(last)
    write_json(path, "tokenizer.json", more)
    toast("-m", path, "hi").fails("its tokenizer has more tokens than the base, 660")


# ---------------------------------------------------------------- what is none


def settings(path, **changes):
    config = json.loads(open(os.path.join(path, "adapter_config.json")).read())
    write_json(path, "adapter_config.json", config | changes)
    return path


@pytest.mark.parametrize(
    "layout, changes, told",
    [
        ("mlx", {"fine_tune_type": "magic"}, "fine_tune_type 'magic'"),
        ("mlx", {"lora_parameters": {"rank": 8, "scale": 1.0}}, "has rank 4, adapter_config.json says 8"),
        ("mlx", {"lora_parameters": {"rank": 4, "alpha": 1.0}}, "no 'scale' in its settings"),
        ("mlx", {"lora_parameters": 7}, ""),
        ("peft", {"peft_type": "LOHA"}, "peft_type 'LOHA'"),
        ("peft", {"r": 2}, "has rank 4, adapter_config.json says 2"),
        ("peft", {"rank_pattern": {"up_proj": 3}}, "up_proj has rank 4, adapter_config.json says 3"),
        ("peft", {"layer_replication": [[0, 1]]}, "layer_replication"),
        ("peft", {"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ("peft", {"rank_pattern": {"(": 3}}, ""),
    ],
)
def test_settings_that_do_not_fit(base, tmp_path, layout, changes, told):
    path = settings(getattr(Change(), layout)(tmp_path / "a", base), **changes)
    toast("-m", path, "hi").fails(path, told)


def test_bases_that_are_not_here(base, tmp_path):
    peft = Change().peft(tmp_path / "a", "owner/Base-1B")
    toast("-m", peft, "hi").fails("its base 'owner/Base-1B' is not here", "model pull owner/Base-1B", "--adapter")
    assert toast("-m", base, "--adapter", peft, "-n", "4", "hi").ok().out
    toast("-m", settings(peft, base_model_name_or_path=None), "hi").fails("names no base model", "-m BASE --adapter")
    toast("-m", settings(peft, base_model_name_or_path=["x"]), "hi").fails("not a name")
    other = Change().mlx(tmp_path / "b", peft)
    toast("-m", other, "hi").fails("is an adapter, too")
    toast("-m", other, "--adapter", peft, "hi").fails("is an adapter, too")
    bert = tiny.bert(tmp_path / "bert")
    toast("-m", settings(other, model=bert), "hi").fails("is an embedding model", f"embed -m {bert}")


def test_adapters_of_other_models(base, tmp_path):
    change = Change(["model.layers.7.mlp.up_proj", *LAYERS])
    for layout in ("mlx", "peft"):
        path = getattr(change, layout)(tmp_path / layout, base)
        toast("-m", path, "hi").fails(f"{path}: it is for another model", "has no model.layers.7.mlp.up_proj")
    wide = Change(["model.layers.1.self_attn.q_proj"])
    a, b, m = wide.parts["model.layers.1.self_attn.q_proj"]
    wide.parts = {"model.layers.1.mlp.down_proj": (a, b, m)}
    path = wide.peft(tmp_path / "wide", base)
    toast("-m", path, "hi").fails("it is for another model", "model.layers.1.mlp.down_proj", "(64, 64)", "(64, 128)")


def test_folders_that_are_none(base, tmp_path):
    path = Change().mlx(tmp_path / "a", base)
    toast("-m", base, "--adapter", base, "hi").fails("not an adapter: no adapter_config.json")
    toast("-m", base, "--adapter", tmp_path / "none", "hi").fails("no adapter", "none")
    toast("-m", base, "--adapter", os.path.join(base, "config.json"), "hi").fails("is no folder of an adapter")
    os.rename(os.path.join(path, "adapters.safetensors"), os.path.join(path, "adapters.npz"))
    toast("-m", path, "hi").fails(f"{path}: no adapters.safetensors")
    with open(os.path.join(path, "adapters.safetensors"), "wb") as file:
        file.write(b"not tensors at all")
    toast("-m", path, "hi").fails(path)
    peft = Change().peft(tmp_path / "p", base)
    os.rename(os.path.join(peft, "adapter_model.safetensors"), os.path.join(peft, "adapter_model.bin"))
    toast("-m", peft, "hi").fails("no adapter_model.safetensors", "safe_serialization")
    write_json(peft, "adapter_config.json", {"r": 8})
    toast("-m", peft, "hi").fails("neither MLX-LM's nor PEFT's")
    (tmp_path / "p/adapter_config.json").write_text("{")
    toast("-m", peft, "hi").fails("adapter_config.json")


@pytest.mark.parametrize("drop", ["lora_a", "lora_b"])
def test_half_a_pair(base, tmp_path, drop):
    path = Change().mlx(tmp_path / "a", base)
    file = os.path.join(path, "adapters.safetensors")
    name = f"{LAYERS[3]}.{drop}"
    mx.save_safetensors(file, {k: v for k, v in mx.load(file).items() if k != name})
    with pytest.raises(BadModel, match=f"{LAYERS[3]}: not a pair"):
        LanguageModel(base, path)


def test_a_model_that_has_adapters_settings_beside_its_weights(base, tmp_path):
    """It is the model: somebody merged it in place."""
    shutil.copytree(base, tmp_path / "m")
    write_json(tmp_path / "m", "adapter_config.json", {"peft_type": "LORA"})
    assert (
        toast("-m", tmp_path / "m", "-n", "4", "-t", "0", "hi").ok().out
        == toast("-m", base, "-n", "4", "-t", "0", "hi").out
    )
