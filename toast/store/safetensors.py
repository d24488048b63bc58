"""The safetensors format: a JSON header, then the tensors' bytes. Reads none of it without a check.

Owns the header, both ways. Knows nothing of models or of where files lie.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import os

import mlx.core as mx

from toast import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
ALIGNMENT = 64  # a cache line, and the widest vector register
TYPES = {
    "F64": mx.float64, "F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16, "C64": mx.complex64,
    "I64": mx.int64, "I32": mx.int32, "I16": mx.int16, "I8": mx.int8, "BOOL": mx.bool_,
    "U64": mx.uint64, "U32": mx.uint32, "U16": mx.uint16, "U8": mx.uint8,
    "F8_E4M3": mx.uint8, "F8_E8M0": mx.uint8,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in reversed(TYPES.items())}


# ---------------------------------------------------------------- writing


def header(
    tensors: Mapping[str, tuple[mx.Dtype, Sequence[int]]],
    metadata: Mapping[str, str],
    *,
    alignment: int = ALIGNMENT,
    separators: tuple[str, str] = (",", ":"),
) -> tuple[bytes, list[str]]:
    """(the file's beginning, the order in which the tensors' bytes must follow) for name -> (dtype, shape).

    The data begins at a multiple of `alignment` and has no holes, so tensors of odd sizes come last.
    separators: of the JSON, as json.dumps takes them.
    """
    sizes = {name: _size(dtype, shape) for name, (dtype, shape) in tensors.items()}
    order = sorted(tensors, key=lambda name: (sizes[name] % alignment > 0, name))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        dtype, shape = tensors[name]
        start, end = end, end + sizes[name]
        entries[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    import json

    text = json.dumps(entries, separators=separators).encode()
    text += b" " * (-(8 + len(text)) % alignment)
    return len(text).to_bytes(8, "little") + text, order


def pack(
    tensors: Mapping[str, mx.array],
    metadata: Mapping[str, str],
    *,
    alignment: int = ALIGNMENT,
    separators: tuple[str, str] = (",", ":"),
) -> list[bytes | memoryview]:
    """The parts of a whole file, for `files.replace`; options as those of `header`."""
    shapes = {name: (array.dtype, array.shape) for name, array in tensors.items()}
    head, order = header(shapes, metadata, alignment=alignment, separators=separators)
    return [head, *(data(tensors[name]) for name in order)]


class Rows:
    """A file of tensors that is written in pieces, in any order: name -> (dtype, shape), as `header` takes them."""

    def __init__(self, fd: int, tensors: Mapping[str, tuple[mx.Dtype, Sequence[int]]], metadata: Mapping[str, str]):
        head, order = header(tensors, metadata)
        self.fd, self.at, end = fd, {}, len(head)
        os.pwrite(fd, head, 0)
        for name in order:
            self.at[name] = end
            end += _size(*tensors[name])
        os.ftruncate(fd, end)

    def put(self, name: str, data: memoryview, start: int = 0) -> None:
        """Write bytes of a tensor, from its byte `start` on."""
        at = self.at[name] + start
        while data:
            n = os.pwrite(self.fd, data, at)
            data, at = data[n:], at + n


def data(array: mx.array) -> bytes | memoryview:
    """An array's bytes in C order; a contiguous one is not copied."""
    if not array.nbytes:
        return b""
    # mlx's stubs do not declare the buffer that an array is
    return memoryview(mx.contiguous(array).reshape(-1).view(mx.uint8))  # type: ignore[arg-type]


def _size(dtype: mx.Dtype, shape: Sequence[int]) -> int:
    size = dtype.size
    for n in shape:
        size *= n
    return size


# ---------------------------------------------------------------- reading


def header_length(first: bytes, size: int) -> int:
    """The header's length by the first 8 of a file's `size` bytes; ValueError when it cannot be that."""
    length = int.from_bytes(first, "little")
    if size < 8 or length > min(size - 8, LARGEST_HEADER):
        raise ValueError(f"not a safetensors file: its header would take {length} of {size} bytes")
    return length


def parse(text: bytes, size: int) -> tuple[dict[str, str], dict[str, tuple[int, mx.Dtype, list[int]]]]:
    """(metadata, name -> (offset in the file, dtype, shape)) of the header of a file of `size` bytes.

    Raises ValueError unless every tensor lies in the file and none on another.
    """
    try:
        entries = json_text.loads(text)
        metadata = entries.pop("__metadata__", None) or {}
        tensors = {name: _tensor(name, entry, base=8 + len(text), size=size) for name, entry in entries.items()}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged safetensors header: {error}") from None
    _check_overlap(tensors)
    return metadata, {name: (start, dtype, shape) for name, (start, _, dtype, shape) in tensors.items()}


def unpack(data: bytes) -> tuple[dict[str, str], dict[str, tuple[mx.Dtype, list[int], memoryview]]]:
    """(metadata, name -> (dtype, shape, bytes)) of a whole file; ValueError unless it is one, without holes."""
    length = header_length(data[:8], len(data))
    metadata, tensors = parse(data[8 : 8 + length], len(data))
    if not isinstance(metadata, dict):
        raise ValueError("damaged safetensors header: its metadata is no object")
    found, view = {}, memoryview(data)
    for name, (start, dtype, shape) in tensors.items():
        found[name] = dtype, shape, view[start : start + _size(dtype, shape)]
    if 8 + length + sum(part.nbytes for _, _, part in found.values()) != len(data):
        raise ValueError("there are bytes of no tensor")
    return metadata, found


def _tensor(name: str, entry: Any, *, base: int, size: int) -> tuple[int, int, mx.Dtype, list[int]]:
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


def _check_overlap(tensors: Mapping[str, tuple[int, int, mx.Dtype, list[int]]]) -> None:
    last, before = 0, None
    for start, end, name in sorted((start, end, name) for name, (start, end, _, _) in tensors.items()):
        if start < last:
            raise ValueError(f"tensors {before} and {name} overlap")
        last, before = end, name
