"""Models from a hub, and where other programs keep them: names, caches, fetching, listing, removing."""

import hashlib
import json
import os
import shutil
import signal
import time

import pytest
from command import command, start
from hub_server import Hub
from test_convert import tiny as gguf_of

from toast.store import hub
from toast.store.download import _redirected, _wanted

TOKEN = "hf_secret_of_the_tests"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"


def files_of(folder):
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


@pytest.fixture
def served(model):
    """A hub with the tiny embedding model, and files that nobody should fetch."""
    files = files_of(model) | {"README.md": b"---\nlicense: mit\n---\n", "train.py": b"x", "pytorch_model.bin": b"x"}
    files |= {"onnx/model.onnx": b"x" * 2000, "openvino/config.json": b"{}", "LICENSE": b"MIT"}
    with Hub({"org/tiny": files}) as server:
        yield server


@pytest.fixture
def env(tmp_path, served):
    return {"HF_HOME": tmp_path / "hf", "HF_ENDPOINT": served.url, "HF_HUB_CACHE": None, "HF_TOKEN": None,
            "HF_HUB_OFFLINE": None, "HUGGINGFACE_HUB_CACHE": None, "TOAST_PULL": None, "HOME": tmp_path}  # fmt: skip


def blobs(env):
    folder = os.path.join(env["HF_HOME"], "hub", "models--org--tiny", "blobs")
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name, expected",
    [
        ("org/name", ("org/name", "", "")),
        ("org/name@v1.0", ("org/name", "v1.0", "")),
        ("org/name@refs/pr/1", ("org/name", "refs/pr/1", "")),
        ("org/name:Q4_K_M", ("org/name", "", "Q4_K_M")),
        ("org/name@main:Q8_0", ("org/name", "main", "Q8_0")),
        ("hf.co/org/name", ("org/name", "", "")),
        ("hf.co/org/name:Q4_K_M", ("org/name", "", "Q4_K_M")),
        ("https://huggingface.co/org/name", ("org/name", "", "")),
        ("https://huggingface.co/org/name/", ("org/name", "", "")),
        ("https://huggingface.co/org/name/tree/v2", ("org/name", "v2", "")),
        ("https://huggingface.co/org/name/resolve/main/a-Q4_0.gguf?download=true", ("org/name", "main", "a-Q4_0.gguf")),
        ("https://huggingface.co/org/name/blob/main/Q4/a.gguf", ("org/name", "main", "Q4/a.gguf")),
    ],
)
def test_a_hub_name(name, expected):
    reference = hub.parse(name)
    assert reference and (reference.repository, reference.revision, reference.file) == expected


@pytest.mark.parametrize(
    "name",
    ["name", "a/b/c", "../b", "a/..", "/a/b", "a/b@../c", "a/b:../c", "a/b@", "a/b:", "a//b", "./b", "~/b", "a/-b",
     "https://example.org/a/b", "ftp://huggingface.co", "a\\b/c", "a/b\n"],
)  # fmt: skip
def test_no_hub_name(name):
    assert hub.parse(name) is None


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ("Q4_K_M", "m-Q4_K_M.gguf"), ("q4_k_m", "m-Q4_K_M.gguf"), ("m-Q8_0.gguf", "m-Q8_0.gguf"),
        ("BF16", "BF16/m-BF16-00001-of-00002.gguf"), ("Q4_K", None),
    ],
)  # fmt: skip
def test_one_gguf_file_of_several(wanted, expected):
    files = ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf",
             "mmproj-m-Q8_0.gguf"]  # fmt: skip
    assert hub.choose(hub.Reference("org/m", "", wanted), files) == expected
    if expected and "of" in expected:
        assert hub.parts(expected, files) == files[2:4]


# ---------------------------------------------------------------- pull


