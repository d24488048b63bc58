"""ggml's types of tensors in MLX's forms: groups with w = scale * q + bias, or its own floating point in 4 bits.

Owns which type takes which form, and how values that no form holds are rounded anew. What lies where in a block is
`blocks.py`'s and `codebooks.py`'s; files are `gguf.py`'s. docs/formats.md states what the rounding costs.
"""

from __future__ import annotations

from math import prod

import mlx.core as mx
import numpy as np

from toast.errors import BadModel
from toast.store import blocks, codebooks
from toast.store.gguf import TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from numpy import ndarray

    from toast.store.gguf import Tensor

GROUP = 32  # weights that share a scale where nothing else is said
AT_ONCE = 1 << 17  # weights that are taken apart at once: what numpy makes of them stays in the cache

# type -> (bits, weights in a group, how), exact but for scales in half precision
EXACT: dict[str, tuple[int, int, Callable[[ndarray], blocks.Codes]]] = {
    "Q4_0": (4, 32, blocks.q4_0), "Q4_1": (4, 32, blocks.q4_1), "Q5_0": (5, 32, blocks.q5_0),
    "Q5_1": (5, 32, blocks.q5_1), "Q8_0": (8, 32, blocks.q8_0), "Q8_1": (8, 32, blocks.q8_1),
    "Q4_K": (4, 32, blocks.q4_k), "Q5_K": (5, 32, blocks.q5_k), "Q8_K": (8, 128, blocks.q8_k),
    "Q1_0": (1, 128, blocks.q1_0), "Q2_0": (2, 64, blocks.q2_0), "TQ1_0": (2, 128, blocks.tq1_0),
    "TQ2_0": (2, 128, blocks.tq2_0), "IQ1_S": (2, 32, codebooks.iq1_s), "IQ2_XXS": (3, 32, codebooks.iq2_xxs),
    "IQ3_XXS": (4, 32, codebooks.iq3_xxs), "IQ3_S": (4, 32, codebooks.iq3_s),
}  # fmt: skip
# type -> (bits, how): scales of 16 weights, or values at no equal distances, which are rounded anew in groups of 32
ROUNDED: dict[str, tuple[int, Callable[[ndarray], tuple[ndarray, ndarray]]]] = {
    "Q2_K": (4, blocks.q2_k), "Q3_K": (5, blocks.q3_k), "Q6_K": (6, blocks.q6_k), "IQ1_M": (4, codebooks.iq1_m),
    "IQ2_XS": (4, codebooks.iq2_xs), "IQ2_S": (4, codebooks.iq2_s), "IQ4_NL": (5, codebooks.iq4_nl),
    "IQ4_XS": (5, codebooks.iq4_xs),
}  # fmt: skip
# type -> (mode, weights in a group, how)
FLOAT4: dict[str, tuple[str, int, Callable[[ndarray], tuple[ndarray, ndarray]]]] = {
    "MXFP4": ("mxfp4", 32, blocks.mxfp4), "NVFP4": ("nvfp4", 16, blocks.nvfp4),
}  # fmt: skip
# type -> (how the file has it, what it becomes)
PLAIN: dict[str, tuple[str, mx.Dtype]] = {
    "F32": ("<u4", mx.float32), "F16": ("<u2", mx.float16), "BF16": ("<u2", mx.bfloat16), "F64": ("<f8", mx.float32),
    "I8": ("<i1", mx.int8), "I16": ("<i2", mx.int16), "I32": ("<i4", mx.int32), "I64": ("<i8", mx.int64),
}  # fmt: skip
MIDDLE = {"Q6_K": 32}  # the code that stands for 0 where that of the larger of two scales is kept
BYTES = {name: (elements, nbytes) for name, elements, nbytes in TYPES.values()}


def form(kind: str) -> dict[str, Any] | None:
    """MLX's settings for a tensor of this type; None: it is not quantised. BadModel for a type that has no form."""
    if kind in EXACT:
        return {"group_size": EXACT[kind][1], "bits": EXACT[kind][0], "mode": "affine"}
    if kind in ROUNDED:
        return {"group_size": GROUP, "bits": ROUNDED[kind][0], "mode": "affine"}
    if kind in FLOAT4:
        return {"group_size": FLOAT4[kind][1], "bits": 4, "mode": FLOAT4[kind][0]}
    if kind in PLAIN:
        return None
    raise BadModel(f"{kind} is a type that is not supported")


