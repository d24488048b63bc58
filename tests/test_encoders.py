"""Encoders against their makers' code: tiny checkpoints as transformers saves them, token states in float32."""

import json
import os
import shutil
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
import seeded
import tiny
from command import command
from tiny import write_safetensors

from toast import kernels, models
from toast.encoding.encoder import EmbeddingModel
from toast.encoding.sentence_transformers import normalize
from toast.encoding.tokens import pad
from toast.errors import BadModel
from toast.models.layers import Tensors
from toast.models.nomic_bert import Experts
from toast.models.rotary import rotary
from toast.task import purpose

NAMES = tiny.oracles("encoders")
CLOSE = 2e-4


fixture = partial(tiny.oracle, "encoders")
pytestmark = pytest.mark.usefixtures("variant")


@pytest.fixture(scope="module")
def model(checkpoints):
    """model(name) -> that checkpoint, loaded once."""
    return checkpoints("encoders", models.encoder)


def given(*runs):
    """ids, lengths, types of these runs as one batch."""
    types = pad([run["types"] for run in runs]) if runs[0]["types"] else None
    return pad([run["ids"] for run in runs]), mx.array([len(run["ids"]) for run in runs]), types


def furthest(states, run):
    """How far the states of a text are from those of its maker."""
    length = len(run["ids"])
    states = np.array(states)[:length]
    some = states[[0, length // 2, length - 1]]
    return max(np.abs(some - run["states"]).max(), np.abs(states.mean(axis=0) - run["mean"]).max())


@pytest.mark.parametrize("name", NAMES)
def test_states(model, name):
    for run in fixture(name)["runs"]:
        if "logits" in run:
            found = np.array(model(name).logits(*given(run))[0])
            assert np.abs(found - run["logits"]).max() <= CLOSE
        else:
            assert furthest(model(name)(*given(run))[0], run) <= CLOSE


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_single_texts_give(model, name):
    runs, exact = fixture(name)["runs"], kernels.variant() != "off"
    together = np.array(model(name)(*given(*runs)))
    for row, run in zip(together, runs, strict=True):
        alone = np.array(model(name)(*given(run))[0])
        assert np.abs(alone - row[: len(alone)]).max() <= (0 if exact else 1e-5)


# ---------------------------------------------------------------- other layouts of the same


def loaded(folder, name, rename, **settings):
    """The fixture's checkpoint with its tensors under other names and other settings."""
    tensors = seeded.tensors(fixture(name)["tensors"])
    changed = {rename(key): array for key, array in tensors.items()}
    config = {key: value for key, value in fixture(name)["config"].items() if key not in settings.pop("without", ())}
    (folder / "config.json").write_text(json.dumps(config | settings))
    write_safetensors(str(folder / "model.safetensors"), changed)
    return models.encoder(str(folder))


def test_gte_under_its_makers_name(tmp_path):
    made = loaded(tmp_path, "gte", lambda key: f"new.{key}", model_type="new", position_embedding_type="rope",
                  layer_norm_type="layer_norm", rope_theta=50000.0, pack_qkv=True, unpad_inputs=True)  # fmt: skip
    for run in fixture("gte")["runs"]:
        assert furthest(made(*given(run))[0], run) <= CLOSE


def test_nomic_bert_with_its_makers_settings(tmp_path):
    hidden = {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps",
              "rope_parameters", "hidden_act", "head_dim"}  # fmt: skip
    config = fixture("nomic_bert")["config"]
    theirs = {"n_embd": config["hidden_size"], "n_inner": config["intermediate_size"], "rotary_emb_base": 50000,
              "n_layer": config["num_hidden_layers"], "n_head": config["num_attention_heads"],
              "layer_norm_epsilon": config["layer_norm_eps"], "activation_function": "swiglu", "n_positions": 2048,
              "rotary_emb_fraction": 1.0, "qkv_proj_bias": False, "prenorm": False, "causal": False}  # fmt: skip
    made = loaded(tmp_path, "nomic_bert", lambda key: key, without=hidden, **theirs)
    for run in fixture("nomic_bert")["runs"]:
        assert furthest(made(*given(run))[0], run) <= CLOSE


def test_experts():
    """As https://huggingface.co/nomic-ai/nomic-embed-text-v2-moe: shares are not made to sum to 1."""
    rng = np.random.default_rng(3)
    D, F, n = 8, 12, 4
    shapes = {"router.layer.weight": (n, D), "experts.mlp.w1": (n * F, D), "experts.mlp.w2": (n * F, D)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["experts.bias"] = rng.normal(size=D).astype(np.float32)
    config = {"hidden_size": D, "intermediate_size": F, "num_experts": n, "moe_top_k": 2, "hidden_act": "relu"}
    experts = Experts(config, Tensors({name: mx.array(array) for name, array in arrays.items()}, config))
    x = rng.normal(size=(2, 5, D)).astype(np.float32)
    found = np.array(experts(mx.array(x)))
    for at in np.ndindex(2, 5):
        shares = np.exp(arrays["router.layer.weight"] @ x[at])
        shares /= shares.sum()
        want = arrays["experts.bias"].copy()
        for e in np.argsort(-shares)[:2]:
            up, down = (arrays[f"experts.mlp.{name}"].reshape(n, F, D)[e] for name in ("w1", "w2"))
            want += shares[e] * (np.maximum(up @ x[at], 0) @ down)
        assert np.abs(found[at] - want).max() <= 1e-4


@pytest.mark.parametrize("scaling, want", [
    ({"type": "ntk", "factor": 8.0}, lambda i, n: (1e4 * 8) ** (i / n) * 8 ** (1 / n)),
    ({"type": "linear", "factor": 4.0}, lambda i, n: 4 * 1e4 ** (i / n)),
    ({"type": "ntk", "factor": 8.0, "mixed_b": 0.75},
     lambda i, n: 1e4 ** (i / n) * np.exp(np.log(8) / n**0.75 * (i + 1) ** 0.75)),
])  # fmt: skip
def test_scaled_rotary_positions(scaling, want):
    dims, at = 8, 5
    x = np.random.default_rng(1).normal(size=(1, 1, at + 1, dims)).astype(np.float32)
    found = np.array(rotary({"rope_theta": 1e4, "rope_scaling": scaling}, dims)(mx.array(x)))[0, 0, at]
    angles = at / np.array([want(i, dims // 2) for i in range(dims // 2)])
    a, b = np.split(x[0, 0, at], 2)
    turned = np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)])
    assert np.abs(found - turned).max() <= 1e-5


# ---------------------------------------------------------------- static embeddings


def static(name):
    """(the folder, its texts, its maker's vectors) of a fixture."""
    folder = os.path.join(tiny.ORACLES, name)
    with open(os.path.join(folder, "oracle.json"), encoding="utf-8") as file:
        return folder, json.load(file)["texts"], np.load(os.path.join(folder, "oracle.npz"))["embeddings"]


STATIC = sorted(name for name in os.listdir(tiny.ORACLES) if name.startswith("static-"))


@pytest.mark.parametrize("name", STATIC)
def test_static_vectors(name):
    folder, texts, want = static(name)
    model = EmbeddingModel(folder)
    vectors = model.states(model.tokens.encode(texts))[2]
    found = np.array(normalize(vectors) if model.sentence.normalize else vectors)
    assert found.shape == want.shape and model.sentence.dims == want.shape[1]
    assert np.abs(found - want).max() <= (1e-3 if name.endswith("f16") else 1e-6)  # they round their own to float16
    assert purpose(folder) == "embed"


@pytest.mark.parametrize("name", STATIC)
def test_static_tables_stay_where_they_are(name):
    model = EmbeddingModel(static(name)[0]).model
    assert model.table.dtype != mx.float32 or name not in ("static-f16", "static-int8")


@pytest.mark.parametrize("tensors", [
    {"embeddings": (9, 4), "mapping": (3,), "weights": (2,)}, {"embeddings": (9,)}, {"other": (9, 4)},
    {"embeddings": (2, 4)}, {"embeddings": (9, 4), "mapping": (200, 2)},
])  # fmt: skip
def test_damaged_static_tables(tmp_path, tensors):
    shutil.copytree(static("static-f32")[0], tmp_path / "m")
    write_safetensors(str(tmp_path / "m" / "model.safetensors"), seeded.tensors(tensors))
    with pytest.raises(BadModel):
        model = EmbeddingModel(str(tmp_path / "m"))
        model.states(model.tokens.encode(["the cat"]))


@pytest.mark.parametrize("name", STATIC)
def test_static_embedders_as_commands(name, tmp_path):
    folder, texts, want = static(name)
    text = "\n".join(texts[1:3]) + "\n"
    found = command("embed", "-m", folder, "--raw", stdin=text.encode()).ok()
    assert len(found.out) == 2 * 4 * want.shape[1]
    command("index", "-m", folder, "-o", "x.db", stdin=text.encode(), cwd=tmp_path).ok(quiet=False)
    assert b"cat" in command("search", "cat", "x.db", cwd=tmp_path).ok().out
    assert command("rerank", "-m", folder, "cat", stdin=text.encode()).ok().out.splitlines()[0] == b"cat"
