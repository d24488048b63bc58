"""Which of MLX-LM's classes are known, by the code of their __call__; and what a known decoder layer is made of.

Knows models' modules as Python has them; knows no cache and no op. A dozen model files repeat Llama's code word for
word: what counts is the code, not the file.
"""

from __future__ import annotations

import sys
from importlib import import_module

import mlx.core as mx

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Norm = tuple[mx.array, float]
    Matrix = tuple[mx.array, mx.array | None, mx.array | None, int, int]  # weight, scales, biases, group size, bits
    Experts = tuple[Matrix, int, str, bool, list[Matrix]]

# Kind -> its file and class in MLX-LM, and what that class refers to in __call__. If a release says something else, it
# is left alone.
NAMES = {
    "Attention": ("llama", "Attention", (
        "shape", "q_proj", "k_proj", "v_proj", "reshape", "n_heads", "transpose", "n_kv_heads", "rope", "offset",
        "update_and_fetch", "scaled_dot_product_attention", "scale", "o_proj")),
    "MLP": ("llama", "MLP", ("down_proj", "swiglu", "gate_proj", "up_proj")),
    "TransformerBlock": ("llama", "TransformerBlock", (
        "self_attn", "input_layernorm", "mlp", "post_attention_layernorm")),
    "LlamaModel": ("llama", "LlamaModel", (
        "embed_tokens", "len", "layers", "create_attention_mask", "fa_idx", "swa_idx", "sliding_window", "zip",
        "use_sliding", "norm")),
    "Qwen2Model": ("qwen2", "Qwen2Model", (
        "embed_tokens", "pipeline_rank", "pipeline_size", "len", "pipeline_layers", "create_attention_mask", "mx",
        "distributed", "recv_like", "zip", "send", "depends", "keys", "all_gather", "shape", "norm")),
    "Qwen3Attention": ("qwen3", "Attention", (
        "shape", "q_proj", "k_proj", "v_proj", "q_norm", "reshape", "n_heads", "transpose", "k_norm", "n_kv_heads",
        "rope", "offset", "update_and_fetch", "scaled_dot_product_attention", "scale", "o_proj")),
    "Qwen3Model": ("qwen3", "Qwen3Model", (
        "embed_tokens", "len", "layers", "create_attention_mask", "zip", "norm")),
    "Qwen3Experts": ("qwen3_moe", "Qwen3MoeSparseMoeBlock", (
        "sharding_group", "sum_gradients", "gate", "mx", "softmax", "top_k", "argpartition", "stop_gradient",
        "take_along_axis", "norm_topk_prob", "sum", "switch_mlp", "astype", "dtype", "distributed", "all_sum")),
    "MixtralAttention": ("mixtral", "MixtralAttention", (
        "shape", "q_proj", "k_proj", "v_proj", "reshape", "num_heads", "transpose", "num_key_value_heads", "rope",
        "offset", "update_and_fetch", "scaled_dot_product_attention", "scale", "o_proj")),
    "MixtralExperts": ("mixtral", "MixtralSparseMoeBlock", (
        "gate", "num_experts_per_tok", "mx", "stop_gradient", "argpartition", "take_along_axis", "softmax",
        "switch_mlp", "sum")),
    "Qwen3NextExperts": ("qwen3_next", "Qwen3NextSparseMoeBlock", (
        "sharding_group", "sum_gradients", "gate", "mx", "softmax", "top_k", "argpartition", "stop_gradient",
        "take_along_axis", "norm_topk_prob", "sum", "switch_mlp", "shared_expert", "sigmoid", "shared_expert_gate",
        "distributed", "all_sum")),
    "Qwen2Experts": ("qwen2_moe", "Qwen2MoeSparseMoeBlock", (
        "gate", "mx", "softmax", "top_k", "stop_gradient", "argpartition", "take_along_axis", "switch_mlp", "sum",
        "shared_expert", "sigmoid", "shared_expert_gate")),
    "OlmoeAttention": ("olmoe", "Attention", (
        "shape", "q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "reshape", "n_heads", "transpose", "n_kv_heads",
        "rope", "offset", "update_and_fetch", "scaled_dot_product_attention", "scale", "o_proj")),
    "OlmoeExperts": ("olmoe", "OlmoeSparseMoeBlock", (
        "shape", "reshape", "gate", "mx", "softmax", "top_k", "stop_gradient", "argpartition", "take_along_axis",
        "norm_topk_prob", "sum", "switch_mlp")),
    "OlmoeBlock": ("olmoe", "TransformerBlock", (
        "self_attn", "input_layernorm", "mlp", "post_attention_layernorm")),
    "OlmoeModel": ("olmoe", "OlmoeModel", (
        "embed_tokens", "len", "layers", "create_attention_mask", "zip", "norm")),
    "MixtralBlock": ("mixtral", "MixtralDecoderLayer", (
        "self_attn", "input_layernorm", "block_sparse_moe", "post_attention_layernorm")),
    "SwitchGLU": ("switch_layers", "SwitchGLU", (
        "mx", "expand_dims", "stop_gradient", "size", "_gather_sort", "up_proj", "gate_proj", "down_proj",
        "activation", "_scatter_unsort", "shape", "squeeze")),
    "SwitchLinear": ("switch_layers", "QuantizedSwitchLinear", (
        "mx", "gather_qmm", "get", "group_size", "bits", "mode", "global_scale", "expand_dims")),
    "Phi3Attention": ("phi3", "Attention", (
        "shape", "qkv_proj", "n_heads", "head_dim", "mx", "split", "n_kv_heads", "reshape", "transpose", "rope",
        "offset", "update_and_fetch", "scaled_dot_product_attention", "scale", "o_proj")),
    "Phi3MLP": ("phi3", "MLP", ("gate_up_proj", "mx", "split", "down_proj", "swiglu")),
    "Phi3Model": ("phi3", "Phi3Model", (
        "embed_tokens", "len", "layers", "create_attention_mask", "zip", "norm")),
    "Gemma3Attention": ("gemma3_text", "Attention", (
        "shape", "q_proj", "k_proj", "v_proj", "reshape", "n_heads", "transpose", "n_kv_heads", "q_norm", "k_norm",
        "rope", "offset", "update_and_fetch", "scaled_dot_product_attention", "scale", "o_proj")),
    "Gemma3MLP": ("gemma3_text", "MLP", ("down_proj", "nn", "gelu_approx", "gate_proj", "up_proj")),
    "Gemma3Block": ("gemma3_text", "TransformerBlock", (
        "self_attn", "input_layernorm", "clip_residual", "post_attention_layernorm", "mlp",
        "pre_feedforward_layernorm", "post_feedforward_layernorm")),
    "Gemma3Model": ("gemma3_text", "Gemma3Model", (
        "embed_tokens", "mx", "array", "args", "hidden_size", "bfloat16", "astype", "dtype", "len", "layers",
        "create_attention_mask", "sliding_window_pattern", "window_size", "enumerate", "zip", "norm")),
}  # fmt: skip

