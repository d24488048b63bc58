"""Scores of int8 vectors against a query: the extension's scan, or the same sums by plain MLX.

Knows nothing of where the vectors are kept.
"""

from array import array

BLOCK = 2048  # rows that the plain path turns into float32 at once


def int8_scan(codes, scales, query) -> array:
    """Dot products codes[i] * scales[i] . query: codes (N, D) int8 and scales (N,) float32 as bytes,
    query (D,) float32 as an array("f") -> array("f") of N scores. A score that is not finite is -inf.
    """
    scores = array("f", bytes(len(scales)))
    if scores:
        _scan()(codes, scales, query, scores)
    return scores


def _scan():
    from toast import kernels

    if kernels.variant() != "off":
        from toast.kernels import _ext

        return getattr(_ext, "int8_scan", plain)
    return plain


def plain(codes, scales, query, scores) -> None:
    """The reference, in blocks."""
    import mlx.core as mx

    q = mx.array(query)
    codes = memoryview(codes).cast("b", (len(scores), len(query)))
    scales = memoryview(scales).cast("f")
    out = memoryview(scores)
    for start in range(0, len(scores), BLOCK):
        rows = mx.array(codes[start : start + BLOCK]).astype(mx.float32)
        block = (rows @ q) * mx.array(scales[start : start + BLOCK])
        out[start : start + BLOCK] = memoryview(mx.where(mx.isfinite(block), block, -mx.inf))
