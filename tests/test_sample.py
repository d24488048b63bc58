"""Choosing tokens: what each setting leaves, and that the seed decides."""

from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toast.generation.sample import Sampler, logprobs

LOGITS = mx.array([1.0, 3.0, 2.0, -1.0, 0.0, 2.5])
ROWS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30)


def draws(n=400, **settings):
    sampler = Sampler(seed=5, **settings)
    sampler.begin([])
    return Counter(sampler(LOGITS).item() for _ in range(n))


def test_greedy_takes_the_best():
    assert Sampler()(LOGITS).item() == 1
    assert Sampler().is_greedy and not Sampler(temperature=1.0).is_greedy and not Sampler(repeat_penalty=1.1).is_greedy


def test_the_seed_decides():
    def run(seed):
        sampler = Sampler(temperature=1.0, seed=seed)
        return [sampler(LOGITS).item() for _ in range(50)]

    assert run(1) == run(1) != run(2)


def test_frequencies_follow_the_softmax():
    want = np.exp(np.array(LOGITS) / 1.5)
    found = draws(4000, temperature=1.5)
    np.testing.assert_allclose([found[i] / 4000 for i in range(6)], want / want.sum(), atol=0.03)


@pytest.mark.parametrize(
    "settings, left",
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 3}, {1, 2, 5}),
        ({"top_k": 99}, {0, 1, 2, 3, 4, 5}),
        ({"top_p": 0.0}, {1}),
        ({"top_p": 0.5}, {1, 5}),
        ({"min_p": 0.5}, {1, 5}),
        ({"min_p": 1.0}, {1}),
        ({"top_k": 3, "top_p": 0.6}, {1, 5}),
    ],
)
def test_what_is_left(settings, left):
    assert set(draws(3000, temperature=1.0, **settings)) == left


@given(ROWS, st.floats(0.01, 0.99))
def test_nucleus_is_the_smallest_set_that_holds_p(row, p):
    from toast.generation.sample import _nucleus

    logits = mx.array(row)
    kept = np.array(_nucleus(logits, p)) > -np.inf
    shares = np.array(mx.softmax(logits))
    assert shares[kept].sum() >= p - 1e-5
    assert shares[kept].max() == shares.max()
    if kept.sum() > 1:
        assert shares[kept].sum() - shares[kept].min() < p + 1e-5


def test_repeat_penalty_is_ctrl_s():
    sampler = Sampler(repeat_penalty=2.0)
    sampler.begin([1, 1, 3])
    np.testing.assert_allclose(np.array(sampler._penalised(LOGITS)), [1, 1.5, 2, -2, 0, 2.5])
    assert [sampler(LOGITS).item() for _ in range(3)] == [5, 2, 1]


def test_mask():
    allowed = mx.array([False, False, True, True, False, False])
    assert Sampler()(LOGITS, allowed).item() == 2
    assert {Sampler(temperature=2.0, seed=s)(LOGITS, allowed).item() for s in range(40)} == {2, 3}


def test_logprobs():
    value, ids, values = logprobs(LOGITS, mx.array(2), 3)
    want = np.array(LOGITS) - np.log(np.exp(np.array(LOGITS)).sum())
    assert value.item() == pytest.approx(want[2])
    assert ids.tolist() == [1, 5, 2]
    np.testing.assert_allclose(np.array(values), want[[1, 5, 2]], rtol=1e-5)
