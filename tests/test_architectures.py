"""MLX-LM's architectures against transformers: checkpoints as transformers saves them, first-step logits in float32."""

import json
import os
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
import seeded
from tiny import write_safetensors

from toast.generation import decoder

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "architectures")
NAMES = sorted(name.removesuffix(".json") for name in os.listdir(FOLDER))
CLOSE = 2e-4


@cache
def fixture(name):
    with open(os.path.join(FOLDER, f"{name}.json"), encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """model(name) -> that checkpoint, loaded once."""

    @cache
    def load(name):
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.json").write_text(json.dumps(fixture(name)["config"]))
        write_safetensors(str(folder / "model.safetensors"), seeded.tensors(fixture(name)["tensors"]))
        return decoder.load(str(folder))[0]

    return load


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
