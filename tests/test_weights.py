"""safetensors: mapped equals MLX's loader; hostile files end in one clear line; nothing is copied."""

import json
import os
import struct

import mlx.core as mx
import numpy as np
import pytest

from toast import files, kernels
from toast.errors import BadModel
from toast.store import safetensors, weights

ext = pytest.importorskip("toast.kernels._ext")

DTYPES = [mx.float32, mx.float16, mx.bfloat16, mx.uint32, mx.int8, mx.uint8, mx.int64, mx.bool_, mx.complex64]


@pytest.fixture(params=["mapped", "loaded"])
def loader(request, monkeypatch):
    monkeypatch.setattr(kernels, "map_tensors", ext.map_tensors if request.param == "mapped" else None)


@pytest.fixture
def mapped(monkeypatch):
    monkeypatch.setattr(kernels, "map_tensors", ext.map_tensors)


def tensors():
    rng = np.random.default_rng(0)
    arrays = {f"t{i}": mx.array(rng.integers(0, 2, (3, i + 1))).astype(t) for i, t in enumerate(DTYPES)}
    return arrays | {"scalar": mx.array(3.0), "empty": mx.zeros((0, 4))}


def write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return str(path)


def entry(shape=(2,), start=0, end=8, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def test_every_type_equals_mlx(tmp_path, loader):
    path = str(tmp_path / "model.safetensors")
    mx.save_safetensors(path, tensors())
    ours, plain = weights.load(str(tmp_path)), mx.load(path)
    assert set(ours) == set(plain)
    for name, array in plain.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape)
        assert mx.array_equal(ours[name], array).item()


def test_misaligned_tensors_are_right(tmp_path, loader):
    data = b"\x07" + struct.pack("<2f", 1.5, -2)
    path = write(tmp_path / "m.safetensors", {"byte": entry((1,), 0, 1, "U8"), "floats": entry((2,), 1, 9)}, data)
    assert weights.load(path)["floats"].tolist() == [1.5, -2]


def test_ops_on_mapped_arrays_leave_the_file_alone(tmp_path, mapped):
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), {"a": mx.arange(6.0), "b": mx.ones((6,))})
    before = path.read_bytes()
    loaded = weights.load(str(path))
    a, b = loaded.pop("a"), loaded.pop("b")
    mx.eval(mx.contiguous(b), a.reshape(2, 3).T + 1)
    a[2] = 100
    b += a
    mx.eval(a, b)
    assert path.read_bytes() == before
    assert weights.load(str(path))["a"].tolist() == [0, 1, 2, 3, 4, 5] and b.tolist() == [1, 2, 101, 4, 5, 6]


def test_arrays_outlive_the_file_and_each_other(tmp_path, mapped):
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), {"a": mx.arange(5000), "b": mx.ones((3,))})
    a = weights.load(str(path))["a"]
    path.unlink()
    assert a.sum().item() == 5000 * 4999 // 2


def test_nothing_is_read_until_it_is_used(tmp_path, mapped):
    def resident():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    path = str(tmp_path / "model.safetensors")
    with open(path, "wb") as f:
        header = json.dumps({"w": entry((64 << 20,), 0, 64 << 20, "U8")}).encode()
        f.write(struct.pack("<Q", len(header)) + header)
        f.truncate(8 + len(header) + (64 << 20))
    before = resident()
    w = weights.load(path)["w"]
    assert w.shape == (64 << 20,) and resident() - before < 8 << 20


HOSTILE = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header of 2^63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "header longer than the file": struct.pack("<Q", 100) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"nope",
    "not UTF-8": struct.pack("<Q", 4) + b'{"\xff\xff',
    "not an object": struct.pack("<Q", 2) + b"[]",
    "nested too deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
}
HOSTILE_ENTRIES = {
    "not an entry": 3,
    "no offsets": {"dtype": "F32", "shape": [2]},
    "three offsets": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]},
    "unknown dtype": entry(dtype="F99"),
    "dtype is a list": entry(dtype=["F32"]),
    "past the end": entry(start=4, end=12),
    "backwards": entry(start=8, end=0),
    "negative": entry(start=-8, end=0),
    "huge offsets": entry(start=1 << 64, end=(1 << 64) + 8),
    "shape and bytes disagree": entry(shape=(3,)),
    "negative shape": entry(shape=(-1, -2)),
    "shape overflows": entry(shape=(1 << 62, 4), end=0),
    "wide empty shape": entry(shape=(0, 1 << 40), end=0),
    "fractional shape": entry(shape=(2.0,)),
    "shape of true": entry(shape=(True, 2)),
    "shape is text": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(tmp_path, loader, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(BadModel, match="model.safetensors") as caught:
        weights.load(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", HOSTILE_ENTRIES)
def test_hostile_entries(tmp_path, loader, name):
    write(tmp_path / "model.safetensors", {"t": HOSTILE_ENTRIES[name]}, b"\0" * 8)
    with pytest.raises(BadModel, match="model.safetensors") as caught:
        weights.load(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_overlap(tmp_path, loader):
    path = write(tmp_path / "m.safetensors", {"a": entry(), "b": entry((2,), 4, 12)}, b"\0" * 12)
    with pytest.raises(BadModel, match="tensors a and b overlap"):
        weights.load(path)


def test_the_extension_checks_offsets_too(tmp_path):
    path = write(tmp_path / "m.safetensors", {}, b"\0" * 8)
    with open(path, "rb") as f:
        for tensor in ((8, mx.float32, [1 << 30]), (1 << 63, mx.uint8, [1]), (0, mx.uint8, [1]), (8, mx.uint8, [-1])):
            with pytest.raises(IndexError):
                ext.map_tensors(f.fileno(), [tensor])


def test_shards_follow_the_index(tmp_path, loader):
    for i in (1, 2):
        mx.save_safetensors(str(tmp_path / f"model-{i}-of-2.safetensors"), {f"t{i}": mx.full((2,), i)})
    (tmp_path / "other.safetensors").write_bytes(b"not weights")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"t{i}": f"model-{i}-of-2.safetensors" for i in (1, 2)}}))
    assert {k: v.tolist() for k, v in weights.load(str(tmp_path)).items()} == {"t1": [1, 1], "t2": [2, 2]}
    for bad in (
        "{",
        "[]",
        '{"weight_map": {"t": "../x.safetensors"}}',
        '{"weight_map": {"t": 3}}',
        '{"weight_map": {"t": "gone.safetensors"}}',
    ):
        index.write_text(bad)
        with pytest.raises(BadModel):
            weights.load(str(tmp_path))


