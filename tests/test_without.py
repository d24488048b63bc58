"""Nothing needs what MLX-LM installs for tools of its own: transformers, sentencepiece, protobuf (125 MB)."""

import os
import subprocess
import sys

import pytest
from command import command

HEAVY = ["transformers", "sentencepiece", "google", "torch"]


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """Environment changes under which none of these can be imported, as if they were not there."""
    folder = tmp_path_factory.mktemp("without")
    for name in HEAVY:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r} ' is not here', name={name!r})\n")
    return {"PYTHONPATH": str(folder)}


def test_they_are_not_there(without):
    for name in HEAVY:
        ran = subprocess.run(
            [sys.executable, "-c", f"import {name}"], env={**os.environ, **without}, capture_output=True
        )
        assert b"is not here" in ran.stderr, ran


def test_every_command_runs(without, model, smollm2, tmp_path):
    lines = b"a cat\na dog\na house\n"
    command("embed", "-m", model, stdin=lines, env=without).ok()
    command("embed", "--json", "-m", model, stdin=lines, env=without).ok()
    command("rerank", "-m", model, "a cat", stdin=lines, env=without).ok()
    command("classify", "-m", model, "-l", "pet,building", stdin=lines, env=without).ok()
    command("index", "-m", model, "-o", "x.db", stdin=lines, env=without, cwd=tmp_path).ok(quiet=False)
    command("search", "-m", model, "--threshold", "0", "cat", "x.db", env=without, cwd=tmp_path).ok()
    command("tokenize", "-m", smollm2, stdin=lines, env=without).ok()
    command("toast", "-m", smollm2, "-n", "3", "say", stdin=lines, env=without).ok(quiet=False)
    command("toast", "-m", smollm2, "-n", "9", "--choice", "yes,no", "say", stdin=lines, env=without).ok(quiet=False)
    command("model", "show", model, env=without).ok(quiet=False)


def test_a_gguf_file_runs(without, smollm2, real, tmp_path):
    command("model", "convert", smollm2, str(tmp_path / "small.gguf"), env={**real, **without}).ok(quiet=False)
    command("toast", "-m", str(tmp_path / "small.gguf"), "-n", "3", "say hi", env={**real, **without}).ok(quiet=False)
