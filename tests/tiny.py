"""Makes tiny seeded models in the published layouts, so that the tests need no network."""

import json
import os
from functools import cache

import numpy as np
import seeded
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
WORDS = "the a of to and cat dog bird sat mat ran sky blue red fast slow model filter pipe line".split()


def write_json(folder, name, value):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(value, file)


def write_safetensors(path, tensors):
    """The format of https://github.com/huggingface/safetensors, float32 only."""
    header, at = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, np.float32).tobytes())


def checkpoint(folder, told):
    """The folder of a fixture's {"config", "tensors": name -> shape}, its weights as `seeded` has them."""
    write_json(folder, "config.json", told["config"])
    write_safetensors(os.path.join(folder, "model.safetensors"), seeded.tensors(told["tensors"]))
    return str(folder)


def oracles(kind):
    """The names of the fixtures in a folder of oracles."""
    return sorted(name.removesuffix(".json") for name in os.listdir(os.path.join(ORACLES, kind)))


@cache
def oracle(kind, name):
    """A fixture: {"config", "tensors": name -> shape, "runs": what its makers' code gives}."""
    with open(os.path.join(ORACLES, kind, f"{name}.json"), encoding="utf-8") as file:
        return json.load(file)


def wordpiece() -> Tokenizer:
    """A WordPiece tokenizer that spells what it does not know."""
    letters = [chr(c) for c in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *WORDS]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    return tokenizer


def bert(folder, D=32, layers=2, heads=4, max_length=24, seed=7, labels=()):
    """A sentence-transformers BERT of random weights; with labels, a sequence classifier."""
    rng = np.random.default_rng(seed)
    tokenizer = wordpiece()
    vocab = tokenizer.get_vocab_size()
    config = {
        "architectures": ["BertForSequenceClassification" if labels else "BertModel"],
        "model_type": "bert", "hidden_size": D, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 2 * D, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "max_position_embeddings": 64, "type_vocab_size": 2, "vocab_size": vocab,
    }  # fmt: skip
    if labels:
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
    os.makedirs(folder, exist_ok=True)
    write_json(folder, "config.json", config)
    write_safetensors(os.path.join(folder, "model.safetensors"), _bert_tensors(rng, config, labels))
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    write_json(folder, "tokenizer_config.json", {"model_max_length": max_length})
    if not labels:
        _sentence_files(folder, D, max_length)
    return str(folder)


def _sentence_files(folder, D, max_length):
    kinds = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths))
    ]
    write_json(folder, "modules.json", modules)
    write_json(folder, "1_Pooling/config.json", {"word_embedding_dimension": D, "pooling_mode_mean_tokens": True})
    write_json(folder, "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    write_json(folder, "config_sentence_transformers.json", {"prompts": {"query": "red ", "document": ""}})


def _bert_tensors(rng, config, labels):
    D, F = config["hidden_size"], config["intermediate_size"]
    prefix = "bert." if labels else ""
    tensors = {}

    def matrix(name, *shape, std=0.3):
        tensors[prefix + name] = rng.normal(0, std, shape).astype(np.float32)

    def linear(name, outputs, inputs):
        matrix(f"{name}.weight", outputs, inputs)
        matrix(f"{name}.bias", outputs, std=0.15)

    def norm(name):
        tensors[f"{prefix}{name}.weight"] = (1 + 0.25 * rng.normal(size=D)).astype(np.float32)
        matrix(f"{name}.bias", D, std=0.15)

    matrix("embeddings.word_embeddings.weight", config["vocab_size"], D)
    matrix("embeddings.position_embeddings.weight", config["max_position_embeddings"], D)
    matrix("embeddings.token_type_embeddings.weight", config["type_vocab_size"], D)
    norm("embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{name}", D, D)
        linear(f"{layer}.attention.output.dense", D, D)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", F, D)
        linear(f"{layer}.output.dense", D, F)
        norm(f"{layer}.output.LayerNorm")
    linear("pooler.dense", D, D)
    if labels:
        prefix = ""
        linear("classifier", len(labels), D)
    return tensors


def wide(folder):
    """A llama whose layers are wide enough for groups of 64, with the words of the small oracle; its folder."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from toast.generation import decoder

    llama = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "llama-causal")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256,
              "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
              "vocab_size": 660, "rms_norm_eps": 1e-5, "max_position_embeddings": 256, "rope_theta": 10000.0,
              "tie_word_embeddings": False, "eos_token_id": 2}  # fmt: skip
    module = decoder.architecture("wide", config)
    mx.random.seed(5)
    model = module.Model(module.ModelArgs.from_dict(config))
    weights = dict(tree_flatten(model.parameters()))
    for name in weights:  # a few inputs far larger than the others: what AWQ is for
        if name.endswith("layernorm.weight"):
            weights[name] = mx.where(mx.arange(256) % 37 == 0, 20.0, 1.0)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        with open(os.path.join(llama, name)) as file:
            (folder / name).write_text(file.read())
    os.chmod(folder, 0o755)
    return folder
