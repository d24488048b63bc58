"""Make encoders/*.json: a tiny checkpoint of each encoder as its makers save it, and the token states that they compute
for a short text and for one beyond every window.

Run: python make_encoders.py [NAME ...] (needs torch, transformers and numpy; the version is in each file).
Weights are not kept: they follow from the tensors' names (../seeded.py).
"""

import copy
import json
import os
import sys
import tempfile

import torch
import transformers
from make_architectures import HEADS, LLAMA3, SIZES, THETA, VOCAB, WINDOW
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, T5EncoderModel

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import seeded  # noqa: E402

LENGTHS = 10, 44  # tokens of the texts: within the window and beyond it
SLIDING = {"sliding_window": WINDOW}
MIXED = SLIDING | {"layer_types": ["sliding_attention", "full_attention"] * 2}
BERT = {name: SIZES[name] for name in SIZES if name != "num_key_value_heads"}
T5 = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4,
      "relative_attention_num_buckets": 16, "relative_attention_max_distance": 24, "pad_token_id": 0}  # fmt: skip

# file name -> (model type, settings)
MODELS = {
    "gemma3_text": ("gemma3_text", HEADS | MIXED | {"query_pre_attn_scalar": 8, "use_bidirectional_attention": True,
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 90000.0},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}}}),
    "gemma3_text-causal": ("gemma3_text", HEADS | MIXED | {"query_pre_attn_scalar": 8, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 90000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}}}),
    "qwen3": ("qwen3", HEADS | THETA),
    "qwen3-windows": ("qwen3", HEADS | SLIDING | THETA | {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen2": ("qwen2", SIZES | THETA | SLIDING | {"use_sliding_window": True, "max_window_layers": 2}),
    "llama": ("llama", SIZES | {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", HEADS | SLIDING | THETA),
    "eurobert": ("eurobert", SIZES | THETA),
    "gte": ("gte", BERT | THETA | {"type_vocab_size": 2}),
    "nomic_bert": ("nomic_bert", BERT | THETA | {"type_vocab_size": 2}),
    "lfm2": ("lfm2", SIZES | THETA | {"layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3,
        "block_multiple_of": 8}),
    "t5": ("t5", T5),
    "t5-gated": ("t5", T5 | {"feed_forward_proj": "gated-gelu"}),
}  # fmt: skip
LABELS = {"gte", "qwen3"}  # also as classifiers


def filled(model, folder):
    """Save a model with seeded weights; its tensors' names and shapes."""
    model.save_pretrained(folder)
    file = os.path.join(folder, "model.safetensors")
    with safe_open(file, "pt") as tensors:
        shapes = {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    values = {name: torch.from_numpy(array.copy()) for name, array in seeded.tensors(shapes).items()}
    save_file(values, file, metadata={"format": "pt"})
    return shapes


def loaded(folder, kind):
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def run(model, length, *, typed):
    """{"ids", "types", "states" of three positions, "mean" of all, or "logits"}."""
    ids = [(7 * i * i + 3 * i + length) % (VOCAB - 8) + 8 for i in range(length)]
    given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, length, dtype=torch.int64)}
    types = [int(i > length // 2) for i in range(length)] if typed else None
    if typed:
        given["token_type_ids"] = torch.tensor([types])
    found = model(**given)
    if hasattr(found, "logits"):
        return {"ids": ids, "types": types, "logits": rounded(found.logits[0])}
    states = found.last_hidden_state[0]
    some = [rounded(states[at]) for at in (0, length // 2, length - 1)]
    return {"ids": ids, "types": types, "states": some, "mean": rounded(states.mean(dim=0))}


def rounded(row):
    return [round(x, 6) for x in row.tolist()]


def make(name, *, labels=False):
    kind, settings = MODELS[name]
    config = AutoConfig.for_model(kind, **copy.deepcopy(settings), **({"num_labels": 3} if labels else {}))
    auto = AutoModelForSequenceClassification if labels else T5EncoderModel if kind == "t5" else AutoModel
    model = auto(config) if kind == "t5" else auto.from_config(config, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        shapes = filled(model, folder)
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            written = json.load(file)
        typed = getattr(config, "type_vocab_size", 0) == 2
        runs = [run(loaded(folder, auto), length, typed=typed) for length in LENGTHS]
    made = {"transformers": transformers.__version__, "config": written, "tensors": shapes, "runs": runs}
    with open(os.path.join(HERE, "encoders", f"{name}{'-labels' * labels}.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    os.makedirs(os.path.join(HERE, "encoders"), exist_ok=True)
    for name in sys.argv[1:] or MODELS:
        make(name)
        if name in LABELS:
            make(name, labels=True)
        print(name)
