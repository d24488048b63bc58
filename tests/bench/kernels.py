"""Speed of the matrix kernels by shape: GOPS (2 M N K operations) and GB/s of weights, best of many turns.

kernels.py [VARIANT]      (weights larger than the caches, for M = 1; run it on a quiet machine)
"""

import os
import sys
import time

import mlx.core as mx

sys.path[0] = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)  # not this folder: it has a toast.py
from toast.kernels import _ext as ext  # noqa: E402

SHAPES = [  # M, N, K, group, bits (0: float32)
    (1, 49152, 576, 32, 8), (1, 98304, 576, 32, 4), (1, 16384, 2048, 64, 4),
    (512, 1536, 576, 32, 4), (512, 576, 1536, 32, 4), (512, 4096, 4096, 64, 4),
    (576, 1152, 384, 64, 8), (576, 1536, 384, 64, 8), (576, 384, 1536, 64, 8),
    (1, 8192, 2048, 0, 0), (576, 1536, 384, 0, 0), (512, 2048, 2048, 0, 0),
]  # fmt: skip


def product(M, N, K, group, bits):
    x, w = mx.random.normal((M, K)), mx.random.normal((N, K))
    if not bits:
        return lambda: ext.matmul(x, w.T), N * K * 4
    q, scales, biases = mx.quantize(w, group_size=group, bits=bits)
    scales, biases = scales.astype(mx.float16), biases.astype(mx.float16)
    mx.eval(x, q, scales, biases)
    size = q.nbytes + scales.nbytes + biases.nbytes
    return lambda: ext.quantized_matmul(x, q, scales, biases, group_size=group, bits=bits), size


def best(run, seconds=1.0):
    """Shortest time of one call, in seconds."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        mx.eval(run())
        times.append(time.perf_counter() - start)
    return min(times)


print(ext.choose(sys.argv[1] if len(sys.argv) > 1 else "auto"), "threads", ext.threads())
for shape in SHAPES:
    run, size = product(*shape)
    M, N, K, group, bits = shape
    t = best(run)
    form = f"{bits} bits group {group}" if bits else "float32"
    speed = f"{2 * M * N * K / t / 1e9:7.0f} GOPS {size / t / 1e9:6.1f} GB/s"
    print(f"{M:4} x {N:6} x {K:5} {form:16} {t * 1e3:8.3f} ms {speed}")
