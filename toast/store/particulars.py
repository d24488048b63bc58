"""What single architectures make of a GGUF file's metadata: settings of config.json that the common names do not give.

Owns no name of a tensor (`architectures.py`) and none that all share (`metadata.py`).
"""

from __future__ import annotations

from toast.store.metadata import LINEAR, SCALES, Metadata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]


def _partial(meta: Metadata, config: Config) -> float:
    return meta("rope.dimension_count", config["head_dim"]) / config["head_dim"]


def _scaled(meta: Metadata, config: Config) -> Config:
    return dict.fromkeys(SCALES, 1.0) | meta.named(SCALES)


def _qwen_moe(meta: Metadata, config: Config) -> Config:
    return {"norm_topk_prob": config["model_type"] != "qwen2_moe"}


def _gemma(meta: Metadata, config: Config) -> Config:
    scalar = config["head_dim"]
    if config["num_hidden_layers"] in (46, 62):  # the 27B of both generations divide by width / heads
        scalar = config["hidden_size"] // config["num_attention_heads"]
    return {"query_pre_attn_scalar": scalar, "sliding_window": meta("attention.sliding_window")}


def _gemma2(meta: Metadata, config: Config) -> Config:
    return _gemma(meta, config) | {"attn_logit_softcapping": meta("attn_logit_softcapping", 50.0),
                                   "final_logit_softcapping": meta("final_logit_softcapping", 30.0)}  # fmt: skip


def _gemma3(meta: Metadata, config: Config) -> Config:
    pattern = _kinds(meta)
    return _gemma(meta, config) | {"rope_local_base_freq": meta("rope.freq_base_swa", 10000.0), "layer_types": pattern,
                                   "sliding_window_pattern": 6 if pattern is None else None}  # fmt: skip


def _kinds(meta: Metadata) -> list[str] | None:
    """layer_types, where a file says which layers have a window."""
    pattern = meta("attention.sliding_window_pattern")
    if not isinstance(pattern, list):
        return None
    return ["sliding_attention" if sliding else "full_attention" for sliding in pattern]


def _gemma4(meta: Metadata, config: Config) -> Config:
    kinds, heads, fed = _kinds(meta), meta("attention.head_count_kv"), meta("feed_forward_length")
    if kinds is None:
        raise KeyError("gemma4.attention.sliding_window_pattern")
    full = kinds.index("full_attention")
    one, other = (heads[kinds.index("sliding_attention")], heads[full]) if isinstance(heads, list) else (heads, None)
    turned = meta.factors("rope_freqs.weight") if meta.has("rope_freqs.weight") else [1.0]
    partial = sum(factor < 1e10 for factor in turned) / len(turned)
    rope = {"full_attention": {"rope_type": "proportional", "partial_rotary_factor": partial,
                               "rope_theta": config["rope_theta"]},
            "sliding_attention": {"rope_type": "default",
                                  "rope_theta": meta("rope.freq_base_swa", 10000.0)}}  # fmt: skip
    experts = meta("expert_count")
    return {
        "layer_types": kinds, "sliding_window": meta("attention.sliding_window"), "rope_parameters": rope,
        "global_head_dim": config["head_dim"], "head_dim": meta("attention.key_length_swa", config["head_dim"]),
        "num_key_value_heads": one, "num_global_key_value_heads": other,
        "attention_k_eq_v": not meta.has(f"blk.{full}.attn_v.weight"),
        "num_kv_shared_layers": meta("attention.shared_kv_layers", 0),
        "hidden_size_per_layer_input": meta("embedding_length_per_layer_input", 0),
        "vocab_size_per_layer_input": config["vocab_size"],
        "intermediate_size": min(fed) if isinstance(fed, list) else fed,
        "use_double_wide_mlp": isinstance(fed, list) and max(fed) > min(fed),
        "final_logit_softcapping": meta("final_logit_softcapping"), "rope_theta": None,
        "enable_moe_block": bool(experts), "top_k_experts": meta("expert_used_count") if experts else None,
        "pad_token_id": 0,
    }  # fmt: skip


