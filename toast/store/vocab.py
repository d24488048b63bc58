"""A GGUF file's vocabulary as the files a model folder has: tokenizer.json, its configuration, chat template.
Owns the kinds of vocabularies that GGUF has; does not run a tokenizer.

Source: llama.cpp's src/llama-vocab.cpp, whose ids are the reference for every family."""

from __future__ import annotations

from toast.errors import BadModel
from toast.store.documents import CONTROL, LEVEL, UNKNOWN, USER, bytes_in, characters, merges, token
from toast.store.folder import write_texts
from toast.store.gguf import Gguf, converting, parts
from toast.store.pretokenizers import BEGINS, CHARACTERS, PRE, WHOLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

ENDS = {  # what ends a turn, where the metadata says less
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
    "<|end_of_text|>", "<|end_of_turn|>", "<turn|>", "<|return|>", "<|call|>", "<EOT>", "<｜end▁of▁sentence｜>",
}  # fmt: skip


def gguf_to_folder(path: str, out: str) -> None:
    """Write nothing but the vocabulary of the GGUF file at `path`, which need not hold weights, into `out`."""
    file = Gguf(parts(path)[0])  # the first of several parts has all that is said of words
    with converting(path):
        texts = files(file.metadata)
    write_texts(out, texts)


def generation_config(meta: Json) -> Json:
    """Which tokens end a text: the named ones and every control token known to end a turn."""
    tokens, types = _tokens(meta)
    named = [meta.get(f"tokenizer.ggml.{k}_token_id") for k in ("eos", "eot", "eom")]
    known = [i for i, (t, kind) in enumerate(zip(tokens, types, strict=False)) if kind == CONTROL and t in ENDS]
    return {"eos_token_id": list(dict.fromkeys([i for i in named if i is not None] + known))}


def files(meta: Json) -> Json:
    """File name -> content (text, or what JSON writes) of everything a tokenizer needs."""
    named = {"tokenizer.json": tokenizer_json(meta), "tokenizer_config.json": _config(meta)}
    if template := meta.get("tokenizer.chat_template"):
        named["chat_template.jinja"] = template
    return named


def tokenizer_json(meta: Json) -> Json:
    """The document that the tokenizers library reads, for the metadata of a GGUF file.

    Raises BadModel for a kind of vocabulary or pre-tokenizer that is not known here."""
    kind: Any = meta.get("tokenizer.ggml.model")
    build = {"gpt2": _bpe, "gemma4": _bpe, "llama": _sentencepiece, "bert": _wordpiece, "t5": _unigram}.get(kind)
    if build is None:
        raise BadModel(f"a GGUF vocabulary of kind {kind!r} is not supported")
    document = {"version": "1.0", "truncation": None, "padding": None}
    return document | {"added_tokens": _added(meta)} | build(meta)


def _tokens(meta: Json) -> tuple[list[str], list[int]]:
    tokens = meta["tokenizer.ggml.tokens"]
    return tokens, meta.get("tokenizer.ggml.token_type", [1] * len(tokens))


def _added(meta: Json) -> list[Json]:
    return [
        token(i, text, special=kind != USER)
        for i, (text, kind) in enumerate(zip(*_tokens(meta), strict=False))
        if kind in (CONTROL, USER) or kind == UNKNOWN
    ]  # fmt: skip


def _config(meta: Json) -> Json:
    tokens, _ = _tokens(meta)
    config = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = meta.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None and index < len(tokens):
            config[f"{name}_token"] = tokens[index]
    return config


def _bpe(meta: Json) -> Json:
    """Merges over bytes, or over characters with \u2581 for a blank, within words."""
    pre = "gemma4" if meta["tokenizer.ggml.model"] == "gemma4" else meta.get("tokenizer.ggml.pre", "default")
    if pre not in PRE:
        raise BadModel(f"a GGUF vocabulary with pre-tokenizer {pre!r} is not supported")
    tokens, _ = _tokens(meta)
    vocab = {t: i for i, t in enumerate(tokens)}
    model = {"type": "BPE", "vocab": vocab, "merges": _merges(meta, pre, vocab),
             "ignore_merges": pre in WHOLE, "byte_fallback": pre in CHARACTERS and "<0x00>" in vocab}  # fmt: skip
    words = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in PRE[pre]]
    after = {"post_processor": _ends(meta, bos=pre in BEGINS), "model": model}
    if pre in CHARACTERS:
        return {**characters(first=False), "pre_tokenizer": {"type": "Sequence", "pretokenizers": words}, **after}
    return bytes_in({"type": "Sequence", "pretokenizers": [*words, LEVEL]}) | after


