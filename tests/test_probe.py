"""Probes: learning on the installed command, the file and its dangers, the arithmetic by itself."""

import json
import os

import numpy as np
import pytest
import tiny
from command import command, shell
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank import averaging, calibration
from rerank.logistic import Problems
from toast import files
from toast.command import Call
from toast.errors import BadInput
from toast.store import find, is_probe

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
    command("classify", "--learn", "examples.jsonl", "-o", "x.probe", "-m", model, cwd=folder).ok(quiet=False)
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
    command("classify", "--learn", "e.jsonl", "-o", "y.probe", "-m", model, cwd=tmp_path).ok(quiet=False)
    with open(learnt, "rb") as file:
        assert (tmp_path / "y.probe").read_bytes() == file.read()
    assert sorted(os.listdir(tmp_path)) == ["e.jsonl", "y.probe"]


def test_another_field(model, tmp_path):
    rows = [{"body": row["text"], "label": row["label"]} for row in examples(12)]
    write(tmp_path / "e.jsonl", rows)
    words = ["classify", "--learn", "e.jsonl", "-o", "y.probe", "-m", model]
    command(*words, cwd=tmp_path).fails("no field 'text'")
    (tmp_path / "y.probe").touch(0o600)
    command(*words, "--field", "body", cwd=tmp_path).ok(quiet=False)
    assert os.stat(tmp_path / "y.probe").st_mode & 0o777 == 0o600


def test_an_applied_probe_loads_no_numpy(learnt, tmp_path):
    from test_imports import HEAVY, loaded_by

    assert not HEAVY & loaded_by("classify", "-m", learnt)


# ---------------------------------------------------------------- what can go wrong


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "no examples"),
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
    command("classify", "--learn", "e.jsonl", "-o", "x.probe", "-m", model, cwd=tmp_path).ok(quiet=False)
    out = command("classify", "-m", "x.probe", stdin=b"cat\nsky\n", cwd=tmp_path).ok().out
    assert {line.split(b"\t")[0] for line in out.splitlines()} <= {b"a", b"2"}


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_not_said_to_be_no_probe(model, tmp_path):
    write(tmp_path / "e.jsonl", examples(6))
    (tmp_path / "x.probe").write_text("anything")
    (tmp_path / "x.probe").chmod(0)
    told = "cannot open x.probe: Permission denied"
    command("classify", "--learn", "e.jsonl", "-o", "x.probe", "-m", model, cwd=tmp_path).fails(told)
    command("embed", "-m", "./x.probe", cwd=tmp_path).fails("cannot open ./x.probe: Permission denied")