# file -> others, whose classes it has word for word
REPEATED = {"qwen2_moe": ("phi3",), "qwen3_moe": ("qwen2", "qwen3"), "mixtral": ("qwen3",)}

originals: dict[str, Any] = {}  # kind -> __call__ as MLX-LM wrote it, of the files that are loaded
replacements: dict[str, Any] = {}  # kind -> what stands in its place


def remember() -> None:
    """Note the code of the known classes whose files are loaded by now, and of those that these repeat."""
    for file, others in REPEATED.items():
        for other in others if f"mlx_lm.models.{file}" in sys.modules else ():
            import_module(f"mlx_lm.models.{other}")
    for name, (module, cls, _) in NAMES.items():
        home = sys.modules.get(f"mlx_lm.models.{module}")
        if home and name not in originals:
            originals[name] = getattr(home, cls).__call__


def kind(function: Any) -> str | None:
    """Which of the known classes a __call__ belongs to by its code, or None."""
    for name, fused in replacements.items():
        if function is fused:
            return name
    code = getattr(function, "__code__", None)
    for name, original in originals.items():
        known = original.__code__
        if code is None or not code.co_names == NAMES[name][2] == known.co_names:
            continue
        if (code.co_code, code.co_consts) == (known.co_code, known.co_consts):
            return name
    return None


