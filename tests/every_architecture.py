"""A tiny checkpoint of every text architecture that MLX-LM has: settings, seeded weights, a vocabulary of 64 tokens."""

import dataclasses
import json
import os

import mlx.core as mx
import seeded
from mlx.utils import tree_flatten
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from toast.generation import decoder
from toast.store.config import normalised

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "architectures")
CHARACTERS = 'abcdefghijklmnopqrstuvwxyz0123456789ĠĊ{}[]":,.-_!?()+*/=<>'
SPECIAL = ["<pad>", "<s>", "</s>"]
VOCAB = 64
# what an architecture's settings are called -> a small value; it takes those that it knows
COMMON = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    "tie_word_embeddings": True, "layer_norm_eps": 1e-5, "layer_norm_epsilon": 1e-5, "norm_eps": 1e-5, "n_embd": 32,
    "n_layer": 2, "n_head": 4, "n_positions": 256, "n_ctx": 256, "num_experts": 4, "num_local_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1,
    "num_shared_experts": 1, "shared_expert_intermediate_size": 16, "sliding_window": 8, "attention_bias": False,
    "mlp_bias": False, "partial_rotary_factor": 1.0, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "moe_layer_freq": 1, "routed_scaling_factor": 1.0, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "d_model": 32, "n_heads": 4,
    "n_layers": 2, "max_seq_len": 256, "conv_kernel": 4, "state_size": 8, "time_step_rank": 4, "use_bias": False,
    "use_conv_bias": True, "conv_L_cache": 3, "conv_bias": False, "norm_topk_prob": True, "hidden_act": "silu",
    "decoder_sparse_step": 1, "mlp_only_layers": [], "moe_topk": 2, "ffn_hidden_size": 48, "num_layers": 2,
    "expert_ffn_hidden_size": 16, "zero_expert_num": 2, "zero_expert_type": "identity", "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True, "attention_method": "MLA", "scoring_func": "sigmoid", "topk_method": "noaux_tc",
    "layer_group_size": 2, "group_norm_size": 2, "dim_model_base": 16, "scale_depth": 1.4, "scale_emb": 2.0,
    "index_head_dim": 16, "index_n_heads": 2, "index_topk": 8, "use_qk_norm": True, "score_function": "sigmoid",
}  # fmt: skip
MIXED = ["sliding_attention", "full_attention"]
ROPE = {"rope_theta": 1e4, "rope_type": "default"}
BY_KIND = {"sliding_attention": ROPE, "full_attention": ROPE}
LFM2 = {"block_dim": 32, "block_ff_dim": 48, "block_multiple_of": 8, "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention"]}  # fmt: skip
LLAMA4 = {"attention_chunk_size": 8, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 48, "rope_scaling": None,
          "num_experts_per_tok": 1}  # fmt: skip
LINEAR = {"kda_layers": [1], "full_attn_layers": [2], "num_heads": 4, "head_dim": 8, "short_conv_kernel_size": 4}
BLOCK = {"attention": {"n_heads_in_group": 2, "no_op": False, "replace_with_linear": False},
         "ffn": {"ffn_mult": 1.5, "no_op": False, "replace_with_linear": False}}  # fmt: skip
