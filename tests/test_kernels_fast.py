"""The float kernels against MLX's own ops, in every variant that this CPU runs, and row by row to the bit.

Half types are held to MLX's result in float32 on the same inputs: one rounding of ours, not MLX's several.
"""

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ext = pytest.importorskip("toast.kernels._ext")

VARIANTS = [v for v in ("generic", "avx2", "avx512", "neon") if ext.choose(v)]
DTYPES = [mx.float32, mx.float16, mx.bfloat16]
TOLERANCE = {mx.float32: 1e-5, mx.float16: 1e-3, mx.bfloat16: 8e-3}  # of max(1, |value|)
PLAIN = {  # MLX's own, before install() replaces any
    "rms_norm": mx.fast.rms_norm,
    "layer_norm": mx.fast.layer_norm,
    "rope": mx.fast.rope,
    "attention": mx.fast.scaled_dot_product_attention,
    "softmax": mx.softmax,
    "gelu": lambda x: x * (1 + mx.erf(x / math.sqrt(2))) / 2,
    "gelu_approx": lambda x: 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x, sigmoid=mx.sigmoid: x * sigmoid(x),
    "sigmoid": mx.sigmoid,
}
attention = ext.scaled_dot_product_attention

variants = st.sampled_from(VARIANTS)
dtypes = st.sampled_from(DTYPES)
sizes = st.sampled_from([1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 65])
property_test = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def best_variant_afterwards():
    yield
    ext.choose("auto")
    ext.set_threads(0)


def numbers(shape, dtype=mx.float32, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).astype(dtype)


def f32(x):
    return np.array(x.astype(mx.float32))


def bits(x):
    """The bits of x, and one pattern for NaN, whose sign says nothing."""
    x = mx.where(mx.isnan(x), mx.array(mx.nan, x.dtype), x)
    return np.array(x.view(mx.uint32 if x.dtype == mx.float32 else mx.uint16))


def same(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    a, b = f32(ours), f32(theirs)
    finite = np.isfinite(b)
    np.testing.assert_array_equal(np.where(finite, 0, a), np.where(finite, 0, b))
    a, b = a[finite], b[finite]
    assert not a.size or np.max(np.abs(a - b) / np.maximum(1, np.abs(b))) <= tolerance


def against_plain(ours, theirs, dtype, *inputs):
    """ours(inputs) is theirs(the inputs as float32), and keeps the dtype."""
    out = ours(*inputs)
    assert out.dtype == dtype
    same(out, theirs(*[x if x is None else x.astype(mx.float32) for x in inputs]), TOLERANCE[dtype])


@property_test
@given(variants, dtypes, st.lists(sizes, max_size=2), sizes, st.booleans(), st.booleans(), st.booleans())
def test_norms_equal_mlx(variant, dtype, rows, n, weighted, biased, transposed):
    ext.choose(variant)
    x = numbers((*rows, n), dtype)
    if transposed and len(rows) == 2:
        x = x.transpose(1, 0, 2)
    w = numbers((n,), dtype, 1) if weighted else None
    b = numbers((n,), dtype, 2) if biased else None
    for eps in (1e-5, 1e-12):
        ours, theirs = (lambda x, w, f=f, eps=eps: f(x, w, eps) for f in (ext.rms_norm, PLAIN["rms_norm"]))
        against_plain(ours, theirs, dtype, x, w)
    # A row of two or three nearly equal numbers is ill-conditioned: a larger eps.
    against_plain(lambda *a: ext.layer_norm(*a, 1e-2), lambda *a: PLAIN["layer_norm"](*a, 1e-2), dtype, x, w, b)


@property_test
@given(variants, dtypes, st.lists(sizes, max_size=2), sizes, st.sampled_from([-1, None, 0]))
def test_softmax_equals_mlx(variant, dtype, rows, n, axis):
    ext.choose(variant)
    x = numbers((*rows, n), dtype) * 8
    against_plain(lambda x: ext.softmax(x, axis), lambda x: PLAIN["softmax"](x, axis, precise=True), dtype, x)


@property_test
@given(variants, dtypes, st.lists(sizes, min_size=1, max_size=3), st.booleans())
def test_activations_equal_mlx(variant, dtype, shape, transposed):
    ext.choose(variant)
    x, up = numbers(shape, dtype) * 4, numbers(shape, dtype, 1)
    if transposed:
        x, up = x.T, up.T
    for name in ("gelu", "gelu_approx", "silu", "sigmoid"):
        against_plain(getattr(ext, name), PLAIN[name], dtype, x)
    against_plain(ext.swiglu, lambda g, x: PLAIN["silu"](g) * x, dtype, x, up)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gelu_is_exact_to_1e_6(variant):
    ext.choose(variant)
    x = np.linspace(-12, 12, 40001, dtype=np.float32)
    exact = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x.astype(float)])
    error = np.abs(f32(ext.gelu(mx.array(x))) - exact) / np.maximum(1, np.abs(exact))
    assert error.max() < 2e-7
    exact = x / (1 + np.exp(-x.astype(float)))
    bound = 1e-6 if variant == "generic" else 4e-7  # whose fma rounds twice
    assert (np.abs(f32(ext.silu(mx.array(x))) - exact) <= bound * np.abs(exact)).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["gelu", "gelu_approx", "silu", "sigmoid", "softmax", "rms_norm", "layer_norm"])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1e4, -1e4])
