"""GGUF -> folder: tiny models of every architecture must compute the same after the round trip.

The names and changes written here are llama.cpp's, kept apart from the ones that convert.py undoes.
"""

import json
import os
import re

import mlx.core as mx
import numpy as np
import pytest
from command import command
from gguf_file import gguf
from mlx.utils import tree_flatten

from toast import store
from toast.errors import BadModel
from toast.generation import decoder
from toast.store import convert, ggml, gguf_config, vocab, vocab_keys
from toast.store.architectures import BERT, BERT_TOP

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01234.,ĠĊ"
VOCAB = ["<s>", "</s>", *LETTERS, "ab"]
TEXT = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": VOCAB,
    "tokenizer.ggml.token_type": [3, 3] + [1] * 62,
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.chat_template": "{{ messages }}",
}
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5, "vocab_size": 64,
         "max_position_embeddings": 128, "rope_theta": 5000.0, "tie_word_embeddings": True}  # fmt: skip
MORE = {
    "llama": {"tie_word_embeddings": False},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                  "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3_text": {"query_pre_attn_scalar": 16, "sliding_window": 8, "num_hidden_layers": 6},
    "phi3": {"tie_word_embeddings": False},
}  # fmt: skip
ARCHES = {"qwen3_moe": "qwen3moe", "mixtral": "llama", "gemma3_text": "gemma3"}
NAMES = [("model.embed_tokens.", "token_embd."), ("model.norm.", "output_norm."), ("lm_head.", "output."),
         ("model.layers.", "blk."), ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"),
         ("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output"), ("self_attn.qkv_proj", "attn_qkv"),
         ("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"),
         ("mlp.switch_mlp.gate_proj", "ffn_gate_exps"), ("mlp.switch_mlp.up_proj", "ffn_up_exps"),
         ("mlp.switch_mlp.down_proj", "ffn_down_exps"), ("mlp.gate_up_proj", "ffn_up"),
         ("block_sparse_moe.switch_mlp.gate_proj", "ffn_gate_exps"),
         ("block_sparse_moe.switch_mlp.up_proj", "ffn_up_exps"),
         ("block_sparse_moe.switch_mlp.down_proj", "ffn_down_exps"), ("block_sparse_moe.gate", "ffn_gate_inp"),
         ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down"),
         ("mlp.gate.", "ffn_gate_inp."), ("pre_feedforward_layernorm", "ffn_norm"),
         ("post_feedforward_layernorm", "post_ffw_norm"), ("input_layernorm", "attn_norm")]  # fmt: skip


def their_name(name, kind):
    for ours, theirs in NAMES:
        name = name.replace(ours, theirs)
    after = "post_attention_norm" if kind in ("gemma2", "gemma3_text") else "ffn_norm"
    return name.replace("post_attention_layernorm", after)


def their_rows(name, w, kind):
    """What llama.cpp's conversion does to the numbers."""
    if kind in ("llama", "mixtral") and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = 4 if "q_proj" in name else 2
        return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
    return w + 1 if kind.startswith("gemma") and "norm" in name else w


def q8_0(w):
    """ggml's Q8_0: half-precision scales, 32 int8 each; the bytes and the values they stand for."""
    groups = w.reshape(-1, 32)
    scale = (np.abs(groups).max(1, keepdims=True) / 127).astype(np.float16)
    q = np.round(groups / scale.astype(np.float32)).astype(np.int8)
    raw = np.concatenate([scale.view(np.uint8), q.view(np.uint8)], axis=1).tobytes()
    return raw, (q * scale.astype(np.float32)).reshape(w.shape)


