"""GGUF file -> folder in MLX's layout: config.json, model.safetensors, tokenizer.json, chat template.
Owns the names and the configuration of llama-like architectures; bits are ggml.py's, vocabularies vocab.py's.

Source: llama.cpp's conversion (convert_hf_to_gguf.py), undone: it permutes the q and k rows of
llama, adds 1 to Gemma's norm weights and fuses Phi-3's projections just as its checkpoint does."""

from __future__ import annotations

import re

import mlx.core as mx

from toast import files
from toast.errors import BadModel
from toast.store import ggml, safetensors, vocab
from toast.store.folder import write_texts
from toast.store.gguf import Gguf, converting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

# general.architecture -> model_type
MODEL_TYPES = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe",
    "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text", "phi3": "phi3",
}  # fmt: skip

TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
EXPERTS = {"gate_inp": "gate", "gate_exps": "switch_mlp.gate_proj",
           "up_exps": "switch_mlp.up_proj", "down_exps": "switch_mlp.down_proj"}  # fmt: skip
GEMMA_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
IGNORED = re.compile(r"rope_freqs|rope_factors|blk\.\d+\.attn_rot_embd")


def gguf_to_folder(path: str, out: str) -> None:
    """Write the model of the GGUF file at `path` into the folder `out`.

    Raises BadModel, in one line, for a damaged file or an architecture or type that is not supported."""
    file = Gguf(path)
    with converting(path):
        weights, quantized = _weights(file)
        texts = {
            "config.json": _config(file, quantized),
            "generation_config.json": vocab.generation_config(file.metadata),
            **vocab.files(file.metadata),
        }
    files.replace(f"{out}/model.safetensors", safetensors.pack(weights, {"format": "mlx"}))
    write_texts(out, texts)


# ---- configuration


