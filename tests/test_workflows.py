"""What runs elsewhere: the workflows are well-formed and their linters find nothing."""

import glob
import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORKFLOWS = sorted(glob.glob(os.path.join(ROOT, ".github", "workflows", "*.yml")))
FILES = sorted(
    [
        *glob.glob(os.path.join(ROOT, ".github", "**", "*.yml"), recursive=True),
        os.path.join(ROOT, ".pre-commit-config.yaml"),
    ]
)


def finds_nothing(name, *args):
    """The program, which stands beside this Python, ends with status 0; skips where it is not installed."""
    program = os.path.join(os.path.dirname(sys.executable), name)
    if not os.path.exists(program):
        pytest.skip(f"{name} is not installed")
    ran = subprocess.run([program, *args], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


@pytest.fixture(scope="module")
def parsed():
    """Each file and what it holds; BaseLoader leaves `on` and 3.10 the words that they are."""
    yaml = pytest.importorskip("yaml")
    contents = {}
    for path in FILES:
        with open(path, encoding="utf-8") as file:
            contents[os.path.relpath(path, ROOT)] = yaml.load(file, yaml.BaseLoader)
    return contents


def test_every_file_is_yaml(parsed):
    assert {os.path.basename(name) for name in parsed} >= {"test.yml", "release.yml", "bug.yml", "feature.yml"}
    assert all(isinstance(held, dict) for held in parsed.values())


def test_both_workflows_have_the_same_pythons(parsed):
    """A Python that is tested has a wheel, and the other way round."""
    jobs = [
        parsed[f".github/workflows/{name}.yml"]["jobs"][job] for name, job in (("test", "test"), ("release", "wheels"))
    ]
    tested, built = (job["strategy"]["matrix"]["python"] for job in jobs)
    assert tested == built


def test_actions_are_pinned():
    """By hash, with the version beside it; one action has one version."""
    pins = {}
    for path in WORKFLOWS:
        with open(path, encoding="utf-8") as file:
            for line in re.findall(r"uses: (.*)", file.read()):
                pin = re.fullmatch(r"([\w./-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", line)
                assert pin, (path, line)
                assert pins.setdefault(*pin.groups()) == pin[2], (path, line)


def test_workflows_fit_their_schema():
    finds_nothing("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


def test_forms_fit_their_schema():
    forms = glob.glob(os.path.join(ROOT, ".github", "ISSUE_TEMPLATE", "[!c]*.yml"))
    finds_nothing("check-jsonschema", "--builtin-schema", "vendor.github-issue-forms", *forms)


def test_workflows_are_safe():
    finds_nothing("zizmor", "--offline", *WORKFLOWS)