def tiny(kind):
    """A random model of this type, rounded to what Q8_0 can say, and its GGUF file."""
    config = {"model_type": kind} | SHAPE | MORE[kind]
    module = decoder.architecture("tiny", config)
    mx.random.seed(3)
    model = module.Model(module.ModelArgs.from_dict(config))
    weights = {k: np.array(v.astype(mx.float32)) for k, v in tree_flatten(model.parameters())}
    tensors = {}
    for name, w in weights.items():
        w = their_rows(name, w + 0.1 * np.cos(np.arange(w.size)).reshape(w.shape), kind).astype(np.float32)
        if w.ndim > 1 and "ffn_gate_inp" not in their_name(name, kind):
            raw, w = q8_0(w)
            tensors[their_name(name, kind)] = ("Q8_0", w.shape, raw)
        else:
            tensors[their_name(name, kind)] = ("F32", w.shape, w.tobytes())
        weights[name] = mx.array(back(name, w, kind))
    model.load_weights(list(weights.items()))
    return model, gguf(metadata(kind, config), tensors)


def back(name, w, kind):
    if kind in ("llama", "mixtral") and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = 4 if "q_proj" in name else 2
        return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
    return w - 1 if kind.startswith("gemma") and "norm" in name else w


def metadata(kind, config):
    arch = ARCHES.get(kind, kind)
    meta = {"embedding_length": 64, "block_count": config["num_hidden_layers"], "feed_forward_length": 96,
            "attention.head_count": 4, "attention.head_count_kv": 2, "context_length": 128,
            "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 5000.0,
            "attention.key_length": config["head_dim"]}  # fmt: skip
    if "num_experts_per_tok" in config:
        meta |= {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32}
        if kind == "mixtral":
            del meta["expert_feed_forward_length"]
    if "sliding_window" in config:
        meta["attention.sliding_window"] = config["sliding_window"]
    return {"general.architecture": arch} | {f"{arch}.{k}": v for k, v in meta.items()} | TEXT


@pytest.mark.parametrize("kind", MORE)
def test_every_architecture_computes_the_same(tmp_path, kind):
    model, data = tiny(kind)
    (tmp_path / "m.gguf").write_bytes(data)
    out = tmp_path / "out"
    out.mkdir()
    convert.gguf_to_folder(str(tmp_path / "m.gguf"), str(out))
    converted, config = decoder.load(str(out))
    assert config["model_type"] == kind
    ids = mx.array([[3, 5, 8, 13, 21, 34, 55, 1, 2, 4]])
    want, got = np.array(model(ids)), np.array(converted(ids).astype(mx.float32))
    assert np.abs(got - want).max() <= 4e-3 * np.abs(want).max()  # embeddings are half precision


def test_folder_has_tokenizer_template_and_ends(tmp_path):
    (tmp_path / "m.gguf").write_bytes(tiny("llama")[1])
    convert.gguf_to_folder(str(tmp_path / "m.gguf"), str(tmp_path))
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"eos_token_id": [1]}
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ messages }}"
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {"eos_token": "</s>"}


class FakeCall:
    cwd, env, stderr, verbose = 0, {}, 2, False

    def __init__(self, home):
        self.env, self.said = {"TOAST_HOME": str(home)}, []

    def path(self, path):
        return path

    def info(self, text):
        self.said.append(text)


def test_a_file_is_converted_once_and_again_when_it_changes(tmp_path):
    call, path = FakeCall(tmp_path / "home"), tmp_path / "m.gguf"
    path.write_bytes(tiny("llama")[1])
    first = store.as_folder(call, str(path))
    assert store.as_folder(call, str(path)) == first and len(call.said) == 1
    os.utime(path, ns=(1, 1))
    second = store.as_folder(call, str(path))
    assert second != first and decoder.load(second)
    assert os.listdir(os.path.dirname(second)) == [os.path.basename(second)]  # what it gave before is gone