def layer_parts(block: Any) -> dict[str, Any] | None:
    """What ext.DecoderLayers takes for a block, but for its rope; None where it has no such form."""
    attention, mlp = block.self_attn, block.get("mlp") or block.block_sparse_moe
    ways = kind(type(block).__call__), kind(type(attention).__call__)
    projections, feeds = _attention_linears(attention, ways[1]), feed_forward(mlp)
    norms = NORMS.get(ways[0] or "", _no_norms)(block, ways[1])
    if projections is None or feeds is None or norms is None:
        return None
    linears = [*projections, *feeds[0]]
    updates = [_update(linear) for linear in linears]
    linears = [linear.linear if update else linear for linear, update in zip(linears, updates, strict=True)]
    if not all(map(_is_affine, linears)):
        return None
    return {
        "linears": [_matrix(x) for x in linears],
        "biases": [x.get("bias") for x in linears],
        "updates": updates,
        "norms": norms,
        "activation": activation(mlp),
        "experts": feeds[1],
        "heads": attention.num_heads if ways[1] == "MixtralAttention" else attention.n_heads,
        "kv_heads": attention.num_key_value_heads if ways[1] == "MixtralAttention" else attention.n_kv_heads,
        "scale": attention.scale,
    }


# ---------------------------------------------------------------- linear layers: q, k, v, o, gate, up, down