OLDER = {  # of wrappers: the settings of the language model inside
    "lfm2-vl": ("lfm2", LFM2), "llama4": ("llama4_text", LLAMA4 | {"num_hidden_layers": 4}),
    "mistral3": ("llama", {}), "pixtral": ("llama", {}),
    "qwen2_vl": ("qwen2", {}), "qwen3_vl": ("qwen3", {}), "qwen3_vl_moe": ("qwen3_moe", {"tie_word_embeddings": False}),
    "kimi_vl": ("deepseek_v3", {}), "kimi_k25": ("deepseek_v3", {}),
    "gemma4": ("gemma4_text", {"num_kv_shared_layers": 0}),
    "qwen3_5": ("qwen3_5_text", {"full_attention_interval": 2, "num_experts": 0}),
    "qwen3_5_moe": ("qwen3_5_moe_text", {"full_attention_interval": 2}),
    "minimax_m3_vl": ("minimax_m3", {"moe_layer_freq": [0, 1]}),
}  # fmt: skip
# file in MLX-LM -> what it wants beside or instead
MORE = {
    "afm7": {"hidden_dim": 32, "num_kv_reuse_layers": 1, "num_heads": 4, "num_kv_heads": 2},
    "dbrx": {"ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
             "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4}},
    "gemma4_text": {"num_kv_shared_layers": 0, "num_hidden_layers": 2, "layer_types": MIXED, "global_head_dim": 16,
                    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB},
    "hunyuan": {"rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 2.0}, "num_shared_expert": 1,
                "use_mixed_mlp_moe": True, "use_cla": False, "cla_share_factor": 2},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1, "expert_layer_period": 2,
              "mamba_d_conv": 4, "mamba_d_state": 8, "mamba_expand": 2},
    "kimi_k3": {"linear_attn_config": LINEAR, "hidden_act": "situ", "activation_situ_beta": 2.0,
                "num_experts_per_token": 2},
    "kimi_linear": {"linear_attn_config": LINEAR, "model_max_length": 256, "num_experts_per_token": 2},
    "lille-130m": {"block_size": 256, "n_kv_heads": 2, "n_embd": 96, "n_head": 4},
    "minicpm3": {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4,
                                  "original_max_position_embeddings": 256}},
    "mistral4": {"rope_parameters": ROPE | {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 64,
                                            "factor": 2.0, "type": "yarn", "mscale_all_dim": 1.0}},
    "plamo": {"num_attention_heads": 8}, "qwen": {"kv_channels": 8, "intermediate_size": 96},
    "baichuan_m1": {"conv_window": 2, "sliding_window_layers": [0], "tie_word_embeddings": False},
    "llama4_text": LLAMA4 | {"no_rope_layers": [1, 0]},
    "longcat_flash_ngram": {"ngram_vocab_size_ratio": 3, "emb_neighbor_num": 2, "emb_split_num": 2},
    "mellum": {"layer_types": MIXED, "rope_parameters": BY_KIND},
    "mimo_v2_flash": {"hybrid_layer_pattern": [1, 0], "moe_layer_freq": [0, 1], "add_swa_attention_sink_bias": True,
                      "add_full_attention_sink_bias": False, "sliding_window_size": 8, "layernorm_epsilon": 1e-5,
                      "swa_rope_theta": 1e4, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2,
                      "swa_head_dim": 8, "swa_v_head_dim": 8},
    "minimax": {"shared_intermediate_size": 0, "rotary_dim": 8},
    "bitnet": {"intermediate_size": 64}, "phixtral": {"num_vocab": VOCAB},
    "muse_spark": {"post_norm_eps": 1e-5, "rope_parameters": ROPE, "layer_rope_theta": [1e4, 0], "layer_types": MIXED,
                   "final_logit_softcapping": 30.0, "output_multiplier": 1.0, "moe_hidden_size": 32,
                   "num_shared_experts": 0},
    "nemotron-nas": {"block_configs": [BLOCK, BLOCK]},
    "olmo_hybrid": {"linear_allow_neg_eigval": True, "layer_types": ["linear_attention", "full_attention"]},
    "openelm": {"num_transformer_layers": 2, "model_dim": 32, "ffn_dim_divisor": 8, "num_query_heads": [4, 4],
                "num_kv_heads": [2, 2], "ffn_multipliers": [1.0, 2.0]},
    "phi3small": {"dense_attention_every_n_layers": 2, "ff_intermediate_size": 48, "gegelu_limit": 20.0,
                  "hidden_size": 64, "vocab_size": 100352},
    "glm_moe_dsa": {"rope_parameters": ROPE},
    "recurrent_gemma": {"conv1d_width": 4, "logits_soft_cap": 30.0, "attention_window_size": 8,
                        "block_types": ["recurrent", "attention"], "num_key_value_heads": 1},
    "rwkv7": {"a_low_rank_dim": 8, "v_low_rank_dim": 8, "gate_low_rank_dim": 8, "decay_low_rank_dim": 8},
    "spark2_5": {"layer_types": MIXED, "rope_parameters": BY_KIND, "hidden_act": "gelu"},
    "step3p5": {"num_attention_groups": 2, "layer_types": MIXED},
    "gemma3n": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": VOCAB, "layer_types": MIXED,
                "rope_local_base_freq": 1e4, "final_logit_softcapping": 30.0, "activation_sparsity_pattern": [0.0, 0.0],
                "hidden_size_per_layer_input": 8, "altup_num_inputs": 2, "altup_coef_clip": 120.0,
                "altup_correct_scale": True, "altup_active_idx": 0, "laurel_rank": 8},
}  # fmt: skip
NO_MODELS = {"__init__", "activations", "base", "bitlinear_layers", "cache", "gated_delta", "mla", "pipeline",
             "rope_utils", "ssm", "switch_layers"}  # fmt: skip


def names():
    """MLX-LM's files of architectures."""
    folder = decoder._parent().__path__[0]
    files = (name.removesuffix(".py") for name in os.listdir(os.path.join(folder, "models")) if name.endswith(".py"))
    return sorted(set(files) - NO_MODELS)


