"""Tensors at any address of a file: used in place, and every bit as from an aligned copy."""

import json
import os
import struct
import subprocess
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from toast import kernels
from toast.store import weights

ext = pytest.importorskip("toast.kernels._ext")

FLOATS = [mx.float32, mx.float16, mx.bfloat16]
NAMES = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32"}


def write(path, tensors, shift):
    """A safetensors file whose tensors begin at an address that leaves `shift` when divided by 16."""
    header, parts, at = {}, [], 0
    for name, array in tensors.items():
        data = bytes(memoryview(mx.contiguous(array).view(mx.uint8)))
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        parts, at = [*parts, data], at + len(data)
    text = json.dumps(header).encode()
    text += b" " * ((shift - 8 - len(text)) % 16)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    return str(path)


@pytest.fixture(params=["auto", "generic", "off"])
def variant(request, monkeypatch):
    kernels.install(request.param)
    monkeypatch.setattr(kernels, "map_tensors", ext.map_tensors)
    yield request.param
    kernels.install("off")


def dense_results(w, x):
    """What models do with weights w {name: array}, on an input x (3, 96)."""
    ids = mx.array([5, 0, 39, 5])
    matrix, vector, bias = w["matrix"], w["vector"], w["bias"]
    yield matrix[ids]
    yield x @ matrix.T
    yield x[:1] @ matrix.T
    yield mx.addmm(bias, x, matrix.T)
    yield mx.fast.rms_norm(x, vector, 1e-5)
    yield mx.fast.rms_norm(x, 1.0 + vector, 1e-5)
    yield mx.fast.layer_norm(x, vector, vector, 1e-5)
    yield x * vector + vector
    yield mx.conv1d(x[None], w["filter"], groups=96)
    if x.dtype == mx.float32:  # MLX's on the CPU knows no other
        yield mx.gather_mm(x[:, None], w["experts"].swapaxes(1, 2), rhs_indices=mx.array([1, 0, 1]))
    yield mx.concatenate([matrix, matrix[1:3]])
    yield mx.contiguous(matrix.T)
    yield matrix.astype(mx.float32) - matrix.astype(mx.float16).astype(mx.float32)
    yield mx.softmax(matrix, axis=-1)
    yield mx.exp(-mx.exp(vector)) + mx.sqrt(mx.abs(vector)) + nn.silu(vector) + mx.tanh(vector) + mx.log(mx.abs(vector))
    yield matrix.sum(axis=0) + matrix.max(axis=0) + matrix.mean(axis=0)
    yield mx.argmax(matrix, axis=-1)
    yield mx.where(matrix > 0, matrix, -matrix)
    yield mx.fast.rope(matrix.reshape(1, 1, 40, 96), 96, traditional=False, base=1e4, scale=1.0, offset=3)
    yield mx.sort(vector)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dense_weights_at_every_address(tmp_path, variant, dtype):
    rng = np.random.default_rng(1)
    shapes = {"matrix": (40, 96), "vector": (96,), "bias": (40,), "filter": (96, 3, 1), "experts": (2, 24, 96)}
    made = {name: mx.array(rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}
    x = mx.array(rng.normal(size=(3, 96))).astype(dtype)
    right = list(dense_results(made, x))
    for shift in range(16):
        found = weights.load(write(tmp_path / f"{shift}.safetensors", made, shift))
        for n, (ours, wanted) in enumerate(zip(dense_results(found, x), right, strict=True)):
            assert mx.array_equal(ours, wanted).item(), (shift, n)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_quantised_weights_at_every_address(tmp_path, variant, dtype, bits):
    rng = np.random.default_rng(2)
    made = {}
    for name, shape in (("m", (40, 128)), ("e", (3, 24, 128))):
        parts = mx.quantize(mx.array(rng.normal(size=shape)).astype(dtype), group_size=64, bits=bits)
        made |= {f"{name}.{part}": x for part, x in zip(("weight", "scales", "biases"), parts, strict=True)}
    form, x = {"group_size": 64, "bits": bits}, mx.array(rng.normal(size=(5, 128))).astype(dtype)

    def results(w):
        m, e = ([w[f"{name}.{part}"] for part in ("weight", "scales", "biases")] for name in "me")
        yield mx.quantized_matmul(x, *m, transpose=True, **form)
        yield mx.quantized_matmul(x[:1], *m, transpose=True, **form)
        yield mx.dequantize(*(part[mx.array([3, 0, 39])] for part in m), **form)
        yield mx.gather_qmm(x[:, None], *e, rhs_indices=mx.array([1, 0, 2, 1, 0]), transpose=True, **form)

    right = list(results(made))
    for shift in range(16):
        found = weights.load(write(tmp_path / f"{shift}.safetensors", made, shift))
        for n, (ours, wanted) in enumerate(zip(results(found), right, strict=True)):
            assert mx.array_equal(ours, wanted).item(), (shift, n)


# ---------------------------------------------------------------- a process of its own

LLAMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "llama-causal")
WIDE = {"hidden_size": 512, "intermediate_size": 4096, "num_hidden_layers": 6, "num_attention_heads": 8,
        "num_key_value_heads": 8}  # fmt: skip