def test_a_pulled_model_is_where_every_tool_finds_it(env, model):
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    expected = command("embed", "-m", model, "--json", stdin=b"a cat\n").ok().out
    assert command("embed", "-m", "org/tiny", "--json", stdin=b"a cat\n", env=env).ok().out == expected
    folder = command("model", "path", "org/tiny", env=env).ok().out.decode().strip()
    assert sorted(files_of(folder)) == sorted([*files_of(model), "README.md", "LICENSE"])
    for name, data in files_of(folder).items():
        blob = os.path.basename(os.path.realpath(os.path.join(folder, name)))
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        assert blob in (hashlib.sha256(data).hexdigest(), git)
    from huggingface_hub import snapshot_download

    assert folder == snapshot_download("org/tiny", cache_dir=env["HF_HOME"] / "hub", local_files_only=True)


def test_what_is_here_is_not_fetched_again(env, served):
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    served.log.clear()
    command("model", "pull", "org/tiny", env=env).ok()
    assert [path for _, path, *_ in served.log if "/resolve/" in path] == []


def test_no_command_fetches_by_surprise(env, served):
    ran = command("embed", "-m", "org/tiny", stdin=b"a cat\n", env=env)
    ran.fails("no model 'org/tiny' here", "run: model pull org/tiny (")
    assert served.log and not any("/resolve/" in path for _, path, *_ in served.log)
    served.log.clear()
    ran = command("embed", "-m", "org/tiny", stdin=b"a cat\n", env={**env, "HF_HUB_OFFLINE": "1"})
    ran.fails("run: model pull org/tiny;")
    assert served.log == []
    command("embed", "-m", "org/tiny", "--json", stdin=b"a cat\n", env={**env, "TOAST_PULL": "1"}).ok(quiet=False)


def test_dry_run(env):
    ran = command("model", "pull", "--dry-run", "org/tiny", env=env).ok(quiet=False)
    assert b"\tmodel.safetensors\n" in ran.out and b"train.py" not in ran.out and not blobs(env)


def test_a_revision(env, served):
    served.revisions["v1.0"] = OTHER
    command("model", "pull", "org/tiny@v1.0", env=env).ok(quiet=False)
    for name in ("org/tiny@v1.0", "org/tiny@fedcba98", "org/tiny"):  # without main the one that is here
        assert command("model", "path", name, env=env).ok().out.endswith(f"/snapshots/{OTHER}\n".encode())
    command("model", "path", "org/tiny@v2", env=env).fails("no model", "model pull org/tiny@v2")
    command("model", "pull", "org/tiny@v2", env=env).fails("has no revision 'v2'")


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_wherever_the_cache_is(variable, env, tmp_path):
    env = {**env, "HF_HOME": None, variable: tmp_path / "there"}
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    below = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}.get(variable, "")
    assert (tmp_path / "there" / below / "models--org--tiny").is_dir()
    command("embed", "-m", "org/tiny", stdin=b"a cat\n", env=env).ok()


def test_large_files_from_another_host_without_the_token(env, served):
    with Hub() as elsewhere:
        served.elsewhere, served.token = elsewhere, TOKEN
        command("model", "pull", "org/tiny", env=env).fails("does not show it")
        ran = command("model", "pull", "org/tiny", env={**env, "HF_TOKEN": TOKEN}).ok(quiet=False)
        assert elsewhere.log and {given for _, _, given, _ in elsewhere.log} == {None}
        assert TOKEN.encode() not in ran.err + ran.out
        elsewhere.status = 403
        shutil.rmtree(env["HF_HOME"])
        ran = command("model", "pull", "org/tiny", env={**env, "HF_TOKEN": TOKEN})
        assert ran.status == 2 and b"answered 403" in ran.err and TOKEN.encode() not in ran.err, ran


def test_redirects_keep_secrets():
    secret = {"Authorization": "Bearer x", "user-agent": "toast"}
    assert _redirected("https://a/x", "/y", secret) == ("https://a/y", secret)
    assert _redirected("https://a/x", "https://b/y", secret) == ("https://b/y", {"user-agent": "toast"})
    assert _redirected("http://a:1/x", "http://a:2/y", secret)[1] == {"user-agent": "toast"}
    for location in ("http://a/y", "file:///etc/passwd", "ftp://a/y"):
        with pytest.raises(Exception, match="not safe"):
            _redirected("https://a/x", location, secret)


