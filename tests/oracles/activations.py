"""Captures what reaches the linear layers of a decoder and an encoder: activations.npz, for test_kernels_quantized.

activations.py DECODER_FOLDER ENCODER_FOLDER OUT.npz      (8 rows of each input width and layer, as float16)
"""

import sys

import mlx.core as mx
import numpy as np

from toast.models import decoder, encoder
from toast.models.tokens import Tokens

TEXT = "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised by it."


def recorded(run):
    """The inputs of mx.quantized_matmul, mx.addmm and x @ w while run() is evaluated."""
    seen, names = [], ("quantized_matmul", "addmm")
    plain = {name: getattr(mx, name) for name in names}

    def record(name, position):
        def call(*args, **kwargs):
            seen.append(args[position])
            return plain[name](*args, **kwargs)

        return call

    mx.quantized_matmul, mx.addmm = record("quantized_matmul", 0), record("addmm", 1)
    try:
        mx.eval(run())
    finally:
        for name in names:
            setattr(mx, name, plain[name])
    return [np.array(x.astype(mx.float32)).reshape(-1, x.shape[-1]) for x in seen]


def sample(inputs, layers):
    """Every 7th input (so that all kinds and depths occur), 8 rows of each."""
    return [x[:: max(1, len(x) // 8)][:8].astype(np.float16) for x in inputs[:: max(1, len(inputs) // layers)]]


def main(decoder_folder, encoder_folder, out):
    model, _ = decoder.load(decoder_folder)
    ids = mx.array([Tokens(decoder_folder, 64, False).encode([TEXT])[0].ids])
    rows = sample(recorded(lambda: model(ids)), 20)
    model = encoder(encoder_folder)
    ids = mx.array([Tokens(encoder_folder, 64, True).encode([TEXT])[0].ids])
    rows += sample(recorded(lambda: model(ids, mx.array([ids.shape[1]]))), 12)
    np.savez_compressed(out, **{str(i): x for i, x in enumerate(rows)})


main(*sys.argv[1:])