def test_nan_and_infinity_travel_as_in_mlx(variant, name, odd):
    ext.choose(variant)
    rest = {"softmax": (-1,), "rms_norm": (None, 1e-5), "layer_norm": (None, None, 1e-5)}.get(name, ())
    for at in (0, 5, 36):
        x = np.random.default_rng(0).normal(size=(3, 37)).astype(np.float32)
        x[1, at] = odd
        same(getattr(ext, name)(mx.array(x), *rest), PLAIN[name](mx.array(x), *rest), 1e-5)


@property_test
@given(
    variants,
    dtypes,
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(0, 5),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1.0, 0.25]),
    st.sampled_from(["int", "scalar", "batch"]),
    st.booleans(),
)
def test_rope_equals_mlx(variant, dtype, B, N, T, half, rest, traditional, with_freqs, scale, offset, transposed):
    ext.choose(variant)
    D = 2 * half + rest
    x = numbers((B, T, N, D), dtype).transpose(0, 2, 1, 3) if transposed else numbers((B, N, T, D), dtype)
    at = {"int": 37, "scalar": mx.array(37), "batch": mx.array([5, 90, 11][:B])}[offset]
    freqs = mx.array([1.5**i for i in range(half)]) if with_freqs else None
    rope = {
        "traditional": traditional,
        "base": None if with_freqs else 1e4,
        "scale": scale,
        "offset": at,
        "freqs": freqs,
    }
    tolerance = max(TOLERANCE[dtype], 1e-4)  # MLX's exp(): its inverse frequencies are off by 1e-6
    ours = ext.rope(x, 2 * half, **rope)
    assert ours.dtype == dtype
    same(ours, PLAIN["rope"](x.astype(mx.float32), 2 * half, **rope), tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rope_angles_are_exact(variant):
    """Far positions too, against double precision with the same float32 product position * frequency."""
    ext.choose(variant)
    half, T = 32, 300
    x = mx.concatenate([mx.ones((1, 1, T, half)), mx.zeros((1, 1, T, half))], -1)
    inverse = np.array([1e4 ** (-i / half) for i in range(half)]).astype(np.float32)
    for start in (0, 5000, 200_000):
        y = f32(ext.rope(x, 2 * half, traditional=False, base=1e4, scale=1.0, offset=start))[0, 0]
        angle = (np.arange(start, start + T, dtype=np.float32)[:, None] * inverse).astype(np.float64)
        assert np.abs(y - np.concatenate([np.cos(angle), np.sin(angle)], 1)).max() < 5e-7


def cache_slice(shape, dtype, seed):
    """Keys or values as a model gets them: the used part of a longer preallocated cache."""
    B, G, S, D = shape
    return numbers((B, G, S + 5, D), dtype, seed)[:, :, :S]


def make_mask(kind, B, H, L, S, dtype):
    random = np.random.default_rng(7)
    if kind == "bool":
        return mx.array(random.random((B, 1, L, S)) < 0.6)
    if kind == "window":
        i, j = np.arange(L)[:, None] + S - L, np.arange(S)[None]
        return mx.array((j <= i) & (i < j + 5))
    if kind == "padding":
        return mx.array(np.arange(S)[None] < random.integers(1, S + 1, (B, 1)))[:, None, None]
    if kind == "additive":
        return mx.array(np.where(random.random((H, L, S)) < 0.3, -np.inf, random.normal(size=(H, L, S)))).astype(dtype)
    return kind


KINDS = [None, "causal", "bool", "window", "padding", "additive"]


@settings(max_examples=150, deadline=None)
@given(
    variants,
    dtypes,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    sizes,
    sizes,
    sizes,
    sizes,
    st.sampled_from(KINDS),
    st.booleans(),
    st.booleans(),
)
def test_attention_equals_mlx(variant, dtype, B, G, group, L, S, dk, dv, kind, with_sinks, transposed):
    ext.choose(variant)
    H = G * group
    q = numbers((B, L, H, dk), dtype).transpose(0, 2, 1, 3) if transposed else numbers((B, H, L, dk), dtype)
    k, v = cache_slice((B, G, S, dk), dtype, 1), cache_slice((B, G, S, dv), dtype, 2)
    mask = make_mask(kind, B, H, L, S, dtype)
    sinks = numbers((H,), dtype, 3) if with_sinks else None
    ours = attention(q, k, v, scale=dk**-0.5, mask=mask, sinks=sinks)
    assert ours.dtype == dtype
    wide = [x.astype(mx.float32) for x in (q, k, v)]
    if isinstance(mask, mx.array) and mask.dtype != mx.bool_:
        mask = mask.astype(mx.float32)
    sinks = sinks.astype(mx.float32) if with_sinks else None
    same(ours, PLAIN["attention"](*wide, scale=dk**-0.5, mask=mask, sinks=sinks), TOLERANCE[dtype])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", "qkv")
def test_attention_nan_and_infinity(variant, odd, where):
    ext.choose(variant)
    arrays = {n: np.array(numbers((1, 2, 9, 8), seed=i)) for i, n in enumerate("qkv")}
    arrays[where][0, 1, 4, 3] = odd
    q, k, v = (mx.array(arrays[n]) for n in "qkv")
    same(attention(q, k, v, scale=1.0), PLAIN["attention"](q, k, v, scale=1.0), 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_that_see_nothing_are_as_in_mlx(variant):
    ext.choose(variant)
    q, k, v = numbers((1, 2, 9, 16)), numbers((1, 2, 5, 16), seed=1), numbers((1, 2, 5, 16), seed=2)
    nothing = mx.array(np.arange(9)[:, None] % 2 * np.ones((1, 5)) > 0)
    for mask in ("causal", nothing, mx.zeros((9, 5), mx.bool_), mx.full((9, 5), -math.inf)):
        for sinks in (None, mx.array([0.5, -1.0])):
            rest = {"scale": 0.3, "mask": mask, "sinks": sinks}
            same(attention(q, k, v, **rest), PLAIN["attention"](q, k, v, **rest), 1e-5)


def test_empty_inputs():
    none = mx.zeros((0, 8))
    for ours in (
        ext.rms_norm(none, None, 1e-5),
        ext.layer_norm(none, None, None, 1e-5),
        ext.softmax(none, -1),
        ext.gelu(none),
    ):
        assert ours.shape == (0, 8)
    q, k = mx.ones((1, 2, 3, 4)), mx.ones((1, 2, 0, 4))
    assert not np.array(attention(q, k, k, scale=1.0)).any()
    assert attention(mx.ones((1, 2, 0, 4)), q, q, scale=1.0).shape == (1, 2, 0, 4)
    assert ext.rope(mx.zeros((1, 2, 0, 4)), 4, traditional=False, base=1e4, scale=1.0, offset=0).shape == (1, 2, 0, 4)


def test_wrong_arguments_are_refused_as_by_mlx():
    q, k = mx.ones((1, 3, 2, 4)), mx.ones((1, 2, 2, 4))
    for call in (
        lambda a, r: a(q, k, k, scale=1.0),
        lambda a, r: a(q, q, q, scale=1.0, mask="triangular"),
        lambda a, r: a(q[0], q[0], q[0], scale=1.0),
        lambda a, r: a(q, q, q, scale=1.0, mask=mx.ones((7, 7))),
        lambda a, r: r(q, 3, traditional=False, base=1e4, scale=1.0, offset=0),
        lambda a, r: r(q, 4, traditional=False, base=None, scale=1.0, offset=0),
    ):
        for functions in ((PLAIN["attention"], PLAIN["rope"]), (attention, ext.rope)):
            with pytest.raises(ValueError):
                call(*functions)


def test_other_dtypes_are_left_to_mlx():
    whole = mx.array([[1, 2, 3]])
    same(ext.gelu(whole), PLAIN["gelu"](whole), 1e-6)
    same(ext.softmax(whole, -1), PLAIN["softmax"](whole, -1), 1e-6)
    assert ext.rms_norm(mx.ones((2, 3), mx.float16), mx.ones((3,)), 1e-5).dtype == mx.float32


def test_keys_and_values_are_read_in_place():
    cache = numbers((1, 2, 4096, 64))
    q = numbers((1, 4, 1, 64))
    mx.eval(q, cache)
    keys = cache[:, :, :4000]
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(attention(q, keys, keys, scale=0.1))
    assert mx.get_peak_memory() - before < 100_000


# ---- row invariance: a row's bits depend on the row alone ----


@property_test
@given(variants, dtypes, st.integers(2, 40), sizes, st.integers(1, 4))
def test_a_row_alone_is_the_row_in_a_batch(variant, dtype, rows, n, threads):
    ext.choose(variant)
    ext.set_threads(threads)
    x, w = numbers((rows, n), dtype), numbers((n,), dtype, 1)
    for f in (
        lambda x: ext.rms_norm(x, w, 1e-5),
        lambda x: ext.layer_norm(x, w, w, 1e-5),
        lambda x: ext.softmax(x, -1),
        ext.gelu,
        ext.gelu_approx,
        ext.silu,
    ):
        whole = bits(f(x))
        for r in (0, rows // 2, rows - 1):
            np.testing.assert_array_equal(whole[r], bits(f(x[r : r + 1]))[0])


@property_test
@given(
    variants,
    dtypes,
    st.integers(2, 90),
    st.integers(0, 60),
    st.integers(1, 3),
    st.sampled_from([8, 20, 64]),
    st.booleans(),
)
def test_a_prompt_in_pieces_is_the_prompt(variant, dtype, L, past, group, D, rotary):
    """Whole, in two pieces, and its last position as a decode step."""
    ext.choose(variant)
    S, cut = past + L, past + L // 2
    q, k, v = numbers((1, 2 * group, S, D), dtype), numbers((1, 2, S, D), dtype, 1), numbers((1, 2, S, D), dtype, 2)

    def run(start, stop):
        x, y = q[:, :, start:stop], k[:, :, :stop]
        if rotary:
            x = ext.rope(x, D, traditional=False, base=1e4, scale=1.0, offset=start)
            y = ext.rope(y, D, traditional=False, base=1e4, scale=1.0, offset=0)
        return bits(attention(x, y, v[:, :, :stop], scale=D**-0.5, mask="causal"))

    whole = run(past, S)
    np.testing.assert_array_equal(whole[:, :, : cut - past], run(past, cut))
    np.testing.assert_array_equal(whole[:, :, cut - past :], run(cut, S))
    np.testing.assert_array_equal(whole[:, :, -1:], run(S - 1, S))


@property_test
@given(variants, dtypes, st.integers(1, 70), st.integers(0, 70), st.booleans(), st.booleans())
def test_padding_changes_no_bit(variant, dtype, L, padding, left, additive):
    """A short input alone and padded in a batch, on either side, with garbage under the mask."""
    ext.choose(variant)
    q, k, v = (numbers((1, 3, L, 32), dtype, i) for i in range(3))
    alone = bits(attention(q, k, v, scale=0.2))
    total, start = L + padding, padding if left else 0
    visible = (np.arange(total) >= start) & (np.arange(total) < start + L)
    mask = mx.array(visible)[None, None, None]
    if additive:
        mask = mx.where(mask, 0.0, -math.inf).astype(dtype)

    def padded(x):
        y = np.full((2, 3, total, 32), 3.0, np.float32)
        y[1, :, start : start + L] = f32(x)[0]
        return mx.array(y).astype(dtype)

    together = bits(attention(padded(q), padded(k), padded(v), scale=0.2, mask=mask))
    np.testing.assert_array_equal(together[1:, :, start : start + L], alone)


@pytest.mark.parametrize("variant", VARIANTS)
def test_threads_change_no_bit(variant):
    ext.choose(variant)
    q, k = numbers((2, 9, 130, 64)), numbers((2, 3, 300, 64), seed=1)
    x, w = numbers((200, 576)), numbers((576,), seed=1)
    results = []
    for threads in (1, 2, 5):
        ext.set_threads(threads)
        results.append(
            [
                bits(y)
                for y in (
                    attention(q, k, k, scale=0.1, mask="causal"),
                    ext.rms_norm(x, w, 1e-5),
                    ext.gelu(x),
                    ext.rope(q, 64, traditional=True, base=1e4, scale=1.0, offset=3),
                )
            ]
        )
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