@pytest.mark.parametrize("ranges", [True, False])
def test_cut_connections_go_on(env, served, ranges):
    served.ranges, served.cut = ranges, [100, 5000, 0, 7]
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    asked = [given for _, path, _, given in served.log if path.endswith("/model.safetensors")]
    assert asked[0] == "bytes=0-" and ("bytes=5100-" if ranges else "bytes=5000-") in asked
    command("model", "verify", "org/tiny", env=env).ok()


def test_a_dead_connection_is_told_and_gone_on_with(env, served):
    served.cut = [3000] + [0] * 9
    ran = command("model", "pull", "org/tiny", env=env)
    assert ran.status == 2 and b"the same command goes on" in ran.err, ran
    command("embed", "-m", "org/tiny", stdin=b"a cat\n", env=env).fails("no model 'org/tiny' here")
    served.cut = []
    served.log.clear()
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    assert "bytes=3000-" in [given for *_, given in served.log]
    command("model", "verify", "org/tiny", env=env).ok()


def test_killed_pulls_end_whole(env, served):
    served.repositories["org/tiny"]["model.safetensors"] += bytes(3_000_000)
    name = "model.safetensors"
    for moment in range(20):
        process = start("model", "pull", "org/tiny", env=env)
        time.sleep(0.25 + 0.03 * moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    folder = command("model", "path", "org/tiny", env=env).ok().out.decode().strip()
    assert files_of(folder)[name] == served.repositories["org/tiny"][name]
    assert not [blob for blob in blobs(env) if not hub.is_intact(os.path.join(
        env["HF_HOME"], "hub", "models--org--tiny", "blobs", blob))]  # fmt: skip


def test_pulls_at_the_same_time(env, served):
    """One fetches a file, the others wait; all of them end well."""
    served.repositories["org/tiny"]["model.safetensors"] += os.urandom(20_000_000)
    pulls = [start("model", "pull", "org/tiny", env=env) for _ in range(4)]
    ended = [(pull.communicate()[1], pull.returncode) for pull in pulls]
    assert [status for _, status in ended] == [0] * 4, ended
    command("model", "verify", "org/tiny", env=env).ok()
    assert not [blob for blob in blobs(env) if blob.endswith(".incomplete")]
    asked = [path for _, path, *_ in served.log if path.endswith("model.safetensors")]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "lie, told",
    [((None, "0" * 64), "another hash"), ((1200, None), "longer than the hub says"), ((-1, None), "no size"),
     ((None, "../../x"), "no hash"), ((1 << 60, None), "no room")],
)  # fmt: skip
def test_a_hub_that_lies(env, served, lie, told):
    served.lies["model.safetensors"] = lie
    ran = command("model", "pull", "org/tiny", env=env)
    assert ran.status == 2 and told.encode() in ran.err and b"Traceback" not in ran.err, ran
    assert not os.path.exists(os.path.join(env["HF_HOME"], "hub/models--org--tiny/refs"))
    assert not [blob for blob in blobs(env) if len(blob) == 64]


@pytest.mark.parametrize("name", ["../x.json", "/etc/x.json", "a/../../x.json", "a\\..\\x.json", "x\0.json", ""])
def test_names_that_lead_elsewhere(env, served, name):
    served.repositories["org/tiny"][name] = b"{}"
    command("model", "pull", "org/tiny", env=env).fails("leads elsewhere")
    assert not blobs(env)


@pytest.mark.parametrize(
    "files, told",
    [
        (["config.json", "pytorch_model.bin"], "pickles alone"),
        (["config.json"], "no weights"),
        (["m-Q4_0.gguf", "m-Q8_0.gguf"], "org/tiny:NAME with one of: Q4_0, Q8_0"),
    ],
)
def test_repositories_without_a_model_to_take(env, served, files, told):
    served.repositories["org/tiny"] = dict.fromkeys(files, b"{}")
    command("model", "pull", "org/tiny", env=env).fails(told)


