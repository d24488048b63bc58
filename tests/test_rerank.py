"""`rerank` on the installed command: order, forms, groups, windows, and scores against references."""

import json
import os
import shutil

import mlx.core as mx
import numpy as np
import pytest
import tiny
from command import command
from hypothesis import given, settings
from hypothesis import strategies as st

from toast.encoding import maxsim
from toast.encoding.idf import token_weights
from toast.encoding.relevance import Relevance, sigmoid

LINES = b"the cat sat\nblue sky\n\n a dog ran fast \nthe cat sat\n"
ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")


@pytest.fixture(scope="module")
def cross(tmp_path_factory):
    return tiny.bert(tmp_path_factory.mktemp("cross") / "cross", labels=["relevance"])


@pytest.fixture(params=["embedding", "cross"])
def scorer(request, model, cross):
    return model if request.param == "embedding" else cross


def ranked(model, *words, stdin=LINES):
    """[(score, record)] as --scores writes them."""
    out = command("rerank", "-m", model, "--scores", "a cat", *words, stdin=stdin).ok().out
    pairs = [line.split(b"\t", 1) for line in out.split(b"\n")[:-1]]
    return [(float(score), record) for score, record in pairs]


def oracle(name):
    path = os.path.join(ORACLES, name)
    with open(os.path.join(path, "oracle.json"), encoding="utf-8") as file:
        return path, json.load(file)


# ---------------------------------------------------------------- order and bytes


def test_the_same_records_best_first(scorer):
    found = ranked(scorer)
    scores = [score for score, _ in found]
    assert sorted(record for _, record in found) == sorted(LINES.split(b"\n")[:-1])
    assert scores == sorted(scores, reverse=True) and all(0 <= s <= 1 for s in scores)
    plain = command("rerank", "-m", scorer, "a cat", stdin=LINES).ok().out
    assert plain == b"".join(record + b"\n" for _, record in found)


def test_equal_records_keep_their_order(scorer):
    stdin = b'{"text":"the cat sat","n":1}\n{"text":"sky"}\n{"text":"the cat sat","n":2}\n'
    out = command("rerank", "-m", scorer, "--jsonl", "a cat", stdin=stdin).ok().out
    assert out.index(b'"n":1') < out.index(b'"n":2')


def test_raw_bytes_are_kept(model):
    records = [b"a \xff cat\r", b"\xef\xbb\xbfdog", b"tab\tbed", b""]
    result = command("rerank", "-q", "-m", model, "cat", stdin=b"\n".join(records) + b"\n")
    assert sorted(result.ok().out.split(b"\n")[:-1]) == sorted(records)


def test_nul_separated(model):
    out = command("rerank", "-0", "-m", model, "cat", stdin=b"dog\nbird\0the cat\0").ok().out
    assert sorted(out.split(b"\0")) == [b"", b"dog\nbird", b"the cat"]


def test_a_file_without_a_last_line_break_gets_one(model):
    assert command("rerank", "-m", model, "cat", stdin=b"the cat").ok().out == b"the cat\n"


# ---------------------------------------------------------------- choosing and forms


def test_k_and_threshold(scorer):
    found = ranked(scorer)
    assert ranked(scorer, "-k2") == found[:2]
    middle = found[2][0]
    assert ranked(scorer, "--threshold", f"{middle - 1e-6}") == [pair for pair in found if pair[0] >= middle]


def test_nothing_found(model):
    words = ["rerank", "-m", model, "cat"]
    for more, stdin in (([], b""), (["--threshold", "1"], LINES), (["--no-input"], LINES)):
        result = command(*words, *more, stdin=stdin)
        assert (result.status, result.out, result.err) == (1, b"", b""), result


def test_scores_are_sigmoids_of_raw_scores(scorer):
    raw = ranked(scorer, "--raw-scores")
    assert [f"{sigmoid(logit):.4f}" for logit, _ in raw] == [f"{score:.4f}" for score, _ in ranked(scorer)]


