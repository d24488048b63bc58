"""MLX-LM's architectures against transformers: checkpoints as transformers saves them, first-step logits in float32."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest
import tiny

from toast.generation import decoder
from toast.generation.generate import has_kv_caches
from toast.generation.ragged_cache import batch

CLOSE = 2e-4
DIFFERENT = {"phi3-longrope"}  # docs/design.md says why
NAMES = [name for name in tiny.oracles("architectures") if name not in DIFFERENT]
fixture = partial(tiny.oracle, "architectures")
pytestmark = pytest.mark.usefixtures("variant")


@pytest.fixture(scope="module")
def model(checkpoints):
    """model(name) -> that checkpoint, loaded once."""
    return checkpoints("architectures", lambda folder: decoder.load(folder)[0])


def last_logits(model, ids, *, pieces):
    """Those after the ids, read in pieces of these lengths and the rest."""
    caches = decoder.caches(model)
    for length in pieces:
        model(mx.array([ids[:length]]), cache=caches)
        mx.eval([cache.state for cache in caches])
        ids = ids[length:]
    return np.array(model(mx.array([ids]), cache=caches)[0, -1])


@pytest.mark.parametrize("name", NAMES)
def test_first_logits(model, name):
    for run in fixture(name)["runs"]:
        found = last_logits(model(name), run["ids"], pieces=[])
        assert np.abs(found - run["logits"]).max() <= CLOSE


@pytest.mark.parametrize("name", NAMES)
def test_logits_from_caches(model, name):
    """A prompt read in pieces, and its last tokens one by one, gives the same."""
    for run in fixture(name)["runs"]:
        found = last_logits(model(name), run["ids"], pieces=[len(run["ids"]) - 3, 1, 1])
        assert np.abs(found - run["logits"]).max() <= CLOSE


@pytest.mark.parametrize("name", NAMES)
def test_logits_in_a_batch(model, name):
    """Both prompts at once, as `--each` decodes them."""
    runs, made = fixture(name)["runs"], model(name)
    if not has_kv_caches(decoder.caches(made)):
        pytest.skip("one by one")
    texts = batch(made, lambda: decoder.caches(made))
    texts.place({row: run["ids"] for row, run in enumerate(runs)})
    found = np.array(texts.step({row: run["ids"][-1] for row, run in enumerate(runs)}))
    for logits, run in zip(found, runs, strict=True):
        assert np.abs(logits - run["logits"]).max() <= CLOSE


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_what_differs_still_does(model, name):
    """A release of MLX-LM that puts it right takes it off the list."""
    runs = fixture(name)["runs"]
    found = [np.abs(last_logits(model(name), run["ids"], pieces=[]) - run["logits"]).max() for run in runs]
    assert max(found) > CLOSE
