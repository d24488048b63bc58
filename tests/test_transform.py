"""`model convert` and `model quantize` by the installed commands: what is written, refused and left over."""

import json
import os
import shutil
import signal
import time

import mlx.core as mx
import numpy as np
import pytest
import tiny
from command import command, start

from toast.generation import decoder
from toast.store import shrink
from toast.store.gguf import Gguf

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
LLAMA, QWEN = (os.path.join(ORACLES, name) for name in ("llama-causal", "qwen3-causal"))
ASK = ("-t", "0", "-n", "12", "--no-template", "--no-cache", "the cat")
TEXT = "The quick brown fox jumps over the lazy dog, café naïve 東京 !\n  two  blanks"
IDS = mx.array([[5, 17, 33, 60, 101, 9, 200, 7]])


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    return {"TOAST_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A llama whose layers are wide enough for groups of 64."""
    return tiny.wide(tmp_path_factory.mktemp("wide"))


def logits(folder):
    model, _ = decoder.load(str(folder))
    return np.array(model(IDS)[0].astype(mx.float32))


def error(folder, wide):
    want = logits(wide)
    return np.linalg.norm(logits(folder) - want) / np.linalg.norm(want)


@pytest.mark.parametrize("model", [LLAMA, QWEN])
def test_to_gguf_and_back_it_says_the_same(tmp_path, env, model):
    file, back = str(tmp_path / "m.gguf"), str(tmp_path / "back")
    command("model", "convert", model, file, "--type", "F32", env=env).ok()
    command("model", "convert", file, back, env=env).ok()
    want = command("toast", "-m", model, *ASK, env=env).ok().out
    assert command("toast", "-m", back, *ASK, env=env).ok().out == want
    assert command("toast", "-m", file, *ASK, env=env).ok().out == want
    ids = command("tokenize", "-m", model, "--ids", "--special", stdin=TEXT.encode(), env=env).ok().out
    assert command("tokenize", "-m", back, "--ids", "--special", stdin=TEXT.encode(), env=env).ok().out == ids


@pytest.mark.parametrize("kind, most", [("F16", 1e-3), ("BF16", 0.03), ("Q8_0", 0.05), ("Q4_0", 0.7)])
def test_types_of_gguf(tmp_path, env, wide, kind, most):
    file, back = str(tmp_path / "m.gguf"), str(tmp_path / "back")
    command("model", "convert", str(wide), file, "--type", kind, env=env).ok()
    assert {tensor.type for tensor in Gguf(file).tensors.values()} == {kind, "F32"}
    command("model", "convert", file, back, env=env).ok()
    assert error(back, wide) <= most


@pytest.mark.parametrize(
    "words, most",
    [(["--bits", "8"], 0.05), (["--bits", "6", "--group", "32"], 0.15), (["--bits", "5"], 0.3), ([], 0.6),
     (["--bits", "3"], 1.0), (["--bits", "2", "--group", "128"], 1.5), (["--mode", "mxfp4"], 0.9),
     (["--mode", "nvfp4"], 0.7), (["--mode", "mxfp8"], 0.2)],
)  # fmt: skip  # of a network that enlarges every error, as it was not trained
def test_quantised(tmp_path, env, wide, words, most):
    out = tmp_path / "small"
    command("model", "quantize", str(wide), str(out), *words, env=env).ok()
    assert error(out, wide) <= most
    command("toast", "-m", str(out), *ASK, env=env).ok()
    settings = json.loads((out / "config.json").read_text())["quantization"]
    size = os.path.getsize(out / "model.safetensors") / os.path.getsize(wide / "model.safetensors")
    assert size <= (settings["bits"] + 2.2) / 32  # float32 it was


@pytest.mark.parametrize("mode", ["mxfp4", "nvfp4"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_floats_of_4_bits_are_mlx_s(mode, dtype):
    w = mx.random.normal((40, 512), key=mx.random.key(1)) * mx.exp(mx.random.normal((40, 1), key=mx.random.key(2)) * 3)
    w = mx.concatenate([w, mx.zeros((1, 512)), mx.round(w[:4] * 8) / 8]).astype(dtype)  # and halves between codes
    form = shrink.Wanted(mode=mode).of("")
    for ours, theirs in zip(shrink._quantized(w, form), mx.quantize(w, **form), strict=True):
        assert ours.dtype == theirs.dtype and mx.array_equal(ours, theirs).item()


def test_layers_of_other_bits(tmp_path, env, wide):
    out = tmp_path / "small"
    layers = ["--layer", "lm_head=8", "--layer", "layers.0.*=6", "--layer", "*.down_proj=16"]
    command("model", "quantize", str(wide), str(out), "--bits", "4", *layers, env=env).ok()
    settings = json.loads((out / "config.json").read_text())["quantization"]
    assert (settings["bits"], settings["group_size"]) == (4, 64)
    assert settings["lm_head"]["bits"] == 8 and settings["model.layers.0.self_attn.q_proj"]["bits"] == 6
    model, _ = decoder.load(str(out))
    kinds = {name: getattr(module, "bits", 16) for name, module in model.named_modules() if "weight" in module}
    assert kinds["model.layers.1.mlp.up_proj"] == 4 and kinds["model.layers.2.mlp.down_proj"] == 16


def test_quantised_again(tmp_path, env, wide):
    """Fewer bits can follow; what has as few stays."""
    eight, four = tmp_path / "eight", tmp_path / "four"
    command("model", "quantize", str(wide), str(eight), "--bits", "8", env=env).ok()
    command("model", "quantize", str(eight), str(four), "--bits", "4", "--layer", "lm_head=8", env=env).ok()
    assert error(four, wide) <= 0.6
    names = ("lm_head.weight", "lm_head.scales", "lm_head.biases")
    old, new = (mx.load(str(folder / "model.safetensors")) for folder in (eight, four))
    assert all(mx.array_equal(old[name], new[name]).item() for name in names)


def test_a_text_spares_what_its_activations_need(tmp_path, env, wide):
    plain, aware = tmp_path / "plain", tmp_path / "aware"
    (tmp_path / "text.txt").write_text("the cat sat on the mat and ran over a slow blue dog. " * 40)
    for out, more in ((plain, []), (aware, ["--text", str(tmp_path / "text.txt")])):
        command("model", "quantize", str(wide), str(out), "--bits", "5", *more, env=env).ok()
    assert error(aware, wide) < 0.92 * error(plain, wide)


@pytest.fixture(scope="module")
def small(tmp_path_factory, env):
    """A quantised encoder, also as the store's `minilm`."""
    source, out = os.path.join(ORACLES, "bert-embed-mean"), tmp_path_factory.mktemp("encoder") / "small"
    command("model", "quantize", source, str(out), "--bits", "8", "--group", "32", env=env).ok()
    shutil.copytree(out, os.path.join(env["TOAST_HOME"], "models", "minilm@q6"))
    return out


@pytest.fixture(scope="module")
def gguf(tmp_path_factory, env):
    """The bytes of a GGUF file that can be converted."""
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    command("model", "convert", LLAMA, str(path), env=env).ok()
    return path.read_bytes()


def test_a_quantised_encoder(small, env):
    command("embed", "-m", str(small), "--json", stdin=b"a text\n", env=env).ok()


def test_a_link_that_leads_nowhere_is_no_file(tmp_path, env):
    """Whether a vocabulary has to be converted, weights to be shrunk, or neither."""
    source, folder = os.path.join(ORACLES, "bert-embed-mean"), tmp_path / "m"
    right = command("embed", "-m", source, "--json", stdin=b"the cat\n", env=env).ok().out
    shutil.copytree(source, folder)
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.get)) + "\n")
    os.symlink("gone", folder / "gone.txt")
    for _ in range(2):
        assert command("embed", "-m", str(folder), "--json", stdin=b"the cat\n", env=env).ok().out == right
        (folder / "tokenizer.json").unlink()
        os.symlink("gone", folder / "tokenizer.json")
    command("model", "quantize", str(folder), str(tmp_path / "small"), "--group", "32", env=env).ok()
    command("model", "show", str(folder), env=env).ok()


