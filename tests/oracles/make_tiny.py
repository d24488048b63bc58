"""Make the tiny-* fixtures: seeded random models in transformers and what they compute.

Run: python make_tiny.py (needs torch, transformers and sentence-transformers; the versions used are
in each oracle.json). Weights are much larger than trained ones, so that every part matters.
"""

import json
import os
import shutil

import numpy as np
import torch
import transformers
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    MPNetConfig,
    MPNetModel,
)

HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB = 120
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 64, "vocab_size": VOCAB, "max_position_embeddings": 64}
DEBERTA = {"relative_attention": True, "position_biased_input": False, "type_vocab_size": 0}
DEBERTA |= {"pooler_hidden_size": 32, "norm_rel_ebd": "layer_norm", "num_labels": 3}

MODELS = {
    "tiny-electra": (
        ElectraForSequenceClassification,
        ElectraConfig(**SIZES, embedding_size=16, num_labels=1),
    ),
    "tiny-distilbert": (
        DistilBertForSequenceClassification,
        DistilBertConfig(
            dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=VOCAB, num_labels=2,
            max_position_embeddings=64, sinusoidal_pos_embds=False,
        ),
    ),
    "tiny-mpnet": (MPNetModel, MPNetConfig(**SIZES | {"max_position_embeddings": 66})),
    "tiny-deberta-v3": (
        DebertaV2ForSequenceClassification,
        DebertaV2Config(
            **SIZES, **DEBERTA, share_att_key=True, pos_att_type=["p2c", "c2p"], position_buckets=8,
            max_relative_positions=-1,
        ),
    ),
    "tiny-deberta-v2-conv": (
        DebertaV2ForSequenceClassification,
        DebertaV2Config(
            **SIZES, **DEBERTA, share_att_key=False, pos_att_type=["p2c", "c2p"], position_buckets=-1,
            max_relative_positions=24, conv_kernel_size=3, conv_act="gelu",
        ),
    ),
    "tiny-modernbert": (
        ModernBertForSequenceClassification,
        ModernBertConfig(
            **SIZES | {"num_hidden_layers": 4}, local_attention=8, num_labels=2,
            classifier_pooling="mean", pad_token_id=0, bos_token_id=1, eos_token_id=2,
            cls_token_id=1, sep_token_id=2,
        ),
    ),
}


def fill(model, seed):
    """Random weights: matrices std 0.3, norm weights 1 + 0.25 z, biases std 0.15."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            z = torch.randn(p.shape, generator=generator)
            is_norm = p.ndim == 1 and name.endswith("weight")
            p.copy_(1 + 0.25 * z if is_norm else z * (0.3 if p.ndim > 1 else 0.15))


def inputs(seed):
    """Rows of ids of several lengths, and types that change within each row."""
    rng = np.random.default_rng(seed)
    ids = [[3, *rng.integers(4, VOCAB, n - 2).tolist(), 2] for n in (2, 9, 23, 60)]
    return ids, [[int(i > len(row) // 2) for i in range(len(row))] for row in ids]


def save(name, model, facts, arrays):
    path = os.path.join(HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(path)
    for extra in ("generation_config.json",):
        if os.path.exists(os.path.join(path, extra)):
            os.remove(os.path.join(path, extra))
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    with open(os.path.join(path, "oracle.json"), "w") as file:
        json.dump({**facts, "versions": versions}, file)
    np.savez_compressed(os.path.join(path, "oracle.npz"), **arrays)


@torch.no_grad()
def make(name, seed):
    kind, config = MODELS[name]
    config._attn_implementation = "eager"
    model = kind(config).eval()
    fill(model, seed)
    ids, types = inputs(seed)
    typed = getattr(config, "type_vocab_size", 0) == 2
    base = getattr(model, model.base_model_prefix, model)
    arrays, logits = {}, []
    for i, (row, kinds) in enumerate(zip(ids, types)):
        given = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=int)}
        if typed:
            given["token_type_ids"] = torch.tensor([kinds])
        arrays[f"hidden_{i}"] = base(**given).last_hidden_state[0].numpy()
        if base is not model:
            logits.append(model(**given).logits[0].numpy())
    if logits:
        arrays["logits"] = np.array(logits)
    tolerance = {"hidden": 2e-4, "logits": 2e-4}
    facts = {"kind": "tiny", "input_ids": ids, "token_type_ids": types if typed else None}
    save(name, model, facts | {"tolerance_max_abs": tolerance}, arrays)


if __name__ == "__main__":
    for seed, name in enumerate(MODELS):
        make(name, seed)
