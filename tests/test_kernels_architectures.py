"""Models beyond Llama's own file whose layers are one op: the bits are those of MLX-LM's code."""

import mlx.core as mx
import numpy as np
import pytest
from test_kernels_fast import bits

from toast import kernels
from toast.generation.decoder import architecture
from toast.kernels import known

ext = pytest.importorskip("toast.kernels._ext")

ARGS = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": 50,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
WINDOW = 20
GEMMA = {
    "query_pre_attn_scalar": 16,
    "sliding_window": WINDOW,
    "sliding_window_pattern": 2,
    "rope_local_base_freq": 100.0,
}
QWEN3_MOE = {
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [2],
}
QWEN2_MOE = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 32}
OLMOE = {"num_experts": 16, "num_experts_per_tok": 4, "intermediate_size": 32, "attention_bias": True}
# file -> more settings, its model's class, the kinds of its model and its blocks
MODELS = {
    "qwen2": ({}, "Qwen2Model", "TransformerBlock"),
    "qwen3": ({}, "Qwen3Model", "TransformerBlock"),
    "phi3": ({"partial_rotary_factor": 0.5}, "Phi3Model", "TransformerBlock"),
    "gemma3_text": (GEMMA, "Gemma3Model", "Gemma3Block"),
    "qwen3_moe": (QWEN3_MOE, "Qwen2Model", "TransformerBlock"),
    "qwen2_moe": ({**QWEN2_MOE, "shared_expert_intermediate_size": 96}, "Phi3Model", "TransformerBlock"),
    "olmoe": (OLMOE, "OlmoeModel", "OlmoeBlock"),
    "mixtral": ({"num_local_experts": 6, "num_experts_per_tok": 2}, "Qwen3Model", "MixtralBlock"),
}


@pytest.fixture(autouse=True)
def installed():
    if kernels.install() == "off":
        pytest.skip("no kernels on this device")


def make(name, dtype=mx.float32, form=lambda path, module: hasattr(module, "to_quantized"), **more):
    """A small model with weights of all sizes, quantised as `form` says, norms and biases that are not one or zero."""
    import mlx.nn as nn
    from mlx.utils import tree_map

    module = architecture(name, {"model_type": name})
    kernels.install_nn()
    model = module.Model(module.ModelArgs.from_dict({**ARGS, "model_type": name, **MODELS[name][0], **more}))
    if name == "gemma3_text":
        model.sanitize({})
    mx.random.seed(3)
    model.update(tree_map(lambda x: x + 0.1 * mx.random.normal(x.shape), model.parameters()))
    model.set_dtype(dtype)
    for layer in model.layers:  # a router for which experts are alike
        gate = getattr(layer.get("mlp") or layer.block_sparse_moe, "gate", None)
        if gate is not None:
            gate.weight = mx.concatenate([gate.weight[:-4], gate.weight[:4]])
    nn.quantize(model, 32, 4, class_predicate=form)
    mx.eval(model.parameters())
    return model


def caches(model, *, narrow=False):
    from mlx_lm.models.cache import make_prompt_cache

    found = make_prompt_cache(model)
    for cache, layer in zip(found, model.layers, strict=True):
        if narrow:
            empty = mx.zeros((1, layer.fused.kv_heads, 0, layer.fused.head_dims), layer.fused.kv_dtype)
            cache.keys, cache.values = empty, empty
    return found


def logits(model, pieces, cache):
    return [bits(model(mx.array([piece]), cache)) for piece in pieces]


def ways(model, name, monkeypatch, pieces):
    """The logits of all layers as one op, of one op for each, and of MLX-LM's own code."""
    _, whole, block = MODELS[name]
    yield logits(model, pieces, caches(model))
    assert type(model.model.fused) is type(model.layers[1].fused) is ext.DecoderLayers
    monkeypatch.setattr(type(model.model), "__call__", known.originals[whole])
    yield logits(model, pieces, caches(model))
    monkeypatch.setattr(type(model.layers[0]), "__call__", known.originals[block])
    yield logits(model, pieces, caches(model, narrow=True))


def pieces_of(*lengths, steps):
    tokens = np.random.default_rng(0).integers(0, 50, sum(lengths) + steps).tolist()
    found = []
    for length in lengths:
        found.append(tokens[:length])
        tokens = tokens[length:]
    return found + [[token] for token in tokens]


DTYPES = [mx.float32, mx.float16, mx.bfloat16]
EVERY = [(name, dtype) for name in MODELS for dtype in DTYPES if name != "gemma3_text" or dtype == mx.float32]