def test_only_what_a_model_needs():
    names = ["config.json", "model.safetensors", "consolidated.safetensors", "model.fp16.safetensors", "a.gguf",
             "2_Dense/model.safetensors", "onnx/model.onnx", "tokenizer.json", "flax_model.msgpack"]  # fmt: skip
    assert _wanted(hub.Reference("a/b"), sorted(names)) == [
        "2_Dense/model.safetensors", "model.safetensors", "config.json", "tokenizer.json"]  # fmt: skip


@pytest.mark.parametrize("status, told", [(500, "500"), (429, "429"), (403, "403")])
def test_a_hub_that_refuses(env, served, status, told):
    served.status = status
    command("model", "pull", "org/tiny", env=env).fails(told)


def test_no_hub(env):
    command("model", "pull", "org/none", env=env).fails("has no org/none")
    command("model", "pull", "org/tiny", env={**env, "HF_ENDPOINT": "http://127.0.0.1:9"}).fails("cannot reach")
    command("model", "pull", "org/tiny", env={**env, "HF_HUB_OFFLINE": "1"}).fails("HF_HUB_OFFLINE")
    command("model", "pull", "tiny", env=env).fails("no name of a hub's", "org/name")


def test_a_model_that_is_here_in_part(env):
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    folder = command("model", "path", "org/tiny", env=env).ok().out.decode().strip()
    os.unlink(os.path.realpath(os.path.join(folder, "model.safetensors")))
    command("embed", "-m", "org/tiny", stdin=b"x\n", env=env).fails("here in part", "model pull org/tiny")
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    command("embed", "-m", "org/tiny", stdin=b"x\n", env=env).ok()


# ---------------------------------------------------------------- other programs, and what is here


@pytest.fixture(scope="module")
def gguf():
    """The bytes of a tiny GGUF file, and what its model says."""
    return gguf_of("llama")[1]


def says(name, env):
    return command("toast", "-m", name, "--no-template", "-n", "3", "--json", "a", env=env)


def test_gguf_files_of_a_repository(env, served, gguf):
    served.repositories["org/tiny"] = {"tiny-Q8_0.gguf": gguf, "tiny-Q4_0.gguf": gguf[:-1], "config.json": b"{}"}
    command("model", "pull", "hf.co/org/tiny:Q8_0", env=env).ok(quiet=False)
    out = says("org/tiny:Q8_0", env).ok().out
    assert out == says("https://huggingface.co/org/tiny/blob/main/tiny-Q8_0.gguf", env).ok().out
    assert out == says("org/tiny:tiny-Q8_0.gguf", env).ok().out
    says("org/tiny:Q4_0", env).fails("org/tiny:Q4_0", "model pull org/tiny:Q4_0")
    listed = command("model", "ls", "--json", env=env).ok().out.splitlines()
    told = next(json.loads(line) for line in listed if b"Hugging Face" in line)
    assert told["name"] == "org/tiny:tiny-Q8_0.gguf" and told["kind"] == "toast" and told["form"] == "converted"
    assert told["bits"] and told["parameters"] and told["bytes"] >= len(gguf)


def test_a_repository_with_one_gguf_file(env, served, gguf):
    served.repositories["org/tiny"] = {"tiny-Q8_0.gguf": gguf}
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    says("org/tiny", env).ok()