def test_json(model):
    stdin = b'{"text":"a dog","id":7,"score":"old"}\n\n{"text":"the cat"}\n'
    out = command("rerank", "--jsonl", "--json", "-m", model, "cat", stdin=stdin).ok().out
    rows = {row["index"]: row for row in map(json.loads, out.splitlines())}
    assert rows[0]["id"] == 7 and isinstance(rows[0]["score"], float)
    assert set(rows[1]) == {"index", "score", "text"} and rows[1]["text"] == "the cat"


def test_field(model):
    stdin = b'{"body":"a dog","text":1}\n'
    assert command("rerank", "--field", "body", "-m", model, "cat", stdin=stdin).ok().out == stdin
    command("rerank", "--jsonl", "-m", model, "cat", stdin=b'{"a":"b"}\n').fails("no field 'text'")


# ---------------------------------------------------------------- many queries


def test_groups_are_ranked_apart(model):
    rows = [("cat", "a dog"), ("sky", "blue sky"), ("cat", "the cat"), ("sky", "red model")]
    lines = [json.dumps({"q": q, "text": text}) for q, text in rows]
    out = command("rerank", "--query-field", "q", "-m", model, stdin="\n".join(lines).encode()).ok().out
    alone = b""
    for query in ("cat", "sky"):
        own = "\n".join(line for line, row in zip(lines, rows) if row[0] == query)
        alone += command("rerank", "--jsonl", "-m", model, query, stdin=own.encode()).ok().out
    assert out == alone


def test_group_field_with_one_query(model):
    lines = [json.dumps({"g": i % 2, "text": text}) for i, text in enumerate(["cat", "dog", "the cat", "sky"])]
    words = ["rerank", "--group", "g", "-k1", "--json", "-m", model, "cat"]
    out = command(*words, stdin="\n".join(lines).encode()).ok().out
    assert [json.loads(line)["g"] for line in out.splitlines()] == [0, 1]


def test_fields_inside_of_objects(model):
    """`a.b` in all three places; of lists, into which --where looks, none takes a member."""
    rows = [("cat", "a dog"), ("sky", "blue sky"), ("cat", "the cat")]

    def ran(lines, *words):
        out = command("rerank", "--json", "-m", model, *words, stdin="\n".join(lines).encode()).ok().out
        return [json.loads(line)["text"] for line in out.splitlines()]

    plain = [json.dumps({"q": q, "text": text}) for q, text in rows]
    inside = [json.dumps({"a": {"q": q}, "b": {"text": text}}) for q, text in rows]
    assert ran(plain, "--query-field", "q") == ran(inside, "--query-field", "a.q", "--field", "b.text")
    assert ran(plain, "--group", "q", "cat") == ran(inside, "--group", "a.q", "--field", "b.text", "cat")


def test_groups_are_told_apart(model):
    lines = [json.dumps({"g": g, "text": "cat"}) for g in (1, "1", 1, [1])]
    words = ["rerank", "--group", "g", "-k1", "--json", "-m", model, "cat"]
    out = command(*words, stdin="\n".join(lines).encode()).ok().out
    assert [json.loads(line)["g"] for line in out.splitlines()] == [1, "1", [1]]
    command(*words, stdin=b'{"text": "cat", "g": 1}\n{"text": "a"}\n').fails("record 2: no field 'g'")


def test_group_without_a_query(model):
    words = ["rerank", "--query-field", "q", "-m", model]
    command(*words, stdin=b'{"text":"a"}\n').fails("record 1: no query", "--query-field")


# ---------------------------------------------------------------- long records


def test_a_long_record_takes_its_best_window(scorer):
    filler = " ".join(["blue sky"] * 20)
    record = f"{filler} the cat sat".encode()
    best = ranked(scorer, stdin=record + b"\n")[0][0]
    result = command("rerank", "--scores", "--long", "truncate", "-m", scorer, "a cat", stdin=record)
    cut = float(result.ok(quiet=False).out.split(b"\t")[0])
    assert b"1 record over the model's limit cut" in result.err
    assert best >= cut
    parts = [filler.encode(), b"the cat sat"]
    assert best > min(ranked(scorer, stdin=part)[0][0] for part in parts)


