"""GGUF's architectures as MLX-LM's: names of tensors and of settings, in tables that are read both ways.

Owns which architecture has which. How rows are sorted is `layout.py`'s; what differs from one file to another,
`gguf_config.py`'s. Source: llama.cpp's conversion and tensor names.
"""

from __future__ import annotations

import numpy as np

from toast.store import layout
from toast.store.layout import Rule, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from numpy import ndarray

    Names = dict[str, str]

# theirs: after blk.N., ours: after model.layers.N.
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
ATTENTION = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
}  # fmt: skip
MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
DENSE = NORMS | ATTENTION | MLP
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
AFTER = {"post_attention_norm": "post_attention_layernorm"}  # what some call ffn_norm


PARTS = "gate", "up", "down"


def experts(into: str = "mlp.switch_mlp", gate: str = "mlp.gate", shared: str = "mlp.shared_expert") -> Names:
    """Experts, what chooses among them, and those that see every token."""
    chosen = {f"ffn_{part}_exps": f"{into}.{part}_proj" for part in PARTS}
    always = {f"ffn_{part}_shexp": f"{shared}.{part}_proj" for part in PARTS}
    return chosen | always | {"ffn_gate_inp": gate}


def without(names: Names, *gone: str) -> Names:
    return {name: ours for name, ours in names.items() if name not in gone}


def table(names: Names, *rules: Rule, top: Names = TOP, root: str = "model") -> Table:
    """Names of layers, of the rest, and rules for tensors that are more than renamed."""
    place = "" if root == "model" else root.removesuffix("model")
    layers = [Rule(f"blk.{{}}.{theirs}", f"{root}.layers.{{}}.{ours}") for theirs, ours in names.items()]
    return Table([*(Rule(theirs, place + ours) for theirs, ours in top.items()), *layers, *rules])


def layer(theirs: str | tuple[str, ...], ours: str | tuple[str, ...], **how: object) -> Rule:
    """A rule for a tensor of every layer."""
    each = (theirs,) if isinstance(theirs, str) else theirs
    our = (ours,) if isinstance(ours, str) else ours
    names = tuple(f"blk.{{}}.{name}" for name in each), tuple(f"model.layers.{{}}.{name}" for name in our)
    return Rule(*names, **how)  # type: ignore[arg-type]


# ---------------------------------------------------------------- rules

TURNED = (
    layer("attn_q", "self_attn.q_proj", rows=layout.halves_of("num_attention_heads")),
    layer("attn_k", "self_attn.k_proj", rows=layout.halves_of("num_key_value_heads")),
)
BIAS = layer("exp_probs_b.bias", "mlp.gate.e_score_correction_bias")
SHARED_GATE = layer(
    "ffn_gate_inp_shexp", "mlp.shared_expert_gate", back=lambda config, w: w.reshape(1, -1), to=lambda config, w: w
)


def less_one(theirs: str, ours: str, *, template: str = "blk.{}.", root: str = "model.layers.{}.") -> Rule:
    """Norms whose weight transformers adds 1 to."""
    names = f"{template}{theirs}.weight", f"{root}{ours}.weight"
    return Rule(*names, back=lambda config, w: w - 1, to=lambda config, w: w + 1)


def norms_less_one(names: Names) -> list[Rule]:
    return [less_one("output_norm", "model.norm", template="", root=""), *(less_one(*pair) for pair in names.items())]


def _log(config: object, a: ndarray) -> ndarray:
    return np.log(-a)


def _exp(config: object, a: ndarray) -> ndarray:
    return -np.exp(a)


def convolution(theirs: str, ours: str, rows: object = None) -> Rule:
    """(channels, width) as MLX has it, (channels, width, 1)."""
    return layer(theirs, ours, rows=rows, back=lambda config, w: w[..., None], to=lambda config, w: w[..., 0])


LINEAR_NORMS = {"ssm_norm": "linear_attn.norm", "ssm_out": "linear_attn.out_proj"}
DELTA = (
    layer("ssm_a", "linear_attn.A_log", back=_log, to=_exp),
    layer("ssm_dt.bias", "linear_attn.dt_bias"),
    convolution("ssm_conv1d", "linear_attn.conv1d"),
    layer(
        ("attn_qkv", "attn_gate"),
        "linear_attn.in_proj_qkvz",
        rows=layout.query_key_value_gate,
        lines=layout.query_key_value_gate_lines,
    ),
    layer("ssm_ba", "linear_attn.in_proj_ba"),
)
DELTA35 = (
    layer("ssm_a", "linear_attn.A_log", rows=layout.value_heads, back=_log, to=_exp),
    layer("ssm_dt.bias", "linear_attn.dt_bias", rows=layout.value_heads),
    convolution("ssm_conv1d", "linear_attn.conv1d", rows=layout.keys_and_value_heads),
    layer("attn_qkv", "linear_attn.in_proj_qkv", rows=layout.keys_and_value_heads),
    layer("attn_gate", "linear_attn.in_proj_z", rows=layout.value_heads),
    layer("ssm_alpha", "linear_attn.in_proj_a", rows=layout.value_heads),
    layer("ssm_beta", "linear_attn.in_proj_b", rows=layout.value_heads),
    layer("ssm_out", "linear_attn.out_proj", blocks=layout.value_head_columns),
)


