"""Tensors of a model by name: safetensors mapped without a copy where the kernels can, else MLX's loader.

Owns: which files hold them, and that a hostile file ends in one clear line.
Does not know: what the tensors mean, or where the model came from.
"""

from __future__ import annotations

import os
from math import prod
from mmap import ACCESS_READ, PAGESIZE, mmap

import mlx.core as mx

from toast import files, json_text, kernels
from toast.errors import BadModel
from toast.store import safetensors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Header = dict[str, tuple[int, mx.Dtype, list[int]]]  # name -> offset, dtype, shape

PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def load(path: str) -> dict[str, mx.array]:
    """All tensors of a folder, a .safetensors or a .gguf file: name -> array.

    Nothing is read until it is used. BadModel when a file is missing, damaged or lies about itself.
    """
    tensors: dict[str, mx.array] = {}
    for file in _files(path):
        tensors.update(_gguf(file) if file.endswith(".gguf") else _safetensors(file))
    if not tensors:
        raise BadModel(f"{path}: no tensors")
    return tensors


def _files(path: str) -> list[str]:
    """The files that hold the tensors: those of the index, or model*.safetensors, or any."""
    if not os.path.isdir(path):
        return [path]
    index = os.path.join(path, "model.safetensors.index.json")
    if os.path.exists(index):
        return [os.path.join(path, name) for name in indexed(index)]
    names = sorted(name for name in os.listdir(path) if name.endswith(".safetensors"))
    if not names and (pickles := sorted(n for n in os.listdir(path) if n.endswith(PICKLES))):
        told = f"{path}: its weights are pickles ({pickles[0]}), which can run code and are not read"
        raise BadModel(told, "take a copy with .safetensors, or save it as such with transformers' save_pretrained")
    if not names:
        raise BadModel(f"{path}: no .safetensors file")
    return [os.path.join(path, name) for name in [n for n in names if n.startswith("model")] or names]


def indexed(index: str) -> list[str]:
    """The files that an index of tensors names; BadModel where it is none, or leads elsewhere."""
    try:
        with open(files.open_regular(index), encoding="utf-8") as f:
            names = sorted(set(json_text.loads(f.read())["weight_map"].values()))
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise BadModel(f"{index}: not an index of tensors: {error}") from None
    for name in names:
        if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors"):
            raise BadModel(f"{index}: {name!r} is not a .safetensors file beside it")
    return names


def _gguf(path: str) -> dict[str, mx.array]:
    try:
        return _tensors(path, "gguf")
    except (RuntimeError, ValueError) as error:
        raise BadModel(f"{path}: {error}") from None


def _tensors(path: str, form: str) -> dict[str, mx.array]:
    """What MLX's own loader gives for a format that holds several arrays."""
    tensors = mx.load(path, format=form)
    assert isinstance(tensors, dict)
    return tensors


def _safetensors(path: str) -> dict[str, mx.array]:
    try:
        fd = files.open_regular(path)
    except OSError as error:
        raise BadModel(f"cannot open {path}: {error.strerror}") from None
    try:
        tensors = _header(fd)
        if kernels.map_tensors is None:
            return _tensors(path, "safetensors") | (shared(fd, tensors) if kernels.on_gpu() else {})
        return dict(zip(tensors, kernels.map_tensors(fd, list(tensors.values())), strict=True))
    except (RuntimeError, ValueError, IndexError) as error:
        raise BadModel(f"{path}: {error}") from None
    finally:
        os.close(fd)


def shared(fd: int, header: Header, *, copy: bool = False) -> dict[str, mx.array]:
    """Name -> array of a file's tensors as they lie in the page cache; none where MLX cannot take them without `copy`.

    Metal takes whole pages of a file, and its ops read from whole words and elements: a tensor that begins elsewhere,
    or ends in a last page that is not full, is missing. The pages cannot be written; MLX writes an op's result over
    its input only where no array is left that shares it, such as another tensor of the file."""
    size = os.fstat(fd).st_size // PAGESIZE * PAGESIZE
    if not size:
        return {}
    try:
        view: Any = memoryview(mmap(fd, size, access=ACCESS_READ)).cast("I")
        words = mx.asarray(view, copy=copy)
    except (ValueError, OSError):  # more words than MLX counts; CUDA
        return {}
    found = {}
    for name, (at, dtype, shape) in header.items():
        count = prod(shape)
        end = at + count * dtype.size
        if count and not at % max(dtype.size, 4) and end <= size and dtype != mx.float64:  # which no GPU has
            part = words[at // 4 : -(-end // 4)]
            found[name] = part.view(dtype)[:count].reshape(shape)
    mx.eval(found)
    return found


def tensors_of(path: str) -> dict[str, tuple[mx.Dtype, list[int]]]:
    """Name -> (dtype, shape) of all tensors of a folder, by the files' headers; BadModel."""
    found = {}
    for file in _files(path):
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found.update({name: (dtype, shape) for name, (_, dtype, shape) in _header(fd).items()})
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            raise BadModel(f"{file}: {error}") from None
    return found


def _header(fd: int) -> Header:
    """Name -> (offset, dtype, shape), checked against the file; ValueError when it is none."""
    size = os.fstat(fd).st_size
    length = safetensors.header_length(_read(fd, 8, 0), size)
    return safetensors.parse(_read(fd, length, 8), size)[1]


def _read(fd: int, n: int, at: int) -> bytes:
    parts = []
    while n and (part := os.pread(fd, n, at)):
        parts.append(part)
        n, at = n - len(part), at + len(part)
    return b"".join(parts)