def test_long_error_and_strict(model):
    long = b"cat " * 99
    command("rerank", "--long", "error", "-m", model, "cat", stdin=long).fails("longer than 24 tokens")
    result = command("rerank", "-q", "--strict", "--long", "truncate", "-m", model, "cat", stdin=long)
    assert result.status == 3 and result.out == long + b"\n"


# ---------------------------------------------------------------- scores


def test_one_by_one_and_together(scorer):
    records = [b"cat " * n + b"dog" for n in range(1, 40)]
    together = command("rerank", "--json", "--raw-scores", "-m", scorer, "cat", stdin=b"\n".join(records)).ok()
    scores = {row["text"]: row["score"] for row in map(json.loads, together.out.splitlines())}
    for record in records[::9]:
        alone = command("rerank", "--json", "--raw-scores", "-m", scorer, "cat", stdin=record).ok().out
        assert json.loads(alone)["score"] == pytest.approx(scores[record.decode()], abs=1e-5)


@pytest.mark.parametrize("name", ["bert-crossencoder", "xlm-roberta-crossencoder"])
def test_cross_encoders_against_their_reference(name):
    path, facts = oracle(name)
    rows = [{"q": q or " ", "text": text} for q, text in facts["pairs"]]
    asked = [row for row in rows if row["q"].strip()]
    words = ["rerank", "--json", "--raw-scores", "--long", "truncate", "--query-field", "q", "-q", "-m", path]
    out = command(*words, stdin="\n".join(map(json.dumps, asked)).encode()).ok().out
    found = {row["index"]: row["score"] for row in map(json.loads, out.splitlines())}
    expected = [logit for row, logit in zip(rows, facts["logits"]) if row["q"].strip()]
    for i, logit in enumerate(expected):
        assert found[i] == pytest.approx(logit, abs=facts["tolerance_max_abs"]["logits"])


