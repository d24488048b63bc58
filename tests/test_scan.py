"""The scan of int8 vectors: the extension against plain MLX."""

import numpy as np
import pytest

from toast import kernels
from toast.kernels import scan


@pytest.mark.parametrize("rows, dims", [(1, 384), (1000, 384), (3000, 50), (513, 7), (0, 8)])
def test_scan_is_the_dot_product(rows, dims):
    kernels.install()
    rng = np.random.default_rng(rows + dims)
    codes = rng.integers(-127, 128, (rows, dims), dtype=np.int8)
    scales, query = rng.random(rows, np.float32), rng.normal(size=dims).astype(np.float32)
    given = codes.tobytes(), scales.tobytes(), query.tobytes()
    exact = codes.astype(np.float64) @ query * scales
    for found in (scan.int8_scan(*given), scan.reference(*given)):
        np.testing.assert_allclose(np.frombuffer(found, np.float32), exact, rtol=1e-4, atol=1e-3)


def test_a_score_that_is_no_number_is_zero():
    kernels.install()
    given = bytes([1, 2, 3, 4]), np.array([np.nan, np.inf], np.float32).tobytes(), np.ones(2, np.float32).tobytes()
    assert scan.int8_scan(*given) == scan.reference(*given) == bytes(8)


def test_sizes_must_fit():
    kernels.install()
    if kernels.variant() != "off":
        with pytest.raises(ValueError):
            scan.int8_scan(bytes(9), bytes(8), bytes(16))
