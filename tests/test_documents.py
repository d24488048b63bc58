"""What the documents show is what happens: every block of a shell is run as it is written, in a copy of examples/."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from command import environment, shell
from documents import alike, sections

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCUMENTS = ["README.md", "docs/recipes.md", "docs/faq.md", "docs/troubleshooting.md"]


def parts():
    """A parameter for each part of a document that has blocks."""
    for name in DOCUMENTS:
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            for heading, blocks in sections(file.read()):
                yield pytest.param(blocks, id=f"{os.path.basename(name)[:-3]}: {heading}")


@pytest.fixture
def folder(tmp_path):
    """A copy of the examples, in an empty home."""
    shutil.copytree(os.path.join(ROOT, "examples"), tmp_path / "examples")
    os.mkdir(tmp_path / "home")
    return str(tmp_path / "examples")


@pytest.mark.model
@pytest.mark.parametrize("blocks", list(parts()))
def test_what_is_shown_is_what_happens(blocks, folder, real, own_store):
    needed = {name for block in blocks for name in block.notes.get("needs", "").split()}
    if missing := sorted(name for name in needed if not shutil.which(name)):
        pytest.skip(f"not here: {', '.join(missing)}")
    store = own_store["TOAST_HOME"] or os.path.expanduser("~/.cache/toast")
    env = {
        **real,
        "TOAST_HOME": store,
        "HOME": os.path.dirname(folder) + "/home",
        "COLUMNS": "80",
        **dict.fromkeys(["MAKEFLAGS", "MAKELEVEL", "MFLAGS"]),
    }
    for block in blocks:
        run(block, folder, env)


def run(block, folder, env):
    """One block, as its notes say."""
    if "file" in block.notes:
        path = os.path.join(folder, block.notes["file"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(block.text + "\n")
        return
    if block.language not in ("sh", "console") or "not run" in block.notes:
        return
    for command, printed in block.steps():
        if "while" in block.notes:
            happened = stays(command, block.notes["while"], folder=folder, env=env, expected=printed)
        else:
            result = shell(command, env=env, cwd=folder)
            happened = result.out.decode() + result.err.decode()
            assert printed is None and result.status == 0 or printed is not None, result
        assert printed is None or "varies" in block.notes or alike(happened, printed), (
            f"\n$ {command}\n--- is\n{happened}\n--- should be\n{printed}"
        )


def stays(command, meanwhile, *, folder, env, expected):
    """What a command that never ends has printed after another one, once it is what was expected or 20 s are over."""
    path = os.path.join(folder, ".printed")
    with open(path, "wb") as out:
        started = subprocess.Popen(
            ["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder,
            env=environment(env), start_new_session=True,
        )  # fmt: skip
    time.sleep(1)
    assert shell(meanwhile, env=env, cwd=folder).status == 0
    end = time.monotonic() + 20
    while True:
        with open(path, encoding="utf-8") as file:
            happened = file.read()
        if alike(happened, expected) or time.monotonic() > end:
            break
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGTERM)
    started.wait()
    return happened
