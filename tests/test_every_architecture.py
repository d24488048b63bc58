"""Every text architecture of the pinned MLX-LM, as `toast` runs it: one answer, many, from a cache, under a constraint.

A handful in the usual run, all of them with `make test-all`; docs/architectures.md is made of what is found here.
"""

import json
import os

import every_architecture
import mlx.core as mx
import numpy as np
import pytest
from command import Result
from test_strangers import call_in
from tiny import write_safetensors

from toast import answer, cli, loaded
from toast.command import run
from toast.generation import decoder

REFUSED = every_architecture.REFUSED
USUAL = ["llama", "gemma3_text", "qwen3_next", "lfm2-vl", "rwkv7"]
NAMES = every_architecture.names()
PROMPT = "the cat sat on a mat, and so it did"
RECORDS = b"abc\nthe dog ran to the other side of it\n\nx y z\n"


def listed(names):
    return [pytest.param(name, marks=() if name in USUAL else pytest.mark.long) for name in names]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(name) -> the folder of its checkpoint."""
    folders = {}

    def make(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("every") / name
            every_architecture.save(name, folders[name])
        return folders[name]

    yield make
    loaded.forget()


def toast(folder, *words, stdin=b"", **env):
    """Run `toast` in this process: there are many."""
    words = ["-m", str(folder), "-t", "0", "--no-template", "-q", *words]
    call, files = call_in(folder, "toast", stdin)
    call.env.update({"TOAST_HOME": str(folder / "home"), **env})
    status = run(cli.toast, words, call)
    os.close(call.cwd)
    for file in files[1:]:
        file.seek(0)
    return Result(["toast", *words], status, files[1].read(), files[2].read())


@pytest.mark.parametrize("name", listed([name for name in NAMES if name not in REFUSED]))
def test_four_ways(name, made, monkeypatch):
    monkeypatch.setattr(answer, "WORTH_KEEPING", -1)
    folder = made(name)
    alone = toast(folder, "-n", "6", "--no-cache", PROMPT).ok()
    assert alone.out
    cold, warm = (toast(folder, "-n", "6", PROMPT).ok() for _ in range(2))
    assert cold.out == warm.out == alone.out
    each = toast(folder, "-n", "4", "--each", stdin=RECORDS).ok().out.split(b"\n")
    assert len(each) == 5
    for record, found in zip(RECORDS.split(b"\n"), each, strict=True):
        if record:
            single = toast(folder, "-n", "4", "--no-cache", "--no-input", record.decode()).ok().out
            assert found.split() == single.split(), record
    held = toast(folder, "-n", "8", "--no-cache", "--choice", "yes", "--choice", "no", PROMPT).ok()
    assert held.out.strip() in (b"yes", b"no")


@pytest.mark.parametrize("name", listed([name for name in NAMES if name not in REFUSED]))
def test_a_token_sees_those_before_it_alone(name, made):
    """Whatever follows, and in whatever pieces a text is read, logits are the same."""
    model = decoder.load(str(made(name)))[0]
    ids = [(7 * i * i + 3 * i) % 40 + 8 for i in range(21)]
    whole = logits(model, [ids])
    assert np.isfinite(whole).all()
    other = logits(model, [[*ids[:12], 9, *ids[13:]]])
    close = 2e-3 * max(1, np.abs(whole).max())
    assert np.abs(whole[:12] - other[:12]).max() <= close and np.abs(whole[12:] - other[12:]).max() > 0
    assert np.abs(whole - logits(model, [ids[:9], ids[9:18], [ids[18]], [ids[19]], [ids[20]]])).max() <= close


def logits(model, pieces):
    """Those after each token of a text that is read in pieces."""
    caches = decoder.caches(model)
    found = [np.array(model(mx.array([piece]), cache=caches)[0].astype(mx.float32)) for piece in pieces]
    rows = np.concatenate(found)
    return np.where(rows < -1e30, 0, rows)  # tokens that some never choose


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_says_so(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name, "vocab_size": 64}))
    every_architecture.vocabulary().save(str(tmp_path / "tokenizer.json"))
    write_safetensors(str(tmp_path / "model.safetensors"), {})
    toast(tmp_path, PROMPT).fails()


@pytest.mark.parametrize("name", listed(NAMES))
def test_the_table_in_the_docs(name):
    """Made anew by `python tests/every_architecture.py > docs/architectures.md`."""
    with open(os.path.join(os.path.dirname(__file__), "..", "docs", "architectures.md"), encoding="utf-8") as file:
        text = file.read()
    assert every_architecture.row(name) in text.split("\n")
    assert text.count("\n| ") == len(NAMES) + 1 and text.endswith(every_architecture.encoders())
