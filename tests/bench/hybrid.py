"""Models with layers that have a state, by ours and by llama.cpp: random weights in the shapes of real models.

    python tests/bench/hybrid.py make FOLDER VOCABULARY.gguf [SHAPE...]        SHAPE.gguf in Q4_0, embedding in 8 bits
    python tests/bench/hybrid.py time FOLDER PYTHON [--turns 5] [SHAPE...]     rows of a table, tokens a second
VOCABULARY.gguf: whose vocabulary the files have, SmolLM2's say. PYTHON: of an environment with llama-cpp-python.
Where ours reads no such GGUF, it gets the same shape as a folder, SHAPE.
Names and shapes of tensors are llama.cpp's (src/models). Speed does not depend on what the weights say.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

import numpy as np

WORK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "work.py")

DELTA = {"ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 16, "ssm.time_step_rank": 16,
         "ssm.inner_size": 2048, "rope.dimension_count": 64, "full_attention_interval": 4}  # fmt: skip
# SHAPE -> architecture in GGUF, width, layers, width of the feed-forward block, heads, of keys, their width, and more
SHAPES = {
    "qwen3.5-0.8b": ("qwen35", 1024, 24, 3584, 8, 2, 256, DELTA | {"rope.dimension_sections": [11, 11, 10, 0]}),
    "qwen3-next-mini": ("qwen3next", 1024, 16, 512, 8, 2, 256, DELTA | {
        "expert_count": 32, "expert_used_count": 4, "expert_feed_forward_length": 512,
        "expert_shared_feed_forward_length": 512}),
    "granite-4.0-h-350m": ("granitehybrid", 768, 32, 2048, 12, 4, 64, {
        "ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 1, "ssm.time_step_rank": 48,
        "ssm.inner_size": 1536, "attention.scale": 0.015625, "embedding_scale": 12.0, "residual_scale": 0.246,
        "logit_scale": 3.0, "rope.scaling.finetuned": False}),
    "lfm2-350m": ("lfm2", 1024, 16, 4608, 16, 8, 64, {"shortconv.l_cache": 3}),
    "falcon-h1-0.5b": ("falcon-h1", 1024, 36, 2048, 8, 2, 64, {
        "ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 1, "ssm.time_step_rank": 24,
        "ssm.inner_size": 1536}),
    "rwkv7-0.4b": ("rwkv7", 1024, 24, 4096, 0, 0, 64, {
        "wkv.head_size": 64, "attention.decay_lora_rank": 64, "attention.iclr_lora_rank": 64,
        "attention.value_residual_mix_lora_rank": 32, "attention.gate_lora_rank": 128, "token_shift_count": 2,
        "attention.layer_norm_epsilon": 1e-5}),
}  # fmt: skip
ATTENTION = {"granitehybrid": (10, 13, 17, 27), "lfm2": (2, 5, 8, 10, 12, 14)}  # layers with keys
# of those that ours reads from a folder: its settings in MLX-LM's words
FOLDERS = {
    "falcon-h1-0.5b": {"model_type": "falcon_h1", "hidden_size": 1024, "num_hidden_layers": 36,
                       "intermediate_size": 2048},
    "rwkv7-0.4b": {"model_type": "rwkv7", "hidden_size": 1024, "intermediate_size": 4096, "norm_eps": 1e-5,
                   "head_dim": 64, "num_hidden_layers": 24, "a_low_rank_dim": 64, "v_low_rank_dim": 32,
                   "gate_low_rank_dim": 128, "decay_low_rank_dim": 64, "tie_word_embeddings": False},
}  # fmt: skip


# ---------------------------------------------------------------- tensors: name -> shape, and its type


class Tensors(dict):
    def matrix(self, name, rows, columns, *, kind="Q4_0"):
        self[f"{name}.weight"] = kind, (rows, columns)

    def numbers(self, name, *shape):
        self[name] = "F32", shape

    def norm(self, *names, n):
        for name in names:
            self.numbers(f"{name}.weight", n)

    def feed_forward(self, b, ffn, hidden):
        self.matrix(f"{b}ffn_gate", ffn, hidden)
        self.matrix(f"{b}ffn_up", ffn, hidden)
        self.matrix(f"{b}ffn_down", hidden, ffn)

    def attention(self, b, hidden, *, heads, kv, dim, gates=1, norms=True):
        for name, n in (("attn_q", heads * gates), ("attn_k", kv), ("attn_v", kv)):
            self.matrix(b + name, n * dim, hidden)
        self.matrix(f"{b}attn_output", hidden, heads * dim)
        if norms:
            self.norm(f"{b}attn_q_norm", f"{b}attn_k_norm", n=dim)

    def mamba(self, b, hidden, more):
        inner, state, groups, heads = (more[f"ssm.{name}"] for name in
                                       ("inner_size", "state_size", "group_count", "time_step_rank"))  # fmt: skip
        convolved = inner + 2 * groups * state
        self.matrix(f"{b}ssm_in", inner + convolved + heads, hidden)
        self.matrix(f"{b}ssm_out", hidden, inner)
        self.numbers(f"{b}ssm_conv1d.weight", convolved, 4)
        self.numbers(f"{b}ssm_conv1d.bias", convolved)
        self.numbers(f"{b}ssm_dt.bias", heads)
        self.numbers(f"{b}ssm_a", heads, 1)
        self.numbers(f"{b}ssm_d", heads, 1)
        self.numbers(f"{b}ssm_norm.weight", groups, inner // groups)

    def delta(self, b, hidden, arch, more):
        width, heads = more["ssm.inner_size"], more["ssm.time_step_rank"]
        if arch == "qwen35":
            self.matrix(f"{b}ssm_alpha", heads, hidden)
            self.matrix(f"{b}ssm_beta", heads, hidden)
        else:
            self.matrix(f"{b}ssm_ba", 2 * heads, hidden)
        self.matrix(f"{b}attn_qkv", 3 * width, hidden)
        self.matrix(f"{b}attn_gate", width, hidden)
        self.matrix(f"{b}ssm_out", hidden, width)
        self.numbers(f"{b}ssm_conv1d.weight", 3 * width, 4)
        self.numbers(f"{b}ssm_dt.bias", heads)
        self.numbers(f"{b}ssm_a", heads)
        self.norm(f"{b}ssm_norm", n=width // heads)

    def experts(self, b, hidden, more):
        count, ffn = more["expert_count"], more["expert_feed_forward_length"]
        self.numbers(f"{b}ffn_gate_inp.weight", count, hidden)
        self.numbers(f"{b}ffn_gate_inp_shexp.weight", hidden)
        for name, rows, columns in (("gate", ffn, hidden), ("up", ffn, hidden), ("down", hidden, ffn)):
            self[f"{b}ffn_{name}_exps.weight"] = "Q4_0", (count, rows, columns)
            self.matrix(f"{b}ffn_{name}_shexp", rows, columns)

    def rwkv(self, b, i, hidden, ffn, more):
        ranks = {"w": "decay", "a": "iclr", "v": "value_residual_mix", "g": "gate"}
        for letter, name in ranks.items():
            rank = more[f"attention.{'iclr' if letter == 'v' and not i else name}_lora_rank"]
            self.matrix(f"{b}time_mix_{letter}1", rank, hidden)
            self.matrix(f"{b}time_mix_{letter}2", hidden, rank)
            if letter != "g":
                self.norm(f"{b}time_mix_{letter}0", n=hidden)
        for name in ("key", "value", "receptance", "output"):
            self.matrix(f"{b}time_mix_{name}", hidden, hidden)
        self.numbers(f"{b}time_mix_lerp_fused.weight", 6, 1, 1, hidden)
        self.numbers(f"{b}channel_mix_lerp_k.weight", 1, 1, hidden)
        self.norm(*(f"{b}time_mix_{name}" for name in ("k_k", "k_a", "r_k")), n=hidden)
        for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
            self.norm(b + name, n=hidden)
            self.numbers(f"{b}{name}.bias", hidden)
        self.matrix(f"{b}channel_mix_key", ffn, hidden)
        self.matrix(f"{b}channel_mix_value", hidden, ffn)


def tensors(arch, hidden, layers, ffn, heads, kv, dim, more, vocabulary):
    t = Tensors()
    t.matrix("token_embd", vocabulary, hidden, kind="Q8_0")
    t.norm("token_embd_norm" if arch == "lfm2" else "output_norm", n=hidden)
    if arch == "rwkv7":
        t.matrix("output", vocabulary, hidden, kind="Q8_0")
        t.norm("token_embd_norm", n=hidden)
        t.numbers("token_embd_norm.bias", hidden)
        t.numbers("output_norm.bias", hidden)
    for i in range(layers):
        b = f"blk.{i}."
        if arch == "rwkv7":
            t.rwkv(b, i, hidden, ffn, more)
            continue
        t.norm(f"{b}attn_norm", n=hidden)
        if arch == "falcon-h1":
            t.numbers(f"{b}ffn_norm", hidden)
            t.mamba(b, hidden, more)
            t.attention(b, hidden, heads=heads, kv=kv, dim=dim, norms=False)
        elif arch.startswith("qwen3"):
            t.norm(f"{b}post_attention_norm", n=hidden)
            if i % 4 == 3:
                t.attention(b, hidden, heads=heads, kv=kv, dim=dim, gates=2)
            else:
                t.delta(b, hidden, arch, more)
        else:
            t.norm(f"{b}ffn_norm", n=hidden)
            if i in ATTENTION[arch]:
                t.attention(b, hidden, heads=heads, kv=kv, dim=dim, norms=arch == "lfm2")
            elif arch == "lfm2":
                t.matrix(f"{b}shortconv.in_proj", 3 * hidden, hidden)
                t.matrix(f"{b}shortconv.out_proj", hidden, hidden)
                t.numbers(f"{b}shortconv.conv.weight", hidden, 3)
            else:
                t.mamba(b, hidden, more)
        t.experts(b, hidden, more) if "expert_count" in more else t.feed_forward(b, ffn, hidden)
    return t


# ---------------------------------------------------------------- files


def settings(arch, hidden, layers, ffn, heads, kv, dim, more, vocabulary):
    """A file's metadata, but for its vocabulary."""
    if arch in ATTENTION:
        kv = [kv if i in ATTENTION[arch] else 0 for i in range(layers)]
    found = {"block_count": layers, "context_length": 8192, "embedding_length": hidden, "feed_forward_length": ffn,
             "vocab_size": vocabulary, "rope.freq_base": 1e6, "attention.layer_norm_rms_epsilon": 1e-6}  # fmt: skip
    if heads:
        found |= {"attention.head_count": heads, "attention.head_count_kv": kv, "attention.key_length": dim,
                  "attention.value_length": dim}  # fmt: skip
    return {"general.architecture": arch, **{f"{arch}.{name}": value for name, value in (found | more).items()}}


