"""quantized_matmul, gather_qmm and linear: against MLX in float32, generic against vectors, row by row to the bit.

Activations are rounded to 8 bits, so results are held to 1% relative RMS error, per row.
"""

import os

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ext = pytest.importorskip("toast.kernels._ext")

VARIANTS = [v for v in ("generic", "avx2", "avx512", "neon") if ext.choose(v)]
PLAIN, PLAIN_GATHER = mx.quantized_matmul, mx.gather_qmm
ACTIVATIONS = os.path.join(os.path.dirname(__file__), "oracles", "activations.npz")
TOLERANCE = 0.01

variants = st.sampled_from(VARIANTS)
dtypes = st.sampled_from([mx.float32, mx.float16, mx.bfloat16])
groups = st.sampled_from([32, 64, 128])
widths = st.sampled_from([2, 3, 4, 5, 6, 8])
rows = st.sampled_from([1, 2, 3, 4, 5, 8, 13])
columns = st.sampled_from([1, 7, 16, 31, 32, 33, 80])
property_test = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def best_variant_afterwards():
    yield
    ext.choose("auto")
    ext.set_threads(0)


def numbers(*shape, dtype=mx.float32, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).astype(dtype)


def spiky(*shape, dtype=mx.float32, seed=0):
    """Numbers of which one in fifty is a hundred times larger."""
    x = np.array(numbers(*shape, seed=seed))
    x[np.random.default_rng(seed).random(shape) < 0.02] *= 100
    return mx.array(x).astype(dtype)


def weights(*shape, group, bits, dtype=mx.float32, seed=1):
    w, scales, biases = mx.quantize(numbers(*shape, seed=seed), group_size=group, bits=bits)
    return w, scales.astype(dtype), biases.astype(dtype)


def in_float(x, w, scales, biases, group, bits):
    """The exact product of what was given: weights widened, activations as they are."""
    wide = mx.dequantize(w, scales.astype(mx.float32), biases.astype(mx.float32), group_size=group, bits=bits)
    return np.array(x.astype(mx.float32)) @ np.array(wide).swapaxes(-1, -2)


def error(ours, exact):
    """Relative RMS error of the worst row."""
    ours = np.array(ours.astype(mx.float32)).reshape(-1, exact.shape[-1])
    exact = exact.reshape(ours.shape)
    return np.max(np.linalg.norm(ours - exact, axis=-1) / (np.linalg.norm(exact, axis=-1) + 1e-30))


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and mx.array_equal(a, b).item()


@property_test
@given(variants, dtypes, dtypes, groups, widths, rows, columns, st.integers(1, 5))
def test_equals_mlx(variant, dtype, scale_dtype, group, bits, m, n, k):
    ext.choose(variant)
    x, w = numbers(m, k * group, dtype=dtype), weights(n, k * group, group=group, bits=bits, dtype=scale_dtype)
    y = ext.quantized_matmul(x, *w, group_size=group, bits=bits)
    plain = PLAIN(x, *w, group_size=group, bits=bits)
    assert (y.shape, y.dtype) == (plain.shape, plain.dtype)
    rounding = 0.005 if y.dtype == mx.bfloat16 else 0
    if n >= 16:  # of fewer, some rows cancel
        assert error(y, in_float(x, *w, group, bits)) <= 1.2 * TOLERANCE + rounding
    scale = np.linalg.norm(np.array(x.astype(mx.float32)), axis=-1, keepdims=True)
    assert np.max(np.abs(np.array(y.astype(mx.float32)) - in_float(x, *w, group, bits)) / scale) <= 0.05 + 2 * rounding


@property_test
@given(groups, widths, rows, columns, st.integers(1, 5), st.sampled_from([mx.float32, mx.float16]))
def test_every_variant_gives_the_same_integers(group, bits, m, n, k, dtype):
    """The sums are exact; only the float steps around them may round differently."""
    x, w = numbers(m, k * group, dtype=dtype), weights(n, k * group, group=group, bits=bits)
    results = []
    for variant in VARIANTS:
        ext.choose(variant)
        results.append(np.array(ext.quantized_matmul(x, *w, group_size=group, bits=bits)))
    for y in results[1:]:
        np.testing.assert_allclose(y, results[0], rtol=2e-5, atol=2e-5 * k * group**0.5)


