"""config.json as a GGUF file's metadata: `gguf_config.py` and `particulars.py` the other way round.

Owns what llama.cpp wants said of an architecture. Source: llama.cpp's conversion.
"""

from __future__ import annotations

from math import log, pi, sqrt

from toast.errors import BadModel
from toast.store.gguf_config import divisor
from toast.store.metadata import COMMON, EXPERTS, LINEAR, MODEL_TYPES, SCALES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]

ARCHITECTURES = {kind: arch for arch, kind in MODEL_TYPES.items()} | {
    "mistral": "llama", "mixtral": "llama", "deepseek_v3": "deepseek2", "glm4_moe_lite": "deepseek2",
    "olmo3": "olmo2", "qwen3_5": "qwen35", "qwen3_5_moe": "qwen35moe", "gemma3": "gemma3", "gemma4": "gemma4",
    "mistral3": "mistral3", "llama4_text": "llama4",
}  # fmt: skip
# what a configuration calls its experts, if not as EXPERTS has it
OTHER = {"expert_count": ("num_local_experts", "n_routed_experts"), "leading_dense_block_count": ("num_dense_layers",)}
LAYER_NORM = {"stablelm", "starcoder2", "cohere", "cohere2", "nemotron"}  # whose norms have means
TURNED = {
    "llama",
    "mistral",
    "mixtral",
    "granite",
    "granitemoe",
    "granitemoehybrid",
    "smollm3",
    "ministral3",
    "llama4",
    "cohere2",
}
CHOOSE = {"glm4_moe": 2, "lfm2_moe": 2, "deepseek_v3": 2, "glm4_moe_lite": 2, "deepseek_v2": 1}  # expert_gating_func


def metadata(config: Config) -> Config:
    """The settings of a normalised configuration of a language model, under llama.cpp's keys; BadModel."""
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise BadModel(f"model type {kind!r} is not one that is written as GGUF")
    arch = ARCHITECTURES[kind]
    found = _common(kind, config) | _experts(config) | _rope(config)
    found |= PARTICULARS.get(kind.removesuffix("_text"), _nothing)(config)
    keys = {f"{arch}.{key}": value for key, value in found.items() if value is not None}
    return {"general.architecture": arch} | keys


def _common(kind: str, config: Config) -> Config:
    found = {theirs: config.get(ours) for ours, theirs in COMMON.items()}
    heads = config.get("num_attention_heads", 1)
    size = config.get("head_dim") or config["hidden_size"] // heads
    eps = next((config[name] for name in ("layer_norm_eps", "norm_epsilon", "norm_eps") if name in config), None)
    if kind in LAYER_NORM:
        found |= {"attention.layer_norm_rms_epsilon": None, "attention.layer_norm_epsilon": eps}
    partial = config.get("partial_rotary_factor", 1.0 if kind.removesuffix("_text") in TURNED else None)
    return found | {
        "attention.layer_norm_rms_epsilon": found["attention.layer_norm_rms_epsilon"] or (
            None if kind in LAYER_NORM else eps),
        "attention.head_count_kv": config.get("num_key_value_heads", heads), "attention.value_length": size,
        "attention.key_length": size, "vocab_size": config.get("vocab_size"),
        "rope.dimension_count": None if partial is None else int(size * partial),
    }  # fmt: skip


def _experts(config: Config) -> Config:
    if not any(config.get(name) for name in ("num_experts", *OTHER["expert_count"])):
        return {}
    found = {theirs: config.get(ours) for ours, theirs in EXPERTS.items()}
    for theirs, names in OTHER.items():
        found[theirs] = found[theirs] or next((config[name] for name in names if name in config), None)
    return found | {"expert_gating_func": CHOOSE.get(str(config.get("model_type")))}


def _rope(config: Config) -> Config:
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type")
    if kind not in ("linear", "yarn"):
        return {}
    names = {"factor": "factor", "original_context_length": "original_max_position_embeddings",
             "yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow",
             "yarn_attn_factor": "attention_factor"}  # fmt: skip
    found = {f"rope.scaling.{theirs}": scaling.get(ours) for theirs, ours in names.items()}
    return found | {"rope.scaling.type": kind}