def test_qwen3_reranker_against_its_reference(tmp_path):
    """Also of a record over the limit, which is cut where its makers' code cuts it: at the end of what stands between
    the template's ends, so that all of it fits."""
    path, facts = oracle("qwen3-reranker")
    own = shutil.copytree(path, tmp_path / "qwen3-reranker")
    (own / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": facts["max_length"]}))
    cut = 0
    for item, ids, score in zip(facts["items"], facts["input_ids"], facts["scores"]):
        if not item["query"].strip():
            continue
        words = ["rerank", "--json", "--long", "truncate", "-m", own, "--instruction", item["instruction"]]
        stdin = json.dumps({"text": item["document"]}).encode()
        result = command(*words, "--jsonl", item["query"], stdin=stdin).ok(quiet=False)
        assert json.loads(result.out)["score"] == pytest.approx(score, abs=facts["tolerance_max_abs"]["scores"])
        assert result.err == (b"rerank: 1 record over the model's limit cut\n" if len(ids) == 512 else b"")
        cut += len(ids) == 512
    assert cut == 1


@pytest.mark.parametrize("name", ["tiny-colbert-pylate", "tiny-colbert-stanford"])
def test_late_interaction_against_its_reference(name):
    path, facts = oracle(name)
    stdin = "\n".join(json.dumps({"text": text}) for text in facts["documents"]).encode()
    words = ["rerank", "--jsonl", "--json", "--long", "truncate", "-q", "-m", path, facts["query"]]
    found = {
        row["index"]: row["score"]
        for row in map(json.loads, command(*words, "--raw-scores", stdin=stdin).ok().out.splitlines())
    }
    for i, score in enumerate(facts["scores"]):
        assert found[i] == pytest.approx(score, abs=facts["tolerance_max_abs"]["scores"])
    rows = list(map(json.loads, command(*words, stdin=stdin).ok().out.splitlines()))
    assert all(0 <= row["score"] <= 1 for row in rows)


def test_sigmoid():
    assert sigmoid(0.0) == 0.5 and sigmoid(-1e4) == 0.0 and sigmoid(1e4) == 1.0
    assert sigmoid(-3.0) == pytest.approx(1 - sigmoid(3.0))


@pytest.mark.parametrize("longest", [1, 7, 20, 21, 50])
def test_matches_from_both_sides(longest):
    """Each query token's best match by weight, and the best of the text's tokens; as a loop over texts has it, whatever
    else is in the batch."""
    rng = np.random.default_rng(longest)
    lengths = [longest, max(1, longest // 2), 1, 0]
    query, states = (rng.normal(size=shape).astype("f4") for shape in ((3, 8), (4, longest, 8)))
    query, states = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, states))
    weights = np.array([0.5, 0.3, 0.2], "f4")
    similar = maxsim.likeness(mx.array(query), mx.array(states), mx.array(lengths))
    there, back = maxsim.maxsim(similar, mx.array(weights)), maxsim.nearest(similar, mx.array(lengths))
    for row, length, one, other in zip(states, lengths, there.tolist(), back.tolist(), strict=True):
        cosines = row[:length] @ query.T
        assert one == pytest.approx(float(cosines.max(axis=0) @ weights) if length else -1.0, abs=1e-6)
        best = np.sort(cosines.max(axis=1))[-20:] if length else np.array([-1.0])
        assert other == pytest.approx(float(best.mean()), abs=1e-6)
        if length:
            alone = maxsim.likeness(mx.array(query), mx.array(row[None, :length]), mx.array([length]))
            assert maxsim.nearest(alone, mx.array([length])).item() == other


def test_a_text_without_a_token():
    """A static model puts none around a text: an empty record is the last, and no error."""
    out = command("rerank", "-m", os.path.join(ORACLES, "static-f32"), "a cat", stdin=b"\ncat\n").ok().out
    assert out == b"cat\n\n"


class Tokens:
    """An encoding with these offsets."""

    def __init__(self, *offsets):
        self.offsets = offsets


def test_a_words_tokens_weigh_the_same():
    text = "the zyzzyva?"
    the, zyz, zyva, mark, special = token_weights(Tokens((0, 3), (4, 7), (7, 11), (11, 12), (0, 0)), text)
    assert mark == special == 0 and zyz == zyva > the > 0
    assert token_weights(Tokens((0, 0), (0, 1), (0, 0)), "?") == [1, 1, 1]


class Counting:
    """A scorer whose logit is the length of the text."""

    query_cut = False

    def ask(self, query, long):
        self.query = query

    def encode(self, texts, long):
        self.seen = max(len(texts), getattr(self, "seen", 0))
        return [Row([1] * (len(t) + 1)) for t in texts]

    def logits(self, rows):
        import mlx.core as mx

        return mx.array([[float(len(row.ids))] for row in rows])


class Row:
    overflowing = ()

    def __init__(self, ids):
        self.ids = ids


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 300), max_size=600))
def test_batches_keep_the_order(lengths):
    scorer = Relevance(Counting())
    assert scorer.logits("q", ["x" * n for n in lengths]) == [n + 1 for n in lengths]
    assert not lengths or scorer.scorer.seen <= 256


# ---------------------------------------------------------------- what can go wrong


def test_empty_query(model):
    for query in ("", "  "):
        command("rerank", "-m", model, query, stdin=LINES).fails("the query is empty")


def test_strange_queries(model):
    for query in ("?!", "猫 在 哪里", "x" * 5000, b"\xff", "a\nb", "\u202e"):
        assert command("rerank", "-q", "-m", model, query, stdin=LINES).ok().out.count(b"\n") == 5


RERANKER, COLBERT, STANFORD = (
    os.path.join(ORACLES, name) for name in ("qwen3-reranker", "tiny-colbert-pylate", "tiny-colbert-stanford")
)


@pytest.mark.parametrize("words", [[], ["--long", "truncate"], ["--long", "error"]])
@pytest.mark.parametrize("path", [None, "cross", RERANKER, COLBERT, STANFORD])
def test_a_long_query_is_cut_and_told(model, cross, path, words):
    """By every kind of scorer; the records keep their room beside it."""
    path = {None: model, "cross": cross}.get(path, path)
    for query, told in (("cat " * 9000, b"rerank: 1 query over the model's limit cut\n"), ("a cat", b"")):
        result = command("rerank", "--strict", *words, "-m", path, query, stdin=b"cat\nblue\n")
        assert result.status == (3 if told else 0) and result.out.count(b"\n") == 2
        assert result.err.startswith(told) and bool(result.err) == bool(told)