def test_whole_numbers_are_exact_to_the_bit():
    """Scale 1, bias 0, activations whose largest of every 32 is 127 and none is rounded: integer arithmetic."""
    rng = np.random.default_rng(3)
    x = rng.integers(-58, 59, (5, 256)).astype(np.float32)
    x[:, ::32] = 127
    for bits in (2, 3, 4, 5, 6, 8):
        q = rng.integers(0, 1 << bits, (70, 256), dtype=np.uint32)
        fields = (q[..., None] >> np.arange(bits, dtype=np.uint32) & 1).astype(np.uint8)
        packed = np.packbits(fields.reshape(70, -1), axis=-1, bitorder="little").view(np.uint32)
        ones, zeros = mx.ones((70, 8)), mx.zeros((70, 8))
        for variant in VARIANTS:
            ext.choose(variant)
            y = ext.quantized_matmul(mx.array(x), mx.array(packed), ones, zeros, group_size=32, bits=bits)
            np.testing.assert_array_equal(np.array(y), x @ q.T.astype(np.float32))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("k", [96, 256, 832])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_largest_sums_are_exact(variant, k, bits, rows):
    """All codes as large as they get, all activations 127 or -127: no sum of 16 bits runs over."""
    ext.choose(variant)
    packed = mx.full((40, k * bits // 32), 0xFFFFFFFF, mx.uint32)
    ones, zeros = mx.ones((40, k // 32)), mx.zeros((40, k // 32))
    for value in (127, -127):
        x = mx.full((rows, k), value, mx.float32)
        y = ext.quantized_matmul(x, packed, ones, zeros, group_size=32, bits=bits)
        np.testing.assert_array_equal(np.array(y), np.full((rows, 40), float(value * k * ((1 << bits) - 1))))


@pytest.mark.parametrize("variant", VARIANTS)
def test_codes_of_six_bits_take_no_other_steps(variant):
    """A larger code in the same panel sends all of its columns another way, to the same bits."""
    ext.choose(variant)
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 64, (33, 768), dtype=np.uint8)
    codes[:, ::2] = 63
    x, scales, biases = numbers(9, 768) * 100, numbers(33, 12), numbers(33, 12)

    def product(codes):
        return ext.quantized_matmul(x, mx.array(codes.view(np.uint32)), scales, biases, group_size=64, bits=8)

    small = product(codes)
    codes[[7, 32], 700] = 255
    others = [column for column in range(33) if column not in (7, 32)]
    assert same_bits(small[:, mx.array(others)], product(codes)[:, mx.array(others)])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rows", [1, 9])
def test_codes_of_six_bits_meet_rows_as_large_as_their_sums_hold(variant, rows):
    """All of a row's values are as large as each other and on the side of a column's codes."""
    ext.choose(variant)
    rng = np.random.default_rng(6)
    side = np.arange(768) // 32 % 2
    codes, scales = rng.integers(0, 64, (40, 768), dtype=np.uint8), np.abs(np.array(numbers(40, 12)))
    x = np.array(numbers(rows, 768))
    x[0], codes[3], codes[4] = 2 * side - 1, 63 * side, 63 - 63 * side
    w = mx.array(codes.view(np.uint32)), mx.array(scales), mx.array(-32 * scales)
    y = ext.quantized_matmul(mx.array(x), *w, group_size=64, bits=8)
    assert error(y, in_float(mx.array(x), *w, 64, 8)) <= TOLERANCE


@property_test
@given(variants, groups, widths, st.sampled_from([5, 8, 13]), columns, st.sampled_from([mx.float32, mx.float16]))
def test_a_row_does_not_depend_on_its_neighbours_or_the_threads(variant, group, bits, m, n, dtype):
    ext.choose(variant)
    x, w = spiky(m, 3 * group, dtype=dtype), weights(n, 3 * group, group=group, bits=bits, dtype=dtype)
    results = []
    for threads in (1, 2, 5):
        ext.set_threads(threads)
        results.append(ext.quantized_matmul(x, *w, group_size=group, bits=bits))
        mx.eval(results)
    alone = mx.concatenate([ext.quantized_matmul(x[i : i + 1], *w, group_size=group, bits=bits) for i in range(m)])
    cut = [ext.quantized_matmul(part, *w, group_size=group, bits=bits) for part in (x[:3], x[3:])]
    for other in (*results[1:], alone, mx.concatenate(cut)):
        assert same_bits(other, results[0])


@pytest.mark.parametrize("variant", VARIANTS[1:])
@pytest.mark.parametrize(("k", "bits"), [(4096, 4), (8192, 4), (16384, 4), (2048, 8), (4096, 8), (16384, 3)])
def test_rows_that_push_each_other_out_of_the_cache(variant, k, bits):
    """Few rows of activations take weights copied to one piece, many take them unpacked: the bits are the same."""
    ext.choose(variant)
    x, w = spiky(40, k), weights(72, k, group=32, bits=bits)
    y = ext.quantized_matmul(x, *w, group_size=32, bits=bits)
    for few in (1, 2, 3, 4):
        assert same_bits(ext.quantized_matmul(x[:few], *w, group_size=32, bits=bits), y[:few])


def test_a_long_prompt_equals_its_rows():
    """Enough rows and columns for blocks of both, and for chunks of k, with outliers."""
    x = spiky(600, 2304)
    for bits in (3, 4, 5, 6, 8):
        w = weights(100, 2304, group=32, bits=bits)
        for variant in VARIANTS[1:]:
            ext.choose(variant)
            y = ext.quantized_matmul(x, *w, group_size=32, bits=bits)
            for i in (0, 1, 299, 300, 598, 599):
                assert same_bits(ext.quantized_matmul(x[i], *w, group_size=32, bits=bits), y[i])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bits", [2, 4, 5, 6, 8])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_outliers_do_not_drown_their_neighbours(variant, bits, dtype):
    """One value of each row so large that the others of its 32 would be rounded to nothing beside it."""
    ext.choose(variant)
    x, w = np.array(numbers(7, 1536)), weights(70, 1536, group=64, bits=bits)
    x[np.arange(7), np.arange(7) * 200 + 5] = 4000
    wide = np.array(mx.dequantize(*w, group_size=64, bits=bits))
    y = np.array(ext.quantized_matmul(mx.array(x).astype(dtype), *w, group_size=64, bits=bits))
    spikes = np.where(np.abs(x) > 1000, x, 0)
    rest = (x - spikes) @ wide.T
    assert np.max(np.linalg.norm(y - spikes @ wide.T - rest, axis=-1) / np.linalg.norm(rest, axis=-1)) <= 0.02


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bits", [2, 4, 5, 6, 8])
@pytest.mark.parametrize("size", [30, 100, 1000, 30000])
def test_two_far_numbers_in_one_32_leave_the_others_their_precision(variant, bits, size):
    """Both far from all else and of one size, where weights mute them."""
    ext.choose(variant)
    x = np.array(numbers(3, 1024)) * 0.1
    x[:, 3], x[:, 4] = size, -size
    dense = np.array(numbers(48, 1024, seed=1))
    dense[:, :32] *= 1e-6
    w, scales, biases = mx.quantize(mx.array(dense), 32, bits)
    y = ext.quantized_matmul(mx.array(x), w, scales, biases, group_size=32, bits=bits)
    assert error(y, in_float(mx.array(x), w, scales, biases, 32, bits)) < TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("model", ["decoder", "encoder"])
def test_real_layers_lose_less_than_one_percent(variant, model):
    """Activations and weights of SmolLM2 and MiniLM (oracles/activations.py), outliers included."""
    ext.choose(variant)
    seen, errors = np.load(ACTIVATIONS), []
    for name in {f.rpartition("/")[0] for f in seen.files if f.startswith(model)}:
        x, *w = (mx.array(seen[f"{name}/{part}"]) for part in ("x", "w", "scales", "biases"))
        group, bits = map(int, name.split("/")[2:])
        exact = in_float(x, *w, group, bits)
        y = np.array(ext.quantized_matmul(x.astype(mx.float32), *w, group_size=group, bits=bits))
        errors.append(np.linalg.norm(y - exact) / np.linalg.norm(exact))
    assert len(errors) >= 5 and np.max(errors) <= TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_nan_and_infinity_travel(variant):
    ext.choose(variant)
    x, w = np.array(numbers(4, 64)), weights(40, 64, group=32, bits=4)
    x[1, 3], x[2, 5], x[3, 7] = np.nan, np.inf, -np.inf
    ours = np.array(ext.quantized_matmul(mx.array(x), *w, group_size=32, bits=4))
    plain = np.array(PLAIN(mx.array(x), *w, group_size=32, bits=4))
    np.testing.assert_array_equal(ours[1:], np.where(np.isfinite(plain[1:]), ours[1:], plain[1:]))
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(plain))
    assert error(mx.array(ours[:1]), in_float(mx.array(x[:1]), *w, 32, 4)) <= TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_batches_and_strides(variant):
    ext.choose(variant)
    w = weights(24, 64, group=32, bits=8)
    for x in (
        numbers(64),
        numbers(2, 3, 64),
        numbers(5, 8, 64)[::2, 1::3],
        numbers(64, 6).T,
        mx.broadcast_to(numbers(1, 64), (3, 64)),
    ):
        y = ext.quantized_matmul(x, *w, group_size=32, bits=8)
        assert y.shape == (*x.shape[:-1], 24)
        assert error(y, in_float(x, *w, 32, 8)) <= TOLERANCE
    assert ext.quantized_matmul(numbers(0, 64), *w, group_size=32, bits=8).shape == (0, 24)
    stack = weights(3, 24, 64, group=32, bits=4)
    x = numbers(2, 3, 5, 64)
    y = ext.quantized_matmul(x, *stack, group_size=32, bits=4)
    assert error(y, in_float(x, *stack, 32, 4)) <= TOLERANCE
    some = [a[:, 4:20] for a in stack]
    assert error(ext.quantized_matmul(x, *some, group_size=32, bits=4), in_float(x, *some, 32, 4)) <= TOLERANCE


@property_test
@given(variants, groups, widths, rows, st.booleans(), st.sampled_from([mx.float32, mx.bfloat16]))
def test_untransposed_equals_mlx_in_float(variant, group, bits, m, stacked, dtype):
    ext.choose(variant)
    batch = (2,) if stacked else ()
    x, w = numbers(*batch, m, 40, dtype=dtype), weights(*batch, 40, 2 * group, group=group, bits=bits)
    y = ext.quantized_matmul(x, *w, transpose=False, group_size=group, bits=bits)
    plain = PLAIN(x.astype(mx.float32), *w, transpose=False, group_size=group, bits=bits)
    np.testing.assert_allclose(np.array(y), np.array(plain), rtol=1e-5, atol=1e-4)


@property_test
@given(variants, widths, st.integers(1, 7), st.integers(1, 3), st.booleans())
def test_experts_equal_mlx_and_themselves(variant, bits, tokens, chosen, sort):
    ext.choose(variant)
    rng = np.random.default_rng(tokens)
    w = weights(4, 48, 64, group=32, bits=bits)
    x = numbers(tokens, 1, 1, 64)
    experts = mx.array(rng.integers(0, 4, (tokens, chosen)).astype(np.uint32))
    if sort:
        experts = mx.sort(experts.flatten()).reshape(experts.shape)
    y = ext.gather_qmm(x, *w, rhs_indices=experts, group_size=32, bits=bits, sorted_indices=False)
    plain = PLAIN_GATHER(x, *w, rhs_indices=experts, group_size=32, bits=bits)
    assert y.shape == plain.shape
    assert error(y, np.array(plain)) <= 1.5 * TOLERANCE
    for t in range(tokens):
        e = experts[t, 0].item()
        one = ext.quantized_matmul(x[t, 0], *[a[e] for a in w], group_size=32, bits=bits)
        assert same_bits(y[t, 0], one)


def test_experts_with_rows_chosen_too():
    w, x = weights(3, 16, 64, group=32, bits=4), numbers(5, 2, 64)
    lhs, rhs = mx.array([4, 0, 0, 2]), mx.array([2, 2, 0, 1])
    y = ext.gather_qmm(x, *w, lhs_indices=lhs, rhs_indices=rhs, group_size=32, bits=4)
    plain = PLAIN_GATHER(x, *w, lhs_indices=lhs, rhs_indices=rhs, group_size=32, bits=4)
    assert y.shape == plain.shape and error(y, np.array(plain)) <= 2 * TOLERANCE


def test_an_expert_that_does_not_exist_is_an_error():
    w, x = weights(3, 16, 64, group=32, bits=4), numbers(2, 1, 64)
    with pytest.raises(RuntimeError, match="index"):
        mx.eval(ext.gather_qmm(x, *w, rhs_indices=mx.array([0, 3]), group_size=32, bits=4))


def test_other_forms_go_to_mlx():
    x = numbers(2, 64)
    for kwargs in ({"group_size": 32, "bits": 1}, {"group_size": 32, "bits": 3}):  # rows of less than 16 bytes
        w = mx.quantize(numbers(8, 32), **kwargs)
        assert same_bits(ext.quantized_matmul(x[:, :32], *w, **kwargs), PLAIN(x[:, :32], *w, **kwargs))
    w = mx.quantize(numbers(8, 64), mode="mxfp4")
    assert same_bits(ext.quantized_matmul(x, *w, mode="mxfp4"), PLAIN(x, *w, mode="mxfp4"))
    with pytest.raises(ValueError):
        ext.quantized_matmul(numbers(2, 63), *weights(8, 64, group=32, bits=4), group_size=32, bits=4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bits", [None, 4, 8])
def test_linear_is_its_parts(variant, bits):
    ext.choose(variant)
    x, bias, residual = numbers(6, 128), numbers(50), numbers(6, 50, seed=9)
    if bits:
        w = weights(50, 128, group=64, bits=bits)
        args, product = (*w, 64, bits), ext.quantized_matmul(x, *w, group_size=64, bits=bits)
    else:
        w = numbers(50, 128)
        args, product = (w,), ext.matmul(x, w.T)
    gelu = ext.gelu(product + bias)
    assert same_bits(ext.linear(x, *args), product)
    np.testing.assert_allclose(ext.linear(x, *args, bias=bias), product + bias, atol=1e-6)
    np.testing.assert_allclose(
        ext.linear(x, *args, bias=bias, activation="gelu", residual=residual), gelu + residual, atol=2e-6
    )
    for wrong in ({"activation": "swish"}, {"bias": numbers(49)}, {"residual": numbers(5, 50)}):
        with pytest.raises(ValueError):
            ext.linear(x, *args, **wrong)
