"""Two Python threads evaluate ops at once: each gets the bytes that it would get alone."""

import mlx.core as mx
import numpy as np
import pytest
from test_kernels_encoder import layer
from test_kernels_fast import bits
from test_kernels_modules import ARGS, logits, quantized
from threads import together

from toast import kernels
from toast.generation.decoder import architecture

ext = pytest.importorskip("toast.kernels._ext")
TURNS = 25
SLOWLY = 5  # of the generic kernels, whose work is divided by the same code and takes ten times as long


@pytest.fixture(autouse=True, params=["auto", "avx2", "generic"])
def installed(request):
    if kernels.install(request.param, threads=2) == "off":
        pytest.skip(f"this CPU cannot run {request.param} kernels")


def product(seed):
    """A prompt's and a single row's, with outliers and rows that are not finite."""
    random = np.random.default_rng(seed)
    w, x = random.standard_normal((300, 256)).astype(np.float32), random.standard_normal((37, 256)).astype(np.float32)
    x[::5, seed] *= 80
    x[3, 7] = np.inf
    q = mx.quantize(mx.array(w), group_size=32, bits=4 + 4 * (seed % 2))
    mx.eval(q)

    def run():
        form = {"group_size": 32, "bits": 4 + 4 * (seed % 2)}
        return [bits(ext.quantized_matmul(mx.array(part), *q, **form)) for part in (x, x[:1])]

    return run


def encoder(seed):
    """Texts one step after the other, and in chunks of texts."""
    bert, _ = layer()
    mx.eval(bert.linears, bert.norms)
    random = np.random.default_rng(seed)
    texts = [random.standard_normal((B, L, 128)).astype(np.float32) for B, L in ((3, 20 + seed), (40, 9))]
    return lambda: [bits(bert(mx.array(x), None)) for x in texts]


def decoder(seed):
    """A prompt and steps, on a model that the threads share."""
    tokens = np.random.default_rng(seed).integers(0, 50, 40).tolist()
    pieces = [tokens[:30], *[[t] for t in tokens[30:]]]
    return lambda: logits(MODEL["llama"], pieces, MODEL["llama"].make_cache())


MODEL = {}


@pytest.fixture
def shared_model():
    MODEL["llama"] = quantized(architecture("llama", ARGS))
    mx.eval(MODEL["llama"].parameters())
    yield
    MODEL.clear()


@pytest.mark.parametrize("pair", [(product, product), (encoder, encoder), (decoder, decoder), (product, decoder)])
def test_two_threads_give_the_bytes_of_one(shared_model, pair):
    runs = [make(seed) for seed, make in enumerate(pair)]
    expected = [run() for run in runs]
    count = SLOWLY if kernels.variant() == "generic" else TURNS
    for alone, turns in zip(expected, together(*runs, turns=count), strict=True):
        assert len(turns) == count
        for turn in turns:
            for a, b in zip(alone, turn, strict=True):
                np.testing.assert_array_equal(a, b)


def test_the_pool_serves_two_threads():
    """A scan and tasks of the pool, without MLX between them and the threads."""
    random = np.random.default_rng(1)
    codes, query = random.integers(-127, 128, (3000, 64), dtype=np.int8), random.standard_normal(64).astype(np.float32)
    given = codes.tobytes(), np.ones(3000, np.float32).tobytes(), query.tobytes()
    scores = ext.int8_scan(*given)
    found = together(lambda: ext.int8_scan(*given), lambda: ext.parallel_sum(1000), turns=TURNS)
    assert found == [[scores] * TURNS, [499500] * TURNS]


def test_threads_may_change_meanwhile():
    run = product(2)
    expected = run()
    found = together(run, lambda: [ext.set_threads(n) for n in (1, 3, 2, 0)], turns=TURNS)[0]
    for turn in found:
        for a, b in zip(expected, turn, strict=True):
            np.testing.assert_array_equal(a, b)
