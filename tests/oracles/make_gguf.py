"""Make gguf/*.json: what llama.cpp's conversion makes of tiny checkpoints: metadata, and names, shapes and CRC-32 of
tensors in float32. With checkpoints of its own for architectures whose settings GGUF cannot all hold.

Run: python make_gguf.py LLAMA_CPP [NAME ...] (a checkout of llama.cpp; needs what make_architectures.py does)
"""

import json
import os
import sys
import tempfile
from binascii import crc32
from pathlib import Path

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [sys.argv[1], os.path.join(sys.argv[1], "gguf-py"), HERE, os.path.dirname(HERE), os.path.dirname(os.path.dirname(HERE))]
import gguf  # noqa: E402
import make_architectures as made  # noqa: E402
import numpy as np  # noqa: E402
import seeded  # noqa: E402
import torch  # noqa: E402
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from toast.store.gguf import Gguf  # noqa: E402

AS_THEY_ARE = (
    "cohere", "deepseek_v2", "deepseek_v3", "ernie4_5", "exaone4", "glm4", "glm4_moe", "gpt_oss", "granite",
    "granitemoe", "granitemoehybrid", "minimax_m2", "exaone_moe", "hunyuan_v1_dense", "lfm2", "lfm2_moe", "llama", "llama-linear", "llama-rope3", "llama-yarn",
    "nemotron", "olmo2", "olmo3", "olmoe", "phi3", "qwen2-off", "qwen3_5_text", "qwen3_next", "seed_oss", "stablelm",
)  # fmt: skip
HEADS, SIZES, THETA, EXPERTS, LINEAR = made.HEADS, made.SIZES, made.THETA, made.EXPERTS, made.LINEAR
PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
FULL = {"sliding_window": None}
GEMMA4 = HEADS | {"num_hidden_layers": 6, "layer_types": ["sliding_attention", "full_attention"] * 3,
                  "sliding_window": 16, "global_head_dim": 16, "vocab_size_per_layer_input": 64}  # fmt: skip
OWN = {
    "gemma": ("gemma", HEADS | PLAIN),
    "gemma2": ("gemma2", HEADS | PLAIN | made.SLIDING | {"query_pre_attn_scalar": 8}),
    "gemma3_text": ("gemma3_text", HEADS | made.SLIDING | {"num_hidden_layers": 6, "query_pre_attn_scalar": 8,
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 90000.0},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}}}),
    "gemma4_text": ("gemma4_text", GEMMA4 | {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8,
        "use_double_wide_mlp": True}),
    "gemma4_text-moe": ("gemma4_text", GEMMA4 | {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0,
        "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16,
        "attention_k_eq_v": True, "num_global_key_value_heads": 1, "use_double_wide_mlp": False}),
    "mistral": ("mistral", HEADS | FULL | THETA),
    "mixtral": ("mixtral", HEADS | FULL | THETA | {"num_local_experts": 4}),
    "qwen3": ("qwen3", HEADS | THETA | {"use_sliding_window": False}),
    "qwen2_moe": ("qwen2_moe", SIZES | THETA | EXPERTS | {"use_sliding_window": False,
        "shared_expert_intermediate_size": 16}),
    "qwen3_moe": ("qwen3_moe", HEADS | THETA | EXPERTS | {"use_sliding_window": False, "norm_topk_prob": True}),
    "qwen3_5_moe_text": ("qwen3_5_moe_text", HEADS | LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16}),
    "smollm3": ("smollm3", SIZES | THETA | {"use_sliding_window": False}),
    "ministral3": ("ministral3", HEADS | FULL | {"rope_parameters": made.YARN | {"llama_4_scaling_beta": 0.1,
        "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32.0, "beta_slow": 1.0}}),
    "glm": ("glm", HEADS | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5}}),
    "cohere2": ("cohere2", HEADS | made.SLIDING | THETA | {"logit_scale": 0.25, "rotary_pct": 1.0}),
    "starcoder2": ("starcoder2", SIZES | FULL | THETA),
    "dots1": ("dots1", SIZES | THETA | {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1,
        "layer_types": ["full_attention"] * 4}),
    "llama4_text": ("llama4_text", HEADS | {"intermediate_size_mlp": 48, "intermediate_size": 16,
        "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "attention_chunk_size": 8192,
        "use_qk_norm": False, "attn_temperature_tuning": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}}),
}  # fmt: skip


def checkpoint(name):
    """An architecture's fixture, as make_architectures.py makes it."""
    if name in OWN:
        made.MODELS[name] = OWN[name]
        here, made.HERE = made.HERE, tempfile.mkdtemp()
        os.mkdir(os.path.join(made.HERE, "architectures"))
        made.make(name)
        folder, made.HERE = made.HERE, here
    else:
        folder = HERE
    with open(os.path.join(folder, "architectures", f"{name}.json"), encoding="utf-8") as file:
        return json.load(file)


def converted(fixture, out):
    """The GGUF file that llama.cpp makes of a checkpoint, without a vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(fixture["config"], file)
        tensors = seeded.tensors(fixture["tensors"])
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, os.path.join(folder, "model.safetensors"))
        with open(os.path.join(folder, "tokenizer.json"), "w") as file:  # whose words Gemma's conversion counts
            json.dump({"model": {"vocab": {str(i): i for i in range(made.VOCAB)}}, "added_tokens": []}, file)
        with torch.inference_mode():
            settings = ModelBase.load_hparams(Path(folder), False)
            kind = get_model_class(get_model_architecture(settings, ModelType.TEXT))
            kind.set_vocab = lambda self: None
            kind.no_mtp = getattr(kind, "supports_mtp_export", False)
            model = kind(Path(folder), gguf.LlamaFileType.ALL_F32, Path(out))
            if hasattr(model, "impl"):
                type(model.impl).set_vocab = lambda self: None
            model.write()
    return Gguf(out)


def main(name):
    fixture = checkpoint(name)
    with tempfile.TemporaryDirectory() as folder:
        file = converted(fixture, os.path.join(folder, "m.gguf"))
        tensors = {}
        for key, tensor in sorted(file.tensors.items()):
            assert tensor.type == "F32", key
            tensors[key] = [list(tensor.shape), crc32(file.read(tensor.start, tensor.nbytes))]
    arch = file.metadata["general.architecture"]
    metadata = {key: x for key, x in file.metadata.items() if key.startswith((f"{arch}.", "general.architecture"))}
    held = {"metadata": metadata, "gguf": tensors} | (fixture if name in OWN else {})
    with open(os.path.join(HERE, "gguf", f"{name}.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(held, separators=(",", ":")) + "\n")


os.makedirs(os.path.join(HERE, "gguf"), exist_ok=True)
for name in sys.argv[2:] or [*AS_THEY_ARE, *OWN]:
    try:
        main(name)
        print(name)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
