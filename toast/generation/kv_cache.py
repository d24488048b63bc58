"""Keys and values in 8 or 4 bits, for long contexts: MLX's affine codes, floats again while a layer looks at them.

Owns what is stored of a row, and which models such caches suit. A row is quantised by itself, so that no result
depends on the pieces in which a text was read; a layer's floats exist while it runs, not longer.
"""

from __future__ import annotations

from importlib import import_module

import mlx.core as mx

from toast import kernels
from toast.errors import UsageError
from toast.generation.generate import begun, has_kv_caches
from toast.generation.ragged_cache import grow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Codes = list[mx.array]  # codes (1, H, T, D * bits / 32), scales and biases (1, H, T, D / group)

GROUPS = (64, 32)  # numbers that share a scale, the first that the dimensions allow


class QuantizedKV:
    """One layer's cache, with the face of MLX-LM's KVCache; keys and values are lists of codes, scales and biases."""

    def __init__(self, bits: int, group: int) -> None:
        self.kv_bits, self.group, self.offset = bits, group, 0  # `bits` would make MLX-LM's attention read codes
        self.keys: Codes | None = None
        self.values: Codes | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """New keys and values (1, H, L, D) -> all of them, (1, H, T, D), as floats."""
        start, self.offset = self.offset, self.offset + keys.shape[2]
        self.keys, self.values = self._stored(self.keys, keys, start), self._stored(self.values, values, start)
        found = self._floats(self.keys).astype(keys.dtype), self._floats(self.values).astype(values.dtype)
        mx.eval(found)  # or the floats of many layers would be allocated ahead of their work
        return found

    def _stored(self, buffers: Codes | None, rows: mx.array, start: int) -> Codes:
        stored = []
        codes = mx.quantize(rows, group_size=self.group, bits=self.kv_bits)
        for part, buffer in zip(codes, buffers or (None, None, None), strict=True):
            batch, heads, _, dims = part.shape
            whole = grow(buffer, (batch, heads, self.offset, dims), part.dtype)
            whole[..., start : self.offset, :] = part
            stored.append(whole)
        return stored

    def _floats(self, buffers: Codes) -> mx.array:
        return floats([part[..., : self.offset, :] for part in buffers], self.kv_bits, self.group)

    @property
    def state(self) -> tuple[Codes | None, Codes | None, int]:
        return self.keys, self.values, self.offset

    @state.setter
    def state(self, state: Any) -> None:
        self.keys, self.values, self.offset = state

    def trim(self, count: int) -> int:
        """Forget the last rows."""
        count = min(self.offset, count)
        self.offset -= count
        return count

    def make_mask(self, *args: Any, **options: Any) -> Any:
        """MLX-LM's, for so many new rows."""
        return import_module("mlx_lm.models.cache").create_attention_mask(*args, offset=self.offset, **options)


def floats(codes: Codes, bits: int, group: int) -> mx.array:
    """What mx.dequantize gives; on the CPU by functions that are five times as fast."""
    packed, scales, biases = codes
    if kernels.on_gpu():
        return mx.dequantize(packed, scales, biases, group_size=group, bits=bits)
    numbers = packed.view(mx.uint8)
    if bits == 4:  # the first of two in the lower half
        numbers = mx.stack([numbers & 15, numbers >> 4], axis=-1)
    grouped = numbers.reshape(*scales.shape, group).astype(scales.dtype) * scales[..., None] + biases[..., None]
    return grouped.reshape(*scales.shape[:-1], -1)


def group_for(model: Any, caches: list[Any], name: str) -> int:
    """How many numbers may share a scale in a model's caches, given as new ones; UsageError where none can."""
    if not has_kv_caches(caches):
        kinds = ", ".join(sorted({type(cache).__name__ for cache in caches}))
        raise UsageError(f"--kv-bits: {name} has caches of other kinds than plain keys and values ({kinds})")
    begun(model, caches)
    buffers = [buffer for cache in caches for buffer in (cache.keys, cache.values) if buffer is not None]
    dims = sorted({buffer.shape[-1] for buffer in buffers})
    for group in GROUPS:
        if all(size % group == 0 for size in dims):
            return group
    found = " and ".join(map(str, dims))
    raise UsageError(f"--kv-bits: {name} has heads of {found} dimensions, not a multiple of {GROUPS[-1]}")