def _joined_kv(config: dict[str, int], k: ndarray, v: ndarray) -> ndarray:
    """(heads, rank, nope) and (heads, v, rank) -> (heads * (nope + v), rank)."""
    return np.concatenate([k.swapaxes(1, 2), v], axis=1).reshape(-1, k.shape[1])


def _split_kv(config: dict[str, int], kv: ndarray) -> tuple[ndarray, ndarray]:
    heads = kv.reshape(config["num_attention_heads"], -1, kv.shape[-1])
    nope = config["qk_nope_head_dim"]
    return heads[:, :nope].swapaxes(1, 2), heads[:, nope:]


LATENT = {
    "attn_q_a": "self_attn.q_a_proj", "attn_q_b": "self_attn.q_b_proj", "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa", "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
}  # fmt: skip
DEEPSEEK = NORMS | without(ATTENTION, "attn_k", "attn_v") | LATENT | MLP | experts(shared="mlp.shared_experts")
SPARSE = "block_sparse_moe"
GEMMA = DENSE | {
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
ALL_NORMS = {name: ours for name, ours in GEMMA.items() if "norm" in name}
GEMMA4 = GEMMA | {
    "post_ffw_norm_1": "post_feedforward_layernorm_1", "post_ffw_norm_2": "post_feedforward_layernorm_2",
    "pre_ffw_norm_2": "pre_feedforward_layernorm_2", "ffn_gate_inp": "router.proj", "inp_gate": "per_layer_input_gate",
    "ffn_down_exps": "experts.switch_glu.down_proj", "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
}  # fmt: skip
GEMMA4_TOP = TOP | {
    "per_layer_token_embd": "model.embed_tokens_per_layer", "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
}  # fmt: skip
FUSED = NORMS | {"attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj",
                 "ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"}  # fmt: skip
GLM = NORMS | ATTENTION | {"ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"}
SHORT = {"shortconv.in_proj": "conv.in_proj", "shortconv.out_proj": "conv.out_proj"}
LFM2 = SHORT | {
    "attn_norm": "operator_norm", "ffn_norm": "ffn_norm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.out_proj", "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
}  # fmt: skip
LFM2_TOP = {"token_embd": "model.embed_tokens", "token_embd_norm": "model.embedding_norm"}
WEIGHTED = {"ffn_gate": "feed_forward.w1", "ffn_up": "feed_forward.w3", "ffn_down": "feed_forward.w2"}
FED = {"ffn_gate": "feed_forward.gate_proj", "ffn_up": "feed_forward.up_proj", "ffn_down": "feed_forward.down_proj"}
NEXT = NORMS | ATTENTION | AFTER | LINEAR_NORMS
LLAMA4 = NORMS | ATTENTION | FED | experts("feed_forward.experts", "feed_forward.router", "feed_forward.shared_expert")


def _gemma4_rules() -> list[Rule]:
    halves = ("experts.switch_glu.gate_proj", "experts.switch_glu.up_proj")
    return [
        layer("ffn_gate_up_exps", halves, rows=layout.parts_of_experts(2)),
        layer("ffn_gate_inp.scale", "router.scale"),
        layer("ffn_down_exps.scale", "router.per_expert_scale"),
        layer("layer_output_scale.weight", "layer_scalar"),
    ]


# model_type -> table
TABLES: dict[str, Table] = {
    "llama": table(DENSE, *TURNED),
    "mixtral": table(NORMS | ATTENTION | experts(f"{SPARSE}.switch_mlp", f"{SPARSE}.gate"), *TURNED),
    "smollm3": table(DENSE, *TURNED),
    "ministral3": table(DENSE, *TURNED),
    "granite": table(DENSE, *TURNED),
    "granitemoe": table(NORMS | ATTENTION | experts(f"{SPARSE}.switch_mlp", f"{SPARSE}.router.layer"), *TURNED),
    "qwen2": table(DENSE),
    "qwen3": table(DENSE),
    "seed_oss": table(DENSE | AFTER),
    "qwen2_moe": table(DENSE | experts(), SHARED_GATE),
    "qwen3_moe": table(DENSE | experts()),
    "qwen3_next": table(NEXT | MLP | experts(), SHARED_GATE, *DELTA),
    "qwen3_5_text": table(without(NEXT, "ssm_out") | MLP, *DELTA35),
    "qwen3_5_moe_text": table(without(NEXT, "ssm_out") | experts(), SHARED_GATE, *DELTA35),
    "gemma": table(DENSE, *norms_less_one(NORMS)),
    "gemma2": table(GEMMA, *norms_less_one(ALL_NORMS)),
    "gemma3_text": table(GEMMA, *norms_less_one(ALL_NORMS)),
    "gemma4_text": table(GEMMA4, *_gemma4_rules(), top=GEMMA4_TOP),
    "phi3": table(FUSED),
    "gpt_oss": table(NORMS | ATTENTION | AFTER | experts("mlp.experts", "mlp.router"),
                     layer("attn_sinks.weight", "self_attn.sinks")),
    "lfm2": table(LFM2 | WEIGHTED, convolution("shortconv.conv", "conv.conv"), top=LFM2_TOP),
    "lfm2_moe": table(LFM2 | FED | experts("feed_forward.switch_mlp", "feed_forward.gate"),
                      convolution("shortconv.conv", "conv.conv"),
                      layer("exp_probs_b.bias", "feed_forward.expert_bias"), top=LFM2_TOP),
    "deepseek_v2": table(DEEPSEEK, layer(("attn_k_b", "attn_v_b"), "self_attn.kv_b_proj", back=_joined_kv,
                                         to=_split_kv)),
    "deepseek_v3": table(DEEPSEEK | {"attn_k_b": "self_attn.embed_q", "attn_v_b": "self_attn.unembed_out"}, BIAS),
    "glm4": table(GLM | {"post_attention_norm": "post_self_attn_layernorm", "post_ffw_norm": "post_mlp_layernorm"}),
    "glm4_moe": table(DENSE | AFTER | experts(shared="mlp.shared_experts"), BIAS),
    "llama4": table(LLAMA4, root="language_model.model"),
    "olmo2": table(without(DENSE, "attn_norm", "ffn_norm") | AFTER | {"post_ffw_norm": "post_feedforward_layernorm"}),
    "olmoe": table(NORMS | ATTENTION | experts()),
    "starcoder2": table(NORMS | ATTENTION | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}),
    "stablelm": table(DENSE),
    "cohere": table(DENSE),
    "ernie4_5": table(DENSE),
    "exaone4": table(without(DENSE, "attn_norm", "ffn_norm") | AFTER | {"post_ffw_norm": "post_feedforward_layernorm"}),
    "hunyuan_v1_dense": table(DENSE | {"attn_q_norm": "self_attn.query_layernorm",
                                       "attn_k_norm": "self_attn.key_layernorm"}),
    "nemotron": table(without(DENSE, "ffn_gate"), *norms_less_one(NORMS)),
    "dots1": table(DENSE | experts("mlp.experts", shared="mlp.shared_experts"), BIAS),
}  # fmt: skip
MAMBA = (
    layer("ssm_a", "mamba.A_log", back=lambda config, a: np.log(-a).reshape(-1), to=lambda c, a: -np.exp(a)[:, None]),
    layer("ssm_d", "mamba.D", back=lambda config, d: d.reshape(-1), to=lambda config, d: d[:, None]),
    layer("ssm_dt.bias", "mamba.dt_bias"),
    layer("ssm_norm", "mamba.norm", back=lambda config, w: w.reshape(-1),
          to=lambda config, w: w.reshape(config["mamba_n_groups"], -1)),
    convolution("ssm_conv1d.weight", "mamba.conv1d.weight"),
    layer("ssm_conv1d.bias", "mamba.conv1d.bias"),
    layer(("ffn_gate_shexp", "ffn_up_shexp"), "shared_mlp.input_linear", rows=layout.one_after_the_other,
          lines=lambda config: [config["shared_intermediate_size"]] * 2),
)  # fmt: skip
TABLES |= {
    "granitemoehybrid": table(
        DENSE | {"ssm_in": "mamba.in_proj", "ssm_out": "mamba.out_proj", "ffn_down_shexp": "shared_mlp.output_linear"}
        | without(experts(f"{SPARSE}.switch_mlp", f"{SPARSE}.router.layer"), *(f"ffn_{n}_shexp" for n in PARTS)),
        *TURNED, *MAMBA),
    "cohere2": table(DENSE),
    "minimax_m2": table(NORMS | ATTENTION | experts(f"{SPARSE}.switch_mlp", f"{SPARSE}.gate"),
                        layer("exp_probs_b.bias", f"{SPARSE}.e_score_correction_bias")),
    "exaone_moe": table(DENSE | experts(shared="mlp.shared_experts"), BIAS),
    "glm": table(GLM),
    "ernie4_5_moe": table(DENSE | experts(shared="mlp.shared_experts"),
                          layer("exp_probs_b.bias", "mlp.gate.e_score_correction_bias",
                                back=lambda config, b: b.reshape(-1), to=lambda config, b: b[None])),
}  # fmt: skip

BERT = {
    "attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense", "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm",
}  # fmt: skip
BERT_TOP = {
    "token_embd": "embeddings.word_embeddings", "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings", "token_embd_norm": "embeddings.LayerNorm",
}  # fmt: skip
TABLES["bert"] = Table([
    *(Rule(*pair) for pair in BERT_TOP.items()),
    *(Rule(f"blk.{{}}.{theirs}", f"encoder.layer.{{}}.{ours}") for theirs, ours in BERT.items()),
])  # fmt: skip
TABLES["olmo3"] = TABLES["olmo2"]
