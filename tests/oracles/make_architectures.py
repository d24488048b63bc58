"""Make architectures/*.json: a tiny checkpoint of each decoder that transformers and MLX-LM know, as transformers
saves it, and the logits that transformers computes after a short prompt and one beyond every window.

Run: python make_architectures.py [NAME ...] (needs torch, transformers and numpy; the version is in each file).
Weights are not kept: they follow from the tensors' names (../seeded.py).
"""

import copy
import json
import os
import sys
import tempfile

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import seeded  # noqa: E402

VOCAB, WINDOW = 64, 16
LENGTHS = 10, 44  # tokens of the prompts: below the window and beyond it
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
HEADS = SIZES | {"head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
SLIDING = {"sliding_window": WINDOW}
MIXED = SLIDING | {"layer_types": ["sliding_attention", "full_attention"] * 2}
EVERY = SIZES | SLIDING
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32, "rope_theta": 20000.0}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 20000.0}
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
          "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
          "first_k_dense_replace": 1, "num_key_value_heads": 4}  # fmt: skip
INNER = {name: HEADS[name] for name in HEADS if not name.endswith("token_id")}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
          "layer_types": ["linear_attention", "full_attention"] * 2}  # fmt: skip

# file name -> (model type, settings)
MODELS = {
    "llama": ("llama", SIZES | THETA),
    "llama-rope3": ("llama", SIZES | {"rope_parameters": LLAMA3}),
    "llama-linear": ("llama", SIZES | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7e3}}),
    "llama-yarn": ("llama", SIZES | {"rope_parameters": YARN}),
    "mistral": ("mistral", HEADS | SLIDING | THETA),
    "mixtral": ("mixtral", HEADS | SLIDING | THETA | {"num_local_experts": 4}),
    "phi3": ("phi3", EVERY | THETA),
    "phi3-longrope": ("phi3", EVERY | {
        "original_max_position_embeddings": 32, "max_position_embeddings": 128, "rope_parameters": {
            "rope_type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 1.5, 2.0, 3.0],
            "rope_theta": 10000.0}}),
    "starcoder2": ("starcoder2", EVERY | THETA),
    "qwen2": ("qwen2", EVERY | THETA | {"use_sliding_window": True, "max_window_layers": 2}),
    "qwen2-off": ("qwen2", EVERY | THETA | {"use_sliding_window": False}),
    "qwen3": ("qwen3", HEADS | SLIDING | THETA | {"use_sliding_window": True, "max_window_layers": 1}),
    "gemma2": ("gemma2", HEADS | SLIDING | THETA),
    "ministral3": ("ministral3", HEADS | SLIDING | {"rope_parameters": YARN | {"llama_4_scaling_beta": 0.1,
        "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32.0, "beta_slow": 1.0}}),
    "qwen2_moe": ("qwen2_moe", EVERY | THETA | EXPERTS | MIXED | {"use_sliding_window": True,
        "shared_expert_intermediate_size": 16}),
    "qwen3_moe": ("qwen3_moe", HEADS | SLIDING | THETA | EXPERTS | {"use_sliding_window": True}),
    "phimoe": ("phimoe", EVERY | THETA | {"attention_bias": True, "lm_head_bias": True, "num_local_experts": 4}),
    "smollm3": ("smollm3", SIZES | THETA | MIXED | {"use_sliding_window": True, "no_rope_layers": [0, 1, 0, 1]}),
    "dots1": ("dots1", SIZES | THETA | MIXED | {"n_routed_experts": 4, "n_shared_experts": 1,
        "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_group": 2,
        "topk_group": 1}),
    "gemma": ("gemma", HEADS | THETA),
    "gemma3_text": ("gemma3_text", HEADS | MIXED | {"query_pre_attn_scalar": 8, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 90000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}}}),
    "phi": ("phi", SIZES | {"rope_parameters": {"rope_type": "default", "rope_theta": 7000.0,
        "partial_rotary_factor": 0.5}}),
    "gpt_neox": ("gpt_neox", SIZES | {"num_key_value_heads": 4, "intermediate_size": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 7000.0,
        "partial_rotary_factor": 0.5}}),
    "gpt2": ("gpt2", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128,
        "bos_token_id": 1, "eos_token_id": 2}),
    "gpt_bigcode": ("gpt_bigcode", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128,
        "bos_token_id": 1, "eos_token_id": 2}),
    "gptj": ("gptj", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128,
        "rotary_dim": 4, "bos_token_id": 1, "eos_token_id": 2}),
    "olmo2": ("olmo2", SIZES | THETA),
    "olmo3": ("olmo3", SIZES | MIXED | {"rope_parameters": {"full_attention": YARN | {"attention_factor": 1.1386},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0}}}),
    "olmoe": ("olmoe", SIZES | THETA | {"num_experts": 4, "num_experts_per_tok": 2}),
    "granite": ("granite", SIZES | THETA | {"embedding_multiplier": 2.0, "residual_multiplier": 0.5,
        "attention_multiplier": 0.4, "logits_scaling": 2.0}),
    "granitemoe": ("granitemoe", SIZES | THETA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "cohere": ("cohere", SIZES | THETA | {"logit_scale": 0.25}),
    "cohere2": ("cohere2", HEADS | MIXED | THETA | {"logit_scale": 0.25}),
    "glm": ("glm", HEADS | {"rope_parameters": {"rope_type": "default", "rope_theta": 7000.0,
        "partial_rotary_factor": 0.5}}),
    "glm4": ("glm4", HEADS | {"rope_parameters": {"rope_type": "default", "rope_theta": 7000.0,
        "partial_rotary_factor": 0.5}}),
    "glm4_moe": ("glm4_moe", HEADS | {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 7000.0, "partial_rotary_factor": 0.5}}),
    "deepseek_v2": ("deepseek_v2", SIZES | LATENT | {"n_group": 2, "topk_group": 1,
        "topk_method": "group_limited_greedy", "rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.7,
            "beta_fast": 32.0, "beta_slow": 1.0}}),
    "deepseek_v3": ("deepseek_v3", SIZES | LATENT | {"n_group": 2, "topk_group": 1} | THETA),
    "gpt_oss": ("gpt_oss", HEADS | MIXED | {"num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": {
        "rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 32, "rope_theta": 7000.0}}),
    "stablelm": ("stablelm", SIZES | {"rope_parameters": {"rope_type": "default", "rope_theta": 7000.0,
        "partial_rotary_factor": 0.25}}),
    "exaone4": ("exaone4", HEADS | MIXED | THETA),
    "apertus": ("apertus", SIZES | {"rope_parameters": LLAMA3}),
    "ernie4_5": ("ernie4_5", HEADS | THETA),
    "ernie4_5_moe": ("ernie4_5_moe", SIZES | THETA | {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16,
        "moe_layer_start_index": 1, "moe_num_shared_experts": 1}),
    "helium": ("helium", HEADS | THETA),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", HEADS | THETA),
    "nemotron": ("nemotron", SIZES | {"rope_parameters": {"rope_type": "default", "rope_theta": 7000.0,
        "partial_rotary_factor": 0.5}}),
    "seed_oss": ("seed_oss", HEADS | THETA),
    "lfm2": ("lfm2", SIZES | THETA | {"layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3,
        "block_multiple_of": 8}),
    "lfm2_moe": ("lfm2_moe", SIZES | THETA | EXPERTS | {"layer_types": ["conv", "full_attention"] * 2,
        "conv_L_cache": 3, "num_dense_layers": 1}),
    "qwen3_next": ("qwen3_next", HEADS | THETA | EXPERTS | {"linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"] * 2}),
    "mamba": ("mamba", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "gemma3": ("gemma3", {"mm_tokens_per_image": 4, "vision_config": VISION, "text_config": INNER | MIXED | {
        "query_pre_attn_scalar": 8, "model_type": "gemma3_text"}}),
    "qwen3_5_text": ("qwen3_5_text", HEADS | LINEAR),
    "granitemoehybrid": ("granitemoehybrid", SIZES | THETA | {"num_local_experts": 0, "num_experts_per_tok": 0,
        "shared_intermediate_size": 48, "layer_types": ["mamba", "attention"] * 2, "mamba_n_heads": 4,
        "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2, "mamba_chunk_size": 16}),
    "falcon_h1": ("falcon_h1", HEADS | THETA | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8,
        "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}),
    "mamba2": ("mamba2", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8,
        "num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1, "chunk_size": 16}),
    "falcon_mamba": ("falcon_mamba", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2,
        "state_size": 8}),
    "exaone_moe": ("exaone_moe", HEADS | MIXED | THETA | EXPERTS | {"num_shared_experts": 1, "n_group": 2,
        "topk_group": 1, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}),
    "afmoe": ("afmoe", HEADS | MIXED | THETA | EXPERTS | {"num_dense_layers": 1, "num_shared_experts": 1}),
    "glm4_moe_lite": ("glm4_moe_lite", SIZES | LATENT | THETA | {"n_group": 1, "topk_group": 1}),
    "laguna": ("laguna", HEADS | MIXED | EXPERTS),
    "nemotron_h": ("nemotron_h", HEADS | {"hybrid_override_pattern": "M-*-", "mamba_num_heads": 4,
        "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 16}),
    "jamba": ("jamba", SIZES | {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1,
        "expert_layer_period": 2, "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "num_experts": 4,
        "num_experts_per_tok": 2, "use_mamba_kernels": False}),
    "dbrx": ("dbrx", {"vocab_size": VOCAB, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 7000.0}, "rope_parameters": {"rope_type": "default", "rope_theta": 7000.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}),
    "recurrent_gemma": ("recurrent_gemma", HEADS | {"num_key_value_heads": 1, "lru_width": 32,
        "attention_window_size": WINDOW, "conv1d_width": 4, "block_types": ["recurrent", "attention"],
        "num_hidden_layers": 4}),
    "nanochat": ("nanochat", SIZES | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "solar_open": ("solar_open", HEADS | THETA | {"n_routed_experts": 4, "n_shared_experts": 1,
        "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 0, "n_group": 1,
        "topk_group": 1}),
    "mimo_v2_flash": ("mimo_v2_flash", HEADS | {"sliding_window": WINDOW, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "v_head_dim": 8, "swa_head_dim": 8, "swa_v_head_dim": 8,
        "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "n_group": 1, "topk_group": 1,
        "hybrid_layer_pattern": [0, 1, 1, 0], "layer_types": ["full_attention", "sliding_attention"] * 2,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "moe_layer_freq": [0, 1, 1, 1]}),
    "llama4_text": ("llama4_text", HEADS | THETA | {"intermediate_size_mlp": 48, "num_local_experts": 4,
        "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "attention_chunk_size": 16,
        "no_rope_layers": [1, 1, 1, 0], "use_qk_norm": True}),
    "gemma3n_text": ("gemma3n_text", HEADS | MIXED | {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 8, "laurel_rank": 8, "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [48] * 4}),
    "gemma4_text": ("gemma4_text", HEADS | MIXED | {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 8, "global_head_dim": 16}),
    "mistral4": ("mistral3", {"vision_config": VISION | {"model_type": "pixtral", "head_dim": 8}, "text_config": INNER | LATENT | {
        "head_dim": 16, "model_type": "mistral4", "n_group": 1, "topk_group": 1}}),
    "mistral3": ("mistral3", {"vision_config": VISION | {"model_type": "pixtral", "head_dim": 8}, "text_config": INNER | THETA | {
        "model_type": "mistral"}}),
    "qwen3_vl": ("qwen3_vl", {"vision_config": {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
        "out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}, "text_config": INNER | {
        "model_type": "qwen3_vl_text", "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0,
        "mrope_section": [2, 1, 1]}}}),
    "longcat_flash": ("longcat_flash", SIZES | LATENT | {"ffn_hidden_size": 48, "expert_ffn_hidden_size": 16,
        "moe_topk": 2, "zero_expert_num": 2, "num_layers": 2, "num_hidden_layers": 4,
        "head_dim": 8, "qk_head_dim": 16}),
    "minimax_m2": ("minimax_m2", HEADS | THETA | {"num_local_experts": 4, "num_experts_per_tok": 2,
        "rotary_dim": 8}),
}  # fmt: skip


SEEING = {"mistral3", "mistral4", "qwen3_vl"}  # that transformers has only with a part that sees


def auto(config):
    return AutoModelForImageTextToText if config.model_type in SEEING else AutoModelForCausalLM


def saved(config, folder):
    """Save a model of this configuration with seeded weights; its tensors' names and shapes."""
    model = auto(config).from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    file = os.path.join(folder, "model.safetensors")
    with safe_open(file, "pt") as tensors:
        shapes = {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    values = {name: torch.from_numpy(array.copy()) for name, array in seeded.tensors(shapes).items()}
    save_file(values, file, metadata={"format": "pt"})
    return shapes


def logits(folder, ids):
    """The last position's."""
    kind = auto(AutoConfig.from_pretrained(folder))
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0, -1].tolist()


def make(name):
    kind, settings = MODELS[name]
    config = AutoConfig.for_model(kind, **copy.deepcopy(settings))  # which changes what it is given
    with tempfile.TemporaryDirectory() as folder:
        shapes = saved(config, folder)
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            written = json.load(file)
        runs = []
        for length in LENGTHS:
            ids = [(7 * i * i + 3 * i + length) % (VOCAB - 8) + 8 for i in range(length)]
            runs.append({"ids": ids, "logits": [round(x, 6) for x in logits(folder, ids)]})
    made = {"transformers": transformers.__version__, "config": written, "tensors": shapes, "runs": runs}
    with open(os.path.join(HERE, "architectures", f"{name}.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        try:
            make(name)
            print(name)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
