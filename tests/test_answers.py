"""What `classify` answers: a record without words, without a label, over the limit; thresholds, gold, scores alone."""

import json
import os
import shutil

import numpy as np
import pytest
import tiny
from command import command

from rerank import groups
from toast.records import Record

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
NLI = os.path.join(ORACLES, "roberta-nli")
BLANKS = [b"", b"   ", b"\t", b"\x07", b"\xc2\xa0", b"\xe2\x80\x8b"]


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    return tiny.bert(tmp_path_factory.mktemp("moods") / "moods", labels=["good", "bad", "so so"])


def changed(folder, source, **facts):
    """A model's folder with other facts in its config.json."""
    shutil.copytree(source, folder, copy_function=lambda a, b: shutil.copyfile(a, b))
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        config = json.load(file) | facts
    with open(path, "w") as file:
        json.dump(config, file)
    return str(folder)


def classify(*words, stdin=b"the cat sat\n"):
    return command("classify", *words, stdin=stdin)


def rows(*words, stdin=b"the cat sat\n"):
    return [json.loads(line) for line in classify("--json", *words, stdin=stdin).out.splitlines()]


# ---------------------------------------------------------------- nothing to read


@pytest.mark.parametrize("engine", ["descriptions", "classifier", "nli"])
def test_a_record_without_a_token_has_no_label(engine, model, moods):
    words = {"descriptions": ["-m", model, "-l", "good,bad"], "classifier": ["-m", moods, "-l", "good,bad"],
             "nli": ["-m", NLI, "-l", "good,bad"]}[engine]  # fmt: skip
    blanks = BLANKS[:3] if engine == "nli" else BLANKS  # RoBERTa's bytes are tokens
    stdin = b"".join(blank + b"\n" for blank in blanks)
    for row in rows(*words, stdin=stdin):
        assert row["label"] == "" and row["score"] == 0.5 and {one["score"] for one in row["labels"]} == {0.5}
    for label in ("good", "bad"):
        assert classify(*words, "--only", label, stdin=stdin).out == b""
    told = classify(*words, "--threshold", "0.1", stdin=stdin).out.splitlines()
    assert len(told) == len(blanks) and all(line.startswith(b"\t") for line in told)
    many = rows(*words, "--multi", "--threshold", "0", stdin=stdin)
    assert len(many) == len(blanks) and all(row["labels"] == [] and row["score"] == 0 for row in many)
    counted = classify(*words, "-c", stdin=stdin)
    assert counted.out == b"good\t0\nbad\t0\n"
    assert counted.err == b"classify: %d records without a label (--none NAME counts them)\n" % len(blanks)
    assert classify(*words, "--only", "good", "--invert", stdin=b"\n").ok().out == b"\n"


# ---------------------------------------------------------------- any number of labels


def test_multi_loses_no_record(moods):
    stdin = b"cat\nblue sky\n\na dog ran\n"
    for threshold in ("0", "0.5", "1"):
        ran = classify("--multi", "--json", "-m", moods, "--threshold", threshold, stdin=stdin)
        found = [json.loads(line) for line in ran.out.splitlines()]
        assert [row["text"] for row in found] == ["cat", "blue sky", "", "a dog ran"]
        assert all(one["score"] >= float(threshold) for row in found for one in row["labels"])
        assert ran.status == (0 if any(row["labels"] for row in found) else 1)
    out = classify("--multi", "-m", moods, "--threshold", "1", stdin=stdin).out.decode()
    records = [line.split("\t")[0::2] for line in out.splitlines()]
    assert records == [["", text] for text in ("cat", "blue sky", "", "a dog ran")]


def test_none_is_a_label_for_the_rest(moods):
    words = ["-m", moods, "--none", "other"]
    out = classify(*words, "--threshold", "1", stdin=b"cat\n\n").ok().out
    assert [line.split(b"\t")[0] for line in out.splitlines()] == [b"other", b"other"]
    (row,) = rows(*words, "--multi", "--threshold", "1")
    assert row["label"] == "other" and row["labels"] == []
    assert classify(*words, "--threshold", "1", "--only", "other", stdin=b"cat\ndog\n").ok().out == b"cat\ndog\n"
    assert classify(*words, "--threshold", "1", "-c").ok().out == b"good\t0\nbad\t0\nso so\t0\nother\t1\n"
    classify("-m", moods, "--none", "bad").fails("--none", "is a label")
    plain = classify("-m", moods).ok().out
    assert classify(*words).ok().out == plain


@pytest.mark.parametrize("engine", ["moods", "descriptions", "choices", "nli", "cross"])
def test_a_threshold_that_no_score_reaches_is_refused(engine, model, moods, tmp_path):
    others = {"descriptions": model, "choices": os.path.join(ORACLES, "llama-causal"), "nli": NLI}
    words = ["-m", others[engine], "-l", "good,bad"] if engine in others else ["-m", moods]
    if engine == "cross":
        named = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
        folder = os.path.join(ORACLES, "bert-crossencoder")
        words = ["-m", changed(tmp_path / "x", folder, sentence_transformers=named)]
    for more in ([], ["--multi"] if engine in ("moods", "descriptions", "nli") else []):
        ran = classify(*words, *more, "--threshold", "30").fails("--threshold 30 is over every score", "from 0 to 1")
        assert ran.out == b""
    assert classify(*words, "--threshold", "1").err == b""