def _attention_linears(attention: Any, way: str | None) -> list[Any] | None:
    if way in ("Attention", "Qwen3Attention", "OlmoeAttention", "Gemma3Attention", "MixtralAttention"):
        return [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    if way == "Phi3Attention" and _is_affine(attention.qkv_proj):
        rows = [n * attention.head_dim for n in (attention.n_heads, attention.n_kv_heads, attention.n_kv_heads)]
        return [*_rows_of(attention.qkv_proj, rows), attention.o_proj]
    return None


def feed_forward(mlp: Any) -> tuple[list[Any], Experts | None] | None:
    """gate, up and down, and what a mixture of experts has besides; None where it has no such form."""
    way = kind(type(mlp).__call__)
    if way in ("MLP", "Gemma3MLP"):
        return [mlp.gate_proj, mlp.up_proj, mlp.down_proj], None
    if way == "Phi3MLP" and _is_affine(mlp.gate_up_proj):
        half = mlp.gate_up_proj.weight.shape[0] // 2
        return [*_rows_of(mlp.gate_up_proj, [half, half]), mlp.down_proj], None
    return mixture(mlp)


def activation(mlp: Any) -> str:
    """Of a feed-forward block that feed_forward() knows."""
    return "gelu_approx" if kind(type(mlp).__call__) == "Gemma3MLP" else "silu"


def _rows_of(linear: Any, counts: list[int]) -> list[Any]:
    """A quantised layer's output in parts, each a layer of its own over the same memory."""
    import mlx.nn as nn

    parts, start = [], 0
    for count in counts:
        part = nn.QuantizedLinear.__new__(nn.QuantizedLinear)
        nn.Module.__init__(part)
        part.group_size, part.bits, part.mode = linear.group_size, linear.bits, linear.mode
        for name in ("weight", "scales", "biases", "bias"):
            if name in linear:
                part[name] = linear[name][start : start + count]
        parts.append(part)
        start += count
    return parts


def _update(linear: Any) -> tuple[mx.array, mx.array, float] | None:
    """(a, b, scale) of an adapter's layer that adds no more than that: x W + scale (x a) b."""
    if type(linear).__name__ != "LoRALinear" or linear.gain is not None:
        return None
    return linear.lora_a, linear.lora_b, linear.scale


def _is_affine(linear: Any) -> bool:
    return type(linear).__name__ in ("QuantizedLinear", "QuantizedSwitchLinear") and linear.mode == "affine"


def _matrix(linear: Any) -> Matrix:
    sizes = (linear.group_size, linear.bits) if "scales" in linear else (0, 0)
    return (linear.weight, linear.get("scales"), linear.get("biases"), *sizes)


def plain_matrices(linears: list[Any]) -> list[Matrix] | None:
    """Of layers that are quantised and have no bias; None where one is another."""
    plain = all(_is_affine(linear) and "bias" not in linear for linear in linears)
    return [_matrix(linear) for linear in linears] if plain else None


# ---------------------------------------------------------------- mixtures of experts

# kind -> whether its experts are the least of what is negated, and whether there is one that every row sees
EXPERTS = {
    "Qwen3Experts": (False, False),
    "Qwen3NextExperts": (False, True),
    "Qwen2Experts": (True, True),
    "OlmoeExperts": (True, False),
    "MixtralExperts": (True, False),
}


def mixture(mlp: Any) -> tuple[list[Any], Experts] | None:
    """gate, up and down of all experts, and what ext.DecoderLayers takes as `experts`; None where they are no quantised
    SwiGLU, or a router is more than a matrix."""
    way = kind(type(mlp).__call__)
    if way not in EXPERTS or getattr(mlp, "sharding_group", None) is not None:
        return None
    least, shares = EXPERTS[way]
    linears, shared = _switched(mlp.switch_mlp), _shared(mlp) if shares else []
    if linears is None or shared is None or not _is_router(mlp.gate):
        return None
    used = mlp.num_experts_per_tok if way == "MixtralExperts" else mlp.top_k
    weighed = "used" if way == "MixtralExperts" else "normed" if getattr(mlp, "norm_topk_prob", False) else "all"
    return linears, (_matrix(mlp.gate), used, weighed, least, [_matrix(one) for one in shared])


def _switched(experts: Any) -> list[Any] | None:
    linears = [experts.gate_proj, experts.up_proj, experts.down_proj]
    known = kind(type(experts).__call__) == "SwitchGLU" and type(experts.activation).__name__ == "SwiGLU"
    return linears if known and all(kind(type(one).__call__) == "SwitchLinear" for one in linears) else None


def _shared(mlp: Any) -> list[Any] | None:
    """gate, up and down of the expert that every row sees, and what weighs it."""
    expert, router = mlp.shared_expert, mlp.shared_expert_gate
    linears = [expert.gate_proj, expert.up_proj, expert.down_proj]
    known = kind(type(expert).__call__) == "MLP" and plain_matrices(linears) is not None
    return [*linears, router] if known and _is_router(router) else None


def _is_router(linear: Any) -> bool:
    return (type(linear).__name__ == "Linear" or _is_affine(linear)) and "bias" not in linear


# ---------------------------------------------------------------- norms: before attention and the feed-forward block,
# of q and k, before both residuals


def _llama_norms(block: Any, attention: str | None) -> list[Norm | None] | None:
    norms = [block.input_layernorm, block.post_attention_layernorm]
    if attention in ("Qwen3Attention", "OlmoeAttention"):
        norms += [block.self_attn.q_norm, block.self_attn.k_norm]
    if any(type(norm).__name__ != "RMSNorm" for norm in norms) or attention == "Gemma3Attention":
        return None
    found: list[Norm | None] = [(norm.weight, norm.eps) for norm in norms]
    return found + [None] * (6 - len(found))


def _gemma_norms(block: Any, attention: str | None) -> list[Norm | None] | None:
    """Gemma's weights are what is added to one."""
    if attention != "Gemma3Attention":
        return None
    norms = [block.input_layernorm, block.pre_feedforward_layernorm, block.self_attn.q_norm, block.self_attn.k_norm]
    norms += [block.post_attention_layernorm, block.post_feedforward_layernorm]
    return [(1.0 + norm.weight, norm.eps) for norm in norms]


def _no_norms(block: Any, attention: str | None) -> None:
    return None


NORMS: dict[str, Callable[[Any, str | None], list[Norm | None] | None]] = {
    "TransformerBlock": _llama_norms,
    "MixtralBlock": _llama_norms,
    "OlmoeBlock": _llama_norms,
    "Gemma3Block": _gemma_norms,
}