def test_a_query_that_nearly_fills_the_limit(cross):
    """24 tokens, of which 3 are special: any number of the query's leaves some to the record."""
    for n in range(12, 30):
        result = command("rerank", "--scores", "-m", cross, "cat " * n, stdin=b"the cat sat on a mat\nblue\n")
        assert result.status == 0 and result.out.count(b"\n") == 2 and (b"1 query" in result.err) == (n > 15), n


def test_an_instruction_that_fills_the_limit():
    words = ["rerank", "-m", RERANKER, "cat", "--instruction"]
    command(*words, "cat " * 9000, stdin=LINES).fails("the instruction is longer than the model reads")


def test_a_long_query_of_search(model, cross, tmp_path):
    index = tmp_path / "x.db"
    command("index", "-m", model, "-o", index, stdin=LINES).ok()
    words = ["search", "--mode", "lexical", "--rerank", "--rerank-model", cross, "cat " * 99, index]
    result = command(*words)
    assert result.status == 0 and result.out and b"1 query over the limit of" in result.err


def test_models_of_another_kind(tmp_path):
    words = ["rerank", "cat", "-m"]
    kinds = tiny.bert(tmp_path / "c", labels=["a", "b", "c"])
    command(*words, kinds, stdin=LINES).fails("is a classifier with 3 labels", f"classify -m {kinds}")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    command(*words, tmp_path / "m.gguf", stdin=LINES).fails("generates text", "toast -m")


def test_models_that_generate_text(model, tmp_path):
    for name in ("llama-causal", "qwen3-causal"):
        path = os.path.join(ORACLES, name)
        for words in (["rerank", "cat"], ["embed"], ["index"], ["search", "--rerank", "cat", "--rerank-model", path]):
            named = [] if "--rerank" in words else ["-m", path]
            command(*words, *named, stdin=LINES, env={"EMBED_MODEL": model}).fails("generates text", f"toast -m {path}")
    shutil.copytree(os.path.join(ORACLES, "llama-causal"), tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    del config["architectures"]
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    command("rerank", "cat", "-m", tmp_path / "m", stdin=LINES).fails("generates text")
    counts = command("classify", "-l", "a,b", "-c", "-m", tmp_path / "m", stdin=LINES).ok(quiet=False).out
    assert counts.startswith(b"a\t")


def test_an_embedder_that_is_a_language_model_inside():
    path = os.path.join(ORACLES, "qwen3-embed-last")
    assert len(ranked(path, stdin=b"cat\ndog\n")) == 2
    counts = command("classify", "-l", "a,b", "-c", "-m", path, stdin=LINES).ok(quiet=False).out
    assert counts.startswith(b"a\t")
    reranker = os.path.join(ORACLES, "qwen3-reranker")
    for words in (["classify", "-l", "a,b"], ["embed"]):
        command(*words, "-m", reranker, stdin=LINES).fails("ranks records", f"rerank -m {reranker}")


def test_an_embedder_is_no_scorer(cross):
    command("embed", "-m", cross, stdin=LINES).fails("cross-encoder", f"rerank -m {cross}")
    late = os.path.join(ORACLES, "tiny-colbert-pylate")
    command("embed", "-m", late, stdin=LINES).fails("late-interaction", f"rerank -m {late}")


def test_instruction_for_a_model_that_takes_none(model):
    words = ["rerank", "--instruction", "x", "-m", model, "cat"]
    command(*words, stdin=LINES).fails("takes no instruction")


def test_a_threshold_that_no_score_reaches_is_refused(scorer):
    words = ["rerank", "-m", scorer, "cat"]
    for least in ("1.1", "30", "inf"):
        ran = command(*words, "--threshold", least, stdin=LINES)
        ran.fails(f"--threshold {least} is over every score", "from 0 to 1")
    assert command(*words, "--raw-scores", "--threshold", "300", stdin=LINES).status == 1


def test_infinite_threshold(model):
    assert ranked(model, "--threshold=-inf") == ranked(model)
