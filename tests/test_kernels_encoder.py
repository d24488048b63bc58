"""BERT's layer as one op, and what of it follows attention: the bits of their parts, for any number of texts."""

import mlx.core as mx
import numpy as np
import pytest

from toast import kernels
from toast.models import layers

pytestmark = pytest.mark.skipif(kernels.install() == "off", reason="no kernels here")

HEADS, D, F = 3, 96, 1536
SHAPES = [(1, 1), (1, 7), (3, 50), (60, 19), (30, 150)]  # the last two are cut into blocks of texts


def layer():
    random = np.random.default_rng(3)
    array = lambda *shape: mx.array(random.standard_normal(shape).astype(np.float32))

    def linear(outputs, inputs):
        w, *form = mx.quantize(array(outputs, inputs) / inputs**0.5, 32, 8)
        return layers.Linear(w, array(outputs), [*form, 32, 8])

    norms = [layers.LayerNorm(array(D), array(D), 1e-5) for _ in range(2)]
    qkv = layers.SplitLinear([linear(3 * D, D)], 3)
    return layers.PostNorm(qkv, HEADS, linear(D, D), norms[0], linear(F, D), "gelu", linear(D, F), norms[1]), array


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
    whole.one_op = False
    assert mx.array_equal(y, whole(x, mask))


@pytest.mark.parametrize("shape", [*SHAPES, (16, 300)])
def test_what_follows_attention_has_the_bits_of_its_parts(shape):
    whole, array = layer()
    y, x = array(*shape, D), array(*shape, D)
    y[0, 0, 3] = 80
    z = whole.after(y, x)
    whole.one_op = False
    assert mx.array_equal(z, whole.after(y, x))


def test_rows_that_are_not_finite_spoil_no_others():
    whole, array = layer()
    y, x = array(16, 300, D), array(16, 300, D)
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
