"""The house has one direction: who may import whom, who may touch the process, what loads at start."""

import ast
import os
import subprocess
import sys
import tomllib
from functools import cache

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGES = ("toast", "embed", "rerank")
BARE = (
    "start",
    "command",
    "options",
    "pipes",
    "spool",
    "cancel",
    "kept",
    "files",
    "locks",
    "records",
    "errors",
    "terminal",
    "long_words",
    "help",
    "usage",
    "spellings",
    "operands",
    "json_text",
)
CLIENT = ("client", "place", "protocol", "spawn")  # of the warm process: what runs before anything heavy is imported
STDLIB_ONLY = {f"toast/{name}.py" for name in BARE} | {f"toast/warm/{name}.py" for name in CLIENT}
HEAVY = {
    "click", "inspect", "mlx.nn", "numpy", "pydantic", "rich",
    "tempfile", "tokenizers", "tqdm", "transformers", "typer",
}  # fmt: skip


# who may import whom: what stands further right knows nothing of what stands further left
FLOORS = {
    "cli": 0, "verb": 1, "generation": 2, "encoding": 2, "models": 3, "store": 3, "shell": 3, "kernels": 4,
    "vocabulary": 4,
}  # fmt: skip
SHELL = {
    "start", "command", "options", "help", "usage", "spellings", "operands", "pipes", "npy", "files", "records",
    "errors", "task", "loaded", "filters", "__init__", "terminal", "long_words", "spool", "cancel", "parquet", "kept",
    "json_text", "locks",
}  # fmt: skip
LONGEST, DEEPEST = 400, 40  # lines of a file, and of a function without numbered steps


def sources():
    for package in PACKAGES:
        for folder, _, names in os.walk(os.path.join(ROOT, package)):
            for name in names:
                if name.endswith(".py"):
                    yield os.path.relpath(os.path.join(folder, name), ROOT)


SOURCES = sorted(sources())


@cache
def tree(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return ast.parse(file.read())


def module_of(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path) for path in SOURCES}


def for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node):
    """All nodes but those that only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not for_types(child):
            yield from walk(child)


def imports(path):
    """Full names of what a file imports when it runs, at any depth of its functions."""
    package = module_of(path) if path.endswith("__init__.py") else module_of(path).rpartition(".")[0]
    for node in walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(filter(None, [package if node.level else "", node.module]))
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def modules_imported(path):
    """Which of our own modules a file imports."""
    for name in imports(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            yield name


def floor(module):
    package, *parts = module.split(".")
    if parts[-1:] in (["cli"], ["api"]):
        return "cli"
    if package != "toast":
        return "verb"
    if not parts or (len(parts) == 1 and parts[0] in SHELL) or (parts[0] == "warm" and parts[-1] in (*CLIENT, "warm")):
        return "shell"
    return parts[0] if parts[0] in FLOORS else "verb"


@pytest.mark.parametrize("path", SOURCES)
def test_imports_point_one_way(path):
    package, here = path.split(os.sep)[0], floor(module_of(path))
    forbidden = {"toast": {"embed", "rerank"}, "embed": {"rerank"}, "rerank": {"embed"}}[package]
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in forbidden, f"{path} imports {name}"
        if path in STDLIB_ONLY:
            assert top in {"toast", "tqdm"} or top in sys.stdlib_module_names, f"{path} imports {name}"
    for name in modules_imported(path):
        assert FLOORS[floor(name)] >= FLOORS[here], f"{path} imports {name}, which stands above it"


@pytest.mark.parametrize("path", SOURCES)
def test_the_wings_do_not_know_each_other(path):
    wings = {"generation", "encoding"}
    for name in modules_imported(path):
        assert not {floor(module_of(path)), floor(name)} >= wings, f"{path} imports {name}"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.startswith("toast/kernels/")])
def test_kernels_know_nothing_above_them(path):
    above = [name for name in modules_imported(path) if not name.startswith("toast.kernels")]
    assert not above, f"{path} imports {above}"


def test_no_circle_of_imports():
    """Imports inside of functions count, those for types do not."""
    graph = {module_of(path): set(modules_imported(path)) - {module_of(path)} for path in SOURCES}
    for _ in range(2):  # take away what only imports, then what is only imported, until circles are left
        while leaves := {name for name, found in graph.items() if not found & graph.keys()}:
            graph = {name: found - leaves for name, found in graph.items() if name not in leaves}
        graph = {name: {n for n in graph if name in graph[n]} for name in graph}
    assert not graph, "\n".join(f"{name} imports {sorted(found)}" for name, found in sorted(graph.items()))


@pytest.mark.parametrize("path", SOURCES)
def test_calls_cannot_be_mixed_up(path):
    """Beyond three, parameters go by their names; declarations are no calls, recurrent.py stands in for MLX-LM's."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef) and not path.endswith(("cli.py", "recurrent.py")):
            names = [a.arg for a in node.args.posonlyargs + node.args.args if a.arg not in ("self", "cls")]
            assert len(names) <= 3, f"{path}: {node.name}{tuple(names)}"


@pytest.mark.parametrize("path", SOURCES)
def test_rooms_stay_small(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        lines = file.read().split("\n")
    assert len(lines) <= LONGEST + 1, f"{path} has {len(lines)} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef) and not path.endswith(("cli.py", "recurrent.py")):
            body = lines[node.body[0].lineno - 1 : node.end_lineno]
            steps = sum(line.lstrip().startswith("# 1)") for line in body)
            assert len(body) <= DEEPEST or steps, f"{path}: {node.name} has {len(body)} lines and no numbered steps"


@pytest.mark.parametrize("path", SOURCES)
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
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        module, _, function = tomllib.load(file)["project"]["scripts"][name].partition(":")
    code = (
        "import os, sys\n"
        "def end(status, leave=os._exit):\n"
        "    os.write(2, '\\n'.join(sys.modules).encode()); leave(status)\n"
        "os._exit = end\n"
        f"from {module} import {function}; {function}()"
    )
    probe = subprocess.run([sys.executable, "-c", code, *words], input=stdin, capture_output=True)
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
