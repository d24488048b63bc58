"""The ratios that the kernels promise, against other programs on the same models, in turn (A B A B ...).

speed.py [--peers DIR --scripts DIR] [--turns N]
DIR of --peers holds their environments and models, of --scripts generate_peer.py and embed_peer.py; without
them only our own numbers are printed. Ratios are of medians; run it on a quiet machine.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

HERE = os.path.abspath(__file__)
sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))  # not this folder: it has a toast.py


def generate(prompt=512, new=128):
    """Tokens a second of toast's default model: reading a prompt, and decoding after it."""
    import mlx.core as mx

    call = _call()
    from toast import kernels, store
    from toast.generation import decoder

    model, _ = decoder.load(store.find(call, "smollm2"))
    kernels.install_nn()
    from mlx_lm.models.cache import make_prompt_cache

    cache = make_prompt_cache(model)
    mx.eval(model(mx.array([[5, 6, 7]])))
    start = time.perf_counter()
    token = mx.argmax(model(mx.array([[100 + i % 4000 for i in range(prompt)]]), cache=cache)[:, -1:], -1)
    mx.eval(token)
    middle = time.perf_counter()
    for _ in range(new):
        token = mx.argmax(model(token, cache=cache)[:, -1:], -1)
        mx.async_eval(token)
    mx.eval(token)
    return {"prefill_tok_s": prompt / (middle - start), "decode_tok_s": new / (time.perf_counter() - middle)}


def embed(path):
    """Lines a second of the default embedding model, tokenizing included, loading not."""
    import mlx.core as mx

    call = _call()
    from toast.encoding.encoder import Encoder

    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines()
    encoder = Encoder(call, "minilm")
    mx.eval(encoder.encode(lines[:4]))
    start = time.perf_counter()
    mx.eval(encoder.encode(lines))
    return {"lines_per_s": len(lines) / (time.perf_counter() - start)}


def mapping():
    """Milliseconds to map 100 MB of weights in 100 tensors, the second time."""
    import mlx.core as mx

    _call()
    from toast.store import weights

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        mx.save_safetensors(path, {f"layer.{i}.weight": mx.zeros((1 << 20,), mx.uint8) for i in range(100)})
        weights.load(path)
        start = time.perf_counter()
        weights.load(path)
        return {"map_ms": (time.perf_counter() - start) * 1e3}


def _call():
    from toast import kernels
    from toast.command import Call

    call = Call("speed", os.environ, os.open(".", os.O_RDONLY))
    kernels.install_for(call)
    return call


def once(command):
    """The JSON that a command prints last: every measurement is a process of its own."""
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def compare(title, key, ours, peer, turns):
    rows = [(once(ours)[key], once(peer)[key] if peer else 0) for _ in range(turns)]
    a, b = (sorted(column)[turns // 2] for column in zip(*rows))
    print(f"{title:38} {a:9.2f}" + (f" {b:9.2f}   ratio {a / b:5.2f}" if peer else ""), flush=True)


def lines(folder, count, words):
    rng = random.Random(words)
    vocabulary = "the of and time year people way day man thing woman life child world school state family".split()
    path = os.path.join(folder, f"{count}x{words}.txt")
    with open(path, "w", encoding="utf-8") as f:
        for _ in range(count):
            f.write(" ".join(rng.choice(vocabulary) for _ in range(words)) + "\n")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers")
    parser.add_argument("--scripts")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    here = [sys.executable, HERE]
    llama = ct2 = None
    if args.peers:
        llama = [f"{args.peers}/venv-llama/bin/python", f"{args.scripts}/generate_peer.py", args.peers, "512", "128"]
        ct2 = [f"{args.peers}/venv-torch/bin/python", f"{args.scripts}/embed_peer.py", "ct2-int8", args.peers]
    for key, title in (
        ("prefill_tok_s", "prompt of 512, tok/s (llama.cpp)"),
        ("decode_tok_s", "decode of 128, tok/s (llama.cpp)"),
    ):
        compare(title, key, [*here, "generate"], llama, args.turns)
    with tempfile.TemporaryDirectory() as folder:
        for count, words in ((2000, 14), (300, 120)):
            path = lines(folder, count, words)
            peer = ct2 and [*ct2, path]
            compare(
                f"{count} lines of {words} words, lines/s (CT2)",
                "lines_per_s",
                [*here, "embed", path],
                peer,
                args.turns,
            )
    compare("mapping 100 MB, ms", "map_ms", [*here, "mapping"], None, args.turns)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("generate", "embed", "mapping"):
        print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
    else:
        main()