def _phi3(meta: Metadata, config: Config) -> Config:
    return {
        "partial_rotary_factor": _partial(meta, config),
        "sliding_window": meta("attention.sliding_window") or None,
        "original_max_position_embeddings": meta(
            "rope.scaling.original_context_length", config["max_position_embeddings"]
        ),
    }


def _gpt_oss(meta: Metadata, config: Config) -> Config:
    kinds = _kinds(meta) or ["sliding_attention", "full_attention"] * (config["num_hidden_layers"] // 2)
    return {"sliding_window": meta("attention.sliding_window"), "layer_types": kinds}


def _linear(meta: Metadata, config: Config) -> Config:
    found = meta.named(LINEAR)
    theta, partial = config["rope_theta"], _partial(meta, config)
    return found | {
        "linear_value_head_dim": meta("ssm.inner_size") // found["linear_num_value_heads"],
        "full_attention_interval": meta("full_attention_interval", 4),
        "layer_types": _recurrent(meta, config), "partial_rotary_factor": partial, "norm_topk_prob": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": partial},
        "num_hidden_layers": config["num_hidden_layers"] - meta("nextn_predict_layers", 0),
    }  # fmt: skip


def _recurrent(meta: Metadata, config: Config) -> list[str] | None:
    layers = meta("attention.recurrent_layers")
    if not isinstance(layers, list):
        return None
    return ["linear_attention" if recurrent else "full_attention" for recurrent in layers]


def _lfm2(meta: Metadata, config: Config) -> Config:
    heads = meta("attention.head_count_kv")
    heads = heads if isinstance(heads, list) else [heads] * config["num_hidden_layers"]
    return {
        "layer_types": ["full_attention" if n else "conv" for n in heads], "norm_eps": config["rms_norm_eps"],
        "conv_L_cache": meta("shortconv.l_cache"), "conv_bias": meta.has("blk.0.shortconv.conv.bias"),
        "block_dim": config["hidden_size"], "block_ff_dim": config["intermediate_size"], "block_multiple_of": 1,
        "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False, "tie_word_embeddings": True,
        "num_dense_layers": meta("leading_dense_block_count"), "norm_topk_prob": True,
        "use_expert_bias": any(name.endswith("exp_probs_b.bias") for name in meta.file.tensors),
    }  # fmt: skip


def _latent(meta: Metadata, config: Config) -> Config:
    """Multi-head latent attention."""
    turned, key = meta("rope.dimension_count"), meta("attention.key_length_mla", config["head_dim"])
    scaling = config.get("rope_scaling")
    if scaling:  # the logarithm's factor has the usual 0.1 in it
        every = meta("rope.scaling.yarn_log_multiplier", 0) * 10
        scaling |= {"mscale": every or 1.0, "mscale_all_dim": every}
    plain = {"type": "yarn", "factor": 1.0, "original_max_position_embeddings": config["max_position_embeddings"]}
    v2 = config["model_type"] == "deepseek_v2"
    return {
        "q_lora_rank": meta("attention.q_lora_rank"), "kv_lora_rank": meta("attention.kv_lora_rank"),
        "qk_rope_head_dim": turned, "qk_nope_head_dim": key - turned, "head_dim": None,
        "v_head_dim": meta("attention.value_length_mla", meta("attention.value_length")),
        "num_key_value_heads": config["num_attention_heads"], "rope_scaling": scaling or (plain if v2 else None),
        "norm_topk_prob": bool(meta("expert_weights_norm", 0)), "n_group": meta("expert_group_count", 1),
        "topk_group": meta("expert_group_used_count", 1), "routed_scaling_factor": meta("expert_weights_scale", 1.0),
        "topk_method": ("group_limited_greedy" if meta("expert_group_count", 1) > 1 else "greedy") if v2
        else "noaux_tc",
        "num_hidden_layers": config["num_hidden_layers"] - meta("nextn_predict_layers", 0),
        "n_shared_experts": meta("expert_shared_count") or None,
    }  # fmt: skip


def _glm4_moe(meta: Metadata, config: Config) -> Config:
    return {
        "use_qk_norm": meta.has("blk.0.attn_q_norm.weight"), "partial_rotary_factor": _partial(meta, config),
        "norm_topk_prob": bool(meta("expert_weights_norm", 1)), "n_group": meta("expert_group_count", 1),
        "topk_group": meta("expert_group_used_count", 1), "routed_scaling_factor": meta("expert_weights_scale", 1.0),
        "num_hidden_layers": config["num_hidden_layers"] - meta("nextn_predict_layers", 0),
    }  # fmt: skip


def _partly_turned(meta: Metadata, config: Config) -> Config:
    return {"partial_rotary_factor": _partial(meta, config), "layer_norm_eps": config["rms_norm_eps"],
            "norm_eps": config["rms_norm_eps"], "norm_epsilon": config["rms_norm_eps"]}  # fmt: skip


def _stablelm(meta: Metadata, config: Config) -> Config:
    return _partly_turned(meta, config) | {"use_parallel_residual": bool(meta("use_parallel_residual", 1)),
                                           "use_qkv_bias": config["attention_bias"]}  # fmt: skip


def _ministral3(meta: Metadata, config: Config) -> Config:
    scaling = config.get("rope_scaling") or {}
    every = meta("rope.scaling.yarn_log_multiplier", 1.0)
    return {"rope_parameters": scaling | {
        "rope_type": scaling.get("rope_type", "default"), "rope_theta": config["rope_theta"], "mscale": every,
        "mscale_all_dim": every, "llama_4_scaling_beta": meta("attention.temperature_scale", 0.0),
        "original_max_position_embeddings": scaling.get("original_max_position_embeddings",
                                                        config["max_position_embeddings"])}}  # fmt: skip


def _llama4(meta: Metadata, config: Config) -> Config:
    window = meta("attention.chunk_size", meta("attention.sliding_window", 8192))
    text = config | {
        "model_type": "llama4_text", "intermediate_size_mlp": config["intermediate_size"],
        "intermediate_size": meta("expert_feed_forward_length"), "attention_chunk_size": window or 8192,
        "interleave_moe_layer_step": meta("interleave_moe_layer_step", 1),
        "use_qk_norm": meta("expert_count") == 16,  # Scout's, not Maverick's
        "rope_scaling": config.get("rope_scaling") or {"type": "linear", "factor": 1.0},  # MLX-LM needs one
        "attn_temperature_tuning": 4, "floor_scale": 8192, "attn_scale": 0.1,
    }  # fmt: skip
    return {"text_config": text}


def _windowed(meta: Metadata, config: Config) -> Config:
    return {"layer_types": _kinds(meta), "sliding_window": meta("attention.sliding_window")}


def _dots1(meta: Metadata, config: Config) -> Config:
    return {"norm_topk_prob": bool(meta("expert_weights_norm", 0)), "scoring_func": "sigmoid"}


def _cohere(meta: Metadata, config: Config) -> Config:
    return {"logit_scale": meta("logit_scale"), "layer_norm_eps": config["rms_norm_eps"]}


def _nemotron(meta: Metadata, config: Config) -> Config:
    return _partly_turned(meta, config) | {"hidden_act": "relu2"}


def _ernie(meta: Metadata, config: Config) -> Config:
    return {"use_bias": config["attention_bias"]}


def _granite_hybrid(meta: Metadata, config: Config) -> Config:
    kinds = ["mamba" if meta.has(f"blk.{i}.ssm_in.weight") else "attention"
             for i in range(config["num_hidden_layers"])]  # fmt: skip
    heads = meta("ssm.time_step_rank")
    return _scaled(meta, config) | {
        "layer_types": kinds, "position_embedding_type": "rope" if meta("rope.scaling.finetuned", 1) else "nope",
        "num_key_value_heads": meta.one("attention.head_count_kv") or _kv_heads(meta, config),
        "shared_intermediate_size": meta("expert_shared_feed_forward_length"), "mamba_n_heads": heads,
        "num_local_experts": meta("expert_count", 0), "num_experts_per_tok": meta("expert_used_count", 0),
        "mamba_d_head": meta("ssm.inner_size") // heads if heads else None, "mamba_d_state": meta("ssm.state_size"),
        "mamba_d_conv": meta("ssm.conv_kernel"), "mamba_n_groups": meta("ssm.group_count"),
        "mamba_conv_bias": any(name.endswith("ssm_conv1d.bias") for name in meta.file.tensors),
        "mamba_proj_bias": any(name.endswith("ssm_in.bias") for name in meta.file.tensors),
    }  # fmt: skip


def _kv_heads(meta: Metadata, config: Config) -> int:
    """By the first layer that has any."""
    tensors = (tensor for name, tensor in meta.file.tensors.items() if name.endswith(".attn_k.weight"))
    return next((tensor.shape[0] // config["head_dim"] for tensor in tensors), 1)


def _cohere2(meta: Metadata, config: Config) -> Config:
    kinds = _kinds(meta)
    return _cohere(meta, config) | {"layer_types": kinds, "sliding_window": meta("attention.sliding_window"),
                                    "sliding_window_pattern": None if kinds else 4}  # fmt: skip


def _minimax(meta: Metadata, config: Config) -> Config:
    return {"intermediate_size": meta("expert_feed_forward_length"), "rotary_dim": meta("rope.dimension_count"),
            "use_qk_norm": meta.has("blk.0.attn_q_norm.weight"), "scoring_func": "sigmoid",
            "shared_intermediate_size": 0}  # fmt: skip


def _exaone_moe(meta: Metadata, config: Config) -> Config:
    first, layers = meta("leading_dense_block_count", 0), config["num_hidden_layers"]
    return _windowed(meta, config) | {
        "is_moe_layer": [i >= first for i in range(layers)], "num_shared_experts": meta("expert_shared_count", 0),
        "norm_topk_prob": bool(meta("expert_weights_norm", 1)), "n_group": meta("expert_group_count", 1),
        "topk_group": meta("expert_group_used_count", 1), "routed_scaling_factor": meta("expert_weights_scale", 1.0),
        "scoring_func": "sigmoid",
    }  # fmt: skip


def _ernie_moe(meta: Metadata, config: Config) -> Config:
    return _ernie(meta, config) | {
        "moe_num_experts": meta("expert_count"), "moe_k": meta("expert_used_count"),
        "moe_layer_start_index": meta("leading_dense_block_count", 0),
        "moe_layer_end_index": config["num_hidden_layers"] - 1, "moe_gate_act": "softmax", "moe_use_aux_free": True,
        "moe_layer_interval": meta("interleave_moe_layer_step", 1),
        "moe_num_shared_experts": meta("expert_shared_count", 0),
    }  # fmt: skip


def _bert(meta: Metadata, config: Config) -> Config:
    types = meta.file.tensors.get("token_types.weight")
    return {
        "architectures": ["BertModel"], "layer_norm_eps": config["rms_norm_eps"], "hidden_act": "gelu",
        "max_position_embeddings": meta.file.tensors["position_embd.weight"].shape[0],
        "type_vocab_size": types.shape[0] if types else 0, "position_embedding_type": "absolute",
    }  # fmt: skip


PARTICULARS: dict[str, Callable[[Metadata, Config], Config]] = {
    "granite": _scaled, "granitemoe": _scaled, "qwen2_moe": _qwen_moe, "qwen3_moe": _qwen_moe, "gemma2": _gemma2,
    "gemma3_text": _gemma3, "gemma4_text": _gemma4, "phi3": _phi3, "gpt_oss": _gpt_oss, "qwen3_next": _linear,
    "qwen3_5_text": _linear, "qwen3_5_moe_text": _linear, "lfm2": _lfm2, "lfm2_moe": _lfm2, "deepseek_v2": _latent,
    "deepseek_v3": _latent, "glm4": _partly_turned, "glm4_moe": _glm4_moe, "stablelm": _stablelm,
    "starcoder2": _partly_turned, "cohere": _cohere, "nemotron": _nemotron, "ministral3": _ministral3,
    "llama4": _llama4, "olmo3": _windowed, "exaone4": _windowed, "dots1": _dots1, "ernie4_5": _ernie, "bert": _bert,
    "granitemoehybrid": _granite_hybrid, "cohere2": _cohere2, "minimax_m2": _minimax, "exaone_moe": _exaone_moe,
    "glm": _partly_turned, "ernie4_5_moe": _ernie_moe,
}  # fmt: skip
