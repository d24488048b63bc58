"""matmul and addmm: against MLX in float32, in every variant, row by row to the bit."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ext = pytest.importorskip("toast.kernels._ext")

VARIANTS = [v for v in ("generic", "avx2", "avx512", "neon") if ext.choose(v)]
TOLERANCE = {mx.float32: 1e-5, mx.float16: 1e-3, mx.bfloat16: 8e-3}

variants = st.sampled_from(VARIANTS)
dtypes = st.sampled_from(list(TOLERANCE))
sizes = st.sampled_from([1, 2, 3, 7, 8, 15, 16, 17, 33, 48, 65])
property_test = settings(max_examples=80, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def best_variant_afterwards():
    yield
    ext.choose("auto")
    ext.set_threads(0)


def numbers(*shape, dtype=mx.float32, seed=0):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32)).astype(dtype)


def wide(x):
    return np.array(x.astype(mx.float32)).astype(np.float64)


def check(ours, exact, dtype, k):
    assert ours.dtype == dtype and ours.shape == exact.shape
    np.testing.assert_allclose(wide(ours), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * k**0.5)


@property_test
@given(
    variants,
    dtypes,
    sizes,
    sizes,
    sizes,
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from([1, 2, 3]), max_size=2),
)
def test_matmul_equals_mlx(variant, dtype, m, k, n, a_turned, b_turned, batch):
    ext.choose(variant)
    a = numbers(*batch, *((k, m) if a_turned else (m, k)), dtype=dtype)
    b = numbers(*batch, *((n, k) if b_turned else (k, n)), dtype=dtype, seed=1)
    a, b = (x.swapaxes(-1, -2) if turned else x for x, turned in ((a, a_turned), (b, b_turned)))
    check(ext.matmul(a, b), wide(a) @ wide(b), dtype, k)


@pytest.mark.parametrize("variant", VARIANTS)
def test_batches_broadcast_and_strides(variant):
    ext.choose(variant)
    for a, b in (
        (numbers(2, 1, 5, 6), numbers(3, 6, 4)),
        (numbers(4, 5, 6), numbers(6, 4)),
        (numbers(6), numbers(6, 4)),
        (numbers(5, 6), numbers(3, 6, 4)),
        (numbers(9, 12)[1::2, ::2], numbers(4, 12).T[::2]),
        (numbers(3, 8, 7).transpose(1, 0, 2), numbers(8, 7, 5)[:, :, 1:4]),
        (mx.broadcast_to(numbers(1, 6), (5, 6)), mx.broadcast_to(numbers(6, 1), (6, 9))),
    ):
        check(ext.matmul(a, b), wide(a) @ wide(b), mx.float32, a.shape[-1])
    for shapes in (((0, 5), (5, 3)), ((2, 5), (5, 0)), ((2, 0), (0, 3))):
        a, b = (mx.zeros(s) for s in shapes)
        assert mx.array_equal(ext.matmul(a, b), mx.zeros((shapes[0][0], shapes[1][1])))


@property_test
@given(variants, st.sampled_from([mx.float32, mx.bfloat16]), st.sampled_from([5, 9, 13]), sizes, sizes, st.booleans())
def test_a_row_does_not_depend_on_its_neighbours_or_the_threads(variant, dtype, m, k, n, turned):
    ext.choose(variant)
    a, b = (
        numbers(m, k, dtype=dtype),
        numbers(n, k, dtype=dtype, seed=1).T if turned else numbers(k, n, dtype=dtype, seed=1),
    )
    whole = ext.matmul(a, b)
    alone = mx.concatenate([ext.matmul(a[i : i + 1], b) for i in range(m)])
    cut = mx.concatenate([ext.matmul(a[:3], b), ext.matmul(a[3:], b)])
    mx.eval(whole, alone, cut)
    ext.set_threads(3)
    assert all(mx.array_equal(whole, other).item() for other in (alone, cut, ext.matmul(a, b)))
    ext.set_threads(1)
    assert mx.array_equal(whole, ext.matmul(a, b)).item()


def test_a_long_matrix_equals_its_rows():
    a, b = numbers(300, 1200), numbers(130, 1200).T
    for variant in VARIANTS:
        ext.choose(variant)
        y = ext.matmul(a, b)
        assert all(mx.array_equal(ext.matmul(a[i : i + 1], b)[0], y[i]).item() for i in (0, 7, 8, 255, 256, 299))


@property_test
@given(
    variants,
    dtypes,
    sizes,
    sizes,
    st.sampled_from(["row", "scalar", "whole", "column"]),
    st.sampled_from([(1, 1), (0.5, -2)]),
)
def test_addmm_equals_mlx(variant, dtype, m, n, kind, factors):
    ext.choose(variant)
    alpha, beta = factors
    a, b = numbers(m, 20, dtype=dtype), numbers(20, n, dtype=dtype, seed=1)
    c = numbers(*{"row": (n,), "scalar": (), "whole": (m, n), "column": (m, 1)}[kind], dtype=dtype, seed=2)
    check(ext.addmm(c, a, b, alpha=alpha, beta=beta), alpha * (wide(a) @ wide(b)) + beta * wide(c), dtype, 20)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nan_and_infinity_travel(variant):
    ext.choose(variant)
    a = np.array(numbers(3, 9))
    a[0, 2], a[1, 3] = np.nan, np.inf
    b = numbers(9, 5, seed=1)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(np.array(ext.matmul(mx.array(a), b)), a @ np.array(b), rtol=1e-4, atol=1e-5)


def test_integers_and_errors_go_to_mlx():
    with pytest.raises(ValueError):
        ext.matmul(numbers(2, 3), numbers(4, 5))
    with pytest.raises(ValueError):
        ext.matmul(mx.array(1.0), numbers(4, 5))
