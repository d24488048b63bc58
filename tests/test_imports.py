"""The house has one direction: who may import whom, who may touch the process, what loads at start."""

import ast
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = ("toast", "embed", "rerank")
STDLIB_ONLY = {
    "toast/files.py",
    "toast/pipes.py",
    "toast/records.py",
    "toast/errors.py",
    "toast/command.py",
    "toast/options.py",
}
HEAVY = {
    "numpy",
    "typer",
    "click",
    "rich",
    "transformers",
    "mlx.nn",
    "pydantic",
    "tqdm",
    "inspect",
    "tempfile",
    "tokenizers",
}


def sources():
    for package in PACKAGES:
        for folder, _, names in os.walk(os.path.join(ROOT, package)):
            for name in names:
                if name.endswith(".py"):
                    yield os.path.relpath(os.path.join(folder, name), ROOT)


def tree(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return ast.parse(file.read())


def imports(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(sources()))
def test_imports_point_one_way(path):
    package = path.split(os.sep)[0]
    forbidden = {"toast": {"embed", "rerank"}, "embed": {"rerank"}, "rerank": {"embed"}}[package]
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in forbidden, f"{path} imports {name}"
        if path in STDLIB_ONLY:
            assert top in {"toast", "tqdm"} or top in sys.stdlib_module_names, f"{path} imports {name}"
        if path.endswith("cli.py"):
            continue
        assert not name.endswith(".cli"), f"{path} imports a cli"


@pytest.mark.parametrize("path", sorted(sources()))
def test_the_process_is_left_to_two_files(path):
    if path == "toast/command.py":
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            assert name not in {"sys.exit", "os._exit", "os.environ", "os.getcwd", "os.chdir", "sys.argv"}, (path, name)
            assert not name.startswith("sys.std"), (path, name)


def loaded_by(name, *words, stdin=b"hello\n"):
    """What is in sys.modules at the end of an installed command's run."""
    code = (
        "import os, sys\n"
        "def end(status, leave=os._exit):\n"
        "    os.write(2, '\\n'.join(sys.modules).encode()); leave(status)\n"
        "os._exit = end\n"
        "script = sys.argv.pop(0); script = sys.argv[0]\n"
        "exec(compile(open(script).read(), script, 'exec'), {'__name__': '__main__'})\n"
    )
    script = os.path.join(os.path.dirname(sys.executable), name)
    probe = subprocess.run([sys.executable, "-c", code, script, *words], input=stdin, capture_output=True)
    assert probe.returncode == 0, probe.stderr.decode()
    return set(probe.stderr.decode().split("\n"))


def test_embed_starts_light(model):
    loaded = loaded_by("embed", "-m", model)
    assert "mlx.core" in loaded and not HEAVY & loaded


def test_classify_starts_light(model):
    loaded = loaded_by("classify", "-m", model, "-l", "a,b")
    assert "mlx.core" in loaded and not HEAVY & loaded


def test_rerank_starts_light(model):
    loaded = loaded_by("rerank", "-m", model, "cat")
    assert "mlx.core" in loaded and not HEAVY & loaded


@pytest.mark.parametrize("module", ["embed.cli", "rerank.cli"])
def test_declaring_a_command_loads_nothing(module):
    code = f"import {module}, sys; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.decode()
    assert not (HEAVY | {"mlx", "mlx.core", "json"}) & set(out.split())
