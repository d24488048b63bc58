"""Tokens a second of prompts and of decoding on whatever device MLX takes, ours beside MLX-LM's, as a Markdown table.

    python tests/bench/gpu.py [SHAPE...] [--prompt 2048] [--new 128] [--runs 3] [--layers N] [--keep DIR] [--json]

Shapes: 7b, qwen3-next (12 of its 48 layers), and for a look small and tiny. A folder of random weights in 4 bits is
made of each (in DIR, where it stays). Every run is a process of its own, in turn; loading does not count, and a first
text is read before the clock starts. Ours is what `toast` does; MLX-LM's what `mlx_lm.generate` does, without text.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import median

LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 131072,
         "tie_word_embeddings": False}  # fmt: skip
SHAPES = {
    "7b": LLAMA | {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32,
                   "num_key_value_heads": 8, "vocab_size": 32768},
    "qwen3-next": {"model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 12, "intermediate_size": 5120,
                   "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "vocab_size": 151936,
                   "linear_num_value_heads": 32, "linear_num_key_heads": 16, "linear_key_head_dim": 128,
                   "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "num_experts": 512,
                   "num_experts_per_tok": 10, "decoder_sparse_step": 1, "shared_expert_intermediate_size": 512,
                   "mlp_only_layers": [], "moe_intermediate_size": 512, "rms_norm_eps": 1e-6, "rope_theta": 1e7,
                   "partial_rotary_factor": 0.25, "max_position_embeddings": 262144, "norm_topk_prob": True},
    "small": LLAMA | {"hidden_size": 1024, "num_hidden_layers": 16, "intermediate_size": 4096,
                      "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 32768},
    "tiny": LLAMA | {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256, "num_attention_heads": 4,
                     "num_key_value_heads": 2, "vocab_size": 512},
}  # fmt: skip
FORM = {"group_size": 64, "bits": 4}


def make(shape, folder, layers=None):
    """The folder of a model of random weights; one that is there stays."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    from toast.generation import decoder

    config = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    if os.path.exists(os.path.join(folder, "config.json")):
        return
    os.makedirs(folder, exist_ok=True)
    module = decoder.architecture(folder, config)
    model = module.Model(module.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, **FORM)
    mx.save_safetensors(os.path.join(folder, "model.safetensors"), dict(tree_flatten(model.parameters())))
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config | {"quantization": FORM}, file)


def ours(folder):
    """tokens(ids, count) -> that many tokens after a prompt, one by one."""
    from toast import kernels
    from toast.generation import decoder, device
    from toast.generation.generate import Generation, Sequence, prefill
    from toast.generation.sample import Sampler

    kernels.install()
    model, _ = decoder.light(folder)
    device.wire(model)

    def tokens(ids, count):
        caches = decoder.caches(model)
        prefill(model, caches, ids[:-1])
        sequence = Sequence((), count, loop_stop=False)
        return (token.id for token in Generation(model, caches, Sampler(), sequence=sequence).run(ids[-1]))

    return tokens


def theirs(folder):
    """The same by MLX-LM."""
    from pathlib import Path

    import mlx.core as mx
    from mlx_lm.generate import generate_step, wired_limit
    from mlx_lm.utils import load_model

    model, _ = load_model(Path(folder))

    def tokens(ids, count):
        with wired_limit(model):
            for token, _ in generate_step(mx.array(ids), model, max_tokens=count):
                yield token

    return tokens


def measured(program, folder, prompt, new):
    """Tokens a second: of the prompt, of what follows its first token; and the tokens."""
    tokens = {"ours": ours, "theirs": theirs}[program](folder)
    list(tokens([7, 8, 9], 4))
    start = time.perf_counter()
    run = tokens([(7 * i) % 500 + 5 for i in range(prompt)], new)
    found = [next(run)]
    middle = time.perf_counter()
    found += run
    return {"prompt": prompt / (middle - start), "decode": (new - 1) / (time.perf_counter() - middle), "ids": found}


def compare(folder, args):
    """{"ours": [runs], "theirs": [runs]}, in turn."""
    found = {"ours": [], "theirs": []}
    for _ in range(args.runs):
        for program, runs in found.items():
            words = [sys.executable, __file__, "--one", program, folder, str(args.prompt), str(args.new)]
            ran = subprocess.run(words, stdout=subprocess.PIPE, check=True)
            runs.append(json.loads(ran.stdout.splitlines()[-1]))
    return found


def row(shape, found):
    cells = [shape]
    for what in ("prompt", "decode"):
        a, b = (median(run[what] for run in found[program]) for program in ("ours", "theirs"))
        cells.append(f"{a:.0f}, {b:.0f}: **{a / b:.2f}**")
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", default=["7b", "qwen3-next"])
    for name, value in (("--prompt", 2048), ("--new", 128), ("--runs", 3), ("--layers", None)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--keep", metavar="DIR")
    parser.add_argument("--json", action="store_true", help="all runs of the first shape, not a table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as here:
        if not args.json:
            import mlx.core as mx

            print(f"| {mx.device_info().get('device_name', 'CPU')}: toast, MLX-LM | prompt of {args.prompt} "
                  f"| decoding {args.new} |\n|---|---|---|", flush=True)  # fmt: skip
        for shape in args.shapes:
            folder = os.path.join(args.keep or here, shape)
            make(shape, folder, args.layers)
            if not args.runs:  # the folder alone is wanted
                continue
            found = compare(folder, args)
            if args.json:
                print(json.dumps(found))
                return
            print(row(shape, found), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measured(*sys.argv[2:4], *map(int, sys.argv[4:]))))
    else:
        main()
