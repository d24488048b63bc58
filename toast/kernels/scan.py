"""Scores of int8 vectors against a query, and pairs of them that are near each other: the extension's, or the same by
MLX's own ops.

Knows nothing of where the vectors are kept.
"""

from __future__ import annotations

from math import sqrt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import mlx.core as mx

    Pairs = list[tuple[int, int]]  # (later, earlier)

ROWS = 2048  # vectors that the reference turns into float32 at once
EXACT = 1024  # products of int8 whose sum is exact in float32


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


def int8_near(codes: bytes, groups: Sequence[int], *, start: int, stop: int, threshold: float) -> Pairs:
    """The pairs (later, earlier) of a row in [start, stop) and one before it whose cosine is the threshold or more, as
    far as they are in two groups: codes (N, D) int8, groups (N,) an array of uint32.

    At least one pair for each row and group that it is near to. Sums are whole numbers: the same on every device.
    """
    from array import array

    from toast import kernels

    if kernels.variant() == "off":
        return reference_near(codes, groups, start=start, stop=stop, threshold=threshold)
    from toast.kernels import _ext

    found = array("I", _ext.int8_near(codes, bytes(groups), start, stop, threshold))
    return list(zip(found[::2], found[1::2], strict=True))


def reference_near(codes: bytes, groups: Sequence[int], *, start: int, stop: int, threshold: float) -> Pairs:
    """The same without the extension."""
    import mlx.core as mx

    n = len(groups)
    if not codes or start >= stop:
        return []
    vectors: Any = memoryview(codes).cast("b", (n, len(codes) // n))
    block = mx.array(vectors[start:stop]).astype(mx.float32)
    own = _squares(block)
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for first in range(0, stop, ROWS):
        others = mx.array(vectors[first : min(first + ROWS, stop)]).astype(mx.float32)
        products, those = _products(block, others), _squares(others)
        about = mx.sqrt(own[:, None].astype(mx.float32) * those[None].astype(mx.float32))
        likely: Any = mx.any(products >= (threshold - 1e-4) * about, axis=1)
        squares: Any = those.tolist()
        for i in (i for i, some in enumerate(likely.tolist()) if some):
            row, square = products[i].tolist(), own[i].item()
            for j in range(min(len(row), start + i - first)):
                group = groups[first + j]
                near = square * squares[j] > 0 and row[j] >= threshold * sqrt(square * squares[j])
                if near and group != groups[start + i]:
                    found.setdefault((start + i, group), (start + i, first + j))
    return list(found.values())


def _squares(rows: mx.array) -> Any:
    """Of the lengths of rows of whole numbers, (N,) int32."""
    import mlx.core as mx

    return mx.sum((rows * rows).astype(mx.int32), axis=1)


def _products(a: mx.array, b: mx.array) -> Any:
    """Exact products of rows of whole numbers, (A, B) int32."""
    import mlx.core as mx

    total: Any = 0
    for at in range(0, a.shape[1], EXACT):
        total = total + (a[:, at : at + EXACT] @ b[:, at : at + EXACT].T).astype(mx.int32)
    return total
