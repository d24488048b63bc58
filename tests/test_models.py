"""Encoders and their settings against the reference values in tests/oracles (float32, CPU).

Each fixture states its own tolerance; the README beside them says what they hold.
"""

import json
import os
from functools import cache

import mlx.core as mx
import numpy as np
import pytest
import tiny

from toast import kernels, models
from toast.encoding.colbert import ColBERT
from toast.encoding.cross_encoder import INSTRUCTION, scorer
from toast.encoding.sentence_transformers import SentenceTransformer, normalize
from toast.encoding.tokens import Tokens, batch, pad
from toast.errors import BadModel
from toast.store import weights
from toast.store.quantize import quantize, source_digest
from toast.task import is_late, purpose

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
by_each = pytest.mark.usefixtures("variant")  # the references hold with our kernels and without


@cache
def oracle(name):
    """(folder, oracle.json, oracle.npz) of a fixture."""
    path = os.path.join(ORACLES, name)
    with open(os.path.join(path, "oracle.json"), encoding="utf-8") as f:
        return path, json.load(f), dict(np.load(os.path.join(path, "oracle.npz")))


@cache
def made(kind, name, variant):
    return kind(oracle(name)[0])


def model(name):
    return made(models.encoder, name, kernels.variant())


def sentence(name):
    return made(SentenceTransformer, name, kernels.variant())


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


@by_each
@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_states(name):
    _, facts, expected = oracle(name)
    for key in [k for k in expected if k.startswith("hidden_") and k != "hidden_batch"]:
        ids, lengths, types = inputs(facts, [int(key[7:])])
        hidden = model(name)(ids, lengths, types)
        assert largest(hidden[0], expected[key]) <= facts["tolerance_max_abs"]["hidden"]


@by_each
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


@by_each
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


@by_each
@pytest.mark.parametrize("name", SCORERS + [n for n in TINY if "logits" in oracle(n)[2]])
def test_logits(name):
    _, facts, expected = oracle(name)
    ids, lengths, types = inputs(facts, range(len(facts["input_ids"])))
    logits = model(name).logits(ids, lengths, types)
    logits = np.array(logits).reshape(expected["logits"].shape)
    assert largest(logits, expected["logits"]) <= facts["tolerance_max_abs"]["logits"]


@by_each
@pytest.mark.parametrize("name", ENCODERS)
def test_batch_equals_single(name):
    _, facts, _ = oracle(name)
    rows = range(len(facts["input_ids"]))
    together = np.array(model(name)(*inputs(facts, rows)))
    exact = kernels.variant() != "off"  # MLX's own sums depend on the shape of the batch
    limit = 0 if exact else 1e-6 * max(1, np.abs(together).max())
    for i in rows:
        alone = model(name)(*inputs(facts, [i]))[0]
        assert largest(alone, together[i, : alone.shape[0]]) <= limit


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


@by_each
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
        tolerance = facts["tolerance_max_abs"]["probabilities"]
        assert largest(got, expected["probabilities"]) <= tolerance
        names = [model.labels[i] for i in np.array(got).argmax(axis=1)]
        assert names == facts["labels"]


@by_each
@pytest.mark.parametrize("together", [True, False])
def test_qwen3_reranker(together):
    path, facts, expected = oracle("qwen3-reranker")
    model, rows = scorer(path), []
    model.max_length = facts["max_length"]
    for item in facts["items"]:
        rows += model.encode([(item["query"], item["document"])], instruction=item["instruction"])
    assert [row.ids for row in rows] == facts["input_ids"]
    batches = [rows] if together else [[row] for row in rows]
    logits = mx.concatenate([model.logits(batch) for batch in batches])
    scores = np.array(model.activation(logits))[:, 0]
    assert largest(scores, expected["scores"]) <= facts["tolerance_max_abs"]["scores"]


def test_a_record_over_a_rerankers_limit_is_cut_where_its_makers_cut_it():
    """Ids of the published recipe (github.com/QwenLM/Qwen3-Embedding): the first of a body, between the ends."""
    path, facts, _ = oracle("qwen3-reranker")
    model = scorer(path)
    model.max_length = facts["max_length"]
    for item, ids in zip(facts["items"], facts["input_ids"]):
        for whole in (True, False):
            [row] = model.encode([(item["query"], item["document"])], instruction=item["instruction"], whole=whole)
            assert row.ids == ids and bool(row.overflowing) == (len(ids) == model.max_length)


