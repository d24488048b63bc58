"""The GGUF container and ggml's blocks; MLX's own GGUF reader is the oracle where it has the type."""

import os
import shutil
import struct

import mlx.core as mx
import numpy as np
import pytest
from gguf_file import gguf, string
from hypothesis import given
from hypothesis import strategies as st

from toast.errors import BadModel
from toast.store import ggml
from toast.store.gguf import TYPES, Gguf, whole

META = {"general.architecture": "llama", "a": 7, "b": 0.5, "c": True, "d": ["x", "ü"], "e": [1, 2, 3]}
ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
# What storing a type costs, relative to the weights' root mean square; docs/formats.md has the same numbers.
ROUNDING = {"Q2_K": 0.06, "Q3_K": 0.04, "Q6_K": 0.02, "IQ1_M": 0.07, "IQ2_XXS": 0.03, "IQ2_XS": 0.07, "IQ2_S": 0.075,
            "IQ3_XXS": 0.015, "IQ4_NL": 0.035, "IQ4_XS": 0.035}  # fmt: skip
KINDS = [*ggml.EXACT, *ggml.ROUNDED, *ggml.FLOAT4]


def read(tmp_path, data):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    return Gguf(str(path))


def arrays(file, name):
    """What a tensor becomes, as MLX has it."""
    tensor = file.tensors[name]
    lines = int(np.prod(tensor.shape[:-1]))
    parts = ggml.rows(tensor.type, ggml.raw(tensor, 0, lines, lines=lines))
    shapes = ggml.shapes(tensor.type, tensor.shape)
    return [mx.array(part).view(dtype).reshape(shape) for part, (dtype, shape) in zip(parts, shapes, strict=True)]


def values(form, weight, scales, *biases):
    biases = [part.astype(mx.float32) for part in biases]
    scales = scales.astype(mx.float32) if biases else scales
    return np.array(mx.dequantize(weight, scales, *biases, **form).astype(mx.float32))


@pytest.fixture(scope="module")
def golden():
    return np.load(os.path.join(ORACLES, "ggml.npz"))


def test_metadata_and_tensors(tmp_path):
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    file = read(tmp_path, gguf(META, {"w": ("F32", (2, 3), w.tobytes()), "h": ("F16", (1,), b"\0<")}))
    assert file.metadata == META
    assert np.array(arrays(file, "w")[0]).tolist() == w.tolist()
    assert arrays(file, "h")[0].tolist() == [1.0]


def test_every_type_that_ggml_writes_is_known():
    assert {name for name, _, _ in TYPES.values()} == {*KINDS, *ggml.PLAIN}


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_read_as_ggml_reads_them(golden, kind):
    raw, want = golden[f"{kind}.blocks"], golden[f"{kind}.values"]
    off = {"IQ2_XXS": 0.03, "IQ3_XXS": 0.03}.get(kind, 1e-6)  # whose sizes are taken for equally distant
    assert np.abs(ggml.values(kind, raw) - want).max() <= off * np.abs(want).max()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_is_within_the_stated_error(golden, kind):
    raw, want = golden[f"{kind}.blocks"], golden[f"{kind}.values"]
    parts = [mx.array(part) for part in ggml.rows(kind, raw)]
    assert [(part.dtype, part.shape) for part in parts] == ggml.shapes(kind, want.shape)
    error = np.linalg.norm(values(ggml.form(kind), *parts) - want) / np.linalg.norm(want)
    assert error <= ROUNDING.get(kind, 1e-3)  # half precision of scales


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_are_those_of_mlx(tmp_path, golden, kind):
    raw, shape = golden[f"{kind}.blocks"], golden[f"{kind}.values"].shape
    file = read(tmp_path, gguf(META, {"x.weight": (kind, shape, raw.tobytes())}))
    theirs = mx.load(file.path)
    for ours, name in zip(arrays(file, "x.weight"), ("weight", "scales", "biases"), strict=False):
        assert mx.array_equal(ours, theirs[f"x.{name}"]).item(), name


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
def test_codes_are_packed_as_mlx_packs_them(bits):
    q = np.random.default_rng(bits).integers(0, 1 << bits, (3, 256), dtype=np.uint8)
    one, none = mx.ones((3, 2)), mx.zeros((3, 2))
    assert np.array_equal(np.array(mx.dequantize(mx.array(ggml.packed(q, bits)), one, none, 128, bits)), q)


def test_numbers_of_other_types(tmp_path):
    wide, small = np.array([1.5, -2.25]), np.array([[7, -9]], np.int16)
    file = read(tmp_path, gguf(META, {"w": ("F64", (2,), wide.tobytes()), "i": ("I16", (1, 2), small.tobytes())}))
    assert arrays(file, "w")[0].tolist() == [1.5, -2.25] and arrays(file, "w")[0].dtype == mx.float32
    assert arrays(file, "i")[0].tolist() == [[7, -9]] and arrays(file, "i")[0].dtype == mx.int16


def split(tmp_path, parts=3):
    """A file in parts, each with a tensor of its own; (paths, tensors' values)."""
    paths, held = [], {}
    for i in range(parts):
        w = np.full((2, 4), i, np.float32)
        held[f"w{i}"] = w.tolist()
        meta = META | {"split.no": i, "split.count": parts, "split.tensors.count": parts}
        path = tmp_path / f"m-{i + 1:05}-of-{parts:05}.gguf"
        path.write_bytes(
            gguf(meta if i == 0 else dict(list(meta.items())[-3:]), {f"w{i}": ("F32", (2, 4), w.tobytes())})
        )
        paths.append(str(path))
    return paths, held


def test_parts_are_one_file(tmp_path):
    paths, held = split(tmp_path)
    for path in paths:  # any of them will do
        file = whole(path)
        assert {name: arrays(file, name)[0].tolist() for name in file.tensors} == held
        assert file.metadata["d"] == META["d"]


def test_a_missing_part_is_named(tmp_path):
    paths, _ = split(tmp_path)
    os.unlink(paths[1])
    for path in (paths[0], paths[2]):
        with pytest.raises(BadModel, match="one of 3 parts, not beside it: m-00002-of-00003.gguf"):
            whole(path)


def test_parts_of_other_files_are_refused(tmp_path):
    paths, _ = split(tmp_path)
    os.rename(paths[0], tmp_path / "alone.gguf")
    with pytest.raises(BadModel, match="one of 3 parts, which its name does not say"):
        whole(str(tmp_path / "alone.gguf"))
    paths, _ = split(tmp_path)
    shutil.copy(paths[1], paths[2])
    with pytest.raises(BadModel, match="w1 is in another part, too"):
        whole(paths[0])


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
        ggml.numbers(file.tensors["w"])


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
