"""Models with layers that have a state: by our kernels as MLX-LM has them, in every variant; and the same bits however
a text is cut and whatever else is in the batch."""

import every_architecture
import mlx.core as mx
import numpy as np
import pytest
from test_kernels_fast import VARIANTS, bits, f32

from toast import kernels
from toast.generation import decoder
from toast.kernels import hybrid, recurrent
from toast.store.config import normalised

ext = pytest.importorskip("toast.kernels._ext")

DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 24, "linear_value_head_dim": 40}
NEXT = {"num_experts": 0, "num_hidden_layers": 3, "full_attention_interval": 3, **DELTA}
TEXT = {"qwen3_5": {"full_attention_interval": 2, "num_experts": 0, **DELTA}}
LFM2 = {"block_multiple_of": 8, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
        "layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3, "block_dim": 64, "hidden_size": 64,
        "block_ff_dim": 96}  # fmt: skip
# a power of two: products by it are exact, whatever rounds them
GRANITE = {"residual_multiplier": 0.25, "embedding_multiplier": 3.0, "attention_multiplier": 0.2,
           "position_embedding_type": "nope"}  # fmt: skip
MORE = {"qwen3_next": NEXT, "kimi_linear": {}, "olmo_hybrid": DELTA, "lfm2": LFM2}
OTHERS = ["mamba2", "falcon_h1", "granitemoehybrid", "nemotron_h", "rwkv7"]
NAMES = [*MORE, *TEXT, *OTHERS]
FUSED = {"qwen3_next": {}, "qwen3_5": {}, "lfm2": {}, "granitemoehybrid": GRANITE, "falcon_h1": {}}
EXPERTS = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 64}
# of one layer without experts, where a model may have it; as wide as the others, or not
MIXTURES = {
    "qwen3_next": EXPERTS | {"mlp_only_layers": [1], "shared_expert_intermediate_size": 64, "norm_topk_prob": True},
    "qwen3_5": EXPERTS | {"shared_expert_intermediate_size": 128, "norm_topk_prob": False},
}
# MLA does one token otherwise, and MLX multiplies by experts otherwise
CUT = [name for name in NAMES if name not in ("kimi_linear", "granitemoehybrid", "nemotron_h")]


@pytest.fixture(autouse=True)
def kernels_afterwards():
    yield
    kernels.install()
    kernels.install_nn()
    ext.set_threads(0)


def made(name, dtype=mx.float32, **more):
    known = every_architecture.fixture(name) if name in OTHERS else None
    config = (known[0] if known else every_architecture.settings(name)) | MORE.get(name, {})
    if name in TEXT:
        config["text_config"] |= TEXT[name] | more
    else:
        config |= more
    module = decoder.architecture(".", config)
    mx.random.seed(1)
    model = module.Model(decoder._arguments(module, normalised(dict(config))))
    from mlx.utils import tree_flatten, tree_unflatten

    shifted = [(key, a + 0.1 * mx.random.normal(a.shape)) for key, a in tree_flatten(model.parameters())]
    model.update(tree_unflatten(shifted))
    model.set_dtype(dtype)
    mx.eval(model.parameters())
    return model


def use(variant):
    kernels.install("off")
    assert kernels.install(variant) == variant
    kernels.install_nn()


def logits(model, pieces, rows=slice(None), cache=None):
    cache = cache or model.make_cache()
    return mx.concatenate([mx.array(model(mx.array(piece)[rows], cache=cache)) for piece in pieces], axis=1)


TOKENS = np.random.default_rng(0).integers(3, 60, (3, 90))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_is_what_mlx_lm_makes_of_it(name, variant):
    model = made(name)
    pieces = [TOKENS[:, :70], TOKENS[:, 70:71], TOKENS[:, 71:]]
    use(variant)
    ours = logits(model, pieces)
    mx.eval(ours)
    kernels.install("off")
    theirs = f32(logits(model, pieces))
    np.testing.assert_allclose(f32(ours), theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_a_text_has_its_bits_however_it_is_cut(name, dtype):
    model = made(name, dtype)
    use(VARIANTS[-1])
    whole = bits(logits(model, [TOKENS]))
    for cuts in ([64], [3, 10, 11, 12]):
        np.testing.assert_array_equal(bits(logits(model, np.split(TOKENS, cuts, axis=1))), whole)
    ext.set_threads(3)
    np.testing.assert_array_equal(bits(logits(model, [TOKENS], slice(1, 2)))[0], whole[1])


def test_mixers_are_one_op():
    for name, part in (("qwen3_next", "linear_attn"), ("qwen3_5", "linear_attn"), ("lfm2", "conv"),
                       ("granitemoehybrid", "mamba"), ("falcon_h1", "mamba")):  # fmt: skip
        model = made(name)
        use(VARIANTS[-1])
        logits(model, [TOKENS[:, :3]])
        mixers = [layer[part] for layer in model.layers if part in layer]
        assert mixers and all(type(mixer.fused) is ext.Mixer for mixer in mixers)


def quantized(name, dtype=mx.float32, form=bool, **more):
    """As it is made, in 4 bits and some layers in 8; heads and widths that a group of 32 divides."""
    import mlx.nn as nn

    wide = {"linear_key_head_dim": 24, "linear_value_head_dim": 32, "intermediate_size": 96, "hidden_size": 64} | more
    model = made(name, dtype, **wide)
    forms = [{"bits": 4, "group_size": 32}, {"bits": 8, "group_size": 64}]
    nn.quantize(model, class_predicate=lambda path, m: (
        forms["_z" in path or "k_proj" in path] if hasattr(m, "to_quantized") and form(path) else False))  # fmt: skip
    mx.eval(model.parameters())
    return model


def language_part(model):
    return model.language_model.model if hasattr(model, "language_model") else model.model


@pytest.mark.parametrize(
    "name, feeds",
    [(name, "dense") for name in FUSED]
    + [(name, feeds) for name in MIXTURES for feeds in ("experts", "experts, float routers")],
)
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 3)])
def test_layers_as_one_op_are_their_parts(name, dtype, rows, feeds, monkeypatch):
    """A prompt, a second one, and steps past the growth of the caches."""
    more = MIXTURES[name] if "experts" in feeds else FUSED[name]
    floats = (lambda path: not path.endswith("gate")) if "float" in feeds else bool
    model = quantized(name, dtype, floats, **more)
    fused, parts = both_ways(model, rows, monkeypatch)
    np.testing.assert_array_equal(bits(fused), bits(parts))
    inner = language_part(model)
    assert inner.fused.mixtures == (0 if feeds == "dense" else len(inner.layers) - (name == "qwen3_next"))