def rows(random, name, kind, shape):
    """Random bytes of a tensor."""
    n = int(np.prod(shape))
    if kind == "F32":
        plus = 1.0 if "norm" in name or name.endswith("_ln.weight") else 0.0
        x = plus + random.normal(0, 0.02, n)
        return (-np.exp(x) if name.endswith("ssm_a") else x).astype(np.float32).view(np.uint8)
    size, scale = {"Q4_0": (18, 0.004), "Q8_0": (34, 0.0003)}[kind]
    blocks = random.integers(0, 256, (n // 32, size), dtype=np.uint8)
    blocks[:, :2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    return blocks


def write(path, vocabulary, shape):
    from toast.store.gguf import Gguf
    from toast.store.gguf_writer import Writer

    words = {key: value for key, value in Gguf(vocabulary).metadata.items() if key.startswith("tokenizer.")}
    count = len(words["tokenizer.ggml.tokens"])
    found = tensors(*SHAPES[shape], count)
    random = np.random.default_rng(0)
    with open(path, "w+b") as file:
        to = Writer(file.fileno(), settings(*SHAPES[shape], count) | words, found)
        for name, (kind, dims) in found.items():
            to.put(name, rows(random, name, kind, dims), 0)
    return count


def write_folder(path, config):
    """The same shape in 4 bits as MLX has them, groups of 64: as many bits a weight."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    from toast.generation import decoder

    module = decoder.architecture(".", config)
    model = module.Model(module.ModelArgs.from_dict(config))
    model.set_dtype(mx.float16)
    nn.quantize(model, 64, 4, class_predicate=lambda _, m: hasattr(m, "to_quantized") and m.weight.shape[-1] % 64 == 0)
    os.makedirs(path, exist_ok=True)
    mx.save_safetensors(f"{path}/model.safetensors", dict(tree_flatten(model.parameters())), {"format": "mlx"})
    with open(f"{path}/config.json", "w") as file:
        json.dump(config | {"quantization": {"group_size": 64, "bits": 4}}, file)


def make(folder, vocabulary, shapes):
    os.makedirs(folder, exist_ok=True)
    for shape in shapes:
        count = write(f"{folder}/{shape}.gguf", vocabulary, shape)
        if shape in FOLDERS:
            write_folder(f"{folder}/{shape}", FOLDERS[shape] | {"vocab_size": count})


def measure(folder, python, turns, shapes):
    for shape in shapes:
        file = f"{folder}/{shape}.gguf"
        ours = f"{folder}/{shape}" if shape in FOLDERS else file
        cells = [shape]
        for what in ("prompt", "decode"):
            pairs = [[once(*command, what, path) for command, path in
                      (((sys.executable, WORK, "ours"), ours), ((python, WORK, "llama"), file))]
                     for _ in range(turns)]  # fmt: skip
            us, them = map(statistics.median, zip(*pairs, strict=True))
            cells.append(f"{us:.0f}, {them:.0f}: **{us / them:.2f}**")
        print("|", " | ".join(cells), "|", flush=True)


def once(python, work, program, what, path):
    ran = subprocess.run([python, work, program, what, path], stdout=subprocess.PIPE, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "time"))
    parser.add_argument("folder")
    parser.add_argument("other", metavar="VOCABULARY.gguf|PYTHON")
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), choices=[*SHAPES, list(SHAPES)], metavar="SHAPE")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    if args.what == "make":
        make(args.folder, args.other, args.shapes)
    else:
        measure(args.folder, args.other, args.turns, args.shapes)