def test_a_long_document_is_scored_in_pieces_behind_the_same_query():
    path, _, _ = oracle("qwen3-reranker")
    model = scorer(path)
    (row,) = model.encode([("cat", "The cat sat. " * 400)])
    assert len(row.overflowing) >= 2
    head = len(model.ids("<Instruct>: " + INSTRUCTION + "\n<Query>: cat\n<Document>:"))
    for piece in row.overflowing:
        assert len(piece.ids) <= model.max_length
        assert piece.ids[: len(model.prefix) + head] == row.ids[: len(model.prefix) + head]


@by_each
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", fixtures("late"))
def test_late_interaction(name, together):
    path, facts, expected = oracle(name)
    model = ColBERT(path)
    assert is_late(path)
    query = model.query(facts["query"])
    assert largest(query, expected["query"]) <= facts["tolerance_max_abs"]["scores"]
    rows = model.encode(facts["documents"])
    scores = mx.concatenate([model.scores(query, b) for b in ([rows] if together else zip(rows))])
    assert largest(scores, facts["scores"]) <= facts["tolerance_max_abs"]["scores"]
    assert [bool(row.overflowing) for row in rows] == [False, False, False, True]


# ---------------------------------------------------------------- quantised and damaged folders


def cosines(x, y):
    return np.sum(np.array(normalize(x)) * np.array(normalize(y)), axis=1)


@pytest.mark.parametrize("group", [32, 64])
def test_8_bits_keep_the_meaning(tmp_path, group):
    source = tiny.bert(tmp_path / "source", D=64, layers=3)
    quantize(source, tmp_path / "small", bits=8, group=group)
    small, large = (models.encoder(str(path)) for path in (tmp_path / "small", source))
    texts = ["the cat sat", "a dog ran to the mat", "red " * 20]
    ids, lengths, types = batch(Tokens(source, 24).encode(texts))
    hidden = [m(ids, lengths, types)[:, 0] for m in (small, large)]
    assert cosines(*hidden).min() > 0.999
    assert (tmp_path / "small" / "modules.json").exists()
    assert source_digest(str(tmp_path / "small")) == source_digest(source)


@pytest.mark.parametrize("name", TINY)
def test_every_architecture_reads_its_8_bit_form(tmp_path, name):
    path, facts, expected = oracle(name)
    quantize(path, tmp_path / "small", group=32)
    assert any(key.endswith("scales") for key in weights.load(str(tmp_path / "small")))
    hidden = models.encoder(str(tmp_path / "small"))(*inputs(facts, [2]))[0]
    assert cosines(hidden, mx.array(expected["hidden_2"])).mean() > 0.99


@by_each
def test_8_bit_batch_equals_single(tmp_path):
    quantize(tiny.bert(tmp_path / "source", D=64), tmp_path / "small")
    model = models.encoder(str(tmp_path / "small"))
    rows = [[2, 40, 3], [2, *range(30, 60), 3], [2, 3]]
    together = np.array(model(pad(rows), mx.array([3, 32, 2])))
    limit = 0 if kernels.variant() != "off" else 1e-5
    for row, want in zip(rows, together):
        alone = model(mx.array([row]), mx.array([len(row)]))[0]
        assert largest(alone, want[: len(row)]) <= limit


def test_quantised_files_are_aligned_safetensors(tmp_path):
    quantize(tiny.bert(tmp_path / "source", D=64), tmp_path / "small")
    file = tmp_path / "small" / "model.safetensors"
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    offsets = sorted(v["data_offsets"] for k, v in header.items() if k != "__metadata__")
    assert (8 + size) % 64 == 0
    assert all(end == start for (_, end), (start, _) in zip(offsets, offsets[1:]))
    assert offsets[-1][1] == len(raw) - 8 - size
    assert set(mx.load(str(file))) == set(header) - {"__metadata__"}


def damage(path, name, value):
    """Overwrite or remove (None) a file; change a key of config.json when `name` is a dict."""
    if isinstance(name, dict):
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | name))
    elif value is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(value)


