"""Every example of every help text runs as it is written, in a folder that has the files which they name."""

import json
import os
import pathlib
import shutil

import pytest
import tiny
from command import command, shell
from declarations import ALL
from hub_server import Hub
from test_hub import files_of

from toast.help import Page

CAUSAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "qwen3-causal")
EXAMPLES = [(name, line) for name, one in ALL.items() for line in Page(one).examples]
FILES = {
    "notes.md": "# Notes\n\nThe disk is full: delete old logs.\n\nInstall it with pip.\n",
    "notes.txt": "the cat sat on the mat\nThe cat sat on the mat.\nan index is a file\n",
    "todo.txt": "What is left to do:\nbuy milk\ncall the landlord\n",
    "docs/disk.md": "When the disk is full, delete old logs.\n",
    "docs/install.md": "To install it, run pip install.\n",
    "a.py": "print(1)\n",
    "b.py": "print(2)\n",
    "mail.txt": "Olga Petrova, born in 1984, lives in Oslo\n",
    "form.json": (pathlib.Path(__file__).parents[1] / "examples/form.json").read_text(),
    "reviews.txt": "Love it, great work!\nWorst purchase ever\n",
    "log.txt": "10:02 ERROR no space left on device\n10:03 WARN retrying connection 1/5\n10:04 INFO user logged in\n",
    "inbox.txt": "cheap pills, buy now\nlunch at noon?\n",
    "issues.txt": "it crashes\nplease add a dark mode\n",
    "notes.jsonl": '{"body": "a cat"}\n{"body": "a dog"}\n',
    "articles.jsonl": '{"key": "1", "body": "a cat"}\n{"key": "2", "body": "a dog"}\n',
    "examples.jsonl": "".join(
        json.dumps({"text": f"{text} {i}", "label": label}) + "\n"
        for label, text in (("bug", "it crashes and fails"), ("feature", "please add a button"))
        for i in range(8)
    ),
}
NONE_HERE = {"toasted status": 1}  # no warm process of the tests' own runs


def test_there_are_some():
    assert len(EXAMPLES) > 30 and {name for name, _ in EXAMPLES} >= {"toast", "embed", "search", "model pull"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, real):
    """The files that examples name, an index of two of them, and changes that git sees."""
    folder = tmp_path_factory.mktemp("examples")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    git = "git init -q . && git add a.py && git -c user.name=a -c user.email=a@b.c commit -qm a && echo >> a.py"
    shell(f"{git} && index docs/ > docs.db", cwd=folder, env=real).ok()
    return folder


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """Environment changes under which org/name is a language model that a hub serves, or has served."""
    served = {"org/name": files_of(tiny.wide(tmp_path_factory.mktemp("wide"))), "org/name-4bit": files_of(CAUSAL)}
    with Hub(served) as hub:
        env = {"HF_HOME": tmp_path_factory.mktemp("hf"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": None,
               "HF_HUB_CACHE": None, "HUGGINGFACE_HUB_CACHE": None, "HF_TOKEN": None}  # fmt: skip
        command("model", "pull", *served, env=env).ok(quiet=False)
        yield env


@pytest.mark.model
@pytest.mark.parametrize("name, line", EXAMPLES, ids=[f"{name}{i}" for i, (name, _) in enumerate(EXAMPLES)])
def test_an_example(name, line, folder, real, fetched, tmp_path):
    """toast by a tiny model, all others by the default one."""
    if "--parquet" in line:
        parquet = pytest.importorskip("pyarrow.parquet")
        arrow = pytest.importorskip("pyarrow")
        parquet.write_table(arrow.table({"body": ["a cat", "a dog"]}), folder / "articles.parquet")
    here = shutil.copytree(folder, tmp_path / "here")
    if "chat.gguf" in line:
        command("model", "convert", CAUSAL, str(here / "chat.gguf"), env=real).ok()
    home = {"TOAST_HOME": tmp_path / "store"} if "model alias" in line else real  # the developer's own has no such name
    ran = shell(line, cwd=here, env={**real, **fetched, **home, "TOAST_MODEL": CAUSAL, "TOAST_WARM": "off"})
    expected = {NONE_HERE.get(line, 0)} | ({3} if "--strict" in line else set())
    assert ran.status in expected, ran
    assert "Traceback" not in ran.err.decode(), ran


# what the default models make of the examples that are shown with them
GOOD = {
    "toast --schema form.json < mail.txt": '{"name": "Olga Petrova", "city": "Oslo"}\n',
    'toast --each --choice positive,negative "positive or negative?" < reviews.txt': "positive\nnegative\n",
    'toast "what is the capital of France?"': "The capital of France is Paris.\n",
    'classify -l "bug,feature request" < issues.txt | cut -f1': "bug\nfeature request\n",
    "classify -l spam,mail --only spam < inbox.txt": "cheap pills, buy now\n",
    'rerank "what is left to do" < todo.txt | head -1': "What is left to do:\n",
    'rerank --threshold 0.02 --scores "the disk is full" < log.txt | cut -f2': "10:02 ERROR no space left on device\n",
    'search "what is left to do" notes.md todo.txt': "todo.txt:1:What is left to do:\n",
}


@pytest.mark.model
@pytest.mark.parametrize("line", GOOD)
def test_an_example_is_answered_well(line, folder, real):
    example = line.partition(" | ")[0]
    assert example in {shown for _, shown in EXAMPLES}
    assert shell(line, cwd=folder, env={**real, "TOAST_MODEL": None}).ok().out.decode() == GOOD[line]


def test_every_example_of_the_default_language_model_is_judged():
    lines = [line for name, line in EXAMPLES if name in ("toast", "tokenize") and "toast " in line]
    assert all("-m org/name" in line or line in GOOD for line in lines)
