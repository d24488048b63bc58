"""`classify` on the installed command: engines against their references, forms, filters, labels."""

import json
import math
import os

import numpy as np
import pytest
import tiny
from command import command

from rerank.engines import Entailment, Use
from rerank.labels import Label
from toast.encoding.cross_encoder import scorer

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
LINES = b"the cat sat\nblue sky\n\na dog ran \xff\n"
RECORDS = LINES.split(b"\n")[:-1]


def oracle(name):
    path = os.path.join(ORACLES, name)
    with open(os.path.join(path, "oracle.json"), encoding="utf-8") as file:
        return path, json.load(file), np.load(os.path.join(path, "oracle.npz"))


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    return tiny.bert(tmp_path_factory.mktemp("moods") / "moods", labels=["good", "bad", "so so"])


@pytest.fixture(params=["descriptions", "classifier", "entailment", "choices"])
def words(request, model, moods):
    """Words that choose an engine and its labels good, bad and so so."""
    labels = ["-l", "good,bad,so so"]
    return {
        "descriptions": ["-q", "-m", model, *labels],
        "classifier": ["-q", "-m", moods],
        "entailment": ["-q", "-m", os.path.join(ORACLES, "roberta-nli"), *labels],
        "choices": ["-q", "-m", os.path.join(ORACLES, "llama-causal"), *labels],
    }[request.param]


def classify(*words, stdin=LINES):
    return command("classify", *words, stdin=stdin)


def labelled(*words, stdin=LINES):
    """[(label, score, record)] of the default form."""
    lines = classify(*words, stdin=stdin).ok().out.split(b"\n")[:-1]
    return [(a.decode(), float(b), c) for a, b, c in (line.split(b"\t", 2) for line in lines)]


def as_json(*words, stdin):
    return [json.loads(line) for line in classify("--json", *words, stdin=stdin).ok(quiet=False).out.splitlines()]


def jsonl(texts):
    return "\n".join(json.dumps({"text": text}) for text in texts).encode()


# ---------------------------------------------------------------- engines


def test_every_engine_labels_every_record(words):
    found = labelled(*words)
    assert [record for _, _, record in found] == RECORDS
    for label, score, record in found:
        if record:
            assert label in ("good", "bad", "so so") and 1 / 3 <= score <= 1
        else:  # it says nothing
            assert label == "" and score == pytest.approx(1 / 3, abs=1e-6)


def test_one_by_one_and_together(words):
    together = as_json(*words, stdin=LINES)
    for record, row in zip(RECORDS, together):
        (alone,) = map(json.loads, classify("--json", *words, stdin=record + b"\n").out.splitlines())
        assert alone["label"] == row["label"] and alone["score"] == pytest.approx(row["score"], abs=1e-5)


def test_a_classifier_against_its_reference():
    path, facts, expected = oracle("bert-classifier")
    rows = as_json("-q", "--jsonl", "--long", "truncate", "-m", path, stdin=jsonl(facts["texts"]))
    said = [bool(text.strip()) for text in facts["texts"]]
    assert [row["label"] for row in rows] == [label if words else "" for label, words in zip(facts["labels"], said)]
    for row, probabilities in zip(rows, expected["probabilities"]):
        if not row["text"].strip():
            continue
        assert row["labels"][0]["score"] == row["score"] == max(one["score"] for one in row["labels"])
        found = {one["label"]: one["score"] for one in row["labels"]}
        for i, probability in enumerate(probabilities):
            label = facts["id2label"][str(i)]
            assert found[label] == pytest.approx(probability, abs=facts["tolerance_max_abs"]["probabilities"])


def test_entailment_against_its_reference():
    path, facts, _ = oracle("roberta-nli")
    model = scorer(path)
    for case in facts["zero_shot"]["results"]:
        labels = [Label(label) for label in case["labels"]]
        engine = Entailment(model, Use(labels, multi=case["multi_label"], hypothesis=case["template"]))
        (found,) = engine.probabilities([case["text"]])
        assert found == pytest.approx(case["scores"], abs=2e-4)
    (row,) = as_json("-q", "--jsonl", "-m", path, "-l", ",".join(case["labels"]), stdin=jsonl(["A cat."]))
    (expected,) = Entailment(model, Use(labels)).probabilities(["A cat."])
    assert {one["label"]: one["score"] for one in row["labels"]} == pytest.approx(
        dict(zip(case["labels"], expected)), abs=1e-5
    )


def test_some_of_a_classifiers_labels(moods):
    (all_three,) = as_json("-m", moods, stdin=b"cat")
    (two,) = as_json("-m", moods, "-l", "good,bad", stdin=b"cat")
    three = {one["label"]: one["score"] for one in all_three["labels"]}
    two = {one["label"]: one["score"] for one in two["labels"]}
    assert two["good"] / two["bad"] == pytest.approx(three["good"] / three["bad"], rel=1e-4)


