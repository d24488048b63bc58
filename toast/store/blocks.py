"""ggml's blocks of whole numbers, taken apart: codes and their scales, or values where a scale serves 16 weights.

Knows bytes alone; which types there are is in `ggml.py`. Functions take blocks (n, bytes of a block) uint8.
Source: ggml's block layouts (ggml-common.h, ggml-quants.c).
"""

from __future__ import annotations

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from numpy import ndarray

    Codes = tuple[ndarray, ndarray, ndarray]  # codes (n, weights) uint8, scales and biases (n, groups): w = s * q + b

TWOS = np.array([0, 2, 4, 6], np.uint8)[:, None]


def half(blocks: ndarray, at: int) -> ndarray:
    """The half-precision number at a byte of every block, (n, 1) float32."""
    return blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)


def words(blocks: ndarray, kind: type) -> ndarray:
    """Little-endian whole numbers of bytes (n, k)."""
    return np.ascontiguousarray(blocks).view(np.dtype(kind).newbyteorder("<"))


def nibbles(packed: ndarray) -> ndarray:
    """(n, k) bytes -> (n, 2 k): the low halves, then the high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def pairs(packed: ndarray) -> ndarray:
    """(n, k) bytes -> (n, 2 k): low half, high half of each in turn."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def _fifth(packed: ndarray) -> ndarray:
    """(n, 4) bytes -> (n, 32): bit i of the 32 as 16 or 0."""
    return np.unpackbits(packed, axis=-1, bitorder="little") << 4


def q4_0(b: ndarray) -> Codes:
    return nibbles(b[:, 2:18]), half(b, 0), -8 * half(b, 0)


def q4_1(b: ndarray) -> Codes:
    return nibbles(b[:, 4:20]), half(b, 0), half(b, 2)


def q5_0(b: ndarray) -> Codes:
    return nibbles(b[:, 6:22]) | _fifth(b[:, 2:6]), half(b, 0), -16 * half(b, 0)


def q5_1(b: ndarray) -> Codes:
    return nibbles(b[:, 8:24]) | _fifth(b[:, 4:8]), half(b, 0), half(b, 2)


def q8_0(b: ndarray) -> Codes:
    return b[:, 2:34] ^ 128, half(b, 0), -128 * half(b, 0)  # int8 + 128


def q8_1(b: ndarray) -> Codes:
    return b[:, 4:36] ^ 128, half(b, 0), -128 * half(b, 0)


def q8_k(b: ndarray) -> Codes:
    scale = words(b[:, :4], np.float32).repeat(2, axis=1)  # one for 256 weights, MLX's groups have 128
    return b[:, 4:260] ^ 128, scale, -128 * scale


# ---------------------------------------------------------------- one and two bits


def q1_0(b: ndarray) -> Codes:
    return np.unpackbits(b[:, 2:], axis=-1, bitorder="little"), 2 * half(b, 0), -half(b, 0)


def q2_0(b: ndarray) -> Codes:
    return (b[:, 2:, None] >> TWOS[:, 0] & 3).reshape(len(b), -1), half(b, 0), -half(b, 0)


def _runs_of_twos(packed: ndarray) -> ndarray:
    """(n, k) bytes -> (n, 4 k): each 32 bytes hold 4 runs of 32 fields, the lowest bits the first."""
    return (packed.reshape(len(packed), -1, 1, 32) >> TWOS & 3).reshape(len(packed), -1)


def tq2_0(b: ndarray) -> Codes:
    scale = half(b, 64).repeat(2, axis=1)
    return _runs_of_twos(b[:, :64]), scale, -scale


def _trits(packed: ndarray, n: int) -> ndarray:
    """(n, k) bytes, each `n` digits of a fraction in base 3 -> (n, n k): all first digits, all second ones, .."""
    powers = np.array([1, 3, 9, 27, 81][:n], np.uint8)[:, None]
    digits = (packed[:, None, :] * powers).astype(np.uint16) * 3 >> 8
    return digits.astype(np.uint8).reshape(len(packed), -1)


def tq1_0(b: ndarray) -> Codes:
    scale = half(b, 52).repeat(2, axis=1)
    codes = [_trits(b[:, :32], 5), _trits(b[:, 32:48], 5), _trits(b[:, 48:52], 4)]
    return np.concatenate(codes, axis=1), scale, -scale


# ---------------------------------------------------------------- superblocks of 256


def _k_scales(b: ndarray) -> tuple[ndarray, ndarray]:
    """Scales and biases (n, 8) of a superblock: 6-bit factors of d and dmin, packed in 12 bytes."""
    low, mid, high = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scale = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=-1)
    least = np.concatenate([mid & 63, (high >> 4) | (mid >> 6 << 4)], axis=-1)
    return half(b, 0) * scale, -half(b, 2) * least


def _k_nibbles(packed: ndarray) -> ndarray:
    """(n, 128) bytes -> (n, 256): each 32 bytes hold two runs of 32."""
    runs = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([runs & 15, runs >> 4], axis=2).reshape(-1, 256)


def q4_k(b: ndarray) -> Codes:
    return _k_nibbles(b[:, 16:]), *_k_scales(b)


def q5_k(b: ndarray) -> Codes:
    high = b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return _k_nibbles(b[:, 48:]) | high.reshape(-1, 256) << 4, *_k_scales(b)


# Scales of 16 weights: values (n, 256), and the scale of each 16, (n, 16).


def q6_k(b: ndarray) -> tuple[ndarray, ndarray]:
    low = b[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    high = b[:, 128:192].reshape(-1, 2, 1, 32) >> TWOS & 3
    q = (low | high << 4).reshape(-1, 16, 16).view(np.int8) - 32
    scale = half(b, 208) * b[:, 192:208].view(np.int8)
    return (q * scale[:, :, None]).reshape(-1, 256), scale


def q3_k(b: ndarray) -> tuple[ndarray, ndarray]:
    low = nibbles(b[:, 96:104])  # of the scales' 6 bits: 4, and 2 more in the next 4 bytes
    high = (b[:, None, 104:108] >> TWOS & 3).reshape(-1, 16)
    scale = half(b, 108) * ((low | high << 4).view(np.int8) - 32)
    third = b[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # where it is missing, 4 less
    q = (_runs_of_twos(b[:, 32:96]) | third.reshape(-1, 256) << 2).view(np.int8) - 4
    return (q.reshape(-1, 16, 16) * scale[:, :, None]).reshape(-1, 256), scale


def q2_k(b: ndarray) -> tuple[ndarray, ndarray]:
    q = _runs_of_twos(b[:, 16:80]).reshape(-1, 16, 16)
    scale, least = half(b, 80) * (b[:, :16] & 15), half(b, 82) * (b[:, :16] >> 4)
    return (q * scale[:, :, None] - least[:, :, None]).reshape(-1, 256), scale


# ---------------------------------------------------------------- floating point in 4 bits: codes, scales in 8 bits


def mxfp4(b: ndarray) -> tuple[ndarray, ndarray]:
    return nibbles(b[:, 1:17]), b[:, :1]


def nvfp4(b: ndarray) -> tuple[ndarray, ndarray]:
    codes = nibbles(b[:, 4:36].reshape(-1, 8)).reshape(-1, 64)
    return codes, np.where(b[:, :4] == 127, 0, b[:, :4])  # which ggml takes for 0, others for no number
