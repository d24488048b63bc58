"""ggml's IQ blocks: indices into codebooks of 4 or 8 weights, with signs and scales beside them.

Knows bytes alone, as `blocks.py`, whose forms of results these have too. The codebooks are in codebooks.txt.
Source: ggml's block layouts (ggml-common.h, ggml-quants.c).
"""

from __future__ import annotations

import os
from binascii import a2b_base64
from functools import cache

import numpy as np

from toast.store.blocks import half, nibbles, pairs, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from numpy import ndarray

    from toast.store.blocks import Codes

# the 16 values of IQ4_NL and IQ4_XS
NONLINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
SIZES = np.array([8, 25, 43], np.float32)  # of weights in IQ2, without their signs


@cache
def codebook(name: str) -> ndarray:
    """(entries, weights) uint8: which size each weight has."""
    with open(os.path.join(os.path.dirname(__file__), "codebooks.txt"), encoding="ascii") as file:
        line = next(line for line in file if line.startswith(name + " "))
    _, entries, length, bits, packed = line.split()
    data = np.frombuffer(a2b_base64(packed), np.uint8)
    fields = data[:, None] >> np.arange(0, 8, int(bits), dtype=np.uint8) & ((1 << int(bits)) - 1)
    return fields.reshape(int(entries), int(length))


def _bits(packed: ndarray) -> ndarray:
    """(n, k) bytes -> (n, 8 k) bits, the lowest of each first."""
    return np.unpackbits(np.ascontiguousarray(packed), axis=-1, bitorder="little")


@cache
def _even_signs() -> ndarray:
    """(128, 8): the signs that 7 bits stand for; the eighth makes their number even."""
    low = np.arange(128, dtype=np.uint8)[:, None] >> np.arange(7, dtype=np.uint8) & 1
    return np.concatenate([low, low.sum(1, keepdims=True, dtype=np.uint8) & 1], axis=1)


def _four_signs(packed: ndarray) -> ndarray:
    """(n, k) words of four times 7 bits -> (n, 32 k) bits."""
    index = packed[:, :, None] >> np.array([0, 7, 14, 21], np.uint32) & 127
    return _even_signs()[index].reshape(len(packed), -1)


def _signed(sizes: ndarray, signs: ndarray) -> ndarray:
    return np.where(signs, -sizes, sizes)


# ---------------------------------------------------------------- two bits


def _symmetric(codes: ndarray, signs: ndarray, levels: int) -> ndarray:
    """Codes of `levels` sizes on either side of zero, as whole numbers from the most negative on."""
    return np.where(signs, levels - 1 - codes, levels + codes).astype(np.uint8)


def iq2_xxs(b: ndarray) -> Codes:
    """The sizes 8, 25, 43 are taken for 17.07 times 1/2, 3/2, 5/2."""
    parts = words(b[:, 2:], np.uint32).reshape(len(b), 8, 2)
    index = np.ascontiguousarray(parts[:, :, 0]).view(np.uint8)
    codes = codebook("IQ2_XXS")[index].reshape(len(b), 256)
    scale = half(b, 0) * (0.5 + (parts[:, :, 1] >> 28)) * np.float32(0.25 * 17.07)
    return _symmetric(codes, _four_signs(parts[:, :, 1]), 3), scale, -2.5 * scale


def _scales16(b: ndarray, at: int) -> ndarray:
    """(n, 16): the scale of each 16 weights by 4 bits from byte `at` on."""
    return half(b, 0) * (np.float32(0.5) + pairs(b[:, at : at + 8])) * np.float32(0.25)


def _scaled(values: ndarray, scale: ndarray) -> tuple[ndarray, ndarray]:
    values = values.reshape(*scale.shape, -1) * scale[:, :, None]
    return values.reshape(len(scale), -1).astype(np.float32), scale


def iq2_xs(b: ndarray) -> tuple[ndarray, ndarray]:
    index = words(b[:, 2:66], np.uint16)
    sizes = SIZES[codebook("IQ2_XS")[index & 511]]
    return _scaled(_signed(sizes, _even_signs()[index >> 9]), _scales16(b, 66))


def iq2_s(b: ndarray) -> tuple[ndarray, ndarray]:
    high = (b[:, 66:74, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(len(b), -1)
    sizes = SIZES[codebook("IQ2_S")[b[:, 2:34] | high.astype(np.uint16) << 8]].reshape(len(b), 256)
    return _scaled(_signed(sizes, _bits(b[:, 34:66])), _scales16(b, 74))


# ---------------------------------------------------------------- three bits


def iq3_xxs(b: ndarray) -> Codes:
    """The sizes 4, 12, .. 52, 62 are taken for 8.05 times 1/2, 3/2, .. 15/2."""
    parts = words(b[:, 66:], np.uint32)
    codes = codebook("IQ3_XXS")[b[:, 2:66]].reshape(len(b), 256)
    scale = half(b, 0) * (0.5 + (parts >> 28)) * np.float32(0.5 * 8.05)
    return _symmetric(codes, _four_signs(parts), 8), scale, -7.5 * scale


def iq3_s(b: ndarray) -> Codes:
    index = b[:, 2:66] | _bits(b[:, 66:74]).astype(np.uint16) << 8
    codes = codebook("IQ3_S")[index].reshape(len(b), 256)  # sizes 1, 3, .. 15
    scale = 2 * half(b, 0) * (1 + 2 * pairs(b[:, 106:110]).astype(np.float32))
    return _symmetric(codes, _bits(b[:, 74:106]), 8), scale, -7.5 * scale


# ---------------------------------------------------------------- one bit: -1, 0, 1, moved by an eighth

EIGHTH = np.float32(0.125)
THREES = np.array([0, 3, 6, 9], np.uint16)


def iq1_s(b: ndarray) -> Codes:
    high = words(b[:, 34:50], np.uint16)
    index = b[:, 2:34] | ((high[:, :, None] >> THREES & 7) << 8).reshape(len(b), -1)
    scale = half(b, 0) * (2 * (high >> 12 & 7) + 1)
    moved = np.where(high & 0x8000, -EIGHTH, EIGHTH)
    return codebook("IQ1_S")[index].reshape(len(b), 256), scale, scale * (moved - 1)


def iq1_m(b: ndarray) -> tuple[ndarray, ndarray]:
    scales = words(b[:, 48:56], np.uint16)
    d = (scales >> 12 << np.array([0, 4, 8, 12], np.uint16)).sum(1, keepdims=True, dtype=np.uint16)
    scale = d.view(np.float16).astype(np.float32) * (2 * (scales[:, :, None] >> THREES & 7).reshape(len(b), 16) + 1)
    high = pairs(b[:, 32:48])
    entries = codebook("IQ1_S")[b[:, :32] | (high & 7).astype(np.uint16) << 8].astype(np.float32)
    moved = np.where(high & 8, -EIGHTH, EIGHTH)
    return _scaled(entries - 1 + moved[:, :, None], scale)


# ---------------------------------------------------------------- four bits


def iq4_nl(b: ndarray) -> tuple[ndarray, ndarray]:
    return _scaled(NONLINEAR[nibbles(b[:, 2:18])], half(b, 0))


def iq4_xs(b: ndarray) -> tuple[ndarray, ndarray]:
    high = words(b[:, 2:4], np.uint16) >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    scale = half(b, 0) * ((pairs(b[:, 4:8]) | high.astype(np.uint8) << 4).view(np.int8) - 32)
    return _scaled(NONLINEAR[nibbles(b[:, 8:].reshape(-1, 16))].reshape(len(b), 256), scale)