def shapes(kind: str, shape: tuple[int, ...]) -> list[tuple[mx.Dtype, tuple[int, ...]]]:
    """(dtype, shape) of the one array that a tensor becomes, or of weight, scales and, unless it has none, biases."""
    settings = form(kind)
    if settings is None:
        return [(PLAIN[kind][1], shape)]
    width, groups = shape[-1] * settings["bits"] // 32, shape[-1] // settings["group_size"]
    scale = mx.float16 if settings["mode"] == "affine" else mx.uint8
    packed = [(mx.uint32, (*shape[:-1], width))]
    return packed + [(scale, (*shape[:-1], groups))] * (2 if settings["mode"] == "affine" else 1)


def rows(kind: str, raw: ndarray) -> tuple[ndarray, ...]:
    """Rows (n, bytes) uint8 of a tensor of this type -> those of the arrays of `shapes`.

    A bfloat16 is an uint16 here, as numpy has none."""
    with np.errstate(all="ignore"):  # of scales that are no numbers the model will tell
        return _plain(kind, raw) if kind in PLAIN else _packed_rows(kind, raw)


def values(kind: str, raw: ndarray) -> ndarray:
    """Rows (n, bytes) of a tensor of this type -> (n, weights) float32, as ggml reads them."""
    with np.errstate(all="ignore"):
        if kind in PLAIN:
            return _numbers(kind, raw)
        b = _blocks(kind, raw)
        if kind in ROUNDED:
            return ROUNDED[kind][1](b)[0].reshape(len(raw), -1)
        if kind in FLOAT4:
            return _float4(kind, *FLOAT4[kind][2](b)).reshape(len(raw), -1)
        q, scales, biases = EXACT[kind][2](b)
        grouped = q.reshape(*scales.shape, -1) * scales[:, :, None] + biases[:, :, None]
        return grouped.astype(np.float32).reshape(len(raw), -1)


