"""Encoders and their settings against the reference values in tests/oracles (float32, CPU).

Each fixture states its own tolerance; README.md there says how they were made.
"""

import json
import os
from functools import cache

import mlx.core as mx
import numpy as np
import pytest

from toast import models
from toast.errors import BadModel
from toast.models.scorer import scorer
from toast.models.sentence import Sentence, normalize
from toast.models.tokens import Tokens, batch, pad

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")


@cache
def oracle(name):
    """(folder, oracle.json, oracle.npz) of a fixture."""
    path = os.path.join(ORACLES, name)
    with open(os.path.join(path, "oracle.json"), encoding="utf-8") as f:
        return path, json.load(f), dict(np.load(os.path.join(path, "oracle.npz")))


@cache
def model(name):
    return models.encoder(oracle(name)[0])


@cache
def sentence(name):
    return Sentence(oracle(name)[0])


@cache
def tokens(name):
    path, facts, _ = oracle(name)
    limit = facts.get("max_seq_length") or facts["max_length"]
    return Tokens(path, limit)


def fixtures(*kinds):
    """Names of the fixtures of these kinds."""
    names = []
    for name in sorted(os.listdir(ORACLES)):
        if os.path.exists(os.path.join(ORACLES, name, "oracle.json")):
            names += [name] if oracle(name)[1]["kind"] in kinds else []
    return names


SCORERS = fixtures("cross-encoder", "classifier", "nli")
TINY = fixtures("tiny")
ENCODERS = fixtures("embedding") + SCORERS + TINY


def inputs(facts, rows):
    """ids, lengths, types of these inputs, one batch."""
    ids = [facts["input_ids"][i] for i in rows]
    types = facts["token_type_ids"] and pad([facts["token_type_ids"][i] for i in rows])
    return pad(ids), mx.array([len(row) for row in ids]), types


def largest(x, y):
    return float(np.abs(np.asarray(x, np.float32) - y).max())


@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_states(name):
    _, facts, expected = oracle(name)
    for key in [k for k in expected if k.startswith("hidden_") and k != "hidden_batch"]:
        ids, lengths, types = inputs(facts, [int(key[7:])])
        hidden = model(name)(ids, lengths, types)
        assert largest(hidden[0], expected[key]) <= facts["tolerance_max_abs"]["hidden"]


@pytest.mark.parametrize("name", fixtures("embedding"))
def test_padded_batch(name):
    _, facts, expected = oracle(name)
    ids, lengths, types = inputs(facts, facts["padded_batch"]["text_indices"])
    hidden = np.array(model(name)(ids, lengths, types))
    for row, want, n in zip(hidden, expected["hidden_batch"], lengths.tolist()):
        assert largest(row[:n], want[:n]) <= facts["tolerance_max_abs"]["hidden"]


def embed(name, texts, prompt=""):
    ids, lengths, types = batch(tokens(name).encode([prompt + text for text in texts]))
    return sentence(name).pool(model(name)(ids, lengths, types), lengths)


@pytest.mark.parametrize("name", fixtures("embedding"))
def test_embeddings_of_texts(name):
    _, facts, expected = oracle(name)
    tolerance = facts["tolerance_max_abs"]["embeddings"]
    vectors = embed(name, facts["texts"])
    own = normalize(vectors) if sentence(name).normalize else vectors
    assert largest(own, expected["embeddings"]) <= tolerance
    assert largest(normalize(vectors), expected["embeddings_normalized"]) <= tolerance
    for kind in ("query", "document", "passage"):
        if f"embeddings_prompt_{kind}" in expected:
            as_kind = "document" if kind == "passage" else kind
            vectors = normalize(embed(name, facts["texts"], sentence(name).prompt(as_kind)))
            assert largest(vectors, expected[f"embeddings_prompt_{kind}"]) <= tolerance


