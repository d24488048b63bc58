"""BERT's layer as one op, and what of it follows attention: the bits of their parts, for any number of texts."""

import mlx.core as mx
import numpy as np
import pytest

from toast import kernels
from toast.models import layers

pytestmark = pytest.mark.skipif(kernels.install() == "off", reason="no kernels here")

HEADS, K, D, F = 4, 64, 128, 1536  # K: width of attention
SHAPES = [(1, 1), (1, 7), (3, 50), (60, 19), (30, 150)]  # two threads cut the last two into blocks of texts


@pytest.fixture(autouse=True)
def two_threads():
    kernels.install(threads=2)
    yield
    kernels.install()


def layer(bits=8, group=32, act="gelu"):
    random = np.random.default_rng(3)

    def array(*shape):
        return mx.array(random.standard_normal(shape).astype(np.float32))

    def linear(outputs, inputs):
        w, *form = mx.quantize(array(outputs, inputs) / inputs**0.5, group, bits)
        return layers.Linear(w, array(outputs), [*form, group, bits])

    norms = [layers.LayerNorm(array(D), array(D), 1e-5) for _ in range(2)]
    qkv = layers.SplitLinear([linear(3 * K, D)], 3)
    return layers.PostNorm(
        qkv, HEADS, out=linear(D, K), norm1=norms[0], up=linear(F, D), act=act, down=linear(D, F), norm2=norms[1]
    ), array


def masks(B, L, array):
    """None, padding, and a bias of each head with padding."""
    inside = layers.length_mask(mx.array([max(1, L - 5 * i) for i in range(B)]), L)
    return [None, inside, mx.where(True if inside is None else inside, array(1, HEADS, L, L), -mx.inf)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", range(3))
def test_a_layer_as_one_op_has_the_bits_of_its_parts(shape, kind):
    whole, array = layer()
    x, mask = array(*shape, D), masks(*shape, array)[kind]
    x[0, 0, 3] = 80  # an outlier
    y = whole(x, mask)
    whole.is_one = whole.after_is_one = False
    assert mx.array_equal(y, whole(x, mask))


@pytest.mark.parametrize("form", [(4, 32, "silu"), (4, 64, "gelu"), (8, 64, "gelu_new")])
def test_every_form_has_the_bits_of_its_parts(form):
    whole, array = layer(*form)
    x = array(60, 19, D)
    y = whole(x, None)
    whole.is_one = whole.after_is_one = False
    assert mx.array_equal(y, whole(x, None))


def test_threads_change_no_bit():
    whole, array = layer()
    x = array(60, 19, D)
    y = whole(x, None)
    mx.eval(y)
    for threads in (1, 5):
        kernels.install(threads=threads)
        assert mx.array_equal(y, whole(x, None))


def test_float_qkv_leaves_the_rest_one_op():
    whole, array = layer()
    plain = layers.SplitLinear([layers.Linear(array(3 * K, D), array(3 * K))], 3)
    mixed = layers.PostNorm(
        plain, HEADS, out=whole.out, norm1=whole.norm1, up=whole.up, act="gelu", down=whole.down, norm2=whole.norm2
    )
    assert mixed.after_is_one and not mixed.is_one
    assert mixed(array(3, 5, D), None).shape == (3, 5, D)


@pytest.mark.parametrize("shape", [*SHAPES, (16, 300)])
def test_what_follows_attention_has_the_bits_of_its_parts(shape):
    whole, array = layer()
    y, x = array(*shape, K), array(*shape, D)
    y[0, 0, 3] = 80
    z = whole.after(y, x)
    whole.is_one = whole.after_is_one = False
    assert mx.array_equal(z, whole.after(y, x))


def test_rows_that_are_not_finite_spoil_no_others():
    whole, array = layer()
    y, x = array(16, 300, K), array(16, 300, D)
    fine = np.array(whole.after(y, x))
    y[2, 5, 1] = float("nan")
    spoiled = np.array(whole.after(y, x))
    assert np.isnan(spoiled[2, 5]).all()
    spoiled[2, 5] = fine[2, 5]
    assert (spoiled == fine).all()


def test_a_text_does_not_see_the_others():
    whole, array = layer()
    x = array(60, 19, D)
    fine = np.array(whole(x, None))
    x[7, 3, 1] = float("nan")
    spoiled = np.array(whole(x, None))
    assert np.isnan(spoiled[7]).all()
    spoiled[7] = fine[7]
    assert (spoiled == fine).all()