def fixture(name):
    """(configuration, tensors' shapes) of a checkpoint that transformers saved, if there is one."""
    try:
        with open(os.path.join(FIXTURES, f"{name}.json"), encoding="utf-8") as file:
            made = json.load(file)
    except FileNotFoundError:
        return None
    return made["config"], made["tensors"]


def settings(name):
    """config.json of the architecture in a file of MLX-LM."""
    module = decoder.architecture(".", {"model_type": name})
    known = {field.name for field in dataclasses.fields(module.ModelArgs)}
    more = MORE.get(name, {})
    if name in OLDER or "text_config" in known and name not in OLDER:
        kind, inside = OLDER.get(name, (f"{name}_text", {}))
        return {
            "model_type": name,
            "text_config": {"model_type": kind, **COMMON, **inside, **more},
            "vocab_size": VOCAB,
        }
    return {"model_type": name, **{key: value for key, value in COMMON.items() if key in known}, **more}


def save(name, folder):
    """Write the checkpoint."""
    made = fixture(name)
    if made is None:
        config = settings(name)
        module = decoder.architecture(".", config)
        model = module.Model(decoder._arguments(module, normalised(dict(config))))
        made = config, {key: array.shape for key, array in tree_flatten(model.parameters())}
    config, shapes = made
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | {"bos_token_id": 1, "eos_token_id": 2}))
    arrays = {key: mx.array(array) for key, array in seeded.tensors(shapes).items()}
    if name == "bitnet":
        arrays = {key: array if array.ndim < 2 or "embed" in key else mx.random.randint(0, 255, array.shape) % 3
                  for key, array in arrays.items()}  # fmt: skip
    mx.save_safetensors(str(folder / "model.safetensors"), packed(arrays))
    vocabulary().save(str(folder / "tokenizer.json"))


def packed(arrays):
    """Whole numbers as bytes: four of them in each, as BitNet has them."""
    return {key: (a * 85).astype(mx.uint8) if a.dtype == mx.int32 else a for key, a in arrays.items()}


def vocabulary():
    tokens = [*SPECIAL, *CHARACTERS]
    tokens += [f"<{i}>" for i in range(len(tokens), VOCAB)]
    found = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    found.pre_tokenizer, found.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    found.add_special_tokens([*SPECIAL, *(f"<{i}>" for i in range(len(SPECIAL) + len(CHARACTERS), VOCAB))])
    return found


# ---------------------------------------------------------------- docs/architectures.md

REFUSED = {  # as docs/design.md says
    "muse_spark": "its kernels are for Metal alone", "olmo": "its file needs the package `ai2-olmo`; OLMo 2 and 3 run",
    "prism_hadamard_qwen35": "packs of its author's own form",
}  # fmt: skip
HEAD = """# Architectures

What `toast` runs, and how that is tested; made by `python tests/every_architecture.py`, and held by a test.

Each text architecture of the pinned MLX-LM answers a prompt alone, many records (`--each`), from the prefix cache and
under a constraint: `tests/test_every_architecture.py` makes a tiny checkpoint of each, some in the usual run, all with
`make test-all`. It also holds that no token sees what follows, and that a text read in pieces gives the same logits.
**transformers**: logits within 2e-4 of transformers' in float32, below and beyond sliding windows, from a checkpoint
that transformers saved (`tests/test_architectures.py`). **--each**: records at once, where the caches of the model are
plain keys and values, or one by one. Vision and audio parts are left out.

| MLX-LM's file | transformers | `--each` |
|---|---|---|
"""
ENCODERS = """
`embed`, `rerank` and `classify` have encoders of their own, held to the token states or scores of transformers,
sentence-transformers, PyLate or model2vec (`tests/test_models.py`, `tests/test_encoders.py`), batch equal to single:

"""


def row(name):
    if name in REFUSED:
        return f"| {name} | refused: {REFUSED[name]} | |"
    return f"| {name} | {'yes' if held(name) else ''} | {'at once' if at_once(name) else 'one by one'} |"


def held(name):
    """Whether a checkpoint of transformers is run by this file."""
    made = (fixture(file.removesuffix(".json")) for file in os.listdir(FIXTURES))
    return any(decoder._file(normalised(dict(config))) == name for config, _ in made)


def at_once(name):
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from toast.each import batches

    with TemporaryDirectory() as folder:
        save(name, Path(folder) / name)
        model = decoder.load(os.path.join(folder, name))[0]
        return batches(model, decoder.caches(model))


def encoders():
    from toast import models

    lines = f"{', '.join(models.architectures())}."
    return ENCODERS + lines + "\n"


if __name__ == "__main__":
    print(HEAD + "\n".join(map(row, names())) + "\n" + encoders(), end="")
