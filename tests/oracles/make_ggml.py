"""Make ggml.npz: blocks of every type that ggml writes and the numbers that ggml reads from them (KIND.blocks,
KIND.values), of normally distributed weights that ggml itself quantised where it can.

Run: python make_ggml.py LIBGGML (a folder with libggml-base.so, as llama-cpp-python installs it; needs numpy)
"""

import ctypes
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))
from toast.store.gguf import TYPES  # noqa: E402

PLAIN = {"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"}
ROWS = 2


class Traits(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("elements", ctypes.c_int64), ("interleave", ctypes.c_int64),
                ("size", ctypes.c_size_t), ("quantized", ctypes.c_bool), ("to_float", ctypes.c_void_p),
                ("from_float", ctypes.c_void_p)]  # fmt: skip


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def main(folder):
    ggml = ctypes.CDLL(os.path.join(folder, "libggml-base.so"))
    ggml.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                         ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]  # fmt: skip
    rng, held = np.random.default_rng(11), {}
    for number, (kind, elements, size) in TYPES.items():
        if kind in PLAIN:
            continue
        traits = ggml.ggml_get_type_traits(number).contents
        assert (traits.elements, traits.size) == (elements, size), (kind, traits.elements, traits.size)
        width = 512
        w = (rng.normal(size=(ROWS, width)) * rng.uniform(0.5, 1.5, (ROWS, width // 16)).repeat(16, axis=1) / 50)
        w = np.ascontiguousarray(w, np.float32)
        blocks = np.zeros((ROWS, width // elements * size), np.uint8)
        importance = np.ones(width, np.float32)
        if kind in ("Q8_1", "Q8_K"):  # never in files; the conversion that products use
            each = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
            quantize = each((f"quantize_row_{kind.lower() if kind == 'Q8_1' else 'q8_K'}_ref", ggml))
            for row in range(ROWS):
                quantize(w[row].ctypes.data, blocks[row].ctypes.data, width)
        else:
            done = ggml.ggml_quantize_chunk(number, pointer(w), pointer(blocks), 0, ROWS, width, pointer(importance))
            assert done == blocks.nbytes, kind
        values = np.zeros((ROWS, width), np.float32)
        if traits.to_float:
            read = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(traits.to_float)
            for row in range(ROWS):
                read(blocks[row].ctypes.data, values[row].ctypes.data, width)
        else:  # nothing reads Q8_1 and Q8_K back
            b = blocks.reshape(-1, size)
            scale = b[:, :2].copy().view(np.float16) if kind == "Q8_1" else b[:, :4].copy().view(np.float32)
            codes = b[:, 4 : 4 + elements].copy().view(np.int8)
            values = (scale.astype(np.float32) * codes).reshape(ROWS, width)
        held |= {f"{kind}.blocks": blocks, f"{kind}.values": values}
        own = np.linalg.norm(values - w) / np.linalg.norm(w)
        print(f"{kind}: {8 * blocks.nbytes / w.size:.4g} bits, its own rounding {own:.3f}")
    np.savez_compressed(os.path.join(HERE, "ggml.npz"), **held)


main(sys.argv[1])