def test_a_value_has_no_end(moods, tmp_path):
    """Of a regression, and of an output that is written as it is."""
    folder = changed(tmp_path / "m", moods, problem_type="regression")
    assert classify("-m", folder, "--threshold", "30").status == 1
    bare = {"activation_fn": "torch.nn.modules.linear.Identity"}
    folder = changed(tmp_path / "i", os.path.join(ORACLES, "bert-crossencoder"), sentence_transformers=bare)
    assert classify("-m", folder, "--threshold", "30").status == 1


def test_gold_is_kept(moods):
    def kept(**facts):
        (row,) = rows("--jsonl", "-m", moods, stdin=json.dumps({"text": "cat", **facts}).encode())
        assert row["label"] in ("good", "bad", "so so") and len(row["labels"]) == 3
        return row.get("gold", "no gold")

    assert kept(label="x") == "x" and kept(label=None) is None and kept(labels=["a", "b"]) == ["a", "b"]
    assert kept(label="x", gold="y") == "y" and kept(label=7) == 7 and kept() == "no gold"


# ---------------------------------------------------------------- kinds of models


def test_a_regression_gives_its_values(moods, tmp_path):
    folder = changed(tmp_path / "m", moods, problem_type="regression")
    values = {one["label"]: one["score"] for one in rows("-m", folder)[0]["labels"]}
    odds = {one["label"]: one["score"] for one in rows("-m", moods)[0]["labels"]}
    found = np.exp(list(values.values()))
    assert list(found / found.sum()) == pytest.approx([odds[label] for label in values], rel=1e-4)


def test_labels_that_are_decided_one_by_one(moods, tmp_path):
    folder = changed(tmp_path / "m", moods, problem_type="multi_label_classification")
    (own,), (asked,) = rows("-m", folder), rows("-m", moods, "--multi", "--threshold", "0")
    assert own["labels"] == asked["labels"] and len(own["labels"]) == 3


def test_one_output_is_a_score(tmp_path):
    cross = os.path.join(ORACLES, "bert-crossencoder")
    out = classify("-m", cross, stdin=b"a cat\n\na dog\n").ok().out.decode()
    first, blank, second = [line.split("\t") for line in out.splitlines()]
    assert first[1:] == ["a cat"] and second[1:] == ["a dog"] and blank == ["", ""]
    between = (float(first[0]) + float(second[0])) / 2
    best = max((first, second))[1] if float(first[0]) > 0 else max(first, second, key=lambda row: float(row[0]))[1]
    chosen = classify("-m", cross, "--threshold", str(between), stdin=b"a cat\n\na dog\n").ok().out.decode()
    assert chosen.count("\n") == 1 and chosen.endswith(f"\t{best}\n")
    assert classify("-m", cross, "-c", "--threshold", str(between), stdin=b"a cat\na dog\n").ok().out == b"1\n"
    assert rows("-m", cross)[0].keys() == {"score", "text"}
    raw = changed(tmp_path / "r", cross, problem_type="regression")
    plain = changed(
        tmp_path / "s", cross, sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    )
    value, share = (rows("-m", folder)[0]["score"] for folder in (raw, plain))
    assert 1 / (1 + np.exp(-value)) == pytest.approx(share, abs=1e-5)
    for words in (["-l", "a,b"], ["--multi"], ["--only", "a"], ["-k", "2"], ["--none", "x"], ["--next", "2"]):
        classify("-m", cross, *words).fails("gives a score and no labels")


def test_names_that_are_no_names(moods, tmp_path):
    folder = changed(tmp_path / "m", moods, id2label={"0": "good", "1": "good", "2": "so\nso"})
    ran = classify("-m", folder, "-k", "3")
    assert sorted(line.split(b"\t")[0] for line in ran.out.splitlines()) == [b"good", b"good (2)", b"so so"]
    told = ran.err.decode().splitlines()
    assert len(told) == 2 and "label 1, 'good', goes by 'good (2)'" in told[0] and "'so so'" in told[1]
    folder = changed(tmp_path / "n", moods, id2label={"0": "", "1": "\t", "x": "y"})
    ran = classify("-q", "-m", folder, "-k", "3").ok()
    assert sorted(line.split(b"\t")[0] for line in ran.out.splitlines()) == [b"LABEL_0", b"LABEL_1", b"LABEL_2"]


def test_a_hypothesis(moods):
    words = ["-m", NLI, "-l", "cat,dog", "--json"]
    default = classify(*words).ok().out
    assert classify(*words, "--hypothesis", "This example is {}.").ok().out == default
    assert classify(*words, "--hypothesis", "{} is what {this} is about").ok().out != default
    classify(*words, "--hypothesis", "no place").fails("--hypothesis has no {}")
    classify("-m", moods, "--hypothesis", "{}").fails("tests no hypotheses", "NLI")


