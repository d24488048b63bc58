"""Probes: learning on the installed command, the file and its dangers, the arithmetic by itself."""

import json
import os

import numpy as np
import pytest
import tiny
from command import command, shell
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank import logistic

ANIMALS, SKIES = ["cat", "dog", "bird"], ["sky", "blue", "red"]


def examples(count=60, seed=3):
    """JSON lines of animals and skies, two words each."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        label, words = ("animal", ANIMALS) if i % 3 else ("sky", SKIES)
        rows.append({"text": " ".join(rng.choice(words, 2)), "label": label})
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def learnt(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    write(folder / "examples.jsonl", examples())
    command("classify", "--learn", "examples.jsonl", "-o", "x.probe", "-m", model, cwd=folder).ok()
    return str(folder / "x.probe")


# ---------------------------------------------------------------- learn, use, report


def test_a_probe_labels_records(learnt):
    out = command("classify", "-m", learnt, stdin=b"cat dog\nblue red\nbird cat\n").ok().out
    assert [line.split(b"\t")[0] for line in out.splitlines()] == [b"animal", b"sky", b"animal"]


def test_report(learnt, tmp_path):
    write(tmp_path / "test.jsonl", examples(30, seed=4))
    out = command("classify", "-m", learnt, "--report", "test.jsonl", cwd=tmp_path).ok().out.decode()
    measures = dict(line.split("\t") for line in out.split("\n\n")[0].splitlines())
    assert measures["records"] == "30" and float(measures["accuracy"]) == 1
    assert float(measures["macro-F1"]) == 1 and float(measures["calibration error"]) < 0.2
    assert out.endswith("is \\ given\tanimal\tsky\nanimal\t20\t0\nsky\t0\t10\n")


def test_report_of_any_engine(model, tmp_path):
    write(tmp_path / "test.jsonl", examples(9))
    words = ["classify", "-m", model, "-l", "sky,animal", "--report", "test.jsonl"]
    assert command(*words, cwd=tmp_path).ok().out.startswith(b"records\t9\n")
    words[4] = "sky,sea"
    command(*words, cwd=tmp_path).fails("label 'animal' is not one of sky, sea")


def test_the_same_examples_give_the_same_bytes(learnt, model, tmp_path):
    write(tmp_path / "e.jsonl", examples())
    command("classify", "--learn", "e.jsonl", "-o", "y.probe", "-m", model, cwd=tmp_path).ok()
    with open(learnt, "rb") as file:
        assert (tmp_path / "y.probe").read_bytes() == file.read()
    assert sorted(os.listdir(tmp_path)) == ["e.jsonl", "y.probe"]


def test_another_field(model, tmp_path):
    rows = [{"body": row["text"], "label": row["label"]} for row in examples(12)]
    write(tmp_path / "e.jsonl", rows)
    words = ["classify", "--learn", "e.jsonl", "-o", "y.probe", "-m", model]
    command(*words, cwd=tmp_path).fails("no field 'text'")
    (tmp_path / "y.probe").touch(0o600)
    command(*words, "--field", "body", cwd=tmp_path).ok()
    assert os.stat(tmp_path / "y.probe").st_mode & 0o777 == 0o600


def test_an_applied_probe_loads_no_numpy(learnt, tmp_path):
    from test_imports import HEAVY, loaded_by

    assert not HEAVY & loaded_by("classify", "-m", learnt)


# ---------------------------------------------------------------- what can go wrong


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "0 labels in 0 examples"),
        ([{"text": "cat", "label": "a"}], "1 label in 1 example"),
        ([{"text": "cat"}], "line 1: no field 'label'"),
        (
            [{"text": "cat", "label": "a"}, {"text": "cat", "label": "a\tb"}],
            "line 2: label 'a\\tb' is no printable text",
        ),
        ([{"text": "cat", "label": ["a"]}], "line 1: label ['a'] is no printable text"),
        ([{"label": "a"}], "no field 'text'"),
    ],
)
def test_examples_that_teach_nothing(model, tmp_path, rows, told):
    write(tmp_path / "e.jsonl", rows)
    command("classify", "--learn", "e.jsonl", "-o", "x", "-m", model, cwd=tmp_path).fails(told)
    assert not (tmp_path / "x").exists()


def test_two_examples_are_enough(model, tmp_path):
    write(tmp_path / "e.jsonl", [{"text": "cat", "label": "a"}, {"text": "sky", "label": 2}])
    command("classify", "--learn", "e.jsonl", "-o", "x.probe", "-m", model, cwd=tmp_path).ok()
    out = command("classify", "-m", "x.probe", stdin=b"cat\nsky\n", cwd=tmp_path).ok().out
    assert {line.split(b"\t")[0] for line in out.splitlines()} <= {b"a", b"2"}


def test_learn_and_output_go_together(model, tmp_path):
    command("classify", "--learn", "e.jsonl", "-m", model).fails("--learn and -o go together")
    command("classify", "-o", "x", "-l", "a,b", "-m", model).fails("-o goes with --learn")
    command("classify", "--learn", "-o", "x", "-m", model).fails("--learn wants a FILE")
    command("classify", "--learn", "", "-o", "x", "-m", model).fails("--learn wants a FILE")
    write(tmp_path / "e.jsonl", examples(6))
    before = (tmp_path / "e.jsonl").read_bytes()
    command("classify", "--learn", "e.jsonl", "-o", "./e.jsonl", "-m", model, cwd=tmp_path).fails("its own examples")
    shell(f"classify --learn - -o e.jsonl -m {model} < e.jsonl", cwd=tmp_path).fails("its own examples, standard input")
    assert (tmp_path / "e.jsonl").read_bytes() == before
    for name in ("no/x", "/dev/null", ".", ""):
        command("classify", "--learn", "e.jsonl", "-o", name, "-m", "none/such", cwd=tmp_path).fails(
            "cannot write", name
        )


def test_words_that_a_probe_does_not_take(learnt):
    command("classify", "-m", learnt, "--multi", stdin=b"cat").fails("--multi")
    command("classify", "-m", learnt, "-l", "animal,sea", stdin=b"cat").fails("no label 'sea'")
    command("classify", "-m", learnt, "--only", "sea", stdin=b"cat").fails("no label 'sea'")


def test_an_embedder_that_has_changed(tmp_path):
    folder = tiny.bert(tmp_path / "m")
    write(tmp_path / "e.jsonl", examples(6))
    command("classify", "--learn", "e.jsonl", "-o", "x.probe", "-m", folder, cwd=tmp_path).ok()
    tiny.bert(tmp_path / "m", seed=8)
    command("classify", "-m", "x.probe", stdin=b"cat", cwd=tmp_path).fails("another model", "learn it again")


def test_damaged_files(learnt, tmp_path):
    with open(learnt, "rb") as file:
        whole = file.read()
    header = whole[8 : 8 + int.from_bytes(whole[:8], "little")]
    other = header.replace(b'"shape": [2', b'"shape": [3')
    broken = [
        whole[:7],
        whole[:40],
        whole[:-4],
        whole + b"more",
        b"\xff" * 4096,
        b"",
        whole[:8] + other + whole[8 + len(header) :],
    ]
    broken.append(whole.replace(b"toast probe 1", b"toast probe 9"))
    broken.append(whole[:-4] + np.float32(np.nan).tobytes())
    for data in broken:
        (tmp_path / "x").write_bytes(data)
        result = command("classify", "-m", "x", stdin=b"cat", cwd=tmp_path)
        marked = b'"format": "toast probe ' in data
        result.fails("x is a damaged probe (learn it again)" if marked else "x is neither a model nor a probe")


def changed(whole, change):
    """The file with another header."""
    size = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[size:]


@pytest.mark.parametrize("facts", [
    {"digest": None}, {"digest": 7}, {"model": "a\nb"}, {"model": "\ud800"}, {"model": "\0"},
    {"labels": '["a\\tb", "c"]'},
    {"labels": '["a", "a"]'}, {"labels": '["a", "\\ud800"]'}, {"labels": '{"a": 1, "b": 2}'}, {"labels": "2"},
    {"labels": '["", "a"]'},
])  # fmt: skip
def test_hostile_headers(learnt, tmp_path, facts):
    with open(learnt, "rb") as file:
        whole = file.read()
    (tmp_path / "x").write_bytes(changed(whole, lambda header: header["__metadata__"].update(facts)))
    command("classify", "-m", "x", stdin=b"cat", cwd=tmp_path).fails("x is ", "probe")


def test_hostile_shapes(learnt, tmp_path):
    with open(learnt, "rb") as file:
        whole = file.read()
    for shape in ([2], [2, -1], [2, 0], [2, True], [2, 1e9], [2, "x"], None, [1 << 70, 2], [2, 1 << 70]):
        (tmp_path / "x").write_bytes(changed(whole, lambda header: header["weight"].update(shape=shape)))
        command("classify", "-m", "x", stdin=b"cat", cwd=tmp_path).fails("x is a damaged probe")
    narrow = changed(whole, lambda header: header["weight"].update(shape=[2, 5], data_offsets=[0, 40]))
    size = 8 + int.from_bytes(narrow[:8], "little")
    (tmp_path / "x").write_bytes(narrow[: size + 40])
    command("classify", "-m", "x", stdin=b"cat", cwd=tmp_path).fails("has 4 features")


def test_a_probe_works_from_other_folders(model, tmp_path):
    os.symlink(model, tmp_path / "m")
    write(tmp_path / "e.jsonl", examples(6))
    command("classify", "--learn", "e.jsonl", "-o", "x.probe", "-m", "m", cwd=tmp_path).ok()
    command("classify", "-m", tmp_path / "x.probe", stdin=b"cat").ok()


def test_a_probe_is_no_other_model(learnt):
    for words in (["rerank", "cat"], ["embed"], ["index"]):
        command(*words, "-m", learnt, stdin=b"cat").fails("is a probe", f"classify -m {learnt}")


# ---------------------------------------------------------------- the arithmetic


def blobs(seed, N, D, K):
    rng = np.random.default_rng(seed)
    y = np.arange(N) % K
    return (rng.normal(size=(K, D))[y] + rng.normal(size=(N, D))).astype(np.float32), y


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(2, 40), st.integers(1, 8), st.integers(2, 5))
def test_fit_reaches_the_least_loss(seed, N, D, K):
    """At the minimum the gradient, taken here by itself, is zero."""
    X, y = blobs(seed, N, D, K)
    X = np.concatenate([np.ones((N, 1)), X], axis=1)
    W = logistic.fit(X, y, np.ones(N), start=np.zeros((K, D + 1)), penalty=0.01, steps=500)
    P = np.exp(X @ W.T)
    P /= P.sum(axis=1, keepdims=True)
    gradient = (P - np.eye(K)[y]).T @ X / N + 0.01 * W * (np.arange(D + 1) > 0)
    assert np.abs(gradient).max() < 2e-3


def test_learning_is_calibrated_and_chooses_features():
    rng = np.random.default_rng(0)
    X, y = blobs(1, 1500, 6, 3)
    noise = rng.normal(size=(1500, 40)).astype(np.float32)
    learnt = logistic.learn(np.concatenate([X, noise], axis=1)[:1000], y[:1000], 3, widths=[6, 46])
    assert learnt.weight.shape == (3, 7)
    scores = (X[1000:] @ learnt.weight[:, :-1].T + learnt.weight[:, -1]) / learnt.temperature
    P = np.exp(scores - scores.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    assert np.mean(P.argmax(axis=1) == y[1000:]) > 0.7
    assert logistic.calibration_error(P, y[1000:]) < 0.06
    swapped = np.concatenate([noise, X], axis=1)
    assert logistic.learn(swapped, y, 3, widths=[40, 46]).weight.shape == (3, 47)


def test_measures():
    P = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    assert logistic.calibration_error(P, np.array([0, 0, 1, 1])) == pytest.approx(0.25)
    assert logistic.calibration_error(np.eye(2)[[0, 1]], np.array([0, 1])) == 0
    assert logistic.macro_f1(np.array([[1, 1], [0, 2]])) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_folds_spread_the_classes():
    y = np.repeat([0, 1, 2], [50, 10, 5])
    fold = logistic.folds(y, 5)
    for part in range(5):
        assert np.bincount(y[fold == part], minlength=3).tolist() == [10, 2, 1]