def wide_llama(folder, form, shift):
    """A Llama of 40 million weights in a folder; form: a dtype, or bits. The size of its file."""
    with open(os.path.join(LLAMA, "config.json"), encoding="utf-8") as file:
        config = json.load(file) | WIDE | {"tie_word_embeddings": True}
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes(open(os.path.join(LLAMA, name), "rb").read())
    D, F, made = WIDE["hidden_size"], WIDE["intermediate_size"], {}
    layer = {f"self_attn.{x}_proj": (D, D) for x in "qkvo"}
    layer |= {"mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
    layer |= {"input_layernorm": (D,), "post_attention_layernorm": (D,)}
    shapes = {f"model.layers.{i}.{name}": shape for i in range(6) for name, shape in layer.items()}
    dtype = mx.float32 if isinstance(form, int) else form
    for name, shape in (shapes | {"model.embed_tokens": (config["vocab_size"], D), "model.norm": (D,)}).items():
        array = (mx.random.uniform(-0.05, 0.05, shape, key=mx.random.key(len(made)))).astype(dtype)
        if isinstance(form, int) and len(shape) > 1:
            parts = mx.quantize(array, group_size=64, bits=form)
            made |= {f"{name}.{part}": x for part, x in zip(("weight", "scales", "biases"), parts, strict=True)}
        else:
            made[f"{name}.weight"] = array
    if isinstance(form, int):
        config["quantization"] = {"group_size": 64, "bits": form}
    (folder / "config.json").write_text(json.dumps(config))
    return os.path.getsize(write(folder / "model.safetensors", made, shift))


def memory(pid):
    """{RssAnon, RssFile} of a process, bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return {name: int(lines[name].split()[0]) << 10 for name in ("RssAnon", "RssFile")}


def running(folder):
    """`toast --each` that has answered a record and waits for the next: all of its weights were read."""
    command = [
        os.path.join(os.path.dirname(sys.executable), "toast"),
        "--each",
        "-m",
        str(folder),
        "-n",
        "2",
        "-t",
        "0",
        "--no-template",
        "-q",
    ]
    env = os.environ | {"TOAST_THREADS": "1", "TOAST_HOME": str(folder / "home")}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env)
    process.stdin.write(b"Hello\n")
    process.stdin.flush()
    process.stdout.readline()
    return process


@pytest.mark.parametrize("form", [*FLOATS, 4, 8], ids=str)
def test_private_memory_of_a_command(tmp_path, form):
    used = {}
    for shift in (0, 3):
        folder = tmp_path / str(shift)
        folder.mkdir()
        size = wide_llama(folder, form, shift)
        process = running(folder)
        used[shift] = memory(process.pid)
        process.communicate()
    assert used[3]["RssFile"] > size
    assert used[3]["RssAnon"] - used[0]["RssAnon"] <= size * 0.05