def test_the_vocabulary_is_made_without_the_weights(tmp_path):
    call, path = FakeCall(tmp_path / "home"), tmp_path / "m.gguf"
    path.write_bytes(gguf({"general.architecture": "llama"} | TEXT))  # no tensors, which a whole model would need
    made = store.as_folder(call, str(path), weights=False)
    names = ["chat_template.jinja", "origin.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(os.listdir(made)) == names
    with pytest.raises(BadModel):
        store.as_folder(call, str(path))
    assert store.as_folder(call, made, weights=False) == store.as_folder(call, made) == made


def test_a_failed_conversion_leaves_nothing(tmp_path):
    call, path = FakeCall(tmp_path / "home"), tmp_path / "m.gguf"
    path.write_bytes(gguf({"general.architecture": "rwkv6"} | TEXT))
    with pytest.raises(BadModel, match="architecture 'rwkv6' is not supported from GGUF"):
        store.as_folder(call, str(path))
    assert not os.listdir(tmp_path / "home" / "gguf")


@pytest.mark.parametrize("key", ["llama.block_count", "llama.attention.head_count", "tokenizer.ggml.tokens"])
def test_missing_metadata_is_named(tmp_path, key):
    meta = metadata("llama", SHAPE)
    del meta[key]
    tensors = {"token_embd.weight": ("F32", (64, 64), bytes(4 * 4096))}
    (tmp_path / "m.gguf").write_bytes(gguf(meta, tensors))
    with pytest.raises(BadModel, match=key.removeprefix("llama.")[:10].replace("attention.", "") + "|None|num_"):
        convert.gguf_to_folder(str(tmp_path / "m.gguf"), str(tmp_path))


def test_llama3_scaling_from_its_factors():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "llama3-rope-causal")
    with open(os.path.join(path, "config.json")) as file:
        config = json.load(file)
    wavelengths = [2 * np.pi * 500000.0 ** (2 * i / 64) for i in range(32)]
    smooth = [min(max((8192 / w - 1) / 3, 0), 1) for w in wavelengths]
    factors = [1 / ((1 - s) / 32 + s) for s in smooth]
    found = gguf_config._llama3_scaling(factors, {"head_dim": 64, "rope_theta": 500000.0})
    assert found == {"rope_type": "llama3", "factor": 32, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192}  # fmt: skip
    assert found.keys() == config["rope_scaling"].keys()
    with pytest.raises(ValueError):
        gguf_config._llama3_scaling([1.0] * 8 + [3.0] * 8 + [8.0] * 16, {"head_dim": 64, "rope_theta": 500000.0})


def test_unknown_vocabularies_are_named():
    with pytest.raises(BadModel, match="'rwkv'"):
        vocab.tokenizer_json({"tokenizer.ggml.model": "rwkv", "tokenizer.ggml.tokens": []})
    with pytest.raises(BadModel, match="'no-such-pre'"):
        vocab.tokenizer_json(TEXT | {"tokenizer.ggml.pre": "no-such-pre"})


def of_type(tmp_path, kind, raw, shape, *more):
    """The folder of a llama whose down projections are of a type of ggml's, and the module that they become."""
    config = SHAPE | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "head_dim": 64}
    meta = metadata("llama", config) | {"llama.embedding_length": 256, "llama.feed_forward_length": 512}
    meta |= {"llama.attention.key_length": 64}
    rng = np.random.default_rng(1)
    shapes = {"token_embd": (64, 256), "output_norm": (256,), "output": (64, 256), "blk.0.attn_norm": (256,),
              "blk.0.ffn_norm": (256,), "blk.0.attn_q": (256, 256), "blk.0.attn_k": (128, 256),
              "blk.0.attn_v": (128, 256), "blk.0.attn_output": (256, 256), "blk.0.ffn_gate": (512, 256),
              "blk.0.ffn_up": (512, 256)}  # fmt: skip
    floats = {f"{n}.weight": (rng.normal(size=s) / 16).astype(np.float32) for n, s in shapes.items()}
    tensors = {n: ("F32", x.shape, x.tobytes()) for n, x in floats.items()}
    tensors |= {"blk.0.ffn_down.weight": (kind, shape, raw), **dict(more)}
    (tmp_path / "m.gguf").write_bytes(gguf(meta, tensors))
    (tmp_path / "out").mkdir()
    convert.gguf_to_folder(str(tmp_path / "m.gguf"), str(tmp_path / "out"))
    return decoder.load(str(tmp_path / "out"))[0]