def test_lm_studio_and_llama_cpp(tmp_path, env, gguf, model):
    folder = tmp_path / ".lmstudio/models/maker/tiny"
    folder.mkdir(parents=True)
    (folder / "tiny-Q8_0.gguf").write_bytes(gguf)
    shutil.copytree(model, tmp_path / ".lmstudio/models/maker/bert")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/other_tiny_tiny-Q8_0.gguf").write_bytes(gguf)
    for name in ("cache/other_tiny_mmproj-F16.gguf", ".lmstudio/models/maker/tiny/mmproj-F16.gguf"):
        (tmp_path / name).write_bytes(gguf)  # what projects images for a model is none
    env = {**env, "LLAMA_CACHE": tmp_path / "cache"}
    assert says("maker/tiny", env).ok().out == says("other/tiny:Q8_0", env).ok().out
    command("embed", "-m", "maker/bert", stdin=b"x\n", env=env).ok()
    names = command("model", "ls", env=env).ok().out.decode()
    assert "maker/bert" in names and "maker/tiny:tiny-Q8_0.gguf" in names and "llama.cpp" in names
    assert "mmproj" not in names
    command("model", "rm", "maker/bert", env=env).fails("belongs to LM Studio", "rm -r")


def ollama(folder, data, name="library/tiny", tag="latest"):
    digest = hashlib.sha256(data).hexdigest()
    manifest = folder / "manifests/registry.ollama.ai" / name / tag
    manifest.parent.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "blobs" / f"sha256-{digest}").write_bytes(data)
    layers = [{"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{d}"}
              for kind, d in (("template", "0" * 64), ("model", digest))]  # fmt: skip
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return manifest


def test_ollama(tmp_path, env, gguf):
    manifest = ollama(tmp_path / ".ollama/models", gguf)
    out = says("ollama:tiny", env).ok().out
    assert out == says("ollama:tiny:latest", env).ok().out == says("ollama:library/tiny", env).ok().out
    says("ollama:tiny:7b", env).fails("Ollama has no tiny:7b here", "ollama pull tiny:7b")
    says("ollama:../x", env).fails("names no model")
    assert b"ollama:tiny:latest" in command("model", "ls", env=env).ok().out
    assert command("model", "verify", "ollama:tiny", env=env).ok().out.startswith(b"ok\t")
    manifest.write_text("{}")
    says("ollama:tiny", env).fails("not a manifest")


def test_rm_frees_what_nothing_else_uses(env, served):
    served.revisions["v2"] = OTHER
    command("model", "pull", "org/tiny", "org/tiny@v2", env=env).ok(quiet=False)
    before = blobs(env)
    would = command("model", "rm", "--dry-run", "org/tiny@v2", env=env).ok(quiet=False).out
    assert blobs(env) == before
    assert command("model", "rm", "org/tiny@v2", env=env).ok(quiet=False).out == would
    assert blobs(env) == before  # main has the same files
    command("embed", "-m", "org/tiny", stdin=b"x\n", env=env).ok()
    command("embed", "-m", "org/tiny@v2", stdin=b"x\n", env=env).fails("no model")
    command("model", "rm", "org/tiny", env=env).ok(quiet=False)
    assert not os.path.exists(os.path.join(env["HF_HOME"], "hub/models--org--tiny"))
    command("model", "rm", "org/tiny", env=env).fails("no model")


def test_rm_never_takes_what_is_the_user_s(env, model, tmp_path, gguf):
    command("model", "rm", model, env=env).fails("belongs to you", "rm -r")
    (tmp_path / "my.gguf").write_bytes(gguf)
    env["TOAST_HOME"] = tmp_path / "store"
    says(str(tmp_path / "my.gguf"), env).ok()
    gone = command("model", "rm", tmp_path / "my.gguf", env=env).ok(quiet=False).out.decode().split()
    assert gone and all(path.startswith(str(tmp_path / "store/gguf")) for path in gone)
    assert (tmp_path / "my.gguf").exists() and not any(map(os.path.exists, gone))


def test_conversions_of_vanished_files(env, tmp_path, gguf):
    env["TOAST_HOME"] = tmp_path / "store"
    (tmp_path / "my.gguf").write_bytes(gguf)
    says(str(tmp_path / "my.gguf"), env).ok()
    assert command("model", "rm", env=env).ok().out == b""
    (tmp_path / "my.gguf").unlink()
    assert command("model", "rm", env=env).ok(quiet=False).out.count(b"\n") == 1
    assert not os.listdir(tmp_path / "store")