@pytest.mark.parametrize("name", SCORERS + [n for n in TINY if "logits" in oracle(n)[2]])
def test_logits(name):
    _, facts, expected = oracle(name)
    ids, lengths, types = inputs(facts, range(len(facts["input_ids"])))
    logits = model(name).logits(ids, lengths, types)
    logits = np.array(logits).reshape(expected["logits"].shape)
    assert largest(logits, expected["logits"]) <= facts["tolerance_max_abs"]["logits"]


@pytest.mark.parametrize("name", ENCODERS)
def test_batch_equals_single(name):
    _, facts, _ = oracle(name)
    rows = range(len(facts["input_ids"]))
    together = np.array(model(name)(*inputs(facts, rows)))
    for i in rows:
        alone = model(name)(*inputs(facts, [i]))[0]
        difference = largest(alone, together[i, : alone.shape[0]])
        assert difference <= 1e-6 * max(1, np.abs(together).max())


@pytest.mark.parametrize("name", fixtures("embedding", "causal-reranker") + SCORERS)
def test_token_ids(name):
    path, facts, _ = oracle(name)
    given = facts.get("texts") or [tuple(pair) for pair in facts.get("pairs", [])]
    encodings = tokens(name).encode(given)
    if given:
        assert [e.ids for e in encodings] == facts["input_ids"]
        if facts["token_type_ids"]:
            assert [e.type_ids for e in encodings] == facts["token_type_ids"]
    whole = Tokens(path, 1)
    for case in facts["tokenizer_only"]["single"]:
        assert whole.encode([case["text"]], truncate=None)[0].ids == case["ids"]
        bare = whole.encode([case["text"]], special=False, truncate=None)[0].ids
        assert bare == case["ids_no_special"]
    for case in facts["tokenizer_only"]["pairs"]:
        assert whole.encode([(case["a"], case["b"])], truncate=None)[0].ids == case["ids"]


@pytest.mark.parametrize("name", fixtures("embedding"))
def test_limit_comes_from_the_models_files(name):
    assert sentence(name).max_length == oracle(name)[1]["max_seq_length"]


@pytest.mark.parametrize("name", SCORERS)
def test_scores_of_texts(name):
    path, facts, expected = oracle(name)
    model = scorer(path)
    inputs = facts.get("texts") or [tuple(pair) for pair in facts["pairs"]]
    logits = model.logits(model.encode(inputs))
    if "scores" in expected:
        scores = np.array(model.activation(logits))[:, 0]
        assert largest(scores, expected["scores"]) <= facts["tolerance_max_abs"]["scores"]
    else:
        got = model.probabilities(logits)
        assert largest(got, expected["probabilities"]) <= facts["tolerance_max_abs"]["probabilities"]
        names = [model.labels[i] for i in np.array(got).argmax(axis=1)]
        assert names == facts["labels"]


@pytest.mark.parametrize("together", [True, False])
def test_qwen3_reranker(together):
    path, facts, expected = oracle("qwen3-reranker")
    model, rows = scorer(path), []
    model.max_length = facts["max_length"]
    for item in facts["items"]:
        model.instruction = item["instruction"]
        rows += model.encode([(item["query"], item["document"])])
    assert [row.ids for row in rows] == facts["input_ids"]
    batches = [rows] if together else [[row] for row in rows]
    logits = mx.concatenate([model.logits(batch) for batch in batches])
    scores = np.array(model.activation(logits))[:, 0]
    assert largest(scores, expected["scores"]) <= facts["tolerance_max_abs"]["scores"]


def test_a_long_document_is_scored_in_pieces_behind_the_same_query():
    path, _, _ = oracle("qwen3-reranker")
    model = scorer(path)
    (row,) = model.encode([("cat", "The cat sat. " * 400)])
    assert len(row.overflowing) >= 2
    head = len(model.ids("<Instruct>: " + model.instruction + "\n<Query>: cat\n<Document>:"))
    for piece in row.overflowing:
        assert len(piece.ids) <= model.max_length
        assert piece.ids[: len(model.prefix) + head] == row.ids[: len(model.prefix) + head]
