"""Tensors of a model by name: safetensors mapped without a copy where the kernels can, else MLX's loader.

Owns: which files hold them, and that a hostile header ends in one clear line.
Does not know: what the tensors mean, or where the model came from.
Format: https://github.com/huggingface/safetensors#format
"""

import json
import os

import mlx.core as mx

from toast import kernels
from toast.errors import BadModel

HEADER = 100_000_000  # bytes; the format's own limit
TYPES = {
    "F64": mx.float64, "F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16, "C64": mx.complex64,
    "I64": mx.int64, "I32": mx.int32, "I16": mx.int16, "I8": mx.int8, "BOOL": mx.bool_,
    "U64": mx.uint64, "U32": mx.uint32, "U16": mx.uint16, "U8": mx.uint8,
    "F8_E4M3": mx.uint8, "F8_E8M0": mx.uint8,
}  # fmt: skip


def load(path):
    """All tensors of a folder, a .safetensors or a .gguf file: dict of name -> mx.array.

    Nothing is read until it is used. BadModel when a file is missing, damaged or lies about itself.
    """
    tensors = {}
    for file in _files(path):
        tensors.update(_gguf(file) if file.endswith(".gguf") else _safetensors(file))
    if not tensors:
        raise BadModel(f"{path}: no tensors")
    return tensors


def _files(path):
    """The files that hold the tensors: those of the index, or model*.safetensors, or any."""
    if not os.path.isdir(path):
        return [path]
    index = os.path.join(path, "model.safetensors.index.json")
    if os.path.exists(index):
        return [os.path.join(path, name) for name in _indexed(index)]
    names = sorted(name for name in os.listdir(path) if name.endswith(".safetensors"))
    if not names:
        raise BadModel(f"{path}: no .safetensors file")
    return [os.path.join(path, name) for name in [n for n in names if n.startswith("model")] or names]


def _indexed(index):
    try:
        with open(index, encoding="utf-8") as f:
            names = sorted(set(json.load(f)["weight_map"].values()))
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise BadModel(f"{index}: not an index of tensors: {error}") from None
    for name in names:
        if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors"):
            raise BadModel(f"{index}: {name!r} is not a .safetensors file beside it")
    return names


def _gguf(path):
    try:
        return mx.load(path)
    except (RuntimeError, ValueError) as error:
        raise BadModel(f"{path}: {error}") from None


def _safetensors(path):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BadModel(f"cannot open {path}: {error.strerror}") from None
    try:
        tensors = read_header(fd, path)
        if kernels.map_tensors is None:
            return {name: array for name, array in mx.load(path, format="safetensors").items()}
        return dict(zip(tensors, kernels.map_tensors(fd, list(tensors.values()))))
    except (RuntimeError, IndexError) as error:
        raise BadModel(f"{path}: {error}") from None
    finally:
        os.close(fd)


def read_header(fd, path):
    """A safetensors header, checked against the file: dict of name -> (offset, dtype, shape)."""
    size = os.fstat(fd).st_size
    length = int.from_bytes(os.pread(fd, 8, 0), "little")
    if size < 8 or length > min(size - 8, HEADER):
        raise BadModel(f"{path}: not a safetensors file: its header would take {length} of {size} bytes")
    try:
        header = json.loads(_read(fd, length, 8))
        header.pop("__metadata__", None)
        tensors = {name: _tensor(name, entry, 8 + length, size) for name, entry in header.items()}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise BadModel(f"{path}: damaged safetensors header: {error}") from None
    _check_overlap(path, tensors)
    return {name: (start, dtype, shape) for name, (start, _, dtype, shape) in tensors.items()}


def _read(fd, n, at):
    parts = []
    while n and (part := os.pread(fd, n, at)):
        parts.append(part)
        n, at = n - len(part), at + len(part)
    return b"".join(parts)


def _tensor(name, entry, base, size):
    """(start, end, dtype, shape) with start and end from the file's beginning."""
    dtype, shape, (start, end) = TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = 1
    for n in (start, end, *shape):
        if type(n) is not int or n < 0:
            raise ValueError(f"{name}: {n!r} is not a size")
    for n in shape:
        count *= n
        if n >= 1 << 31 or count > size:
            raise ValueError(f"{name}: shape {shape} is larger than the file")
    if count * dtype.size != end - start:
        raise ValueError(f"{name}: {shape} of {entry['dtype']} does not take {end - start} bytes")
    if base + end > size:
        raise ValueError(f"{name} ends at byte {base + end}, the file has {size}")
    return base + start, base + end, dtype, shape


def _check_overlap(path, tensors):
    last, before = 0, None
    for start, end, name in sorted((start, end, name) for name, (start, end, _, _) in tensors.items()):
        if start < last:
            raise BadModel(f"{path}: tensors {before} and {name} overlap")
        last, before = end, name
