"""Scores of int8 vectors against a query: the extension's scan, or the same sums by MLX's own ops.

Knows nothing of where the vectors are kept.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROWS = 2048  # vectors that the reference turns into float32 at once


def int8_scan(codes: bytes, scales: bytes, query: bytes) -> bytes:
    """scales[i] * (codes[i] . query): codes (N, D) int8, scales (N,) and query (D,) float32 ->
    scores (N,) float32, all as bytes. A score that is not finite is 0.
    """
    from toast import kernels

    if kernels.variant() != "off":
        from toast.kernels import _ext

        return _ext.int8_scan(codes, scales, query)
    return reference(codes, scales, query)


def reference(codes: bytes, scales: bytes, query: bytes) -> bytes:
    """The same without the extension, some rows at a time."""
    import mlx.core as mx

    q: Any = memoryview(query).cast("f")
    s: Any = memoryview(scales).cast("f")
    vectors: Any = memoryview(codes).cast("b", (len(s), len(q))) if s and q else ()
    q, parts = mx.array(q), []
    for start in range(0, len(vectors), ROWS):
        rows = mx.array(vectors[start : start + ROWS]).astype(mx.float32)
        scores = (rows @ q) * mx.array(s[start : start + ROWS])
        finite: Any = mx.where(mx.isfinite(scores), scores, 0)
        parts.append(bytes(memoryview(finite)))
    return b"".join(parts) or bytes(4 * len(s))
