"""The GGUF container, written: metadata, the table of tensors, and their rows in any order.

Owns the bytes of what is written, and the types it can write: floats, Q8_0 and Q4_0. Knows no architecture.
Source: the GGUF specification of ggml (docs/gguf.md), version 3.
"""

from __future__ import annotations

import os
import struct
from math import prod

import numpy as np

from toast.store.gguf import TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy import ndarray

    Shape = tuple[int, ...]

ALIGNMENT = 32
NUMBERS = {name: number for number, (name, _, _) in TYPES.items()}
SIZES = {name: (elements, size) for name, elements, size in TYPES.values()}
KINDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "BF16": 32}  # general.file_type of a file of mostly these


class Writer:
    """A file with this metadata and these tensors (name -> (type, shape)), whose rows are then put in place."""

    def __init__(self, fd: int, metadata: Mapping[str, Any], tensors: Mapping[str, tuple[str, Shape]]) -> None:
        self.fd, self.at, self.row = fd, {}, {}
        table, end = b"", 0
        for name, (kind, shape) in tensors.items():
            elements, size = SIZES[kind]
            self.at[name], self.row[name] = end, (shape[-1] if shape else 1) // elements * size
            dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
            table += _string(name) + dims + struct.pack("<IQ", NUMBERS[kind], end)
            end += -(-prod(shape) // elements * size // ALIGNMENT) * ALIGNMENT
        pairs = b"".join(_string(key) + struct.pack("<I", _kind(x)) + _value(x) for key, x in metadata.items())
        head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + pairs + table
        self.start = -(-len(head) // ALIGNMENT) * ALIGNMENT
        os.ftruncate(fd, self.start + end)
        self._write(memoryview(head), 0)

    def put(self, name: str, rows: ndarray, first: int) -> None:
        """Rows (n, bytes of one) uint8 of a tensor, from its row `first` on."""
        data = np.ascontiguousarray(rows)
        self._write(data.reshape(-1).data, self.start + self.at[name] + first * self.row[name])

    def _write(self, data: memoryview, at: int) -> None:
        while data:
            n = os.pwrite(self.fd, data, at)
            data, at = data[n:], at + n


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _kind(value: Any) -> int:
    """The number of a metadata value's type: those that llama.cpp asks for."""
    if isinstance(value, bool):
        return 7
    if isinstance(value, int):
        return 4 if 0 <= value < 1 << 32 else 11
    return {float: 6, str: 8}.get(type(value), 9)


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return _string(value)
    if not isinstance(value, list):
        return struct.pack("<" + {7: "?", 4: "I", 11: "q", 6: "f"}[_kind(value)], value)
    kind = _kind(value[0]) if value else 8
    if kind in (4, 11):  # numbers of an array are signed
        return struct.pack(f"<IQ{len(value)}i", 5, len(value), *value)
    return struct.pack("<IQ", kind, len(value)) + b"".join(map(_value, value))


# ---------------------------------------------------------------- rows


def encode(kind: str, x: ndarray) -> ndarray:
    """Rows (n, weights) float32 -> (n, bytes) uint8 of a type; as ggml rounds them."""
    x = np.ascontiguousarray(x, np.float32)
    if kind == "F32":
        return x.view(np.uint8)
    if kind == "F16":
        return x.astype(np.float16).view(np.uint8)
    if kind == "BF16":
        bits = x.view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16).view(np.uint8)
    blocks = x.reshape(-1, 32)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"Q8_0": _q8_0, "Q4_0": _q4_0}[kind](blocks).reshape(len(x), -1)


def _q8_0(x: ndarray) -> ndarray:
    scale = abs(x).max(1, keepdims=True) / 127
    scaled = x * np.where(scale > 0, 1 / scale, 0)
    codes = np.copysign(np.floor(abs(scaled) + np.float32(0.5)), scaled).astype(np.int8)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), codes.view(np.uint8)], axis=1)


def _q4_0(x: ndarray) -> ndarray:
    largest = np.take_along_axis(x, abs(x).argmax(1, keepdims=True), axis=1)
    scale = largest / -8
    codes = (x * np.where(scale != 0, 1 / scale, 0) + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), codes[:, :16] | codes[:, 16:] << 4], axis=1)