def test_whether_a_file_is_a_probe_may_not_be_known(monkeypatch, tmp_path):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x").write_text("anything")
    call = Call("classify", {}, os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(BadInput, match="x is there, and no probe"):
        files.output(call, "x", what="probe", ours=is_probe, like="")
    monkeypatch.setattr(files, "read", refused)
    with pytest.raises(BadInput, match="cannot open x: Permission denied"):
        files.output(call, "x", what="probe", ours=is_probe, like="")
    with pytest.raises(BadInput, match="cannot open x: Permission denied"):
        find(call, "x")


def test_learn_and_output_go_together(model, tmp_path):
    command("classify", "--learn", "e.jsonl", "-m", model).fails("--learn and -o go together")
    command("classify", "-o", "x", "-l", "a,b", "-m", model).fails("-o goes with --learn")
    command("classify", "--learn", "-o", "x", "-m", model).fails("--learn wants a FILE")
    command("classify", "--learn", "", "-o", "x", "-m", model).fails("--learn wants a FILE")
    write(tmp_path / "e.jsonl", examples(6))
    before = (tmp_path / "e.jsonl").read_bytes()
    told = "e.jsonl is there, and no probe"  # nor anything else that is not ours
    command("classify", "--learn", "e.jsonl", "-o", "./e.jsonl", "-m", model, cwd=tmp_path).fails(told)
    shell(f"classify --learn - -o e.jsonl -m {model} < e.jsonl", cwd=tmp_path).fails(told)
    assert (tmp_path / "e.jsonl").read_bytes() == before
    (tmp_path / "new").touch()
    for _ in range(2):  # an empty file, and a probe, are replaced
        command("classify", "--learn", "e.jsonl", "-o", "new", "-q", "-m", model, cwd=tmp_path).ok()
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
    command("classify", "--learn", "e.jsonl", "-o", "x.probe", "-m", folder, cwd=tmp_path).ok(quiet=False)
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
    broken.append(whole.replace(b"toast probe 2", b"toast probe 9"))
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
    (tmp_path / "x").write_bytes(first_version(whole, np.ones((2, 5))))
    command("classify", "-m", "x", stdin=b"cat", cwd=tmp_path).fails("has 4 features")


def first_version(whole, weight):
    """A file of version 1 for the same embedder, written by itself."""
    facts = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
    kept = {"format": "toast probe 1", **{name: facts[name] for name in ("labels", "model", "digest")}}
    data = weight.astype("<f4").tobytes()
    entry = {"dtype": "F32", "shape": list(weight.shape), "data_offsets": [0, len(data)]}
    text = json.dumps({"__metadata__": kept, "weight": entry}).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_the_first_version_is_read(learnt, tmp_path):
    with open(learnt, "rb") as file:
        whole = file.read()
    weight = np.zeros((2, 33))
    weight[:, -1] = [1.0, 3.0]
    (tmp_path / "x").write_bytes(first_version(whole, weight))
    out = command("classify", "-m", "x", stdin=b"cat\n", cwd=tmp_path).ok().out
    assert out == b"sky\t%.6f\tcat\n" % (1 / (1 + np.exp(-2)))


def test_every_bit_is_summed(learnt, tmp_path):
    with open(learnt, "rb") as file:
        whole = file.read()
    for at in np.random.default_rng(0).integers(8, len(whole), 12):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        (tmp_path / "x").write_bytes(damaged)
        command("classify", "-m", "x", stdin=b"cat", cwd=tmp_path).fails("x")


def test_a_probe_works_from_other_folders(model, tmp_path):
    os.symlink(model, tmp_path / "m")
    write(tmp_path / "e.jsonl", examples(6))
    command("classify", "--learn", "e.jsonl", "-o", "x.probe", "-m", "m", cwd=tmp_path).ok(quiet=False)
    command("classify", "-m", tmp_path / "x.probe", stdin=b"cat").ok()


@pytest.mark.model
def test_a_file_named_like_the_default_model_is_left(real, tmp_path):
    for model, words in (("minilm", ""), ("minilm@q6", "-m minilm@q6")):
        asked = f"echo a cat | classify {words} -l 'an animal,a number'"
        expected = shell(asked, cwd=tmp_path, env=real).ok(quiet=False).out
        (tmp_path / model).touch()
        assert shell(asked, cwd=tmp_path, env=real).ok(quiet=False).out == expected


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
def test_each_of_many_problems_reaches_the_least_loss(seed, N, D, K):
    """At the minimum the gradient, taken here by itself, is zero; of problems that are solved at once, too."""
    X, y = blobs(seed, N, D, K)
    X = np.concatenate([np.ones((N, 1)), X], axis=1)
    offsets = np.random.default_rng(seed).normal(size=(3, K, N))
    penalties = np.array([[0.0, 0.01], [0.1, 0.1], [0.0, 1.0]])
    W = Problems(X, y, weights=np.ones((3, N)), offsets=offsets, penalties=penalties).solve(steps=500)
    for own, offset, (loose, penalty) in zip(W, offsets, penalties):
        P = np.exp(X @ own.T + offset.T)
        P /= P.sum(axis=1, keepdims=True)
        decay = np.array([loose] + [penalty] * D)
        gradient = (P - np.eye(K)[y]).T @ X / N + decay * own
        assert np.abs(gradient).max() < 2e-3


def taught(X, y, K, dims, offsets=None):
    offsets = np.zeros((len(y), K), np.float32) if offsets is None else offsets
    rows = averaging.Rows(X, y, offsets, dims=dims)
    return rows, averaging.learn(rows)


def test_learning_is_calibrated():
    X, y = blobs(1, 1200, 6, 3)
    X = np.concatenate([X, np.random.default_rng(0).normal(size=(1200, 6)).astype(np.float32)], axis=1)
    rows, learnt = taught(X[:400], y[:400], 3, 6)
    warm = calibration.temperature(learnt.held, rows.y)
    P = calibration.softmax((X[400:] @ learnt.weight[:, :-1].T + learnt.weight[:, -1]) / warm)
    assert np.mean(P.argmax(axis=1) == y[400:]) > 0.7
    assert calibration.calibration_error(P, y[400:]) < 0.06


def test_few_examples_do_not_lose_what_descriptions_say():
    X, y = blobs(3, 600, 20, 3)
    truth = np.eye(3)[y] * 2 + np.random.default_rng(1).normal(size=(600, 3))
    alone = np.mean(truth[12:].argmax(axis=1) == y[12:])
    _, learnt = taught(X[:12], y[:12], 3, 10, truth[:12].astype(np.float32))
    scores = X[12:] @ learnt.weight[:, :-1].T + learnt.weight[:, -1] + learnt.prior * truth[12:]
    assert learnt.prior > 0.5 and np.mean(scores.argmax(axis=1) == y[12:]) > alone - 0.02


def test_descriptions_that_mislead_are_left():
    X, y = blobs(3, 240, 20, 3)
    _, learnt = taught(X, y, 3, 10, (5 * np.eye(3)[(y + 1) % 3]).astype(np.float32))
    assert learnt.prior < 0.05


@pytest.mark.parametrize("N", [2, 12, 24, 100])
def test_no_error_is_no_certainty(N):
    """As sure as one of N + 2 being wrong allows."""
    y = np.arange(N) % 2
    scores = 50 * np.eye(2)[y]
    warm = calibration.temperature(scores, y)
    assert calibration.softmax(scores / warm).max(axis=1).mean() <= (N + 1) / (N + 2)
    assert calibration.temperature(scores / 1000, y) >= 1


def test_measures():
    P = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    assert calibration.calibration_error(P, np.array([0, 0, 1, 1])) == pytest.approx(0.25)
    assert calibration.calibration_error(np.eye(2)[[0, 1]], np.array([0, 1])) == 0
    assert calibration.macro_f1(np.array([[1, 1], [0, 2]])) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_folds_spread_the_classes():
    y = np.repeat([0, 1, 2], [50, 10, 5])
    fold = averaging.folds(y, 5)
    for part in range(5):
        assert np.bincount(y[fold == part], minlength=3).tolist() == [10, 2, 1]