def test_choices_are_whole_answers(tmp_path):
    """The probabilities are those of the model's own logits, token by token."""
    import mlx.core as mx

    from rerank.choices import Choices
    from toast.command import Call

    path = os.path.join(ORACLES, "llama-causal")
    call = Call("classify", {}, os.open(".", os.O_RDONLY))
    engine = Choices(call, path, Use([Label("good"), Label("not good", "bad things")]))
    (found,) = engine.probabilities(["A text."])
    ids, sums = engine._prompt("A text."), []
    for answer in engine.answers:
        logits = engine.model(mx.array([ids + answer[:-1]]))[0, len(ids) - 1 :].astype(mx.float32)
        logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        sums.append(sum(logs[i, token].item() for i, token in enumerate(answer)))
    odds = math.exp(sums[0] - sums[1])
    assert found[0] / found[1] == pytest.approx(odds, rel=1e-3)


# ---------------------------------------------------------------- forms


def test_k_labels(words):
    found = labelled(*words, "-k2", stdin=b"cat\ndog\n")
    assert [record for _, _, record in found] == [b"cat", b"cat", b"dog", b"dog"]
    assert found[0][1] >= found[1][1] and found[0][0] != found[1][0]


def test_only_invert_and_count(words):
    found = labelled(*words)
    label = found[0][0]
    mine = [record for given, _, record in found if given == label]
    others = [record for given, _, record in found if given != label]
    assert classify(*words, "--only", label).out.split(b"\n")[:-1] == mine
    rest = classify(*words, "--only", label, "--invert")
    assert rest.out.split(b"\n")[:-1] == others and rest.status == (0 if others else 1)
    assert classify(*words, "--only", label, "-c").ok().out == b"%d\n" % len(mine)
    counts = dict(line.split(b"\t") for line in classify(*words, "-c").ok().out.splitlines())
    assert sum(map(int, counts.values())) == len(RECORDS) - 1  # the empty one has no label
    assert counts[label.encode()] == b"%d" % len(mine)


def test_nothing_found_is_status_1(moods):
    for more in (["--only", "bad", "--threshold", "1"], ["--no-input"]):
        result = classify("-q", "-m", moods, *more)
        assert (result.status, result.out, result.err) == (1, b"", b""), result
    for more in ([], ["-k", "2"], ["--multi"]):  # each record is written, with an empty label
        result = classify("-q", "-m", moods, "--threshold", "1", *more)
        lines = [line.split(b"\t", 2) for line in result.out.splitlines()]
        assert result.status == 1 and [(label, record) for label, _, record in lines] == [(b"", r) for r in RECORDS]
        found = classify("-q", "-m", moods, "--threshold", "1", *more, "--json")
        assert found.status == 1 and [json.loads(line)["label"] for line in found.out.splitlines()] == [""] * 4
    result = classify("-q", "-m", moods, "-c", "--only", "bad", "--threshold", "1")
    assert (result.status, result.out) == (1, b"0\n"), result


def test_multi_gives_any_number_of_labels(moods):
    all_of_them = as_json("--multi", "--threshold", "0", "-m", moods, stdin=b"cat")[0]["labels"]
    scores = {one["label"]: one["score"] for one in all_of_them}
    found = labelled("--multi", "-m", moods, "--threshold", "0", stdin=b"cat\n")
    assert {label: score for label, score, _ in found} == {k: pytest.approx(v, abs=1e-6) for k, v in scores.items()}
    middle = sorted(scores.values())[1]
    found = labelled("--multi", "-m", moods, "--threshold", f"{middle - 1e-6}", stdin=b"cat\n")
    assert len(found) == 2


def test_one_label_by_itself(moods):
    assert labelled("--multi", "-l", "bad", "-m", moods, "--threshold", "0", stdin=b"cat\n")[0][0] == "bad"


def test_json(moods):
    stdin = b'{"text":"a dog","id":7,"label":"old"}\n'
    (row,) = as_json("--jsonl", "-m", moods, "-k2", stdin=stdin)
    assert list(row) == ["text", "id", "gold", "label", "score", "labels"] and row["id"] == 7 and row["gold"] == "old"
    assert row["label"] == row["labels"][0]["label"] != "old" and len(row["labels"]) == 2


def test_nul(moods):
    out = classify("-0", "-m", moods, "--only", "good", "--only", "bad", "--only", "so so", stdin=b"a\nb\0c").ok().out
    assert out == b"a\nb\0c\0"


def test_long_records_are_cut_and_counted(moods):
    words = ["-m", moods, "--long", "truncate"]
    result = classify(*words, stdin=b"cat " * 99 + b"\ncat\n")
    assert result.status == 0 and b"1 record over the model's limit cut" in result.err
    assert classify("-q", "--strict", *words, stdin=b"cat " * 99).status == 3


