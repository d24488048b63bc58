"""Make the tiny-* fixtures: seeded random models in transformers and what they compute.

Run: python make_tiny.py (needs torch, transformers and sentence-transformers; the versions used are
in each oracle.json). Weights are much larger than trained ones, so that every part matters.
"""

import json
import os
import shutil

import numpy as np
import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import MultiVectorEncoder
from transformers import (
    BertConfig,
    BertModel,
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
            **SIZES, **DEBERTA, share_att_key=False, pos_att_type=["p2c", "c2p"],
            position_buckets=-1, max_relative_positions=24, conv_kernel_size=3, conv_act="gelu",
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
        given = {"input_ids": torch.tensor([row])}
        given["attention_mask"] = torch.ones_like(given["input_ids"])
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


QUERY = "how do I sort a list in python?"
DOCUMENTS = ["Use the sorted function, or list.sort!", "The Eiffel Tower, Paris.", "", "a " * 90]


def tokenizer_with(path, first, second):
    """The WordPiece tokenizer of bert-embed-cls with two of its words renamed to the markers."""
    with open(os.path.join(HERE, "bert-embed-cls", "tokenizer.json")) as file:
        facts = json.load(file)
    vocab = facts["model"]["vocab"]
    words = sorted(vocab, key=vocab.get)
    for word, marker in zip(words[-2:], (first, second)):
        vocab[marker] = vocab.pop(word)
        added = {"id": vocab[marker], "content": marker}
        facts["added_tokens"].append(facts["added_tokens"][0] | added)
    with open(os.path.join(path, "tokenizer.json"), "w") as file:
        json.dump(facts, file)
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    special |= {"mask_token": "[MASK]", "unk_token": "[UNK]", "model_max_length": 64}
    write(path, "tokenizer_config.json", special | {"tokenizer_class": "PreTrainedTokenizerFast"})
    return len(vocab)


def write(path, name, facts):
    os.makedirs(os.path.dirname(os.path.join(path, name)), exist_ok=True)
    with open(os.path.join(path, name), "w") as file:
        json.dump(facts, file)


def backbone(path, seed, **more):
    """A BERT of 2 layers and a projection to 16 numbers: (state dict, projection)."""
    config = BertConfig(**SIZES | {"vocab_size": more.pop("vocab")}, **more)
    model = BertModel(config, add_pooling_layer=False).eval()
    fill(model, seed)
    config.save_pretrained(path)
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    return tensors, torch.randn(16, 32, generator=torch.Generator().manual_seed(seed + 100))


def colbert_stanford(path, seed):
    """colbertv2.0's layout: artifact.metadata, bert.* and linear.weight in one file."""
    vocab = tokenizer_with(path, "[unused0]", "[unused1]")
    tensors, projection = backbone(path, seed, vocab=vocab, architectures=["HF_ColBERT"])
    tensors = {f"bert.{k}": v for k, v in tensors.items()} | {"linear.weight": projection}
    save_file(tensors, os.path.join(path, "model.safetensors"), {"format": "pt"})
    facts = {"query_maxlen": 24, "doc_maxlen": 40, "attend_to_mask_tokens": False}
    facts |= {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "mask_punctuation": True}
    write(path, "artifact.metadata", facts)


def colbert_pylate(path, seed):
    """PyLate's layout: modules.json with 1_Dense, markers and lengths in the sentence config."""
    vocab = tokenizer_with(path, "[Q] ", "[D] ")
    tensors, projection = backbone(path, seed, vocab=vocab)
    save_file(tensors, os.path.join(path, "model.safetensors"), {"format": "pt"})
    os.makedirs(os.path.join(path, "1_Dense"))
    dense = os.path.join(path, "1_Dense", "model.safetensors")
    save_file({"linear.weight": projection}, dense, {"format": "pt"})
    identity = "torch.nn.modules.linear.Identity"
    facts = {"in_features": 32, "out_features": 16, "bias": False, "activation_function": identity}
    write(path, "1_Dense/config.json", facts)
    kinds = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"]
    entries = [{"path": p, "type": kind} for p, kind in zip(("", "1_Dense"), kinds)]
    entries = [{"idx": i, "name": str(i), **entry} for i, entry in enumerate(entries)]
    write(path, "modules.json", entries)
    facts = {"model_type": "ColBERT", "query_prefix": "[Q] ", "document_prefix": "[D] "}
    facts |= {"query_length": 20, "document_length": 48, "attend_to_expansion_tokens": True}
    facts |= {"skiplist_words": [",", "."], "do_query_expansion": True}
    write(path, "config_sentence_transformers.json", facts)
    write(path, "sentence_bert_config.json", {"max_seq_length": 47, "do_lower_case": False})


def make_late(name, build, seed):
    path = os.path.join(HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    build(path, seed)
    model = MultiVectorEncoder(path)
    query = np.asarray(model.encode_query([QUERY])[0])
    documents = [np.asarray(d) for d in model.encode_document(DOCUMENTS)]
    scores = [float((query @ d.T).max(axis=1).sum()) for d in documents]
    facts = {"kind": "late", "query": QUERY, "documents": DOCUMENTS, "scores": scores}
    versions = {"sentence_transformers": sentence_transformers.__version__}
    facts |= {"tolerance_max_abs": {"scores": 1e-4}, "versions": versions}
    write(path, "oracle.json", facts)
    np.savez_compressed(os.path.join(path, "oracle.npz"), query=query)


if __name__ == "__main__":
    make_late("tiny-colbert-stanford", colbert_stanford, 20)
    make_late("tiny-colbert-pylate", colbert_pylate, 21)
    for seed, name in enumerate(MODELS):
        make(name, seed)
