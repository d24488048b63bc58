"""Scores of int8 vectors against a query: the extension's scan, or the same sums by plain MLX.

Knows nothing of where the vectors are kept.
"""

BLOCK = 2048  # rows that the plain path turns into float32 at once


def int8_scan(codes: bytes, scales: bytes, query: bytes) -> bytes:
    """scales[i] * (codes[i] . query): codes (N, D) int8, scales (N,) and query (D,) float32 ->
    scores (N,) float32, all as bytes. A score that is not finite is 0.
    """
    from toast import kernels

    if kernels.variant() != "off":
        from toast.kernels import _ext

        return _ext.int8_scan(codes, scales, query)
    return plain(codes, scales, query)


def plain(codes, scales, query) -> bytes:
    """The reference, in blocks."""
    import mlx.core as mx

    q = mx.array(memoryview(query).cast("f"))
    scales = memoryview(scales).cast("f")
    codes = memoryview(codes).cast("b", (len(scales), q.size)) if scales and q.size else ()
    blocks = []
    for start in range(0, len(codes), BLOCK):
        rows = mx.array(codes[start : start + BLOCK]).astype(mx.float32)
        scores = (rows @ q) * mx.array(scales[start : start + BLOCK])
        blocks.append(bytes(memoryview(mx.where(mx.isfinite(scores), scores, 0))))
    return b"".join(blocks) or bytes(4 * len(scales))