def spans(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Rows [start, end) of a tensor, a few at once."""
    n, step = prod(shape[:-1]), max(1, AT_ONCE // max(1, shape[-1] if shape else 1))
    return ((start, min(start + step, n)) for start in range(0, n, step))


def raw(tensor: Tensor, start: int, end: int, *, lines: int) -> ndarray:
    """Rows [start, end) of the `lines` that a tensor has, as its file has them: (end - start, bytes of a row)."""
    size = tensor.nbytes // max(1, lines)
    data = tensor.file.read(tensor.start + start * size, (end - start) * size)
    return np.frombuffer(data, np.uint8).reshape(end - start, size)


def numbers(tensor: Tensor) -> ndarray:
    """All of a tensor, float32."""
    lines = prod(tensor.shape[:-1])
    whole = [values(tensor.type, raw(tensor, *span, lines=lines)) for span in spans(tensor.shape)]
    return np.concatenate(whole or [np.zeros(0, np.float32)]).reshape(tensor.shape)


# ---------------------------------------------------------------- one type's rows


def _blocks(kind: str, raw: ndarray) -> ndarray:
    form(kind)
    return raw.reshape(-1, BYTES[kind][1])


def _plain(kind: str, raw: ndarray) -> tuple[ndarray]:
    found = np.ascontiguousarray(raw).view(PLAIN[kind][0])
    return (found.astype(np.float32) if kind == "F64" else found,)


def _numbers(kind: str, raw: ndarray) -> ndarray:
    found = np.ascontiguousarray(raw).view(PLAIN[kind][0])
    if kind == "BF16":
        return (found.astype(np.uint32) << 16).view(np.float32)
    own = {"F32": np.float32, "F16": np.float16}.get(kind)
    return (found.view(own) if own else found).astype(np.float32)


def _packed_rows(kind: str, raw: ndarray) -> tuple[ndarray, ...]:
    b, n = _blocks(kind, raw), len(raw)
    if kind in FLOAT4:
        codes, scales = FLOAT4[kind][2](b)
        return packed(codes.reshape(n, -1), 4), np.ascontiguousarray(scales.reshape(n, -1))
    if kind in EXACT:
        bits, _, decode = EXACT[kind]
        q, scales, biases = decode(b)
    else:
        bits, split = ROUNDED[kind]
        x, sub = split(b)
        q, scales, biases = rounded(x.reshape(-1, GROUP), bits, _largest(sub, MIDDLE.get(kind)))
    return packed(q.reshape(n, -1), bits), *(part.astype(np.float16).reshape(n, -1) for part in (scales, biases))


def _float4(kind: str, codes: ndarray, scales: ndarray) -> ndarray:
    # 1, 2 and 3 bits of exponent, fraction, sign; a scale is a power of two (E8M0), or E4M3 without its sign
    sizes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    x = np.concatenate([sizes, -sizes])[codes]
    if kind == "MXFP4":
        factor = np.ldexp(np.float32(1), scales.astype(np.int32) - 127)
    else:
        power, fraction = scales.astype(np.int32) >> 3, (scales & 7).astype(np.float32) / 8
        factor = np.where(power == 0, np.ldexp(fraction, -6), np.ldexp(1 + fraction, power - 7))
    return (x.reshape(*scales.shape, -1) * factor[:, :, None]).astype(np.float32)


# ---------------------------------------------------------------- rounding and packing


def packed(q: ndarray, bits: int) -> ndarray:
    """Codes (n, k) uint8 in MLX's order, (n, k * bits / 32) uint32: a stream of bits, the lowest first."""
    q = np.ascontiguousarray(q)
    if bits == 8:
        return q.view(np.uint32)
    stream = q.view("<u8")
    for wide in (8, 16, 32):  # two fields of this many bits become one
        used = bits * wide // 8
        low = np.uint64(sum(((1 << used) - 1) << at for at in range(0, 64, 2 * wide)))
        stream = stream & low | stream >> np.uint64(wide - used) & low << np.uint64(used)
    data = stream.view(np.uint8).reshape(len(q), -1, 8)[..., :bits]
    return np.ascontiguousarray(data).reshape(len(q), -1).view(np.uint32)


def _largest(sub: ndarray, middle: int | None) -> tuple[ndarray, ndarray] | None:
    """(scale, bias) of every two neighbours' larger scale, whose weights then keep their codes."""
    if middle is None:
        return None
    two = sub.reshape(-1, 2)
    scale = np.where(abs(two[:, :1]) >= abs(two[:, 1:]), two[:, :1], two[:, 1:])
    return scale, -middle * scale


def rounded(x: ndarray, bits: int, first: tuple[ndarray, ndarray] | None = None) -> blocks.Codes:
    """Codes (n, k), scales and biases (n, 1) of groups (n, k) float32: by `first`, or from the least to the largest
    value, then those that fit its codes best (least squares), where that is nearer."""
    top = (1 << bits) - 1
    least = x.min(1, keepdims=True)
    scale, bias = first or ((x.max(1, keepdims=True) - least) / top, least)
    q, scale, bias, error = _nearest(x, scale, bias, top=top)
    mean, center = q.mean(1, keepdims=True, dtype=np.float32), x.mean(1, keepdims=True)
    off = q - mean
    spread = np.einsum("ij,ij->i", off, off)[:, None]
    better = np.where(spread > 0, np.einsum("ij,ij->i", off, x)[:, None] / spread, scale)
    other, scale2, bias2, error2 = _nearest(x, better, center - better * mean, top=top)
    won = error2 < error
    return np.where(won, other, q).astype(np.uint8), np.where(won, scale2, scale), np.where(won, bias2, bias)


def _nearest(x: ndarray, scale: ndarray, bias: ndarray, *, top: int) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """(codes float32, scale, bias in half precision, sum of squares of what is left) of groups."""
    scale, bias = (part.astype(np.float16).astype(np.float32) for part in (scale, bias))
    q = np.where(scale == 0, np.float32(0), (x - bias) / np.where(scale == 0, 1, scale))
    np.clip(np.rint(q, out=q), 0, top, out=q)
    left = x - (q * scale + bias)
    return q, scale, bias, np.einsum("ij,ij->i", left, left)[:, None]