def both_ways(model, rows, monkeypatch):
    """Logits with all layers as one op, and layer by layer."""
    tokens = np.random.default_rng(1).integers(3, 60, (3, 262))
    pieces = np.split(tokens, [70, 239, *range(240, 262)], axis=1)
    use(VARIANTS[-1])
    fused = logits(model, pieces, rows)
    inner = language_part(model)
    assert type(inner.fused) is ext.DecoderLayers and kernels.fused_layers(model) == (len(inner.layers),) * 2
    cls = type(inner)
    monkeypatch.setattr(cls, "__call__", recurrent._unfused[cls.__name__])
    caches = model.make_cache()
    for cache in hybrid._flat(caches):
        if hasattr(cache, "keys"):  # of the dtype that fused layers store
            cache.keys = cache.values = mx.zeros(
                (fused.shape[0], inner.fused.kv_heads, 0, inner.fused.head_dims), inner.fused.kv_dtype
            )
    return fused, logits(model, pieces, rows, caches)


@pytest.mark.parametrize("name, more", [*FUSED.items(), *MIXTURES.items()])
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_op_has_its_bits_however_a_text_is_cut(name, more, variant):
    model = quantized(name, **more)
    use(variant)
    whole = bits(logits(model, [TOKENS]))
    np.testing.assert_array_equal(bits(logits(model, np.split(TOKENS, [3, 10, 11, 12, 64], axis=1))), whole)
    ext.set_threads(3)
    np.testing.assert_array_equal(bits(logits(model, [TOKENS], slice(1, 2)))[0], whole[1])
    assert bool(language_part(model).fused.mixtures) == (more is MIXTURES.get(name))


def test_other_mixtures_are_done_layer_by_layer():
    for change in (lambda mlp: setattr(mlp.shared_expert_gate, "bias", mx.zeros(1)),
                   lambda mlp: setattr(mlp, "sharding_group", object())):  # fmt: skip
        model = quantized("qwen3_next", **MIXTURES["qwen3_next"])
        use(VARIANTS[-1])
        change(model.layers[2].mlp)
        assert kernels.fused_layers(model) == (2, 3)


def test_granite_with_rope_and_any_residual(monkeypatch):
    """In float32 what is scaled is not rounded in between."""
    more = {"position_embedding_type": "rope", "residual_multiplier": 0.3}
    fused, parts = both_ways(quantized("granitemoehybrid", **more), slice(None), monkeypatch)
    np.testing.assert_array_equal(bits(fused), bits(parts))


@pytest.mark.parametrize("name", FUSED)
def test_a_kept_state_stays(name):
    """What the prefix cache holds of a text is not written when the text goes on."""
    model = quantized(name, **FUSED[name])
    use(VARIANTS[-1])
    cache = model.make_cache()
    mx.eval(logits(model, [TOKENS[:, :40]], cache=cache))
    held = [mx.array(array) for one in hybrid._flat(cache) for array in getattr(one, "cache", [])]
    kept, before = list(map(mx.stop_gradient, held)), [bits(array) for array in held]
    mx.eval(kept, logits(model, [TOKENS[:, 40:41], TOKENS[:, 41:50]], cache=cache))
    assert held
    for array, one in zip(kept, before, strict=True):
        np.testing.assert_array_equal(bits(array), one)


@pytest.mark.parametrize("before", [True, False])
def test_falcons_with_a_norm(before):
    """Before the gate it is MLX-LM's own to do."""
    model = made("falcon_h1", mamba_rms_norm=True, mamba_norm_before_gate=before)
    pieces = [TOKENS[:, :20], TOKENS[:, 20:21]]
    use(VARIANTS[-1])
    ours = f32(logits(model, pieces))
    assert (model.layers[0].mamba.fused is None) == before
    kernels.install("off")
    theirs = f32(logits(model, pieces))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", FUSED)
def test_padding_is_mlx_lms_own(name):
    """A batch of texts of several lengths, padded on the right."""
    model = made(name)
    pieces = [TOKENS[:, :9], TOKENS[:, 9:10]]

    def padded():
        cache = model.make_cache()
        for layer in hybrid._flat(cache):
            layer.prepare(lengths=[9, 5, 7], right_padding=[0, 4, 2]) if hasattr(layer, "lengths") else None
        return f32(model(mx.array(pieces[0]), cache=cache))

    use(VARIANTS[-1])
    ours = padded()
    kernels.install("off")
    np.testing.assert_allclose(ours, padded(), rtol=1e-4, atol=1e-3)
