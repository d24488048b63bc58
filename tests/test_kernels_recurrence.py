"""Layers with a state against MLX-LM's own code, in every variant that this CPU runs; and the bits of a text, however
it is cut, whatever stands beside it, and by any number of threads."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kernels_fast import VARIANTS, best_variant_afterwards, bits, dtypes, f32, numbers, property_test, variants

ext = pytest.importorskip("toast.kernels._ext")
__all__ = ["best_variant_afterwards"]

CONV1D = mx.conv1d
TOLERANCE = {mx.float32: 1e-5, mx.float16: 4e-3, mx.bfloat16: 3e-2}
sizes = st.sampled_from([1, 3, 8, 16, 31, 64, 65, 72])
times = st.sampled_from([1, 2, 7, 9, 65, 70])


def close(ours, theirs, tolerance=1e-4):
    ours, theirs = f32(ours), f32(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(1, float(np.abs(theirs).max())))


@property_test
@given(variants, dtypes, st.integers(1, 2), times, st.sampled_from([1, 5, 16, 33, 1030]), st.integers(1, 4))
def test_short_convolutions_equal_mlx(variant, dtype, B, T, n, taps):
    ext.choose(variant)
    x, w = numbers((B, T + taps - 1, n), dtype), numbers((n, taps, 1), dtype, 1)
    ours = ext.conv1d(x, w, 1, 0, 1, n)
    assert ours.dtype == dtype
    close(ours, CONV1D(x.astype(mx.float32), w.astype(mx.float32), 1, 0, 1, n), TOLERANCE[dtype])
    wide = numbers((B, T + taps - 1, n + 3), dtype)  # rows that are no neighbours
    np.testing.assert_array_equal(
        bits(ext.conv1d(wide[..., 2 : n + 2], w, 1, 0, 1, n)),
        bits(ext.conv1d(mx.contiguous(wide[..., 2 : n + 2]), w, 1, 0, 1, n)),
    )


def test_other_convolutions_are_left_to_mlx():
    x, w = numbers((2, 9, 6)), numbers((4, 3, 6))
    for more in ((1, 1, 1, 1), (2, 0, 1, 1), (1, 0, 2, 1)):
        close(ext.conv1d(x, w, *more), CONV1D(x, w, *more))
    w = numbers((6, 9, 1))
    close(ext.conv1d(x, w, 1, 4, 1, 6), CONV1D(x, w, 1, 4, 1, 6))
    with pytest.raises(ValueError):
        ext.conv1d(x, numbers((6, 3, 2)), 1, 0, 1, 6)


def delta_inputs(B, T, heads, share, dk, dv, wide):
    q, k, v = (
        numbers((B, T, h, d), seed=i) for i, (h, d) in enumerate([(heads, dk), (heads, dk), (heads * share, dv)])
    )
    q, k = (x / mx.sqrt((x * x).sum(-1, keepdims=True)) for x in (q, k))
    gate = numbers((B, T, heads * share, dk) if wide else (B, T, heads * share), seed=3)
    return q, k, v, mx.exp(-mx.abs(gate)), mx.sigmoid(numbers((B, T, heads * share), seed=4))


@property_test
@given(
    variants, st.integers(1, 2), times, st.integers(1, 2), st.integers(1, 3), sizes, sizes, st.booleans(), st.booleans()
)
def test_the_gated_delta_rule_equals_mlx_lm(variant, B, T, heads, share, dk, dv, wide, begun):
    from mlx_lm.models.gated_delta import gated_delta_ops

    ext.choose(variant)
    inputs = delta_inputs(B, T, heads, share, dk, dv, wide)
    state = numbers((B, heads * share, dv, dk), seed=5) if begun else None
    y, after = ext.gated_delta(**dict(zip(("q", "k", "v", "g", "beta"), inputs, strict=True)), state=state)
    theirs = gated_delta_ops(*inputs, state)
    close(y, theirs[0])
    close(after, theirs[1])


@property_test
@given(variants, st.integers(1, 2), times, st.integers(1, 2), st.integers(1, 3), sizes, sizes, st.booleans())
def test_mamba_2_equals_mlx_lm(variant, B, T, groups, share, dk, dv, begun):
    from mlx_lm.models.ssm import ssm_attn

    ext.choose(variant)
    heads = groups * share
    inputs = {
        "A_log": numbers((heads,), seed=0), "D": numbers((heads,), seed=1), "dt_bias": numbers((heads,), seed=2),
        "x": numbers((B, T, heads, dv), seed=3), "B": numbers((B, T, groups, dk), seed=4),
        "C": numbers((B, T, groups, dk), seed=5), "dt": numbers((B, T, heads), seed=6),
        "state": numbers((B, heads, dv, dk), seed=7) if begun else None,
    }  # fmt: skip
    y, after = ext.state_space(limits=(0.01, 1.0), **inputs)
    theirs = ssm_attn(inputs.pop("x"), time_step_limit=(0.01, 1.0), **inputs)
    close(y, theirs[0])
    close(after, theirs[1])


@property_test
@given(variants, st.integers(1, 2), times, st.integers(1, 3), sizes, st.booleans())
def test_rwkv_7_equals_mlx_lm(variant, B, T, heads, D, begun):
    from mlx_lm.models.rwkv7 import _wkv7_step_ops

    ext.choose(variant)
    r, k, v, a, b, w = (numbers((B, T, heads, D), seed=i) for i in range(6))
    a, b = a / D, b / D
    inputs = {"r": r, "w": mx.sigmoid(w), "k": k, "v": v, "a": a, "b": b}
    state = numbers((B, heads, D, D), seed=7) if begun else mx.zeros((B, heads, D, D))
    y, after = ext.wkv7(**inputs, state=state if begun else None)
    theirs = []
    for t in range(T):
        one, state = _wkv7_step_ops(*(x[:, t] for x in inputs.values()), state)
        theirs.append(one[..., 0])
    close(y, mx.stack(theirs, axis=1))
    close(after, state)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_text_has_its_bits_however_it_is_cut(variant):
    ext.choose(variant)
    names = ("q", "k", "v", "g", "beta")
    for wide in (False, True):
        inputs = dict(zip(names, delta_inputs(3, 100, 2, 2, 24, 40, wide), strict=True))
        whole = ext.gated_delta(**inputs, state=None)
        for cuts in ([1, 2, 50], [64], [7, 8, 9, 99]):
            state, parts = None, []
            for start, stop in zip([0, *cuts], [*cuts, 100], strict=True):
                y, state = ext.gated_delta(**{n: x[:, start:stop] for n, x in inputs.items()}, state=state)
                mx.eval(y, state)
                parts.append(y)
            np.testing.assert_array_equal(bits(mx.concatenate(parts, 1)), bits(whole[0]))
            np.testing.assert_array_equal(bits(state), bits(whole[1]))
        ext.set_threads(3)
        alone = ext.gated_delta(**{n: x[1:2] for n, x in inputs.items()}, state=None)
        for one, all_of_them in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(bits(one)[0], bits(all_of_them)[1])
        ext.set_threads(0)


def test_a_state_that_others_hold_is_not_written():
    names = ("q", "k", "v", "g", "beta")
    inputs = dict(zip(names, delta_inputs(1, 1, 2, 1, 8, 8, False), strict=True))
    state = ext.gated_delta(**inputs, state=None)[1]
    mx.eval(state)
    kept, before = mx.array(state), bits(state)
    for held in (mx.contiguous(state), state):
        np.testing.assert_array_equal(
            bits(ext.gated_delta(**inputs, state=held)[1]), bits(ext.gated_delta(**inputs, state=state)[1])
        )
    np.testing.assert_array_equal(bits(kept), before)


@pytest.mark.parametrize("change", [{"q": (1, 4, 3, 8)}, {"g": (1, 4, 2, 9)}, {"beta": (1, 3, 2)}, {"v": (2, 4, 2, 8)}])
def test_shapes_that_do_not_fit_are_refused(change):
    names = ("q", "k", "v", "g", "beta")
    inputs = dict(zip(names, delta_inputs(1, 4, 2, 1, 8, 8, False), strict=True))
    inputs |= {name: numbers(shape) for name, shape in change.items()}
    with pytest.raises(ValueError):
        ext.gated_delta(**inputs, state=None)
    with pytest.raises(ValueError):
        ext.gated_delta(
            **dict(zip(names, delta_inputs(1, 4, 2, 1, 8, 8, False), strict=True)), state=numbers((1, 2, 8, 9))
        )


def mamba(**change):
    """Of two heads of 4 in one group, over a state of 8: the projection has 8 + 24 + 2 columns."""
    parts = {"conv": numbers((24, 4, 1)), "bias": numbers((24,)), "A_log": numbers((2,)), "D": numbers((2,)),
             "dt_bias": numbers((2,)), "limits": (0, 1), "norm": None}  # fmt: skip
    return ext.mamba2(sizes=(2, 1, 4, 8), **parts | change)


def test_mixers_that_do_not_fit_are_refused():
    for change in ({"conv": numbers((24, 5, 1))}, {"conv": numbers((23, 4, 1))}, {"D": numbers((3,))},
                   {"bias": numbers((23,))}, {"norm": (numbers((4,)), 1e-5)}):  # fmt: skip
        with pytest.raises(ValueError):
            mamba(**change)
    with pytest.raises(ValueError):
        ext.short_convolution(numbers((8, 5, 1)))


def test_what_a_mixer_cannot_take_is_refused():
    mixer, x = mamba(), numbers((1, 3, 34))
    y, before, state = mixer([x], None, None)
    assert (y.shape, before.shape, state.shape) == ((1, 3, 8), (1, 3, 24), (1, 2, 4, 8))
    for projected in ([x[..., :33]], [x, x], []):
        with pytest.raises(ValueError):
            mixer(projected, None, None)
    for kept in ((before, None), (None, state), (before[:, 1:], state), (before, state[:, 1:])):
        with pytest.raises(ValueError):
            mixer([x], *kept)
    with pytest.raises(ValueError):  # of another dtype than the norm's
        mamba(norm=(numbers((8,)), 1e-5))([x.astype(mx.float16)], None, None)