KINDS = [*ggml.EXACT, *ggml.ROUNDED, *ggml.FLOAT4]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_every_type_runs(tmp_path, kind):
    blocks = np.load(os.path.join(ORACLES, "ggml.npz"))[f"{kind}.blocks"].repeat(128, axis=0)
    model = of_type(tmp_path, kind, blocks.tobytes(), (256, 512))
    x = mx.random.normal((32, 512), key=mx.random.key(3))
    want = np.array(x) @ ggml.values(kind, blocks).T
    got = np.array(model.layers[0].mlp.down_proj(x).astype(mx.float32))
    assert np.linalg.norm(got - want) <= 0.1 * np.linalg.norm(want)
    assert np.isfinite(np.array(model(mx.array([[1, 2, 3]])).astype(mx.float32))).all()


def test_a_scale_of_the_whole_tensor(tmp_path):
    """NVFP4 files have one beside the weights; it goes into them."""
    blocks = np.load(os.path.join(ORACLES, "ggml.npz"))["NVFP4.blocks"].repeat(128, axis=0)
    scale = ("blk.0.ffn_down.scale", ("F32", (1,), np.float32([0.37]).tobytes()))
    model = of_type(tmp_path, "NVFP4", blocks.tobytes(), (256, 512), scale)
    x = mx.random.normal((32, 512), key=mx.random.key(3))
    want = np.array(x) @ ggml.values("NVFP4", blocks).T * 0.37
    got = np.array(model.layers[0].mlp.down_proj(x).astype(mx.float32))
    assert np.linalg.norm(got - want) <= 0.02 * np.linalg.norm(want)


def test_a_bert_embeds_as_its_folder(tmp_path):
    """Words, pooling and numbers of an encoder, under the names that llama.cpp gives them."""
    source = os.path.join(ORACLES, "bert-embed-cls")
    layers = {f"blk.{{}}.{theirs}": f"encoder.layer.{{}}.{ours}" for theirs, ours in BERT.items()}
    names = {ours: theirs for theirs, ours in (BERT_TOP | layers).items()}
    tensors = {}
    for name, array in mx.load(os.path.join(source, "model.safetensors")).items():
        stem, _, leaf = name.removeprefix("bert.").rpartition(".")
        number = re.search(r"layer\.(\d+)", stem)
        key = names.get(stem.replace(f".{number[1]}.", ".{}.") if number else stem)
        if key:
            key = key.replace("{}", number[1] if number else "")
            tensors[f"{key}.{leaf}"] = ("F32", array.shape, np.array(array).tobytes())
    with open(os.path.join(source, "tokenizer.json")) as file:
        words = sorted(json.load(file)["model"]["vocab"].items(), key=lambda pair: pair[1])
    tokens = [vocab_keys._marked(word) for word, _ in words]
    meta = {"general.architecture": "bert", "bert.block_count": 3, "bert.embedding_length": 32, "bert.pooling_type": 2,
            "bert.attention.head_count": 2, "bert.feed_forward_length": 128, "bert.context_length": 256,
            "bert.attention.layer_norm_epsilon": 1e-12, "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 3,
            "tokenizer.ggml.unknown_token_id": 1}  # fmt: skip
    (tmp_path / "bert.gguf").write_bytes(gguf(meta, tensors))
    env = {"TOAST_HOME": str(tmp_path / "home")}
    text = "Hello wörld, the cat sat on a mat.\n".encode() * 2
    ours, theirs = (
        command("embed", "-m", model, "--json", stdin=text, env=env).ok().out.splitlines()
        for model in (str(tmp_path / "bert.gguf"), source)
    )
    for a, b in zip(ours, theirs, strict=True):
        a, b = (np.array(json.loads(line)["embedding"]) for line in (a, b))
        np.testing.assert_allclose(a, b / np.linalg.norm(b), atol=1e-5)