def _merges(meta: Json, pre: str, vocab: dict[str, int]) -> Any:
    found = meta.get("tokenizer.ggml.merges")
    return _of_ranks(pre, vocab) if found is None else found


def _of_ranks(pre: str, vocab: dict[str, int]) -> list[list[str]]:
    """The merges of a vocabulary whose ids are ranks, which GGUF does not keep: Kimi's."""
    from toast.store import byte_ranks

    if pre != "kimi-k2":
        raise BadModel("a GGUF vocabulary without tokenizer.ggml.merges is not supported")
    return byte_ranks.merges_of_spelled(vocab)


def _sentencepiece(meta: Json) -> Json:
    """SentencePiece's BPE: merges in the order of the scores of what they make."""
    tokens, _ = _tokens(meta)
    vocab = {t: i for i, t in enumerate(tokens)}
    unknown = meta.get("tokenizer.ggml.unknown_token_id")
    return {
        **characters(first=meta.get("tokenizer.ggml.add_space_prefix", True)),
        "post_processor": _ends(meta, bos=True),
        "model": {
            "type": "BPE",
            "unk_token": None if unknown is None else tokens[unknown],
            "fuse_unk": True,
            "byte_fallback": "<0x00>" in vocab,
            "vocab": vocab,
            "merges": merges(meta["tokenizer.ggml.scores"], vocab),
        },  # fmt: skip
    }


def _unigram(meta: Json) -> Json:
    """SentencePiece's Unigram (T5)."""
    from toast.store import sentencepiece

    tokens, types = _tokens(meta)
    spec = sentencepiece.Normalizer(
        charsmap=bytes(x & 255 for x in meta.get("tokenizer.ggml.precompiled_charsmap", [])),
        first=meta.get("tokenizer.ggml.add_space_prefix", True),
        collapses=meta.get("tokenizer.ggml.remove_extra_whitespaces", True),
    )
    pieces = list(zip(tokens, meta["tokenizer.ggml.scores"], types, strict=True))
    unknown = meta.get("tokenizer.ggml.unknown_token_id", 2)
    return {**sentencepiece.unigram(pieces, spec, unknown=unknown), "post_processor": _ends(meta, bos=False, eos=True)}


def _wordpiece(meta: Json) -> Json:
    """BERT's; GGUF marks the beginnings of words (with ▁), BERT their continuations (with ##)."""
    tokens, types = _tokens(meta)

    def name(token: str, kind: int) -> str:
        if kind == CONTROL or (token.startswith("[") and token.endswith("]")):
            return token
        return token[1:] if token.startswith("▁") else f"##{token}"

    names = [name(*pair) for pair in zip(tokens, types, strict=False)]
    # older files name the first two, newer ones only the others
    cls: Any = meta.get("tokenizer.ggml.cls_token_id", meta.get("tokenizer.ggml.bos_token_id", 101))
    sep: Any = meta.get("tokenizer.ggml.seperator_token_id", meta.get("tokenizer.ggml.eos_token_id", 102))
    lower = meta.get("tokenizer.ggml.normalizer.lowercase", True)
    return {
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": lower, "lowercase": lower},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": [names[sep], sep], "cls": [names[cls], cls]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": names[meta["tokenizer.ggml.unknown_token_id"]],
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": {t: i for i, t in enumerate(names)}},
    }  # fmt: skip


def _ends(meta: Json, *, bos: bool, eos: bool = False) -> Json | None:
    """The tokens put before and after a text; bos, eos: the family's habit where the file does not say."""
    tokens, _ = _tokens(meta)
    single, special = [{"Sequence": {"id": "A", "type_id": 0}}], {}
    for key, habit in (("bos", bos), ("eos", eos)):
        index = meta.get(f"tokenizer.ggml.{key}_token_id")
        if index is None or not meta.get(f"tokenizer.ggml.add_{key}_token", habit):
            continue
        token = tokens[index]
        special[token] = {"id": token, "ids": [index], "tokens": [token]}
        single.insert(0 if key == "bos" else 2, {"SpecialToken": {"id": token, "type_id": 0}})
    if not special:
        return None
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
