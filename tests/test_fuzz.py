"""Damaged configurations, weights, GGUF files, caches, sessions, probes and indexes: every command says in a line what
is wrong, or answers right. The same damage every time; FUZZ=N does N times as much (`pytest -m slow` does 40 times).
"""

import json
import os
import shutil
import sqlite3
from binascii import crc32

import pytest
import tiny
from fuzz import ODD, check, copied, damage_folder, damage_header, damaged_bytes, damaged_json, guard, ran, seeded
from gguf_file import gguf
from test_convert import TEXT, metadata, tiny as tiny_decoder  # noqa: F401
from test_probe import examples

from toast.store import safetensors

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
TIMES = int(os.environ.get("FUZZ", "1"))
LINES = b"the cat sat\na dog ran\n\nthe sky is blue\n"
FOLDERS = {  # a model and the commands that it is for
    "bert": (None, [("embed", "--json"), ("search", "--json", "cat"), ("rerank", "--json", "cat"),
                    ("classify", "--json", "-l", "a,b")]),
    "bert-crossencoder": ("bert-crossencoder", [("rerank", "--json", "cat")]),
    "bert-classifier": ("bert-classifier", [("classify", "--json")]),
    "roberta-nli": ("roberta-nli", [("classify", "--json", "-l", "a,b")]),
    "qwen3-reranker": ("qwen3-reranker", [("rerank", "--json", "cat")]),
    "colbert": ("tiny-colbert-pylate", [("rerank", "--json", "cat")]),
    "llama": ("llama-causal", [("toast", "-n", "3", "--json", "hi"), ("toast", "-n", "3", "--each", "--json", "hi"),
                               ("toast", "-n", "3", "-t", "1", "--logprobs", "2", "--no-cache", "hi"),
                               ("tokenize", "--count")]),
    "qwen3": ("qwen3-causal", [("toast", "-n", "3", "--json", "hi"), ("classify", "--json", "-l", "a,b")]),
}  # fmt: skip


def cases(count):
    """Numbers of seeds: of the usual suite, and many more for who has the time."""
    usual = [pytest.param(range(i, i + 1)) for i in range(0, count * TIMES)]
    return [range(0, count * TIMES), pytest.param(range(count, count * 40), marks=pytest.mark.slow)] if usual else []


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny.bert(tmp_path_factory.mktemp("fuzz") / "bert")


@pytest.mark.parametrize("seeds", cases(24))
@pytest.mark.parametrize("name", FOLDERS)
def test_model_folders(tmp_path, bert, name, seeds):
    source, commands = FOLDERS[name]
    whole = bert if source is None else os.path.join(ORACLES, source)
    for seed in seeds:
        rng = seeded(name, seed)
        folder = copied(whole, tmp_path / "model")
        done = damage_folder(folder, rng)
        command, *words = rng.choice(commands)
        found = guard(lambda: ran(command, "-m", folder, *words, stdin=LINES, home=tmp_path))
        try:
            check(found)
        except AssertionError as error:
            raise AssertionError(f"{name} {seed} {done} {error}") from None
