"""FIFOs, devices, sockets and folders where a file is wanted: refused or read, and nobody is waited for in vain."""

import contextlib
import os
import shutil
import socket

import pytest
from command import KEEPING_TOAST, command, shell

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
LLAMA = os.path.join(ORACLES, "llama-causal")


def fifo(path):
    os.mkfifo(path)


def device(path):
    os.symlink("/dev/zero", path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as there, contextlib.chdir(path.parent):
        there.bind(path.name)  # the address of a socket is short


KINDS = [fifo, device, listening, os.mkdir]

# what names the file F; each must fail in a line
USES = {
    "label file": ["classify", "-L", "F"],
    "schema": ["toast", "-m", LLAMA, "--schema", "F", "hi"],
    "grammar": ["toast", "-m", LLAMA, "--grammar", "F", "hi"],
    "probe": ["classify", "-m", "F"],
    "gguf": ["tokenize", "-m", "F.gguf"],
    "index": ["search", "-i", "F", "cat"],
    "update": ["index", "-u", "F"],
    "merge": ["index", "--merge", "F", "F", "-o", "y.db"],
    "session": ["toast", "-m", LLAMA, "--session", "s", "hi"],
    "configuration": ["embed", "-m", "model/config.json"],
    "weights": ["embed", "-m", "model/model.safetensors"],
    "tokenizer": ["embed", "-m", "model/tokenizer.json"],
}


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("use", USES)
def test_refused(tmp_path, model, use, make):
    words, env = list(USES[use]), {"EMBED_MODEL": model, "TOAST_HOME": str(tmp_path / "home")}
    path = tmp_path / ("F.gguf" if use == "gguf" else "F")
    if use == "session":
        path = tmp_path / "home/sessions/s.jsonl"
        path.parent.mkdir(parents=True)
    if "/" in words[-1] and words[0] == "embed":
        shutil.copytree(model, tmp_path / "model")
        path = tmp_path / words[-1]
        words[-1] = "model"
        path.unlink()
    make(path)
    command(*words, stdin=b"a\n", cwd=tmp_path, env=env, timeout=60).fails()
    assert os.path.lexists(path)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("cache", ["prefix", "chat", "digests"])
def test_a_cache_is_as_good_as_none(tmp_path, model, cache, make):
    home, tree = tmp_path / "home", tmp_path / "home" / cache
    words = [
        *KEEPING_TOAST,
        "-m",
        LLAMA,
        "-t",
        "0",
        "-n",
        "3",
        ("the cat sat on the mat and so did the dog " * 12).strip(),
    ]
    if cache == "digests":
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs/a.txt").write_text("a cat\n")
        words = ["index", "-m", model, "docs", "-o", "x.db"]
    env = {"TOAST_HOME": str(home)}
    expected = command(*words, cwd=tmp_path, env=env).ok(quiet=False).out
    names = sorted(os.listdir(tree))
    assert names
    for name in names:
        (tree / name).unlink()
        make(tree / name)
    assert command(*words, cwd=tmp_path, env=env, timeout=60).ok(quiet=False).out == expected


def test_pipes_with_a_writer_are_read(tmp_path, model):
    env = {"EMBED_MODEL": model}
    (tmp_path / "e.jsonl").write_text(
        "".join(f'{{"text": "{word} {i}", "label": "{word}"}}\n' for i in range(12) for word in ("cat", "dog"))
    )
    command("classify", "--learn", "e.jsonl", "-o", "x.probe", "-m", model, cwd=tmp_path).ok(quiet=False)
    direct = shell("echo a cat | classify -m x.probe", cwd=tmp_path, env=env).ok().out
    assert shell("echo a cat | classify -m <(cat x.probe)", cwd=tmp_path, env=env).ok().out == direct
    line = "echo a cat | classify -L {}"
    direct = shell("printf 'a\\nb\\n' > l; " + line.format("l"), cwd=tmp_path, env=env).ok().out
    assert (
        shell(line.format("<(sleep 0.3; printf 'a\\n'; sleep 0.3; echo b)"), cwd=tmp_path, env=env).ok().out == direct
    )
    slow = "mkfifo f; (sleep 1; printf 'a\\nb\\n' > f) & " + line.format("f")
    assert shell(slow, cwd=tmp_path, env=env).ok().out == direct
    schema = f"""toast -m {LLAMA} -n 9 --schema <(echo '{{"type": "integer"}}') hi"""
    shell(schema, env={"TOAST_HOME": str(tmp_path / "home")}).ok(quiet=False)
