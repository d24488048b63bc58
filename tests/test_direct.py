"""A model straight from its tensors is MLX-LM's to the bit, whatever is asked of it; a prompt in one call, too."""

import json
import os
import shutil

import mlx.core as mx
import numpy as np
import pytest
from test_imports import loaded_by
from tiny_adapter import llama

from toast import kernels
from toast.errors import BadModel
from toast.generation import decoder, direct, last_row
from toast.generation.direct import Direct
from toast.generation.generate import prefill

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
IDS = np.random.default_rng(0).integers(3, 600, 600).tolist()
CUTS = [[600], [1, 255, 1, 343], [100] * 6, [599, 1]]


@pytest.fixture(autouse=True)
def our_kernels():
    if kernels.install() == "off":
        pytest.skip("no kernels on this device")


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
SETTINGS = [
    (4, {}), (8, {"tie_word_embeddings": False}), (6, {"head_dim": 64}), (4, {"rope_scaling": LLAMA3}),
    (4, {"model_type": "qwen2"}), (4, {"model_type": "qwen3", "head_dim": 64}),
    (8, {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": False, "rope_scaling": LLAMA3}),
]  # fmt: skip


@pytest.fixture(scope="module", params=SETTINGS)
def folder(request, tmp_path_factory):
    bits, settings = request.param
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}  # of 32 dimensions
    return llama(tmp_path_factory.mktemp("direct") / "m", bits=bits, **heads | settings)


def read(model, caches, cuts):
    """The logits of a text read in pieces, and the keys and values of all layers."""
    found, at = [], 0
    for length in cuts:
        found.append(np.array(model(mx.array([IDS[at : at + length]]), cache=caches)[0].astype(mx.float32)))
        at += length
    kept = [np.array(x[..., :at, :].astype(mx.float32)) for cache in caches for x in cache.state[:2]]
    return np.concatenate(found), kept


@pytest.mark.parametrize("cuts", CUTS)
def test_the_same_bits(folder, cuts):
    found, whole = decoder.light(folder)[0], decoder.load(folder)[0]
    assert isinstance(found, Direct) and not isinstance(whole, Direct)
    (logits, kept), (expected, old) = (read(model, decoder.caches(model), cuts) for model in (found, whole))
    np.testing.assert_array_equal(logits, expected)
    for a, b in zip(kept, old, strict=True):
        np.testing.assert_array_equal(a, b)
    assert found._whole is None


def test_what_it_has_not_itself_is_the_whole_ones(folder):
    """Caches of other kinds, layers, and caches of its own that the whole model is given."""
    found, whole = decoder.light(folder)[0], decoder.load(folder)[0]
    expected, _ = read(whole, decoder.caches(whole), [600])
    for model, caches in ((found, decoder.caches(whole)), (whole, decoder.caches(found))):
        np.testing.assert_array_equal(read(model, caches, [300, 300])[0], expected)
    assert len(found.layers) == len(whole.layers) == found.fused_layers()[1]
    assert kernels.fused_layers(found) == kernels.fused_layers(whole)


def test_a_cache_forgets(folder):
    model = decoder.light(folder)[0]
    caches = decoder.caches(model)
    read(model, caches, [300])
    for cache in caches:
        assert cache.trim(100) == 100 and cache.size() == 200 and cache.is_trimmable()
    again = decoder.caches(model)
    read(model, again, [200])
    a, b = (np.array(model(mx.array([[5]]), cache=c)[0]) for c in (caches, again))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["direct", "llama", "qwen3-causal", "llama-causal"])
@pytest.mark.parametrize("before", [0, 1, 70])
def test_the_last_row(folder, name, before):
    """Its logits, and the caches, are those of the last token fed alone."""
    path = folder if name in ("direct", "llama") else os.path.join(ORACLES, name)
    model = (decoder.light if name == "direct" else decoder.load)(path)[0]
    ids = IDS[: before + 40]
    at_once, apart = decoder.caches(model), decoder.caches(model)
    for caches in (at_once, apart):
        prefill(model, caches, ids[:before])
    found = last_row.logits(model, at_once, ids[before:])
    prefill(model, apart, ids[before:-1])
    expected = model(mx.array([ids[-1:]]), cache=apart)[0, -1]
    assert found is not None
    np.testing.assert_array_equal(np.array(found), np.array(expected))
    for a, b in zip(at_once, apart, strict=True):
        np.testing.assert_array_equal(np.array(a.keys[..., : len(ids), :]), np.array(b.keys[..., : len(ids), :]))


LINEAR = {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}
WINDOW = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("llama", LINEAR), ("llama", {"model_type": "mistral"}), ("llama", {"rope_traditional": True}),
        ("qwen2", LINEAR), ("qwen2", WINDOW), ("qwen3", LINEAR), ("qwen3", WINDOW), ("qwen3", {"attention_bias": True}),
    ],
)  # fmt: skip
def test_what_is_not_surely_of_this_kind_is_the_whole_one(tmp_path, kind, change):
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    folder = llama(tmp_path / "m", bits=4, model_type=kind, **heads)
    assert isinstance(decoder.light(folder)[0], Direct)
    config = json.loads((tmp_path / "m" / "config.json").read_bytes())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | change))
    assert not isinstance(decoder.light(folder)[0], Direct)


@pytest.mark.parametrize("scaling", ["linear", 2.0, ["llama3"], True])
def test_scaling_of_another_shape_is_not_of_this_kind(folder, scaling):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    assert direct.may_be(config) and not direct.may_be(config | {"rope_scaling": scaling})


@pytest.mark.parametrize("change", [{"num_hidden_layers": 1}, {"num_hidden_layers": 3}, {"intermediate_size": 32}])
def test_what_does_not_fit_is_told(folder, tmp_path, change):
    shutil.copytree(folder, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_bytes())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(BadModel):
        decoder.light(str(tmp_path / "m"))


def test_an_answer_starts_light(folder):
    loaded = loaded_by("toast", "-m", folder, "-n", "1", "--no-input", "hello")
    heavy = {"mlx.nn", "mlx_lm.models.llama", "mlx_lm.models.cache", "numpy", "transformers"}
    assert "mlx.core" in loaded and not heavy & loaded