# ---------------------------------------------------------------- over the limit


def test_a_long_record_is_read_whole(model, moods):
    """Best of its pieces: what the end says counts, and the beginning alone, cut, does not know it."""
    text = "cat " * 400
    for words in (["-m", model, "-l", "cat,sky"], ["-m", moods], ["-m", NLI, "-l", "cat,sky"]):
        both = b"%s blue sky red sky\n" % text.encode()
        cut = classify(*words, "--long", "truncate", stdin=both)
        assert cut.status == 0 and b"over the model's limit cut" in cut.err
        others = {long: classify(*words, "--long", long, "--json", stdin=both).ok().out for long in ("best", "mean")}
        alone = classify(*words, "--long", "truncate", "--json", stdin=both).out
        assert len({alone, *others.values()}) == 3
        assert classify(*words, "--json", stdin=both).ok().out == others["best"]
        classify(*words, "--long", "error", stdin=both).fails("longer than", "--long chooses")


def test_pieces_of_one_text(moods):
    """The best of the pieces is, label by label, the best that any piece has by itself."""
    from rerank.engines import Classifier, Use
    from toast.encoding.cross_encoder import scorer

    engine = Classifier("moods", scorer(moods), Use([]))
    text = "cat dog sky blue " * 30
    pieces = engine.encode([text])
    parts = [pieces[0], *pieces[0].overflowing]
    logits = np.array(engine.logits([parts[0]])), *(np.array(engine.logits([part])) for part in parts[1:])
    best, mean = np.max(logits, axis=0)[0], np.average(logits, axis=0, weights=[len(part.ids) for part in parts])[0]
    for long, expected in (("best", best), ("mean", mean)):
        engine.long = long
        (row,) = engine.probabilities([text])
        odds = np.exp(expected - expected.max())
        assert row == pytest.approx(list(odds / odds.sum()), abs=1e-5)


# ---------------------------------------------------------------- what next, and in groups


def test_the_next_to_label(model, moods):
    stdin = b"cat\ncat\nblue sky\n\na dog ran\nred\n"
    first = classify("-m", model, "-l", "cat,sky", "--next", "3", stdin=stdin).ok().out
    lines = first.splitlines()
    assert len(set(lines)) == 3 and set(lines) <= set(stdin.split(b"\n")) - {b""}
    scores = {row["text"]: row["score"] for row in rows("-m", model, "-l", "cat,sky", stdin=stdin) if row["text"]}
    assert lines[0].decode() == min(scores, key=scores.get)
    assert len(classify("-m", moods, "--next", "99", stdin=stdin).ok().out.splitlines()) == 5
    (row,) = rows("-m", moods, "--jsonl", "--next", "1", stdin=b'{"text": "cat", "id": 3}\n')
    assert row["id"] == 3 and row["label"] in ("good", "bad", "so so")
    assert classify("-m", moods, "--next", "2", stdin=b"\n\n").status == 1
    classify("-m", moods, "--next", "2", "-k", "2").fails("--next", "-k")


def test_groups(model):
    stdin = b"cat dog\nblue sky\ncat dog bird\nred sky\n\ndog cat\n"
    ran = classify("-m", model, "--group", "2", "--json", stdin=stdin)
    assert ran.status == 0 and b"1 record without text" in ran.err
    groups = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["group"] for row in groups] == [0, 1] and groups[0]["size"] >= groups[1]["size"]
    assert all(len(row["records"]) == row["size"] and row["text"] for row in groups)
    assert sorted(i for row in groups for i in row["records"]) == [0, 1, 2, 3, 5]
    assert classify("-m", model, "--group", "2", "--json", stdin=stdin).out == ran.out
    lines = classify("-q", "-m", model, "--group", "2", stdin=stdin).ok().out.decode().splitlines()
    assert [line.split("\t") for line in lines] == [
        [str(row["size"]), " ".join(row["words"]), row["text"]] for row in groups
    ]
    assert len(classify("-m", model, "--group", "9", stdin=b"cat\ncat\ndog\n").ok().out.splitlines()) == 2
    assert classify("-m", model, "--group", "2", stdin=b"").status == 1
    classify("-m", model, "--group", "2", "-l", "a,b").fails("--group and -l exclude")


def test_clusters_that_are_there_are_found():
    rng = np.random.default_rng(0)
    centers = np.eye(8)[:3]
    truth = np.repeat([0, 1, 2], [50, 30, 10])
    vectors = centers[truth] + 0.1 * rng.normal(size=(90, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    owner, found = groups.cluster(vectors.astype(np.float32), 3)
    assert (owner == truth).all() and (found.argmax(axis=1) == [0, 1, 2]).all()


def test_words_of_a_group():
    texts = ["the disk is full", "a full disk again", "the printer is on fire", "a printer without paper"]
    words = groups._Words([Record(b"", text) for text in texts])
    assert words.of([0, 1])[:2] in (["disk", "full"], ["full", "disk"]) and words.of([2, 3])[0] == "printer"
