"""What follows attention in BERT's layer as one op: the bits of its parts, for any number of rows."""

import mlx.core as mx
import numpy as np
import pytest

from toast import kernels
from toast.models import layers

pytestmark = pytest.mark.skipif(kernels.install() == "off", reason="no kernels here")


def layer(D=64, K=32, F=192):
    random = np.random.default_rng(3)
    array = lambda *shape: mx.array(random.standard_normal(shape).astype(np.float32))

    def linear(outputs, inputs):
        w, *form = mx.quantize(array(outputs, inputs) / inputs**0.5, 32, 8)
        return layers.Linear(w, array(outputs), [*form, 32, 8])

    norms = [layers.LayerNorm(array(D), array(D), 1e-5) for _ in range(2)]
    return layers.AfterAttention(linear(D, K), norms[0], linear(F, D), "gelu", linear(D, F), norms[1]), array


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 50), (16, 300)])  # the last is cut into blocks
def test_one_op_has_the_bits_of_its_parts(shape):
    after, array = layer()
    y, x = array(*shape, 32), array(*shape, 64)
    y[0, 0, 3] = 80  # an outlier
    whole = after(y, x)
    after.whole = None
    assert mx.array_equal(whole, after(y, x))


def test_rows_that_are_not_finite_spoil_no_others():
    after, array = layer()
    y, x = array(16, 300, 32), array(16, 300, 64)
    fine = np.array(after(y, x))
    y[2, 5, 1] = float("nan")
    whole = np.array(after(y, x))
    assert np.isnan(whole[2, 5]).all()
    whole[2, 5] = fine[2, 5]
    assert (whole == fine).all()
