"""Vocabularies that are plain lists (BERT's vocab.txt, GPT-2's vocab.json and merges.txt) as a tokenizer.json.

Owns what such lists leave to their readers. Knows nothing of folders.
"""

from __future__ import annotations

from toast.errors import BadModel
from toast.store.documents import LEVEL
from toast.store.pretokenizers import QWEN2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

NFC_QWEN = "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen2_vl", "qwen2_5_vl"  # model types whose words are Qwen's


def wordpiece(text: str, settings: Json) -> Json:
    """The parts of a document for a vocab.txt: a piece on each line."""
    pieces = text.removesuffix("\n").split("\n")
    vocab = {piece.rstrip("\r"): i for i, piece in enumerate(pieces)}
    unknown = named(settings, "unk_token") or "[UNK]"
    if unknown not in vocab:
        raise BadModel(f"vocab.txt has no {unknown}")
    lower = settings.get("do_lower_case", True)
    return {
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "lowercase": lower,
                       "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
                       "strip_accents": settings.get("strip_accents")},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    }  # fmt: skip


def byte_pairs(vocab: Json, merges: str, settings: Json, *, model_type: str) -> Json:
    """The parts of a document for a vocab.json and a merges.txt, whose tokens are of bytes."""
    lines = [line for line in merges.split("\n") if line and not line.startswith("#version")]
    pairs = [line.rstrip("\r").split(" ") for line in lines]
    if not all(len(pair) == 2 for pair in pairs):
        raise BadModel("merges.txt: not two tokens on each line")
    before, words = None, LEVEL | {"use_regex": True, "add_prefix_space": settings.get("add_prefix_space", False)}
    if model_type in NFC_QWEN:
        split = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
        before, words = {"type": "NFC"}, {"type": "Sequence", "pretokenizers": [split, LEVEL]}
    model = {"type": "BPE", "vocab": vocab, "merges": pairs}
    return {"normalizer": before, "pre_tokenizer": words, "decoder": LEVEL, "model": model}


def named(settings: Json, name: str) -> str | None:
    """A token that settings name, as text or as an object."""
    found = settings.get(name)
    found = found.get("content") if isinstance(found, dict) else found
    return found if isinstance(found, str) else None