DAMAGES = [
    ("config.json", None), ("config.json", b"{"), ("config.json", b"[]"), ("config.json", b"3"),
    ("config.json", b"\xff\xfe"), ("config.json", b"[" * 100000), ("config.json", b"{}"),
    ("model.safetensors", None), ("model.safetensors", b""), ("model.safetensors", b"\xff" * 100),
    ("tokenizer.json", None), ("tokenizer.json", b"not JSON"), ("tokenizer.json", b"{}"),
    ("modules.json", b"[3]"), ("modules.json", b"{"), ("1_Pooling/config.json", b"[]"),
    ("1_Pooling/config.json", None), ("1_Pooling/config.json", b'{"pooling_mode": "median"}'),
    ({"model_type": "gpt9"}, 0), ({"model_type": "../bert"}, 0), ({"model_type": "layers"}, 0),
    ({"model_type": None}, 0), ({"hidden_size": 48}, 0), ({"hidden_size": "32"}, 0),
    ({"num_hidden_layers": 3}, 0), ({"num_hidden_layers": -1.5}, 0), ({"hidden_act": "magic"}, 0),
    ({"num_attention_heads": 5}, 0), ({"num_attention_heads": 0}, 0), ({"vocab_size": 10**12}, 0),
    ({"intermediate_size": None}, 0), ({"position_embedding_type": "relative_key"}, 0),
    ({"max_position_embeddings": 8}, 0), ("config_sentence_transformers.json", b"[1]"),
]  # fmt: skip