def test_a_text_is_cut_however_many_labels_there_are(model):
    nli = os.path.join(ORACLES, "roberta-nli")
    long = "x " * 3000
    result = classify("-q", "--strict", "-m", nli, "-l", "a,b,c", "--long", "truncate", stdin=long.encode())
    assert result.status == 3
    result = classify("--strict", "-m", model, "-l", f"a,{'long ' * 40}", stdin=b"cat\n")
    assert (result.status, result.err) == (3, b"classify: 1 label description over the model's limit cut\n")


# ---------------------------------------------------------------- labels


def test_labels_of_a_file(model, tmp_path):
    (tmp_path / "labels").write_text("\ufeffanimal: a cat or a dog\n\nsky: blue sky\n")
    counts = classify("-m", model, "-L", "labels", "-c", stdin=b"cat\n" * 3)
    command("classify", "-m", model, "-L", "labels", "-c", stdin=b"cat\n", cwd=tmp_path).ok()
    assert counts.status == 2  # relative to another directory
    row = json.loads(command("classify", "--json", "-m", model, "-L", "labels", stdin=b"sky", cwd=tmp_path).ok().out)
    assert {one["label"] for one in row["labels"]} == {"animal", "sky"}


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("a,,b", "a label is empty"),
        ("", "a label is empty"),
        ("a,b,a", "label 'a' is given twice"),
        ("a,b\tc", "cannot be printed"),
        ("a,b\nc", "cannot be printed"),
        ("a", "one label decides nothing"),
    ],
)
def test_labels_that_cannot_be(model, labels, told):
    classify("-m", model, "-l", labels).fails(told)


def test_one_label_of_a_models_own(moods):
    """What is proposed can be done."""
    classify("-m", moods, "-l", "bad").fails("one label decides nothing", "--only bad")
    assert classify("-q", "-m", moods, "--only", "bad").status in (0, 1)


def test_numbers_go_on_from_another_shard(moods, model):
    found = as_json("-q", "-m", moods, "--start", "7", stdin=LINES)
    assert [one["index"] for one in found] == [7, 8, 9, 10]
    assert all("index" not in one for one in as_json("-q", "-m", moods, stdin=LINES))
    classify("-m", moods, "--start", "7").fails("--start", "--json")
    [group] = as_json("--group", "1", "-m", model, "--start", "7", stdin=b"cat\ndog\n")
    assert group["records"] == [7, 8]


def test_few_records_have_words_too(model):
    """Also those that have none in common, and those of the only group."""
    for lines in (b"red apple\n", b"cat one\ncat two\n", b"red apple\nold car\nsmall boat\ngreen door\nnew phone\n"):
        for count in "12":
            out = classify("--group", count, "-m", model, stdin=lines).ok().out.splitlines()
            assert out and all(line.split(b"\t")[1] for line in out)


def test_words_that_say_nothing_together(moods):
    for words in (["--report", "x"], ["-k", "2"], ["--multi"], ["--json"], ["-c"], ["--none", "x"], ["--next", "2"]):
        classify("--learn", "x", "-o", "y", *words).fails("--learn", words[0])
    for words in (["--only", "good"], ["-k", "2"], ["--json"], ["-c"], ["--threshold", "0.5"]):
        classify("-m", moods, "--report", "x", *words).fails("--report", words[0])
    classify("-m", moods, "-L", "-").fails("-L")


def test_wrong_words(model, moods, tmp_path):
    classify("-m", model).fails("no labels of its own", "-l")
    classify("-m", moods, "-l", "good,evil").fails("no label 'evil'", "good, bad")
    classify("-m", moods, "--only", "evil").fails("no label 'evil'")
    classify("-m", moods, "--invert").fails("--only")
    classify("-m", model, "-l", "a,b", "-L", "x").fails("given twice")
    classify("-m", model, "-L", tmp_path / "none").fails("none", "No such file")
    classify("-m", os.path.join(ORACLES, "llama-causal"), "-l", "a,b", "--multi").fails("--multi")


def test_models_of_another_kind(tmp_path):
    (tmp_path / "text").write_text("this is no model, and longer than eight bytes")
    text = classify("-m", tmp_path / "text").fails("neither a model nor a probe")
    assert b"--learn FILE" not in text.err  # that would replace it


def test_records_before_a_bad_one_are_written(moods):
    good = jsonl(["cat", "dog"])
    result = classify("-m", moods, "--jsonl", stdin=good + b"\noops\n")
    result.fails("line 3: not a JSON object")
    assert result.out == classify("-m", moods, "--jsonl", stdin=good).ok().out


def test_a_folder_of_labels(model, tmp_path):
    classify("-m", model, "-L", tmp_path).fails("cannot read", "Is a directory")


def test_counts_have_one_form(moods):
    for option in (["--json"], ["-k", "2"]):
        classify("-m", moods, "-c", *option).fails("-c and", "exclude each other")
