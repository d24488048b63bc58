"""A GGUF file's settings by name: which of them have the same numbers as transformers' under another name.

Owns the names that both sides have for a setting, and for an architecture.
"""

from __future__ import annotations

from toast.errors import BadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.store.gguf import Gguf

    Config = dict[str, Any]

# general.architecture -> model_type
MODEL_TYPES = {
    "llama": "llama", "qwen2": "qwen2", "qwen2moe": "qwen2_moe", "qwen3": "qwen3", "qwen3moe": "qwen3_moe",
    "qwen3next": "qwen3_next", "qwen35": "qwen3_5_text", "qwen35moe": "qwen3_5_moe_text", "gemma": "gemma",
    "gemma2": "gemma2", "gemma3": "gemma3_text", "gemma4": "gemma4_text", "phi3": "phi3", "gpt-oss": "gpt_oss",
    "granite": "granite", "granitemoe": "granitemoe", "lfm2": "lfm2", "lfm2moe": "lfm2_moe",
    "deepseek2": "deepseek_v2", "glm4": "glm4", "glm4moe": "glm4_moe", "smollm3": "smollm3", "mistral3": "ministral3",
    "llama4": "llama4", "olmo2": "olmo2", "olmoe": "olmoe", "starcoder2": "starcoder2", "stablelm": "stablelm",
    "command-r": "cohere", "ernie4_5": "ernie4_5", "exaone4": "exaone4", "hunyuan-dense": "hunyuan_v1_dense",
    "nemotron": "nemotron", "seed_oss": "seed_oss", "dots1": "dots1", "granitehybrid": "granitemoehybrid",
    "cohere2": "cohere2", "minimax-m2": "minimax_m2", "exaone-moe": "exaone_moe", "chatglm": "glm",
    "ernie4_5-moe": "ernie4_5_moe",
}  # fmt: skip

ENCODERS = {"bert": "bert"}  # the same of models that embed texts
SIGMOID = 2  # of expert_gating_func

# ours -> theirs
COMMON = {
    "hidden_size": "embedding_length", "num_hidden_layers": "block_count", "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "max_position_embeddings": "context_length", "rope_theta": "rope.freq_base",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}  # fmt: skip
EXPERTS = {
    "num_experts": "expert_count", "num_experts_per_tok": "expert_used_count", "n_group": "expert_group_count",
    "moe_intermediate_size": "expert_feed_forward_length", "topk_group": "expert_group_used_count",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "first_k_dense_replace": "leading_dense_block_count", "n_shared_experts": "expert_shared_count",
    "routed_scaling_factor": "expert_weights_scale", "norm_topk_prob": "expert_weights_norm",
}  # fmt: skip
SCALES = {
    "attention_multiplier": "attention.scale", "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale", "logits_scaling": "logit_scale",
}  # fmt: skip
LINEAR = {
    "linear_conv_kernel_dim": "ssm.conv_kernel", "linear_key_head_dim": "ssm.state_size",
    "linear_num_key_heads": "ssm.group_count", "linear_num_value_heads": "ssm.time_step_rank",
}  # fmt: skip
NEITHER = "rope.scaling.type", "attention.sliding_window_pattern", "attention.recurrent_layers"


class Metadata:
    """One architecture's settings of a file, by the part of their keys after its name."""

    def __init__(self, file: Gguf) -> None:
        self.file, self.arch = file, file.metadata.get("general.architecture")

    def __call__(self, key: str, default: Any = None) -> Any:
        """A number; where every layer has one of its own, those of all."""
        value = self.file.metadata.get(f"{self.arch}.{key}", default)
        numbers = value if isinstance(value, list) else [value]
        if key not in NEITHER and not all(isinstance(x, (int, float)) for x in numbers if x is not None):
            raise TypeError(f"{self.arch}.{key} is {value!r:.40}, not a number")
        return value

    def one(self, key: str, default: Any = None) -> Any:
        """A number; the largest where every layer has its own."""
        value = self(key, default)
        return max(value) if isinstance(value, list) and value else value

    def named(self, names: dict[str, str]) -> Config:
        """Those that are there, under our names."""
        found = {ours: self.one(theirs) for ours, theirs in names.items()}
        return {ours: value for ours, value in found.items() if value is not None}

    def has(self, tensor: str) -> bool:
        return tensor in self.file.tensors

    def factors(self, tensor: str) -> list[float]:
        from toast.store import ggml  # and numpy

        return ggml.numbers(self.file.tensors[tensor]).tolist()


def model_type(file: Gguf) -> str:
    """MLX-LM's name of what a file holds; BadModel where it has none."""
    meta = Metadata(file)
    if meta.arch == "llama" and meta("expert_count"):
        return "mixtral"
    if meta.arch == "deepseek2" and (
        meta("expert_gating_func") == SIGMOID
        or meta.has(f"blk.{meta('leading_dense_block_count', 0)}.exp_probs_b.bias")
    ):
        return "deepseek_v3"
    if meta.arch == "olmo2" and meta("attention.sliding_window"):
        return "olmo3"
    if meta.arch in ENCODERS:
        return ENCODERS[meta.arch]
    if meta.arch not in MODEL_TYPES:
        raise BadModel(f"architecture {meta.arch!r} is not supported from GGUF",
                       hint="use the model's safetensors or MLX form")  # fmt: skip
    return MODEL_TYPES[meta.arch]