def _config(file: Gguf, quantized: dict[str, int]) -> Json:
    """config.json from metadata; `quantized`: module -> bits."""
    arch = file.metadata["general.architecture"]

    def get(key: str, default: Any = None) -> Any:
        value = file.metadata.get(f"{arch}.{key}", default)
        if not (isinstance(value, (int, float)) or value is None or key == "rope.scaling.type"):
            raise TypeError(f"{arch}.{key} is {value!r:.40}, not a number")
        return value

    heads, hidden = get("attention.head_count"), get("embedding_length")
    config = {
        "model_type": _model_type(file),
        "hidden_size": hidden,
        "num_hidden_layers": get("block_count"),
        "intermediate_size": get("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": get("attention.key_length") or hidden // heads,
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "max_position_embeddings": get("context_length"),
        "rope_theta": get("rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    if None in config.values():
        raise KeyError(next(k for k, v in config.items() if v is None))
    if scaling := _rope_scaling(file, get, config):
        config["rope_scaling"] = scaling
    config |= _particulars(arch, get, config)
    if quantized:
        common = max(set(quantized.values()), key=list(quantized.values()).count)
        form = {"group_size": ggml.GROUP, "bits": common}
        others = {m: form | {"bits": b} for m, b in quantized.items() if b != common}
        config["quantization"] = form | others
    return config


def _model_type(file: Gguf) -> str:
    arch = file.metadata.get("general.architecture")
    if arch == "llama" and file.metadata.get("llama.expert_count"):
        return "mixtral"
    if arch not in MODEL_TYPES:
        raise BadModel(f"cannot convert {file.path}: architecture {arch!r} is not supported from GGUF",
                       hint="use the model's safetensors or MLX form")  # fmt: skip
    return MODEL_TYPES[arch]


def _particulars(arch: str, get: Callable[..., Any], config: Json) -> Json:
    """What single architectures add."""
    more = {}
    if experts := get("expert_count"):
        more = {"num_experts": experts, "num_local_experts": experts,
                "num_experts_per_tok": get("expert_used_count"), "norm_topk_prob": True,
                "moe_intermediate_size": get("expert_feed_forward_length", config["intermediate_size"]),
                "decoder_sparse_step": 1, "mlp_only_layers": []}  # fmt: skip
    if arch in ("gemma2", "gemma3"):
        more |= {"query_pre_attn_scalar": config["head_dim"], "sliding_window": get("attention.sliding_window")}
        if config["num_hidden_layers"] in (46, 62):  # the 27B of both generations divide by width / heads
            more["query_pre_attn_scalar"] = config["hidden_size"] // config["num_attention_heads"]
    if arch == "gemma2":
        more |= {"attn_logit_softcapping": get("attn_logit_softcapping", 50.0),
                 "final_logit_softcapping": get("final_logit_softcapping", 30.0)}  # fmt: skip
    if arch == "gemma3":
        more["rope_local_base_freq"] = get("rope.freq_base_swa", 10000.0)
    if arch == "phi3":
        rotated = get("rope.dimension_count", config["head_dim"])
        more["partial_rotary_factor"] = rotated / config["head_dim"]
        more["original_max_position_embeddings"] = get(
            "rope.scaling.original_context_length", config["max_position_embeddings"]
        )
    return {k: v for k, v in more.items() if v is not None}


def _rope_scaling(file: Gguf, get: Callable[..., Any], config: Json) -> Json | None:
    original = get("rope.scaling.original_context_length", config["max_position_embeddings"])
    if "rope_freqs.weight" in file.tensors:
        factors: Any = ggml.arrays(file, "rope_freqs.weight")[0].tolist()
        return _llama3_scaling(factors, config)
    if "rope_factors_long.weight" in file.tensors:
        long, short = (ggml.arrays(file, f"rope_factors_{n}.weight")[0].tolist() for n in ("long", "short"))
        return {"type": "longrope", "long_factor": long, "short_factor": short,
                "original_max_position_embeddings": original}  # fmt: skip
    kind = get("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise BadModel(f"cannot convert {file.path}: rope scaling {kind!r} is not supported")
    return {"type": kind, "factor": get("rope.scaling.factor"), "original_max_position_embeddings": original}


def _llama3_scaling(factors: list[float], config: Json) -> Json:
    """Llama 3's parameters back from the divisors of each frequency that GGUF keeps of them."""
    dims, base = config["head_dim"], config["rope_theta"]
    wavelengths = [2 * 3.141592653589793 * base ** (2 * i / dims) for i in range(dims // 2)]
    scaling = {"rope_type": "llama3", "factor": max(factors), "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    for wavelength, seen in zip(wavelengths, factors, strict=True):
        smooth = min(max((8192 / wavelength - 1) / 3, 0), 1)
        if abs(1 / ((1 - smooth) / max(factors) + smooth) - seen) > 1e-3 * seen:
            raise ValueError("rope frequencies other than Llama 3's")
    return scaling


# ---- weights


def _weights(file: Gguf) -> tuple[dict[str, mx.array], dict[str, int]]:
    """Arrays under MLX-LM's names, and the bits of each quantised module."""
    kind = _model_type(file)
    weights: dict[str, mx.array] = {}
    quantized: dict[str, int] = {}
    for name, tensor in file.tensors.items():
        if IGNORED.match(name):
            continue
        module, _, leaf = _name(name, kind).rpartition(".")
        parts = [_rows_back(file, name, a) for a in ggml.arrays(file, name)]
        if kind.startswith("gemma") and "norm" in module:
            parts = [parts[0] - 1]
        if bits := ggml.bits(tensor.type):
            quantized[module] = bits
        weights |= zip((f"{module}.{leaf}", f"{module}.scales", f"{module}.biases"), parts, strict=False)
    return weights, quantized


def _name(name: str, kind: str) -> str:
    """GGUF's name of a tensor -> MLX-LM's."""
    stem, _, leaf = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{leaf}"
    _, number, part = stem.split(".", 2)
    within = LAYER | (GEMMA_NORMS if kind in ("gemma2", "gemma3_text") else {})
    if kind == "phi3":
        within["ffn_up"] = "mlp.gate_up_proj"
    mlp = "block_sparse_moe" if kind == "mixtral" else "mlp"
    within |= {f"ffn_{short}": f"{mlp}.{long}" for short, long in EXPERTS.items()}
    return f"model.layers.{int(number)}.{within[part]}.{leaf}"


def _rows_back(file: Gguf, name: str, a: mx.array) -> mx.array:
    """Undo the interleaving of each head's halves in llama's q and k (rows of every part alike)."""
    meta = file.metadata
    if meta["general.architecture"] != "llama" or not re.search(r"\.attn_[qk]\.", name):
        return a
    heads = meta["llama.attention.head_count"]
    if ".attn_k." in name:
        heads = meta.get("llama.attention.head_count_kv", heads)
    return mx.contiguous(a.reshape(heads, -1, 2, *a.shape[1:]).swapaxes(1, 2)).reshape(a.shape)
