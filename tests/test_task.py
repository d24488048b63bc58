"""What a model is for: each command says of every model of another kind which command takes it."""

import json
import os

import pytest
import tiny
from command import command
from tiny_adapter import LLAMA, ORACLES, Change

ORACLE = {name: os.path.join(ORACLES, path) for name, path in
          {"late": "tiny-colbert-pylate", "judge": "qwen3-reranker", "chat": "llama-causal"}.items()}  # fmt: skip
EITHER = {"rerank": {"embed", "late", "cross", "judge"}, "classify": {"embed", "labels", "chat", "probe", "adapter"}}
TAKES = {
    "toast hi": {"chat", "judge", "adapter", "gguf"},
    "embed": {"embed"},
    "index": {"embed"},
    "search cat x.txt": {"embed"},
    "rerank cat": EITHER["rerank"],
    "search cat x.txt -m embed --rerank --rerank-model": EITHER["rerank"],
    "classify -l a,b": EITHER["classify"] | {"gguf"},
}
TAKER = {"embed": ["embed"], "late": ["rerank"], "labels": ["classify"], "cross": ["rerank"], "judge": ["rerank"],
         "chat": ["toast"], "gguf": ["toast"], "probe": ["classify"], "adapter": ["toast"]}  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder of models of every kind, named after it."""
    here = tmp_path_factory.mktemp("kinds")
    tiny.bert(here / "embed")
    tiny.bert(here / "labels", labels=["a", "b", "c"])
    tiny.bert(here / "cross", labels=["relevance"])
    Change().mlx(here / "adapter", LLAMA)
    for name, path in ORACLE.items():
        os.symlink(path, here / name)
    (here / "x.txt").write_text("cat\n")
    (here / "gguf.gguf").write_bytes(b"GGUF")
    examples = [json.dumps({"text": f"{label} {i}", "label": label}) for i in range(6) for label in ("cat", "dog")]
    (here / "examples").write_text("\n".join(examples))
    command("classify", "--learn", "examples", "-o", "probe", "-m", "embed", "-q", cwd=here).ok()
    return here


@pytest.mark.parametrize("line", TAKES)
@pytest.mark.parametrize("kind", TAKER)
def test_a_model_of_another_kind(here, line, kind):
    if kind in TAKES[line]:
        pytest.skip("it is one of the right kinds")
    name, *words = line.split()
    model = "gguf.gguf" if kind == "gguf" else kind
    ran = command(name, *words, *([] if "--rerank" in words else ["-m"]), model, stdin=b"cat\n", cwd=here)
    ran.fails(f"{name}: {model} ", *(f"{taker} -m {model}" for taker in TAKER[kind]))