def factors(config: Config) -> dict[str, list[float]]:
    """Tensors that a GGUF file keeps of how positions are scaled: name -> numbers."""
    scaling = config.get("rope_scaling") or {}
    kind, size = (
        scaling.get("rope_type"),
        config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
    )
    if kind == "llama3":
        waves = [2 * pi * config.get("rope_theta", 10000.0) ** (2 * i / size) for i in range(size // 2)]
        return {"rope_freqs.weight": [divisor(wave, scaling) for wave in waves]}
    if kind in ("longrope", "su"):
        return {f"rope_factors_{n}.weight": scaling[f"{n}_factor"] for n in ("long", "short")}
    full = (config.get("rope_parameters") or {}).get("full_attention", {})
    if full.get("rope_type") == "proportional":
        half = config["global_head_dim"] // 2
        turned = int(config["global_head_dim"] * full["partial_rotary_factor"] / 2)
        return {"rope_freqs.weight": [1.0] * turned + [1e30] * (half - turned)}
    return {}


# ---------------------------------------------------------------- single architectures


def _nothing(config: Config) -> Config:
    return {}


def _scaled(config: Config) -> Config:
    return {theirs: float(config[ours]) for ours, theirs in SCALES.items() if ours in config}


def _sliding(config: Config) -> list[bool]:
    return [kind == "sliding_attention" for kind in config["layer_types"]]


def _window(config: Config) -> Config:
    return {"attention.sliding_window": config.get("sliding_window")}


def _windows(config: Config) -> Config:
    return _window(config) | {"attention.sliding_window_pattern": _sliding(config)}


def _gemma2(config: Config) -> Config:
    return _window(config) | {"attn_logit_softcapping": config.get("attn_logit_softcapping", 50.0),
                              "final_logit_softcapping": config.get("final_logit_softcapping", 30.0)}  # fmt: skip


def _gemma3(config: Config) -> Config:
    return _window(config) | {"rope.freq_base_swa": config.get("rope_local_base_freq", 10000.0)}


def _gemma4(config: Config) -> Config:
    layers, shared = config["num_hidden_layers"], config.get("num_kv_shared_layers", 0)
    rope, wide = config["rope_parameters"], config.get("use_double_wide_mlp")
    one, other = config["num_key_value_heads"], config.get("num_global_key_value_heads")
    sliding, full, size = _sliding(config), config["global_head_dim"], config["head_dim"]
    fed = config["intermediate_size"]
    return _windows(config) | {
        "attention.shared_kv_layers": shared,
        "embedding_length_per_layer_input": config.get("hidden_size_per_layer_input") or 0,
        "attention.key_length": full, "attention.value_length": full, "attention.key_length_swa": size,
        "attention.value_length_swa": size, "rope.dimension_count": full, "rope.dimension_count_swa": size,
        "attention.head_count_kv": [one if s else other for s in sliding] if other else one,
        "feed_forward_length": [fed if i < layers - shared else 2 * fed for i in range(layers)] if wide else fed,
        "final_logit_softcapping": config.get("final_logit_softcapping"),
        "rope.freq_base": rope["full_attention"]["rope_theta"], "expert_used_count": config.get("top_k_experts"),
        "rope.freq_base_swa": rope["sliding_attention"]["rope_theta"],
    }  # fmt: skip


def _phi3(config: Config) -> Config:
    scaling, context = config.get("rope_scaling") or {}, int(config["max_position_embeddings"])
    original = int(config.get("original_max_position_embeddings") or context)
    size = config["hidden_size"] // config["num_attention_heads"]
    found = {"rope.dimension_count": int(size * config.get("partial_rotary_factor", 1.0)),
             "rope.scaling.original_context_length": original, "attention.key_length": None,
             "attention.value_length": None, "attention.sliding_window": config.get("sliding_window") or 0}  # fmt: skip
    if scaling.get("rope_type") in ("longrope", "su"):
        scale = context / original
        found["rope.scaling.attn_factor"] = sqrt(1 + log(scale) / log(original)) if scale > 1 else 1.0
    return found


def _gpt_oss(config: Config) -> Config:
    return _window(config) | {"expert_feed_forward_length": config["intermediate_size"]}


def _linear(config: Config) -> Config:
    found: Config = {theirs: config[ours] for ours, theirs in LINEAR.items()}
    size = int(config["head_dim"] * config.get("partial_rotary_factor", 0.25))
    found |= {"ssm.inner_size": config["linear_value_head_dim"] * config["linear_num_value_heads"],
              "full_attention_interval": config.get("full_attention_interval", 4),
              "rope.dimension_count": size, "norm_topk_prob": None, "expert_weights_norm": None}  # fmt: skip
    if isinstance(config.get("layer_types"), list):
        found["attention.recurrent_layers"] = [kind == "linear_attention" for kind in config["layer_types"]]
    return found


def _qwen35(config: Config) -> Config:
    sections = (config.get("rope_parameters") or {}).get("mrope_section", [11, 11, 10])
    return _linear(config) | {"rope.dimension_sections": [*sections, 0, 0, 0, 0][:4]}


def _lfm2(config: Config) -> Config:
    heads = config["num_key_value_heads"]
    kinds = config.get("layer_types") or [
        "full_attention" if i in config["full_attn_idxs"] else "conv" for i in range(config["num_hidden_layers"])
    ]
    fed = config.get("block_ff_dim") or config["intermediate_size"]
    if config.get("block_auto_adjust_ff_dim"):
        multiple = config["block_multiple_of"]
        fed = int(config.get("block_ffn_dim_multiplier", 1.0) * int(2 * fed / 3))
        fed = -(-fed // multiple) * multiple
    return {
        "attention.head_count_kv": [heads if kind == "full_attention" else 0 for kind in kinds],
        "feed_forward_length": fed,
        "attention.layer_norm_rms_epsilon": config["norm_eps"], "shortconv.l_cache": config["conv_L_cache"],
        "attention.key_length": None, "attention.value_length": None, "rope.dimension_count": None,
    }  # fmt: skip


def _latent(config: Config) -> Config:
    turned, rank = config["qk_rope_head_dim"], config["kv_lora_rank"]
    every = (config.get("rope_scaling") or {}).get("mscale_all_dim")
    return {
        "attention.head_count_kv": 1, "attention.q_lora_rank": config.get("q_lora_rank"),
        "attention.kv_lora_rank": rank, "attention.key_length": rank + turned, "attention.value_length": rank,
        "attention.key_length_mla": config["qk_nope_head_dim"] + turned,
        "attention.value_length_mla": config["v_head_dim"], "rope.dimension_count": turned,
        "expert_weights_norm": config.get("norm_topk_prob") or None,
        "expert_shared_count": config.get("n_shared_experts") or 0,
        "rope.scaling.yarn_log_multiplier": 0.1 * every if every else None,
    }  # fmt: skip


def _stablelm(config: Config) -> Config:
    return {"use_parallel_residual": bool(config.get("use_parallel_residual")), "attention.key_length": None,
            "attention.value_length": None}  # fmt: skip


def _ministral3(config: Config) -> Config:
    rope = config["rope_parameters"]
    return {"rope.scaling.yarn_log_multiplier": rope.get("mscale_all_dim", 1.0),
            "attention.temperature_scale": rope.get("llama_4_scaling_beta", 0.0)}  # fmt: skip


def _llama4(config: Config) -> Config:
    return {"feed_forward_length": config["intermediate_size_mlp"],
            "expert_feed_forward_length": config["intermediate_size"],
            "interleave_moe_layer_step": config["interleave_moe_layer_step"]}  # fmt: skip


def _cohere(config: Config) -> Config:
    return {"logit_scale": float(config.get("logit_scale", 1.0))}


def _exaone_moe(config: Config) -> Config:
    shared = config.get("num_shared_experts", 0)
    return _windows(config) | {"expert_shared_count": shared,
                               "expert_shared_feed_forward_length": shared * config["moe_intermediate_size"],
                               "leading_dense_block_count": config["is_moe_layer"].index(True)}  # fmt: skip


def _granite_hybrid(config: Config) -> Config:
    heads, kv = config.get("mamba_n_heads"), config["num_key_value_heads"]
    inner = heads * config["mamba_d_head"] if heads else None
    experts = config.get("num_local_experts") or 0
    return _scaled(config) | {
        "attention.head_count_kv": [kv if kind == "attention" else 0 for kind in config["layer_types"]],
        "expert_count": experts, "expert_used_count": experts and config.get("num_experts_per_tok", 0),
        "expert_shared_feed_forward_length": config.get("shared_intermediate_size"),
        "rope.scaling.finetuned": config.get("position_embedding_type") != "nope",
        "ssm.conv_kernel": config.get("mamba_d_conv"), "ssm.state_size": config.get("mamba_d_state"),
        "ssm.group_count": config.get("mamba_n_groups"), "ssm.inner_size": inner, "ssm.time_step_rank": heads,
    }  # fmt: skip


PARTICULARS: dict[str, Callable[[Config], Config]] = {
    "granite": _scaled, "granitemoe": _scaled, "gemma2": _gemma2, "gemma3": _gemma3, "gemma4": _gemma4,
    "phi3": _phi3, "gpt_oss": _gpt_oss, "qwen3_next": _linear, "qwen3_5": _qwen35, "qwen3_5_moe": _qwen35,
    "lfm2": _lfm2, "lfm2_moe": _lfm2, "deepseek_v2": _latent, "deepseek_v3": _latent, "glm4_moe_lite": _latent,
    "stablelm": _stablelm, "cohere": _cohere,
    "cohere2": lambda config: _cohere(config) | _window(config), "exaone_moe": _exaone_moe,
    "granitemoehybrid": _granite_hybrid,
    "minimax_m2": lambda config: {"expert_feed_forward_length": config["intermediate_size"]},
    "ministral3": _ministral3, "llama4": _llama4, "olmo3": _windows, "exaone4": _windows,
}  # fmt: skip