@pytest.mark.parametrize(
    "words, said",
    [
        (["quantize", LLAMA, "there"], "cannot write there: File exists"),
        (["quantize", LLAMA, "no/such/folder"], "No such file or directory"),
        (["quantize", LLAMA, "new", "--bits", "7"], "--bits 7: bits are 2 to 6 or 8"),
        (["quantize", LLAMA, "new", "--group", "16"], "--group 16: bits are 2 to 6 or 8, groups 32, 64 or 128"),
        (["quantize", LLAMA, "new", "--mode", "mxfp4", "--bits", "4"], "exclude each other"),
        (["quantize", LLAMA, "new", "--layer", "lm_head"], "--layer lm_head: not GLOB=BITS"),
        (["quantize", LLAMA, "new", "--text", "gone.txt"], "cannot open gone.txt"),
        (["quantize", LLAMA, "new", "--text", "short.txt"], "64 are the least"),
        (["quantize", LLAMA, "new", "--layer", "q_proj=8", "--layer", "nothing=8"], "--layer nothing=8 fits no layer"),
        (["quantize", LLAMA, "new", "--layer", "lm_head=²"], "not GLOB=BITS"),
        (["quantize", LLAMA, "new.gguf"], f"model convert {LLAMA} new.gguf --type"),
        (["quantize", "small", "new"], "small is quantised already (give the model"),
        (["convert", LLAMA, "there.gguf"], "cannot write there.gguf: File exists"),
        (["convert", "there.gguf", "there.gguf", "--type", "Q8_0"], "cannot write there.gguf: File exists"),
        (["convert", "minilm", "new.gguf"], "minilm is an embedding model"),
        (["quantize", "minilm", "new"], "minilm is quantised already (model quantize minilm@f32 new)"),
        (["convert", LLAMA, "new", "--type", "Q8_0"], "--type Q8_0 is for a .gguf file"),
        (["convert", "bert", "new.gguf"], "is an embedding model"),
        (["convert", "nowhere", "new.gguf"], "no model 'nowhere' here"),
        (["convert", "damaged.gguf", "new"], "not a whole GGUF file"),
    ],
)
def test_refused(tmp_path, env, small, gguf, words, said):
    (tmp_path / "there").mkdir()
    (tmp_path / "short.txt").write_text("a few words")
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF\3")
    os.symlink(os.path.join(ORACLES, "bert-embed-mean"), tmp_path / "bert")
    os.symlink(small, tmp_path / "small")
    (tmp_path / "there.gguf").write_bytes(gguf)
    before = sorted(os.listdir(tmp_path))
    command("model", *words, env=env, cwd=tmp_path).fails(said)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "there.gguf").read_bytes() == gguf


@pytest.mark.parametrize("target", ["small", "m.gguf"])
def test_what_a_killed_run_leaves_goes_at_the_next(tmp_path, env, wide, target):
    verb = "convert" if target.endswith("gguf") else "quantize"
    for wait in (0.3, 0.5, 0.7, 0.9):
        run = start("model", verb, str(wide), str(tmp_path / target), env=env)
        time.sleep(wait)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert {name for name in os.listdir(tmp_path) if not name.startswith(".")} <= {target}
        if os.path.exists(tmp_path / target):  # it was done
            os.rename(tmp_path / target, tmp_path.parent / f"{target}-{wait}")
    command("model", verb, str(wide), str(tmp_path / target), env=env).ok()
    assert os.listdir(tmp_path) == [target]