def test_without_an_index_the_model_files_are_taken(tmp_path, loader):
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"a": mx.ones((1,))})
    mx.save_safetensors(str(tmp_path / "consolidated.safetensors"), {"b": mx.ones((1,))})
    assert set(weights.load(str(tmp_path))) == {"a"}


def test_no_weights(tmp_path):
    with pytest.raises(BadModel, match="no .safetensors file"):
        weights.load(str(tmp_path))
    with pytest.raises(BadModel, match="cannot open"):
        weights.load(str(tmp_path / "gone.safetensors"))


# ---- whole files in memory


def test_what_is_packed_is_read_back(tmp_path, loader):
    arrays, path = tensors() | {"turned": mx.arange(6).reshape(2, 3).T}, str(tmp_path / "m.safetensors")
    parts = safetensors.pack(arrays, {"format": "mlx"})
    files.replace(path, parts)
    metadata, found = safetensors.unpack(b"".join(parts))
    assert metadata == {"format": "mlx"} and set(found) == set(arrays)
    for name, array in weights.load(path).items():
        dtype, shape, view = found[name]
        assert (dtype, tuple(shape)) == (array.dtype, array.shape) == (arrays[name].dtype, arrays[name].shape)
        assert mx.array_equal(array, arrays[name]).item() and view == safetensors.data(array)


def test_data_is_aligned_and_sizes_that_are_not_come_last():
    shapes = {"a": (mx.uint8, [3]), "b": (mx.float32, [16]), "c": (mx.float32, [32])}
    head, order = safetensors.header(shapes, {})
    assert order == ["b", "c", "a"] and len(head) % safetensors.ALIGNMENT == 0
    entries = json.loads(head[8:])
    assert [entries[name]["data_offsets"] for name in order] == [[0, 64], [64, 192], [192, 195]]
    head, _ = safetensors.header(shapes, {"format": "x"}, alignment=8, separators=(", ", ": "))
    assert len(head) % 8 == 0 and b'{"__metadata__": {"format": "x"}, "b": {"dtype": "F32", ' in head


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:7], lambda d: b"", lambda d: d[1:]]
)
def test_what_is_not_whole_is_not_unpacked(change):
    with pytest.raises(ValueError):
        safetensors.unpack(change(b"".join(safetensors.pack({"a": mx.ones(3)}, {}))))


@pytest.mark.parametrize("metadata", [[1], "text", 3])
def test_metadata_that_is_no_object(tmp_path, metadata):
    path = write(tmp_path / "m.safetensors", {"__metadata__": metadata, "t": entry()}, b"\0" * 8)
    with open(path, "rb") as file, pytest.raises(ValueError, match="metadata"):
        safetensors.unpack(file.read())


# ---------------------------------------------------------------- as Metal shares them


@pytest.mark.parametrize("shift", [0, 1])
def test_what_is_shared_equals_mlx(tmp_path, shift):
    """Every type; what ends in the last page, or stands where no element may begin, is left to MLX's loader."""
    arrays = tensors() | {"large": mx.arange(20_000).reshape(4, 5000), "z": mx.ones((5000,), mx.uint8)}
    head, *parts = map(bytes, safetensors.pack(arrays, {}))
    head = (len(head) - 8 + shift).to_bytes(8, "little") + head[8:] + b" " * shift
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"".join([head, *parts]))
    with open(path, "rb") as file:
        found = weights.shared(file.fileno(), weights._header(file.fileno()), copy=True)
    whole = mx.load(str(path))
    assert ("large" in found) == (not shift) and "z" not in found and len(found) >= 5 * (not shift)
    for name, array in found.items():
        assert (array.dtype, array.shape) == (whole[name].dtype, whole[name].shape)
        assert mx.array_equal(array, whole[name]).item()


def test_a_cpu_shares_nothing(tmp_path):
    path = tmp_path / "m.safetensors"
    mx.save_safetensors(str(path), {"a": mx.arange(20_000)})
    with open(path, "rb") as file:
        assert weights.shared(file.fileno(), weights._header(file.fileno())) == {}