def test_verify_finds_damage(env):
    command("model", "pull", "org/tiny", env=env).ok(quiet=False)
    ran = command("model", "verify", "org/tiny", env=env).ok()
    assert {line.split(b"\t")[0] for line in ran.out.splitlines()} == {b"ok"}
    folder = command("model", "path", "org/tiny", env=env).ok().out.decode().strip()
    blob = os.path.realpath(os.path.join(folder, "model.safetensors"))
    with open(blob, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    ran = command("model", "verify", "org/tiny", env=env)
    assert ran.status == 2 and f"damaged\t{blob}\n".encode() in ran.out and b"is damaged" in ran.err, ran


def test_alias(env, model, tmp_path):
    env["TOAST_HOME"] = tmp_path / "store"
    command("model", "alias", "tiny", model, env=env).ok()
    assert command("model", "alias", env=env).ok().out == f"tiny\t{model}\n".encode()
    assert command("model", "alias", "tiny", env=env).ok().out == f"{model}\n".encode()
    command("embed", "-m", "tiny", stdin=b"x\n", env=env).ok()
    command("model", "rm", "tiny", env=env).ok(quiet=False)
    assert os.path.isdir(model)
    command("embed", "-m", "tiny", stdin=b"x\n", env=env).fails("no model 'tiny'")
    command("model", "alias", "minilm", model, env=env).fails("is a name already")
    command("model", "alias", "a/b", model, env=env).fails("can be no alias")
    command("model", "alias", "gone", env=env).fails("stands for nothing")


def test_show(env, model):
    told = json.loads(command("model", "show", "--json", model, env=env).ok().out)
    assert told["kind"] == "embed" and told["architecture"] == "bert" and told["form"] == "mapped"
    assert told["prompts"] == {"query": "red ", "document": ""} and told["context"] == 24
    assert "kind: embed\n" in command("model", "show", model, env=env).ok().out.decode()


def test_show_of_a_gguf_file(env, tmp_path, gguf):
    (tmp_path / "a.gguf").write_bytes(gguf)
    told = json.loads(command("model", "show", "--json", tmp_path / "a.gguf", env=env).ok().out)
    assert told["architecture"] == "llama" and told["config"]["num_hidden_layers"] > 0, told


def test_names_are_suggested(env):
    command("toast", "-m", "smolm2", "x", env=env).fails("no model 'smolm2'", "did you mean smollm2?")


def test_nothing_here(env, tmp_path):
    ran = command("model", "ls", env={**env, "TOAST_HOME": tmp_path / "empty"})
    assert (ran.status, ran.out, ran.err) == (1, b"", b""), ran


def test_the_group(env):
    assert b"Commands:" in command("model", env=env).ok().out
    assert b"org/name@revision" in command("model", "pull", "--help", env=env).ok().out
    command("model", "pul", "x", env=env).fails("did you mean model pull?")
    command("model", "zzz", env=env).fails("one of: pull, ls")
    command("model", "list", env=env).fails("did you mean model ls?")
    command("toasted", "start", env=env).fails("did you mean toasted run?")
    command("model", "pull", "miniml", env=env).fails("'miniml' is no name of a hub's", "did you mean minilm?")
    command("model", "pull", "nosuch", env=env).fails("minilm (English), e5 (100 languages)", "or org/name, org/name@")
    for words in (("model", "ls"), ("model", "pull"), ("toasted", "status"), ("toasted",)):
        told = command(*words, "--help", env=env).ok().out.decode()
        assert "  -p " not in told and "--warm " not in told.replace("--warm 10m", "") and "--help" in told
    command("model", "ls", "-p", "here", env=env).fails("no such option: -p")
    command("model", "pull", env=env).fails("model pull --help")
    command("model", "-q", "path", "nosuch", env=env).fails("no model 'nosuch'")
    assert b"Commands:" in command("model", "-q", env=env).ok().out
    command("model", "--json", "ls", env=env).fails("no option --json before its command (model COMMAND --json)")
