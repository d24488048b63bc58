"""The GGUF container and ggml's blocks; MLX's own GGUF reader is the oracle where it has the type."""

import os
import struct

import mlx.core as mx
import numpy as np
import pytest
from gguf_file import gguf, string
from hypothesis import given
from hypothesis import strategies as st

from toast.errors import BadModel
from toast.store import ggml
from toast.store.gguf import TYPES, Gguf

META = {"general.architecture": "llama", "a": 7, "b": 0.5, "c": True, "d": ["x", "ü"], "e": [1, 2, 3]}
BLOCKS = {name: (elements, size) for name, elements, size in TYPES.values()}


def read(tmp_path, data):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    return Gguf(str(path))


def blocks(kind, rows, cols, seed=0):
    """Random rows of a quantised type whose half-precision scales are small positive numbers."""
    elements, size = BLOCKS[kind]
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (rows * cols // elements, size), dtype=np.uint8)
    halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
              "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}[kind]  # fmt: skip
    for at in halves:
        raw[:, at : at + 2] = rng.uniform(0, 0.02, (len(raw), 1)).astype(np.float16).view(np.uint8)
    return raw.tobytes()


def dequantized(file, name):
    weight, scales, biases = (mx.array(a) for a in ggml.arrays(file, name))
    bits = ggml.bits(file.tensors[name].type)
    return np.array(mx.dequantize(weight, *(a.astype(mx.float32) for a in (scales, biases)), 32, bits))


def test_metadata_and_tensors(tmp_path):
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    file = read(tmp_path, gguf(META, {"w": ("F32", (2, 3), w.tobytes()), "h": ("F16", (1,), b"\0<")}))
    assert file.metadata == META
    assert np.array(ggml.arrays(file, "w")[0]).tolist() == w.tolist()
    assert ggml.arrays(file, "h")[0].tolist() == [1.0]


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_are_those_of_mlx(tmp_path, kind):
    file = read(tmp_path, gguf(META, {"x.weight": (kind, (6, 256), blocks(kind, 6, 256))}))
    theirs = mx.load(file.path)
    for ours, name in zip(ggml.arrays(file, "x.weight"), ("weight", "scales", "biases"), strict=False):
        assert mx.array_equal(ours, theirs[f"x.{name}"]).item(), name


def test_q6_k_is_mlx_s_within_its_rounding(tmp_path):
    file = read(tmp_path, gguf(META, {"x.weight": ("Q6_K", (3, 512), blocks("Q6_K", 3, 512))}))
    theirs = np.array(mx.load(file.path)["x.weight"].astype(mx.float32))
    assert np.abs(dequantized(file, "x.weight") - theirs).max() <= 8e-3 * np.abs(theirs).max()


def q4_k(block):
    """ggml's dequantize_row_q4_K, one weight at a time (MLX's reader mixes up sub-blocks 4 to 7)."""
    d, least = struct.unpack("<2e", block[:4])
    packed, out = block[4:16], []
    for j in range(8):
        scale, m = packed[j] & 63, packed[j + 4] & 63
        if j >= 4:
            scale = packed[j + 4] & 15 | packed[j - 4] >> 6 << 4
            m = packed[j + 4] >> 4 | packed[j] >> 6 << 4
        for i in range(32):
            byte = block[16 + j // 2 * 32 + i]
            out.append(d * scale * (byte >> 4 if j % 2 else byte & 15) - least * m)
    return out


def test_q4_k(tmp_path):
    raw = blocks("Q4_K", 1, 512)
    file = read(tmp_path, gguf(META, {"x": ("Q4_K", (1, 512), raw)}))
    want = np.array(q4_k(raw[:144]) + q4_k(raw[144:]))
    assert np.abs(dequantized(file, "x") - want).max() <= 1e-3 * np.abs(want).max()


def fifth(raw, i):
    """Weight i of a Q5_0 or Q5_1 block's integers: qh (4 bytes) and qs (16 bytes)."""
    qh, qs = raw[:4], raw[4:]
    nibble = qs[i] & 15 if i < 16 else qs[i - 16] >> 4
    return nibble | (int.from_bytes(qh, "little") >> i & 1) << 4


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1"])
def test_five_bits(tmp_path, kind):
    raw = blocks(kind, 2, 64)
    file = read(tmp_path, gguf(META, {"x": (kind, (2, 64), raw)}))
    size, want = BLOCKS[kind][1], []
    for at in range(0, len(raw), size):
        block = raw[at : at + size]
        d, m = struct.unpack("<2e", block[:4])
        values = [fifth(block[size - 20 :], i) for i in range(32)]
        want += [d * (q - 16) if kind == "Q5_0" else d * q + m for q in values]
    np.testing.assert_allclose(dequantized(file, "x").ravel(), want, atol=1e-6)


def test_five_bit_superblocks_are_four_bits_and_one(tmp_path):
    """Q5_K without its fifth bits is Q4_K; each fifth bit adds 16 scales."""
    raw = np.frombuffer(blocks("Q5_K", 1, 256), np.uint8)
    four = np.concatenate([raw[:16], raw[48:]]).tobytes()
    file = read(tmp_path, gguf(META, {"five": ("Q5_K", (1, 256), raw.tobytes()), "four": ("Q4_K", (1, 256), four)}))
    scales = np.repeat(np.array(ggml.arrays(file, "four")[1].astype(mx.float32)), 32, axis=1)
    bit = np.array([raw[16 + i % 32] >> i // 32 & 1 for i in range(256)])
    want = dequantized(file, "four") + 16 * scales * bit
    np.testing.assert_allclose(dequantized(file, "five"), want, rtol=1e-4, atol=1e-5)


def test_types_without_a_counterpart_are_named(tmp_path):
    file = read(tmp_path, gguf(META, {"x.weight": ("Q2_K", (1, 256), bytes(84))}))
    with pytest.raises(BadModel, match="x.weight is Q2_K"):
        ggml.arrays(file, "x.weight")


WHOLE = gguf(META, {"w": ("F32", (2, 3), bytes(24)), "q": ("Q8_0", (1, 32), bytes(34))})


@pytest.mark.parametrize("length", [*range(0, len(WHOLE) - 64, 7), len(WHOLE) - 31])
def test_truncated(tmp_path, length):
    with pytest.raises(BadModel, match="^cannot read .*: not a whole GGUF file: [^\n]*$"):
        read(tmp_path, WHOLE[:length])


HUGE = struct.pack("<Q", 2**63)


@pytest.mark.parametrize(
    "data, said",
    [
        (b"GGML" + WHOLE[4:], "does not begin with GGUF"),
        (gguf(META, version=1), "version 1"),
        (struct.pack(">4sI", b"GGUF", 3) + bytes(16), "version"),
        (WHOLE[:8] + HUGE + WHOLE[16:], "claims"),
        (WHOLE[:16] + HUGE + WHOLE[24:], "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + HUGE + bytes(64), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<I", 99), "unknown type 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IIQ", 9, 9, 1), "array of type 9"),
        (gguf({"general.alignment": 3}), "alignment 3"),
        (gguf(META, {"w": ("F32", (2**40, 2**40), b"")}), "ends before its tensors"),
        (gguf(META, {"w": ("Q8_0", (1, 33), bytes(99))}), "rows of 33"),
        (gguf(META, {"w": ("Q8_0", (), bytes(34))}), "rows of 1"),
    ],
)
def test_hostile_headers(tmp_path, data, said):
    with pytest.raises(BadModel, match=said):
        read(tmp_path, data)


def test_a_file_that_shrinks_while_it_is_used(tmp_path):
    file = read(tmp_path, gguf(META, {"w": ("F32", (4,), bytes(16))}))
    os.truncate(file.path, file.tensors["w"].start + 8)
    with pytest.raises(BadModel, match="m.gguf changed while it was used"):
        ggml.arrays(file, "w")


@given(st.data())
def test_damaged_bytes_never_crash(tmp_path_factory, data):
    raw = bytearray(WHOLE)
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=8)):
        raw[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    path.write_bytes(raw)
    try:
        file = Gguf(str(path))
    except BadModel:
        return
    assert all(t.start + t.nbytes <= len(raw) for t in file.tensors.values())
