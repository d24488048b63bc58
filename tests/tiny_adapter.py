"""Makes a tiny Llama, quantised or not, adapters of it in both layouts, and the same change merged into its weights."""

import json
import os
import shutil

import mlx.core as mx
import numpy as np

from toast.generation import decoder

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
LLAMA = os.path.join(ORACLES, "llama-causal")
WORDS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
D, F, V = 64, 128, 660
SHAPES = {
    "self_attn.q_proj": (D, D), "self_attn.k_proj": (32, D), "self_attn.v_proj": (32, D), "self_attn.o_proj": (D, D),
    "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F),
}  # fmt: skip
LAYERS = [f"model.layers.{i}.{name}" for i in range(2) for name in SHAPES]


def shape_of(layer):
    return SHAPES.get(layer.split(".", 3)[-1], (V, D))


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file)


def llama(folder, bits=None, **more):
    """A model folder of seeded weights; bits: quantised in groups of 32."""
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    with open(os.path.join(LLAMA, "config.json"), encoding="utf-8") as file:
        config = json.load(file) | {"intermediate_size": F} | more
    module = decoder.architecture("", config)
    mx.random.seed(3)
    model = module.Model(module.ModelArgs.from_dict(config))
    if bits:
        nn.quantize(model, 32, bits)
        config["quantization"] = {"group_size": 32, "bits": bits}
    os.makedirs(folder)
    for name in (*WORDS, "generation_config.json"):
        shutil.copy(os.path.join(LLAMA, name), folder)
    write_json(folder, "config.json", config)
    mx.save_safetensors(os.path.join(folder, "model.safetensors"), dict(tree_flatten(model.parameters())))
    return str(folder)


class Change:
    """Low-rank matrices a (r, in), b (out, r) of some layers; their scale; for DoRA, a magnitude of each output."""

    def __init__(self, layers=LAYERS, rank=4, scale=2.0, dora=False, seed=5):
        rng = np.random.default_rng(seed)
        self.rank, self.scale, self.dora = rank, scale, dora
        self.parts = {}
        for layer in layers:
            out, into = shape_of(layer)
            a, b, m = rng.normal(0, 0.3, (rank, into)), rng.normal(0, 0.3, (out, rank)), rng.uniform(0.5, 2, out)
            self.parts[layer] = tuple(mx.array(x.astype(np.float32)) for x in (a, b, m))

    def mlx(self, folder, base, **more):
        os.makedirs(folder)
        tensors = {}
        for layer, (a, b, m) in self.parts.items():
            tensors |= {f"{layer}.lora_a": mx.contiguous(a.T), f"{layer}.lora_b": mx.contiguous(b.T)}
            if self.dora:
                tensors[f"{layer}.m"] = m
        mx.save_safetensors(os.path.join(folder, "adapters.safetensors"), tensors)
        parameters = {"rank": self.rank, "scale": self.scale, "dropout": 0.0}
        kind = "dora" if self.dora else "lora"
        config = {"fine_tune_type": kind, "model": str(base), "num_layers": 2, "lora_parameters": parameters}
        write_json(folder, "adapter_config.json", config | more)
        return str(folder)

    def peft(self, folder, base, **more):
        os.makedirs(folder)
        tensors = {}
        for layer, (a, b, m) in self.parts.items():
            name = f"base_model.model.{layer}"
            tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
            if self.dora:
                tensors[f"{name}.lora_magnitude_vector"] = m
        mx.save_safetensors(os.path.join(folder, "adapter_model.safetensors"), tensors)
        config = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": self.rank,
            "lora_alpha": self.scale * self.rank, "use_dora": self.dora, "bias": "none", "rank_pattern": {},
            "alpha_pattern": {}, "init_lora_weights": True, "fan_in_fan_out": False, "modules_to_save": None,
        }  # fmt: skip
        write_json(folder, "adapter_config.json", config | more)
        return str(folder)

    def merged(self, base):
        """The base's model, loaded, with float weights that hold the change."""
        import mlx.nn as nn

        model, _ = decoder.load(base)
        for name, module in list(model.named_modules()):
            if name not in self.parts:
                continue
            weight = module.weight
            if "scales" in module:
                weight = mx.dequantize(weight, module.scales, module.biases, group_size=32, bits=module.bits)
            a, b, m = self.parts[name]
            weight = weight + self.scale * (b @ a)
            if self.dora:
                weight = weight * (m / mx.linalg.norm(weight, axis=1))[:, None]
            plain = nn.Linear(1, 1, bias=False)
            plain.weight = weight
            parent = model
            *before, last = name.split(".")
            for part in before:
                parent = parent[int(part)] if isinstance(parent, list) else parent[part]
            parent[last] = plain
        return model
