"""Captures what meets in the linear layers of a decoder and an encoder: activations.npz, for test_kernels_quantized.

activations.py DECODER_FOLDER ENCODER_FOLDER OUT.npz      (of every few layers 8 rows of x, 16 of the quantised w)
"""

import sys

import mlx.core as mx
import numpy as np

from toast.generation import decoder
from toast.models import encoder
from toast.encoding.tokens import Tokens

TEXT = "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised by it."


def recorded(run):
    """(x, w, scales, biases, group, bits) of every mx.quantized_matmul while run() is evaluated."""
    seen, plain = [], mx.quantized_matmul

    def call(x, w, scales, biases, **form):
        seen.append((x.reshape(-1, x.shape[-1]), w, scales, biases, form["group_size"], form["bits"]))
        return plain(x, w, scales, biases, **form)

    mx.quantized_matmul = call
    try:
        mx.eval(run())
    finally:
        mx.quantized_matmul = plain
    return seen


def sample(name, layers):
    """Every few layers, so that all kinds and depths occur."""
    arrays = {}
    for i, (x, w, scales, biases, group, bits) in enumerate(layers[::5 if name == "encoder" else 11]):
        rows = x[:: max(1, len(x) // 8)][:8], w[:16], scales[:16], biases[:16]
        arrays[f"{name}/{i}/{group}/{bits}/x"] = np.array(rows[0].astype(mx.float16))
        for part, array in zip(("w", "scales", "biases"), rows[1:]):
            arrays[f"{name}/{i}/{group}/{bits}/{part}"] = np.array(array)
    return arrays


def main(decoder_folder, encoder_folder, out):
    model, _ = decoder.load(decoder_folder)
    ids = mx.array([Tokens(decoder_folder, 64, False).encode([TEXT])[0].ids])
    arrays = sample("decoder", recorded(lambda: model(ids))[:-1])
    model = encoder(encoder_folder)
    ids = mx.array([Tokens(encoder_folder, 64, True).encode([TEXT])[0].ids])
    arrays |= sample("encoder", recorded(lambda: model(ids, mx.array([ids.shape[1]]))))
    np.savez_compressed(out, **arrays)


main(*sys.argv[1:])
