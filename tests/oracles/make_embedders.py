"""Make tiny-embeddinggemma and static-*: folders as sentence-transformers and model2vec save them, and their vectors.

Run: python make_embedders.py (needs torch, transformers, sentence-transformers and model2vec; the versions are in each
oracle.json). EmbeddingGemma's layout: bidirectional Gemma 3, mean pooling, two Dense modules, Normalize, prompts.
"""

import json
import os
import shutil
import tempfile

import model2vec
import numpy as np
import sentence_transformers
import torch
import transformers
from make_architectures import HEADS
from make_tiny import fill
from model2vec import StaticModel
from model2vec.model import quantize_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, Gemma3TextConfig, PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
TEXTS = ["", "cat", "The quick brown fox jumps over the lazy dog.", "Naïve café — 東京, \U0001f600!",
         "how do I sort a list in python? " * 4, "  two  spaces\tand\na line "]  # fmt: skip
PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}


def gemma_tokenizer():
    """Gemma's kind: SentencePiece's BPE with bytes for what is not known, <bos> and <eos> around a text."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzTHNéï.,?!|:1▁"))
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("o", "r"), ("i", "n"), ("a", "n"), ("▁", "a"), ("e", "r")]
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256)), *letters]
    vocab = {piece: i for i, piece in enumerate([*pieces, *(a + b for a, b in merges)])}
    found = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    found.normalizer = normalizers.Replace(" ", "▁")
    found.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    found.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> <bos>:1 $B:1 <eos>:1", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    found.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>"])
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=found, model_max_length=96, **special)


def backbone(folder, tokenizer):
    sizes = HEADS | {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    config = Gemma3TextConfig(
        **sizes | {"num_hidden_layers": 2}, sliding_window=16, query_pre_attn_scalar=8,
        use_bidirectional_attention=True, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    model = AutoModel.from_config(config, dtype=torch.float32)
    fill(model, 31)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def embeddinggemma(path):
    with tempfile.TemporaryDirectory() as folder:
        backbone(folder, gemma_tokenizer())
        first = Transformer(folder, max_seq_length=96)
        heads = [Dense(32, 48, bias=False, activation_function=torch.nn.Identity()),
                 Dense(48, 32, bias=False, activation_function=torch.nn.Identity())]  # fmt: skip
        for seed, head in enumerate(heads):
            fill(head, 40 + seed)
        model = SentenceTransformer(modules=[first, Pooling(32), *heads, Normalize()], prompts=PROMPTS)
        model.save(path, create_model_card=False)
    return SentenceTransformer(path)


@torch.no_grad()
def make_gemma():
    path = os.path.join(HERE, "tiny-embeddinggemma")
    shutil.rmtree(path, ignore_errors=True)
    model = embeddinggemma(path)
    ids = [model.tokenizer(text, truncation=True, max_length=96)["input_ids"] for text in TEXTS]
    embeddings = model.encode(TEXTS)
    arrays = {"embeddings": embeddings, "embeddings_normalized": embeddings}
    for name in PROMPTS:
        arrays[f"embeddings_prompt_{name}"] = model.encode(TEXTS, prompt_name=name)
    rows = [2, 4]
    hidden = [model[0].auto_model(input_ids=torch.tensor([ids[i]])).last_hidden_state[0].numpy() for i in rows]
    arrays |= {f"hidden_{i}": states for i, states in zip(rows, hidden, strict=True)}
    longest = max(map(len, hidden))
    arrays["hidden_batch"] = np.stack([np.pad(x, [(0, longest - len(x)), (0, 0)]) for x in hidden])
    bare = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    only = [{"text": t, "ids": model.tokenizer(t)["input_ids"], "ids_no_special": b} for t, b in zip(TEXTS, bare)]
    facts = {"kind": "embedding", "max_seq_length": 96, "texts": TEXTS, "input_ids": ids, "token_type_ids": None,
             "padded_batch": {"text_indices": rows}, "tokenizer_only": {"single": only, "pairs": []},
             "tolerance_max_abs": {"embeddings": 2e-5, "hidden": 2e-4}}  # fmt: skip
    save(path, facts, arrays)


def save(path, facts, arrays):
    versions = {"torch": torch.__version__, "transformers": transformers.__version__,
                "sentence_transformers": sentence_transformers.__version__, "model2vec": model2vec.__version__}  # fmt: skip
    with open(os.path.join(path, "oracle.json"), "w", encoding="utf-8") as file:
        json.dump({**facts, "versions": versions}, file)
    np.savez_compressed(os.path.join(path, "oracle.npz"), **arrays)


# ---------------------------------------------------------------- static


def small_tokenizer(unigram):
    """Words and letters: WordPiece with an unknown token, or Unigram as newer models have it."""
    words = ["cat", "the", "quick", "brown", "fox", "over", "dog", "how", "do", "sort", "a", "list", "in", "python"]
    if unigram:
        pieces = [("[PAD]", 0.0), ("[UNK]", -9.0), *((f"▁{word}", -3.0 - i / 9) for i, word in enumerate(words))]
        pieces += [(letter, -6.0) for letter in "▁abcdefghijklmnopqrstuvwxyz.?!,"]
        found = Tokenizer(models.Unigram(pieces, unk_id=1))
        found.normalizer = normalizers.Lowercase()
        found.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
        return found
    with open(os.path.join(HERE, "bert-embed-cls", "tokenizer.json"), encoding="utf-8") as file:
        whole = json.load(file)
    pieces = [piece for piece in whole["model"]["vocab"] if len(piece) < 4 or piece in words or piece.startswith("[")]
    whole["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces)}
    for token in whole["added_tokens"]:
        token["id"] = pieces.index(token["content"])
    for name, token in whole["post_processor"]["special_tokens"].items():
        token["ids"] = [pieces.index(name)]
    return Tokenizer.from_str(json.dumps(whole))


def make_static(name, *, unigram=False, dtype="float32", shared=0):
    path = os.path.join(HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    tokenizer = small_tokenizer(unigram)
    vectors = np.random.default_rng(len(name)).normal(size=(tokenizer.get_vocab_size(), 12)).astype(np.float32)
    model = StaticModel(vectors, tokenizer, config={"normalize": not shared}, normalize=not shared)
    if dtype != "float32" or shared:
        model = quantize_model(model, quantize_to=dtype, vocabulary_quantization=shared or None)
    model.save_pretrained(path)
    os.remove(os.path.join(path, "README.md"))
    model = StaticModel.from_pretrained(path)
    save(path, {"kind": "static", "texts": TEXTS}, {"embeddings": model.encode(TEXTS).astype(np.float32)})


def make_static_of_sentence_transformers(path):
    shutil.rmtree(path, ignore_errors=True)
    tokenizer = small_tokenizer(unigram=False)
    vectors = np.random.default_rng(5).normal(size=(tokenizer.get_vocab_size(), 12)).astype(np.float32)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=vectors)])
    model.save(path, create_model_card=False)
    save(path, {"kind": "static", "texts": TEXTS}, {"embeddings": SentenceTransformer(path).encode(TEXTS)})


if __name__ == "__main__":
    make_gemma()
    make_static("static-f32")
    make_static("static-f16", dtype="float16")
    make_static("static-int8", unigram=True, dtype="int8")
    make_static("static-shared", unigram=True, shared=24)
    make_static_of_sentence_transformers(os.path.join(HERE, "static-sentence-transformers"))
