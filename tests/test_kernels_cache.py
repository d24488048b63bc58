"""Ops on a key/value cache: what they store, and what they refuse."""

import mlx.core as mx
import numpy as np
import pytest
from test_kernels_fast import numbers

ext = pytest.importorskip("toast.kernels._ext")


def test_append_equals_assignment():
    buffer, rows = numbers((2, 3, 9, 4)), numbers((2, 3, 2, 4), seed=1)
    updated, used = ext.append(buffer, rows, 5)
    expected = np.array(buffer)
    expected[:, :, 5:7] = np.array(rows)
    np.testing.assert_array_equal(np.array(updated), expected)
    np.testing.assert_array_equal(np.array(used), expected[:, :, :7])


def test_a_step_that_does_not_fit_is_refused():
    x, cache = mx.ones((1, 1, 8)), mx.ones((1, 2, 4, 4))

    def rope(**wrong):
        return ext.Rope(**{**{"dims": 4, "traditional": False, "base": 1e4, "scale": 1.0, "freqs": None}, **wrong})

    def step(**wrong):
        good = {"q": x, "k": x, "v": x, "keys": cache, "values": cache, "rope": rope()}
        return ext.attention_step(**{**good, "offset": 0, "scale": 1.0, "causal": True, **wrong})

    mx.eval(step())
    half = x.astype(mx.float16)
    for wrong in (
        {"offset": 4},
        {"offset": -1},
        {"q": half},
        {"q": mx.ones((1, 1, 12))},
        {"q": mx.ones((1, 1, 7))},
        {"rope": rope(dims=6)},
        {"keys": mx.ones((1, 4, 4, 2))},
        {"values": mx.ones((1, 2, 4, 3))},
        {"values": mx.ones((1, 64, 4, 4))},
    ):
        with pytest.raises(ValueError):
            step(**wrong)
    for wrong in (
        {"dims": 3},
        {"dims": 0},
        {"base": None},
        {"freqs": mx.ones(2)},
        {"base": None, "freqs": mx.ones(3)},
    ):
        with pytest.raises(ValueError):
            rope(**wrong)