@pytest.mark.parametrize("name, value", DAMAGES)
def test_damaged_folders(tmp_path, name, value):
    path = tmp_path / "tiny"
    tiny.bert(path)
    damage(path, name, value)
    with pytest.raises(BadModel) as error:
        models.encoder(str(path))
        SentenceTransformer(str(path))
        Tokens(str(path), 24)
        pytest.fail("nothing was refused")
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    "name, value",
    [({"architectures": 5}, 0), ({"architectures": {"a": 1}}, 0), ({"architectures": [3]}, 0),
     ("config_sentence_transformers.json", b"[1]")],
)  # fmt: skip
def test_a_purpose_that_cannot_be_told(tmp_path, name, value):
    path = tmp_path / "tiny"
    tiny.bert(path)
    (path / "modules.json").unlink()
    damage(path, name, value)
    with pytest.raises(BadModel) as error:
        purpose(str(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_tokenizer_of_another_model(tmp_path):
    path = tiny.bert(tmp_path / "tiny")
    with pytest.raises(BadModel, match="token id"):
        models.encoder(path)(mx.array([[2, 100000, 3]]), mx.array([3]))


def test_a_model_of_the_wrong_kind(tmp_path):
    path = tiny.bert(tmp_path / "tiny")
    with pytest.raises(BadModel, match="head"):
        scorer(path)
    with pytest.raises(BadModel, match="late"):
        SentenceTransformer(oracle("tiny-colbert-pylate")[0])


def test_settings_of_a_quantised_folder_are_checked(tmp_path):
    quantize(tiny.bert(tmp_path / "source", D=64), tmp_path / "small")
    damage(tmp_path / "small", {"quantization": {"bits": 8}}, 0)
    with pytest.raises(BadModel, match="group_size"):
        models.encoder(str(tmp_path / "small"))


# ---------------------------------------------------------------- pooling and modules

HIDDEN = np.random.default_rng(3).normal(size=(3, 5, 4)).astype(np.float32)
LENGTHS = [5, 3, 1]
POOLED = {
    "cls": lambda x: x[0],
    "lasttoken": lambda x: x[-1],
    "max": lambda x: x.max(axis=0),
    "mean": lambda x: x.mean(axis=0),
    "mean_sqrt_len_tokens": lambda x: x.sum(axis=0) / np.sqrt(len(x)),
    "weightedmean": lambda x: np.average(x, axis=0, weights=np.arange(1, len(x) + 1)),
}


def pooled_by(folder, config):
    with open(os.path.join(folder, "1_Pooling", "config.json"), "w") as file:
        json.dump(config, file)
    return SentenceTransformer(folder)


@pytest.mark.parametrize("mode", POOLED)
def test_pooling(tmp_path, mode):
    by_mode = pooled_by(tiny.bert(tmp_path / "tiny"), {"pooling_mode": mode})
    got = by_mode.pool(mx.array(HIDDEN), mx.array(LENGTHS))
    want = np.array([POOLED[mode](x[:n]) for x, n in zip(HIDDEN, LENGTHS)])
    assert largest(got, want) < 1e-6


def test_two_poolings_stand_side_by_side(tmp_path):
    config = {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}
    both = pooled_by(tiny.bert(tmp_path / "tiny"), config)
    got = both.pool(mx.array(HIDDEN), mx.array(LENGTHS))
    want = [np.concatenate([x[0], x[:n].max(axis=0)]) for x, n in zip(HIDDEN, LENGTHS)]
    assert largest(got, np.array(want)) < 1e-6 and both.dims == 64


def test_the_prompt_is_left_out_when_the_model_says_so(tmp_path):
    config = {"pooling_mode": "mean", "include_prompt": False}
    without = pooled_by(tiny.bert(tmp_path / "tiny"), config)
    got = without.pool(mx.array(HIDDEN[:1]), mx.array([4]), skip=2)
    assert largest(got[0], HIDDEN[0, 2:4].mean(axis=0)) < 1e-6


def write_modules(folder, **paths):
    entries = [{"path": path, "type": f"x.models.{kind}"} for kind, path in paths.items()]
    tiny.write_json(folder, "modules.json", entries)


def test_dense_after_pooling(tmp_path):
    folder = tiny.bert(tmp_path / "tiny", D=4)
    rng = np.random.default_rng(5)
    w, b = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    tiny.write_json(folder, "2_Dense/config.json", {"in_features": 4, "out_features": 3})
    tensors = {"linear.weight": w, "linear.bias": b}
    tiny.write_safetensors(f"{folder}/2_Dense/model.safetensors", tensors)
    write_modules(folder, Transformer="", Pooling="1_Pooling", Dense="2_Dense", Normalize="n")
    model = SentenceTransformer(folder)
    got = model.pool(mx.array(HIDDEN), mx.array([5, 5, 5]))
    assert largest(got, np.tanh(HIDDEN.mean(axis=1) @ w.T + b)) < 1e-5
    assert model.dims == 3 and model.normalize


def test_without_modules_json_the_mean_is_taken(tmp_path):
    folder = tiny.bert(tmp_path / "tiny")
    os.remove(os.path.join(folder, "modules.json"))
    model = SentenceTransformer(folder)
    got = model.pool(mx.array(HIDDEN), mx.array(LENGTHS))
    want = np.array([x[:n].mean(axis=0) for x, n in zip(HIDDEN, LENGTHS)])
    assert largest(got, want) < 1e-6 and not model.normalize and model.dims == 32


def test_an_older_folder_keeps_the_transformer_below(tmp_path):
    folder = tmp_path / "tiny"
    tiny.bert(folder)
    (folder / "0_BERT").mkdir()
    for file in [file for file in folder.iterdir() if file.is_file()]:
        file.rename(folder / "0_BERT" / file.name)
    write_modules(folder, Transformer="0_BERT", Pooling="1_Pooling")
    assert SentenceTransformer(str(folder)).max_length == 24
    assert models.encoder(str(folder))(mx.array([[2, 3]]), mx.array([2])).shape == (1, 2, 32)


def test_lower_case_is_the_models_wish(tmp_path):
    folder = tiny.bert(tmp_path / "tiny")
    text = json.loads(open(os.path.join(folder, "tokenizer.json")).read())
    text["normalizer"] = None
    tiny.write_json(folder, "tokenizer.json", text)
    plain, lower = Tokens(folder, 24), Tokens(folder, 24, lower=True)
    (a,), (b,), (c,) = plain.encode(["cat"]), lower.encode(["CAT"]), plain.encode(["CAT"])
    assert a.ids == b.ids != c.ids


def test_what_is_cut_is_told():
    name = "bert-embed-cls"
    whole, cut = tokens(name).encode(["cat", "cat " * 500])
    assert not whole.overflowing and len(cut.overflowing) >= 2
    pieces = [cut, *cut.overflowing]
    assert all(len(p.ids) <= 256 and p.ids[0] == 2 and p.ids[-1] == 3 for p in pieces)
    once = Tokens(oracle(name)[0], 256).encode(["cat " * 500], special=False, truncate=None)[0].ids
    assert [i for p in pieces for i in p.ids[1:-1]] == once
