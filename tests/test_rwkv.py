"""RWKV-7's layers as one op: what MLX-LM makes of them, in every variant, quantised or not; the same bits however a
text is cut and whatever else is in the batch; and what the op does not know, by MLX-LM's own code."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from test_hybrid import kernels_afterwards, logits, made, use
from test_kernels_fast import VARIANTS, bits, f32

from toast import kernels
from toast.kernels import recurrent, rwkv

ext = pytest.importorskip("toast.kernels._ext")
__all__ = ["kernels_afterwards"]

WIDE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "num_hidden_layers": 3, "a_low_rank_dim": 32,
        "v_low_rank_dim": 8, "gate_low_rank_dim": 64, "decay_low_rank_dim": 32}  # fmt: skip
TOKENS = np.random.default_rng(2).integers(3, 60, (3, 262))
PIECES = np.split(TOKENS, [70, 239, *range(240, 262)], axis=1)


def dense(dtype=mx.float32):
    return made("rwkv7", dtype, **WIDE)


def quantized(dtype=mx.float32):
    """4 bits and 8, groups of two sizes, and what no group divides as it is."""
    model = dense(dtype)
    forms = [{"bits": 4, "group_size": 32}, {"bits": 8, "group_size": 32}, {"bits": 4, "group_size": 64}]

    def form(path, m):
        if not hasattr(m, "to_quantized") or m.weight.shape[-1] % 32:
            return False
        return forms[1 if "lora.2" in path or "k_proj" in path else 2 if "r_proj" in path else 0]

    nn.quantize(model, class_predicate=form)
    mx.eval(model.parameters())
    return model


def by_parts(model, *args, **more):
    """The same by MLX-LM's own model, whose recurrence is ours."""
    fused = type(model.model).__call__
    type(model.model).__call__ = recurrent._unfused["Rwkv7Model"]
    try:
        found = logits(model, *args, **more)
        mx.eval(found)
        return found
    finally:
        type(model.model).__call__ = fused


def near(ours, theirs, tolerance=1e-4):
    ours, theirs = f32(ours), f32(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


# of quantised layers, whose activations become int8: the least difference may round one otherwise
ROUNDED = 0.03


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("make", "tolerance"), [(dense, 1e-4), (quantized, ROUNDED)])
def test_layers_are_what_mlx_lm_makes_of_them(variant, make, tolerance):
    """A prompt, a second one, and steps."""
    model = make()
    use(variant)
    ours = logits(model, PIECES)
    assert type(model.model.fused) is ext.RwkvLayers and kernels.fused_layers(model) == (3, 3)
    theirs = by_parts(model, PIECES)
    near(ours, theirs, tolerance)
    assert np.abs(f32(ours) - f32(theirs)).mean() < 1e-3 * np.abs(f32(theirs)).mean()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_narrow_layers_are_nearer_than_mlx_lms(dtype):
    """To the same in float32: within the layers nothing is rounded."""
    narrow = dense(dtype)
    use(VARIANTS[-1])
    ours, theirs = logits(narrow, PIECES), by_parts(narrow, PIECES)
    assert ours.dtype == theirs.dtype == dtype
    wide = dense(dtype)
    wide.set_dtype(mx.float32)
    want = f32(logits(wide, PIECES))
    far = [np.abs(f32(x) - want).max() for x in (ours, theirs)]
    assert far[0] < far[1]


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_a_text_has_its_bits_however_it_is_cut(dtype):
    model = quantized(dtype)
    use(VARIANTS[-1])
    whole = bits(logits(model, [TOKENS]))
    np.testing.assert_array_equal(bits(logits(model, PIECES)), whole)
    for threads in (1, 3):
        ext.set_threads(threads)
        np.testing.assert_array_equal(bits(logits(model, PIECES, slice(1, 2)))[0], whole[1])


def test_either_way_goes_on_from_the_other():
    model = dense()
    use(VARIANTS[-1])
    want = logits(model, [TOKENS])
    for first, second in ((logits, by_parts), (by_parts, logits)):
        cache = model.make_cache()
        begun = first(model, [TOKENS[:, :99]], cache=cache)
        near(mx.concatenate([begun, second(model, [TOKENS[:, 99:]], cache=cache)], axis=1), want)


def test_a_state_that_others_hold_is_not_written():
    model = quantized()
    use(VARIANTS[-1])
    cache = model.make_cache()
    logits(model, [TOKENS[:, :9]], cache=cache)
    held = [[mx.array(one) for one in layer.state[0]] for layer in cache]
    again = model.make_cache()
    for layer, kept in zip(again, held, strict=True):
        layer.state = list(kept), None, None
    first = bits(logits(model, [TOKENS[:, 9:12]], cache=cache))
    second = bits(logits(model, [TOKENS[:, 9:12]], cache=again))
    for layer, kept in zip(again, held, strict=True):
        layer.state = list(kept), None, None
    np.testing.assert_array_equal(second, first)
    np.testing.assert_array_equal(bits(logits(model, [TOKENS[:, 9:12]], cache=again)), first)


def test_what_is_not_known_is_mlx_lms_own():
    from mlx_lm.tuner.lora import LoRALinear

    model = dense()
    use(VARIANTS[-1])
    want = logits(model, PIECES)
    near(model(mx.array(TOKENS)), want)  # without a cache
    del model.model.fused, model.model.layers[1].fused
    model.model.layers[1].attn.r_proj = LoRALinear.from_base(model.model.layers[1].attn.r_proj)
    near(logits(model, PIECES), want)
    assert model.model.fused is None and kernels.fused_layers(model) == (2, 3)


def test_layers_and_states_that_do_not_fit_are_refused():
    model = quantized()
    use(VARIANTS[-1])
    parts = [rwkv._make_layer(layer) for layer in model.layers]
    layers, x = ext.RwkvLayers.stack(parts), mx.zeros((2, 4, 64))
    assert layers.takes(x) and not layers.takes(x.astype(mx.float16)) and not layers.takes(x[..., :32])
    for wrong in ([], parts[1:], [parts[0], parts[0]]):
        with pytest.raises(ValueError):
            ext.RwkvLayers.stack(wrong)
    for states in ([None] * 8, [mx.zeros((1, 1, 64))] + [None] * 8):
        with pytest.raises(ValueError):
            layers(x, states)
    with pytest.raises(ValueError):
        parts[1](x, [None] * 3)
    model.layers[1].attn.k_k = mx.zeros((4, 15))
    assert rwkv._make_layer(model.layers[1]) is None


def test_mapped_weights_are_not_copied():
    """Arrays whose buffers are larger than they are, as mapped ones seem to be: MLX's contiguous() copies such."""
    model = made("rwkv7", mx.float32, **WIDE | {"hidden_size": 512, "intermediate_size": 2048})
    use(VARIANTS[-1])
    for linear in [layer.ffn[name] for layer in model.layers for name in ("key", "value")]:
        linear.weight = mx.concatenate([linear.weight, linear.weight])[: len(linear.weight)]
    mx.eval(model.parameters())
    before = mx.get_active_memory()
    assert all(rwkv._make_layer(layer) for layer in model.layers)
    assert mx.get_active_memory() - before < model.layers[0].ffn.key.weight.nbytes / 2
