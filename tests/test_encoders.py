"""Encoders against their makers' code: tiny checkpoints as transformers saves them, token states in float32."""

import json
import os
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
import seeded
from tiny import write_safetensors

from toast import kernels, models
from toast.encoding.tokens import pad

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "encoders")
NAMES = sorted(name.removesuffix(".json") for name in os.listdir(FOLDER))
CLOSE = 2e-4


@pytest.fixture(params=["kernels", "plain"], autouse=True, scope="module")
def variant(request):
    kernels.install("auto" if request.param == "kernels" else "off")
    yield
    kernels.install("off")


@cache
def fixture(name):
    with open(os.path.join(FOLDER, f"{name}.json"), encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def model(tmp_path_factory, variant):
    """model(name) -> that checkpoint, loaded once."""

    @cache
    def load(name):
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.json").write_text(json.dumps(fixture(name)["config"]))
        write_safetensors(str(folder / "model.safetensors"), seeded.tensors(fixture(name)["tensors"]))
        return models.encoder(str(folder))

    return load


def given(*runs):
    """ids, lengths, types of these runs as one batch."""
    types = pad([run["types"] for run in runs]) if runs[0]["types"] else None
    return pad([run["ids"] for run in runs]), mx.array([len(run["ids"]) for run in runs]), types


def furthest(states, run):
    """How far the states of a text are from those of its maker."""
    length = len(run["ids"])
    states = np.array(states)[:length]
    some = states[[0, length // 2, length - 1]]
    return max(np.abs(some - run["states"]).max(), np.abs(states.mean(axis=0) - run["mean"]).max())


@pytest.mark.parametrize("name", NAMES)
def test_states(model, name):
    for run in fixture(name)["runs"]:
        if "logits" in run:
            found = np.array(model(name).logits(*given(run))[0])
            assert np.abs(found - run["logits"]).max() <= CLOSE
        else:
            assert furthest(model(name)(*given(run))[0], run) <= CLOSE


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_single_texts_give(model, name):
    runs, exact = fixture(name)["runs"], kernels.variant() != "off"
    together = np.array(model(name)(*given(*runs)))
    for row, run in zip(together, runs, strict=True):
        alone = np.array(model(name)(*given(run))[0])
        assert np.abs(alone - row[: len(alone)]).max() <= (0 if exact else 1e-5)
