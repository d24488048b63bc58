"""Perplexity of the default model on a text, with the kernels in use: what they cost in quality.

perplexity.py TEXT [--characters 40000] [--context 512] [-m MODEL]
TOAST_KERNELS=off is plain MLX, a quarter of an hour on two cores. The text is cut into windows of
`context` tokens, each read on its own; exp of the mean loss of every token but a window's first.
"""

import argparse
import math
import os
import sys

# Plain MLX on the first 40,000 characters of WikiText-2's raw test set (9452 tokens): 34.9092. Ours must be
# within 1% of it.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def losses(model, ids):
    """-log p of each id but the first: ids [L] -> (L - 1,)."""
    import mlx.core as mx

    logits = model(mx.array([ids[:-1]]))[0].astype(mx.float32)
    chosen = mx.take_along_axis(logits, mx.array(ids[1:])[:, None], axis=-1)[:, 0]
    return mx.logsumexp(logits, axis=-1) - chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--characters", type=int, default=40000)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("-m", "--model", default="smollm2")
    args = parser.parse_args()
    from toast import kernels, store
    from toast.command import Call
    from toast.generation import decoder
    from toast.generation.tokenizer import Tokenizer

    call = Call("perplexity", os.environ, os.open(".", os.O_RDONLY))
    kernels.install_for(call)
    path = store.find(call, args.model)
    model, _ = decoder.load(path)
    with open(args.text, encoding="utf-8") as file:
        ids = Tokenizer(path).encode(file.read()[: args.characters])
    total, count = 0.0, 0
    for at in range(0, len(ids) - 1, args.context):
        loss = losses(model, ids[at : at + args.context])
        total, count = total + loss.sum().item(), count + loss.size
    print(f"{math.exp(total / count):.4f} perplexity, {count} tokens, kernels {kernels.variant()}")


main()