@pytest.mark.parametrize(("name", "dtype"), EVERY)
def test_layers_are_their_parts(name, dtype, monkeypatch):
    """Pieces of a prompt, and steps past the cache's growth; with Gemma's, past its windows, too."""
    model = make(name, dtype)
    pieces = pieces_of(13, 240, 1, steps=12)
    one, each, parts = ways(model, name, monkeypatch, pieces)
    for a, b, c in zip(one, each, parts, strict=True):
        assert np.isfinite(a.view(np.uint32).view(np.float32) if dtype == mx.float32 else 0).all()
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize(
    "lengths", [(1,), (WINDOW,), (WINDOW - 1,), (WINDOW + 1,), (3, 5), (3, WINDOW + 9), (WINDOW, 2)]
)
def test_a_ring_is_mlx_lms(lengths, monkeypatch):
    """Prompts around the window, then steps until the ring has gone round twice."""
    model = make("gemma3_text")
    pieces = pieces_of(*lengths, steps=2 * WINDOW + 3)
    one, each, parts = ways(model, "gemma3_text", monkeypatch, pieces)
    for a, b, c in zip(one, each, parts, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_a_ring_that_is_trimmed_goes_on():
    model = make("gemma3_text")
    pieces = pieces_of(6, steps=8)
    cache = caches(model)
    expected = logits(model, pieces, cache)
    cache = caches(model)
    logits(model, pieces[:5], cache)
    assert [one.trim(2) for one in cache] == [2] * 4
    for a, b in zip(expected[3:], logits(model, pieces[3:], cache), strict=True):
        np.testing.assert_array_equal(a, b)


def test_how_a_prompt_is_cut_changes_nothing():
    """Pieces that a ring takes as one op and pieces that it does not store the same."""
    model = make("gemma3_text")
    tokens = pieces_of(WINDOW + 9, steps=0)[0]
    last = [logits(model, [tokens[:n], tokens[n:], [7]], caches(model))[-1] for n in (1, 5, WINDOW, WINDOW + 3)]
    for other in last[1:]:
        np.testing.assert_array_equal(last[0], other)


def test_rings_are_not_put_side_by_side():
    assert not kernels.supports_ragged_batch(make("gemma3_text"))
    assert kernels.supports_ragged_batch(make("qwen3"))


@pytest.mark.parametrize("name", MODELS)
def test_texts_side_by_side_are_each_alone(name):
    from test_kernels_modules import batch_is_single

    batch_is_single(make(name))


def test_half_precision_gemma_goes_the_unfused_way():
    """Its residuals are clipped, and its GELU is rounded before it is multiplied."""
    model = make("gemma3_text", mx.float16)
    logits(model, [[1, 2], [3]], caches(model))
    assert model.layers[0].fused is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_biases_of_symmetric_codes_are_not_read(dtype, monkeypatch):
    """Zero in the middle of all codes: a layer as one op takes the biases from the scales, MLX-LM's code reads them."""
    model = make("qwen3", dtype)
    for layer in model.layers:
        for part in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp.up_proj, layer.mlp.down_proj):
            part.biases = part.scales * -8
    one, each, parts = ways(model, "qwen3", monkeypatch, pieces_of(13, 5, steps=3))
    for a, b, c in zip(one, each, parts, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


EIGHT = {"bits": 8, "group_size": 64}
ROUTERS = {
    "4 bits": lambda path, module: hasattr(module, "to_quantized"),
    "8 bits": lambda path, module: hasattr(module, "to_quantized") and (not path.endswith("gate") or EIGHT),
    "float": lambda path, module: hasattr(module, "to_quantized") and not path.endswith("gate"),
}


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("more", [
    {}, {"norm_topk_prob": False}, {"num_experts": 96, "num_experts_per_tok": 8},
    {"num_experts_per_tok": 16}, {"num_experts_per_tok": 1, "decoder_sparse_step": 2, "mlp_only_layers": []},
])  # fmt: skip
def test_a_mixture_is_its_parts(router, dtype, more, monkeypatch):
    """Few rows and many, experts that the router cannot tell apart, layers without any, numbers that are not finite."""
    model = make("qwen3_moe", dtype, form=ROUTERS[router], **more)
    model.model.embed_tokens.scales[7] = float("inf")
    pieces = [[8 if token == 7 else token for token in piece] for piece in pieces_of(3, 40, 1, steps=6)]
    one, each, parts = ways(model, "qwen3_moe", monkeypatch, [*pieces, [9, 7, 10], [11]])
    assert model.model.fused.mixtures == sum("switch_mlp" in layer.mlp for layer in model.layers)
    for a, b, c in zip(one, each, parts, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "eight"), [(64, "none"), (192, "none"), (64, "shared_expert."), (128, "down_proj")])
def test_a_shared_expert_is_its_parts(router, dtype, width, eight, monkeypatch):
    """As wide as the others or not, in other bits than they."""
    form = ROUTERS[router]
    model = make("qwen2_moe", dtype, form=lambda path, module: EIGHT if eight in path else form(path, module),
                 moe_intermediate_size=64, shared_expert_intermediate_size=width)  # fmt: skip
    model.model.embed_tokens.scales[7] = float("inf")
    pieces = [[8 if token == 7 else token for token in piece] for piece in pieces_of(3, 40, 1, steps=6)]
    one, each, parts = ways(model, "qwen2_moe", monkeypatch, [*pieces, [9, 7, 10], [11]])
    for a, b, c in zip(one, each, parts, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


OTHER_MIXTURES = {
    "qwen3_moe": [
        lambda mlp: setattr(mlp.gate, "bias", mx.zeros(16)), lambda mlp: setattr(mlp, "sharding_group", object()),
        lambda mlp: setattr(mlp.switch_mlp.up_proj, "bias", mx.zeros((16, 32))),
        lambda mlp: setattr(mlp, "top_k", 17),
    ],
    "qwen2_moe": [
        lambda mlp: setattr(mlp.shared_expert_gate, "bias", mx.zeros(1)),
        lambda mlp: setattr(mlp.shared_expert.up_proj, "bias", mx.zeros(96)),
        lambda mlp: setattr(mlp.shared_expert, "down_proj", mlp.shared_expert.up_proj),
        lambda mlp: setattr(mlp, "shared_expert", type("Other", (type(mlp.shared_expert),), {"__call__": id})(64, 96)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name, change", [(name, change) for name, all in OTHER_MIXTURES.items() for change in all])
def test_other_mixtures_go_the_unfused_way(name, change):
    from toast.kernels import modules

    model = make(name)
    change(model.layers[0].mlp)
    assert modules._make_layer(model.layers[0]) is None
    assert modules._make_layer(model.layers[1]) is not None
