"""The documents say what is there."""

import os
import re
import sys
import tomllib

import pytest
from command import command

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


SCRIPTS = sorted(tomllib.loads(read("pyproject.toml"))["project"]["scripts"])


def test_every_file_stands_in_the_layout():
    layout = read("docs/contributing.md").split("## Layout")[1]
    for package in ("toast", "embed", "rerank"):
        for folder, _, names in os.walk(os.path.join(ROOT, package)):
            for name in names:
                if name.endswith(".py") and name != "__init__.py":
                    assert re.search(rf"\b{re.escape(name)}", layout), os.path.join(folder, name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_is_in_the_readme_and_has_help(name):
    out = command(name, "--help").ok().out.decode()
    assert out.startswith("Usage: ") and "Exit status" in out
    if name.startswith("toast-"):  # under which nothing else is found
        assert name.removeprefix("toast-") in SCRIPTS and "`toast-search`, `toast-index` and so on" in read("README.md")
    elif name != "generate":
        assert re.search(rf"`{name}\b", read("README.md"))


def test_every_command_has_a_name_that_nothing_else_has():
    own = {name for name in SCRIPTS if not name.startswith("toast-")}
    assert {f"toast-{name}" for name in own - {"toast"}} == set(SCRIPTS) - own
    assert "`toast` itself is `toast-generate`" in read("README.md")


def test_links_lead_somewhere():
    pages = (os.path.join(folder, name) for folder, _, names in os.walk(os.path.join(ROOT, "docs")) for name in names)
    for document in ["README.md", *(os.path.relpath(page, ROOT) for page in pages)]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", read(document)):
            assert os.path.exists(os.path.join(ROOT, os.path.dirname(document), target)), (document, target)


def test_no_script_hides_a_package():
    """`python tests/bench/x.py` puts that folder first on the path: toast.py there would be `import toast`."""
    ours = {"toast", "embed", "rerank", *sys.stdlib_module_names}
    assert not {name.removesuffix(".py") for name in os.listdir(os.path.join(ROOT, "tests", "bench"))} & ours


def test_the_table_is_what_was_measured(monkeypatch):
    import json

    monkeypatch.syspath_prepend(os.path.join(ROOT, "tests", "bench"))
    import table

    assert table.markdown(json.loads(read("docs/bench.json"))) in read("docs/speed.md")
