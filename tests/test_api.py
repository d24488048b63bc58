"""toast.load: in a program, what the commands give."""

import json
import signal
import subprocess
import sys
import threading
from io import BytesIO

import numpy as np
import pytest
from command import command
from tiny_adapter import LLAMA

import toast
from toast.errors import BadInput, BadModel, ModelNotFound, ToastError, UsageError

TEXTS = ["the cat sat", "on a\nmat", "", "a dog 'ate' it " * 20, "ünïcödé \ud800"]


def jsonl(texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.mark.parametrize("options", [{}, {"precision": "int8", "dims": 16}, {"long": "mean", "kind": "query"}])
def test_vectors_are_those_of_embed(model, options):
    flags = {"precision": "--precision", "dims": "--dims", "long": "--long", "kind": "--as"}
    words = [str(word) for name, value in options.items() for word in (flags[name], value)]
    ran = command("embed", "--jsonl", "-m", model, *words, stdin=jsonl(TEXTS)).ok(quiet=False)
    expected = np.load(BytesIO(ran.out))
    found = toast.load(model).encode(TEXTS, **options)
    assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes() and found.shape == expected.shape


def test_no_text_is_no_row(model):
    assert toast.load(model).encode([]).shape == (0, 32)
    assert toast.load(model).score("cats", []) == [] == toast.load(model).classify([], ["a", "b"])


def test_scores_are_those_of_rerank_in_the_order_of_the_texts(model):
    ran = command("rerank", "--jsonl", "--json", "-m", model, "cats", stdin=jsonl(TEXTS)).ok(quiet=False)
    expected = {one["index"]: one["score"] for one in map(json.loads, ran.out.splitlines())}
    assert toast.load(model).score("cats", TEXTS) == [expected[i] for i in range(len(TEXTS))]


@pytest.mark.parametrize("labels", [["cat", "dog"], {"cat": "about cats", "dog": "about: dogs"}])
def test_labels_are_those_of_classify(model, labels, tmp_path):
    named = labels.items() if isinstance(labels, dict) else [(label, label) for label in labels]
    (tmp_path / "labels").write_text("".join(f"{label}: {about}\n" for label, about in named))
    words = ["classify", "--jsonl", "--json", "-m", model, "-L", str(tmp_path / "labels")]
    ran = command(*words, stdin=jsonl(TEXTS)).ok(quiet=False)
    expected = [{k: one[k] for k in ("label", "score", "labels")} for one in map(json.loads, ran.out.splitlines())]
    assert toast.load(model).classify(TEXTS, labels) == expected


def test_labels_that_a_line_would_cut(model):
    names = ["error: fatal", "a, b", "C\\,d:", "C:\\", "\\\\server", "plain"]
    for given in (names, dict.fromkeys(names, "some words: more")):
        (found,) = toast.load(model).classify(["cat"], given, k=9)
        assert sorted(one["label"] for one in found["labels"]) == sorted(names)
    with pytest.raises(toast.errors.ToastError, match="cannot be printed"):
        toast.load(model).classify(["cat"], ["a\nb", "c"])


def test_a_text_that_no_label_fits_keeps_its_place(model):
    found = toast.load(model).classify(["a", "b"], ["cat", "dog"], threshold=1.0)
    assert [one["label"] for one in found] == [None, None]


def test_an_empty_text_is_none(capfd):
    asked = {"max_tokens": 4, "temperature": 0}
    assert toast.load(LLAMA).generate("hi", "", **asked) == toast.load(LLAMA).generate("hi", **asked)
    assert "standard input" not in capfd.readouterr().err


def test_an_answer_is_that_of_toast():
    words = ["-m", LLAMA, "-n", "8", "-t", "1", "--seed", "3"]
    ran = command("toast", *words, "say it", stdin=b"some text").ok(quiet=False)
    found = toast.load(LLAMA).generate("say it", "some text", max_tokens=8, temperature=1, seed=3)
    assert found + "\n" == ran.out.decode()
    none = command("toast", *words, "say it", "--no-input").ok(quiet=False)
    assert toast.load(LLAMA).generate("say it", max_tokens=8, temperature=1.0, seed=3) + "\n" == none.out.decode()


def test_what_is_wrong_is_raised(model):
    loaded = toast.load(model)
    with pytest.raises(ModelNotFound, match="no model 'nope' here"):
        toast.load("nope")
    with pytest.raises(BadModel, match="toast|embed"):
        loaded.generate("say it")
    with pytest.raises(UsageError, match="--dims must be at least 1"):
        loaded.encode(["a"], dims=0)
    with pytest.raises(TypeError, match="has no colour= here"):
        loaded.encode(["a"], colour=1)
    with pytest.raises(BadInput, match="one text"):
        loaded.encode("a")
    with pytest.raises(BadInput, match="labels is one text"):
        loaded.classify(["a"], "bug,wish")
    with pytest.raises(BadInput, match="a label is no text"):
        loaded.classify(["a"], [1, 2])
    with pytest.raises(BadInput, match="a model has a name"):
        toast.load("")
    with pytest.raises(BadInput, match="text 1 is no text but int"):
        loaded.encode(["a", 1])
    with pytest.raises(ToastError):
        loaded.encode(["a " * 100], long="error")


def test_threads_share_a_model(model):
    expected, found = toast.load(model).encode(TEXTS).tobytes(), {}

    def one(i):
        found[i] = toast.load(model).encode(TEXTS).tobytes()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), expected)


def test_nothing_is_left_open(model):
    import os

    loaded = toast.load(model)
    loaded.encode(["a"])
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        loaded.encode(["a"])
        with pytest.raises(ToastError):
            loaded.generate("say it")
    assert len(os.listdir("/dev/fd")) == before


def test_ctrl_c_is_the_programs_own(model):
    code = f"import signal, toast; toast.load({model!r}).encode(['a']); signal.raise_signal(signal.SIGINT)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert b"KeyboardInterrupt" in ran.stderr and ran.returncode == -signal.SIGINT, ran


def test_a_program_imports_nothing_that_it_does_not_use():
    code = "import sys, toast; print(sorted(m for m in sys.modules if m.split('.')[0] in ('mlx', 'toast', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"['toast']\n"
