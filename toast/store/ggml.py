"""ggml's quantised blocks as MLX's affine quantisation: groups of 32, w = scale * q + bias.
Knows bits and bytes alone; not which tensor they are.

Source: ggml's block layouts (ggml-common.h, ggml-quants.c). All but Q6_K keep their integers; Q6_K has
a scale for every 16 weights, which MLX lacks, and is rounded anew to 8 bits."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from toast.errors import BadModel
from toast.store.gguf import TYPES, Gguf, Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy import ndarray

    Decoder = Callable[[ndarray], tuple[ndarray, ndarray, ndarray]]  # blocks -> codes, scales, biases

GROUP = 32


def _f16(blocks: ndarray, at: int) -> ndarray:
    return blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)  # (n, 1)


def _nibbles(packed: ndarray) -> ndarray:
    """(n, 16) bytes -> (n, 32): the low halves, then the high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _fifth(packed: ndarray) -> ndarray:
    """(n, 4) bytes -> (n, 32): bit i of the 32 as 16 or 0."""
    return np.unpackbits(packed, axis=-1, bitorder="little") << 4


def _q4_0(b: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    return _nibbles(b[:, 2:18]), _f16(b, 0), -8 * _f16(b, 0)


def _q4_1(b: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    return _nibbles(b[:, 4:20]), _f16(b, 0), _f16(b, 2)


def _q5_0(b: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    return _nibbles(b[:, 6:22]) | _fifth(b[:, 2:6]), _f16(b, 0), -16 * _f16(b, 0)


def _q5_1(b: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    return _nibbles(b[:, 8:24]) | _fifth(b[:, 4:8]), _f16(b, 0), _f16(b, 2)


def _q8_0(b: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    return b[:, 2:34] ^ 128, _f16(b, 0), -128 * _f16(b, 0)  # int8 + 128


def _k_scales(b: ndarray) -> tuple[ndarray, ndarray]:
    """Scales and biases (n, 8) of a superblock: 6-bit factors of d and dmin, packed in 12 bytes."""
    low, mid, high = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scale = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=-1)
    least = np.concatenate([mid & 63, (high >> 4) | (mid >> 6 << 4)], axis=-1)
    return _f16(b, 0) * scale, -_f16(b, 2) * least


def _k_nibbles(packed: ndarray) -> ndarray:
    """(n, 128) bytes -> (n, 8, 32)."""
    runs = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([runs & 15, runs >> 4], axis=2).reshape(-1, 8, 32)


def _q4_k(b: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    return _k_nibbles(b[:, 16:]), *_k_scales(b)


def _q5_k(b: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    high = b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return _k_nibbles(b[:, 48:]) | high << 4, *_k_scales(b)


def _q6_k(b: ndarray) -> ndarray:
    """(n, 210) bytes -> (n, 256) float32."""
    low = b[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = b[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    q = (low | high << 4).reshape(-1, 16, 16).astype(np.float32) - 32
    scale = _f16(b, 208) * b[:, 192:208].view(np.int8)
    return (q * scale[:, :, None]).reshape(-1, 256)


QUANTS: dict[str, tuple[int, Decoder]] = {
    "Q4_0": (4, _q4_0), "Q4_1": (4, _q4_1), "Q4_K": (4, _q4_k), "Q5_0": (8, _q5_0),
    "Q5_1": (8, _q5_1), "Q5_K": (8, _q5_k), "Q8_0": (8, _q8_0),
}  # fmt: skip
FLOATS = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}


def bits(kind: str) -> int | None:
    """The bits that a tensor of this ggml type has in MLX; None: it stays floating point."""
    return 8 if kind == "Q6_K" else QUANTS[kind][0] if kind in QUANTS else None


def arrays(file: Gguf, name: str) -> tuple[mx.array, ...]:
    """The tensor as (w,), or as (weight (..., cols*bits/32) uint32, scales, biases (..., cols/32) f16).

    Raises BadModel for a type that has no counterpart here."""
    with np.errstate(all="ignore"):  # of scales that are no numbers the model will tell
        return _arrays(file, name)


def _arrays(file: Gguf, name: str) -> tuple[mx.array, ...]:
    tensor = file.tensors[name]
    raw = np.frombuffer(file.read(tensor.start, tensor.nbytes), np.uint8)
    if tensor.type in FLOATS:
        return (_floats(raw, tensor),)
    if bits(tensor.type) is None:
        raise BadModel(f"cannot read {file.path}: {name} is {tensor.type}, a type not supported")
    blocks = raw.reshape(-1, next(t[2] for t in TYPES.values() if t[0] == tensor.type))
    if tensor.type == "Q6_K":
        w = mx.array(_q6_k(blocks).reshape(tensor.shape))
        weight, *rest = mx.quantize(w, GROUP, 8)
        return weight, *(part.astype(mx.float16) for part in rest)
    width, decode = QUANTS[tensor.type]
    q, scales, biases = decode(blocks)
    return _packed(q, width, tensor.shape), _group(scales, tensor), _group(biases, tensor)


def _floats(raw: ndarray, tensor: Tensor) -> mx.array:
    bytes_ = np.uint32 if tensor.type == "F32" else np.uint16
    return mx.array(raw.view(bytes_).reshape(tensor.shape)).view(FLOATS[tensor.type])


def _packed(q: ndarray, width: int, shape: tuple[int, ...]) -> mx.array:
    if width == 4:
        pairs = q.reshape(-1, 2)
        q = pairs[:, 0] | pairs[:, 1] << 4
    return mx.array(np.ascontiguousarray(q).view(np.uint32).reshape(*shape[:-1], -1))


def _group(values: ndarray, tensor: Tensor) -> mx.array:
    return mx.array(values.astype(np.float16).reshape(*tensor.shape[:-1], -1))
