"""A GGUF file's vocabulary as the files a model folder has: tokenizer.json, its configuration, chat template.
Owns the pre-tokenizer families; does not run a tokenizer.

Source: llama.cpp's src/llama-vocab.cpp, whose ids are the reference for every family."""

from __future__ import annotations

from toast.errors import BadModel
from toast.store.folder import write_texts
from toast.store.gguf import Gguf, converting, parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
QWEN2 = rf"{_WORDS}|\p{{N}}|{_REST}"
QWEN35 = QWEN2.replace(r"]?\p{L}+", r"]?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_SLASH = _REST.replace(r"[\r\n]*", r"[\r\n/]*")
TEKKEN = rf"{_CASED % ('', '')}|\p{{N}}|{_SLASH}"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = rf"{_CASED % (_ENDING, _ENDING)}|\p{{N}}{{1,3}}|{_SLASH}"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# letters with a case, of the scripts that DeepSeek's first tokenizer knows
_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102"
    "\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
)
_MARKS = "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002"
BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
SEED = rf"{_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"

# tokenizer.ggml.pre -> the patterns that split the text, one after the other
_FAMILIES = {
    ("gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "jina-es",
     "jina-de", "gigachat", "exaone4", "jina-v1-en", "jina-v2-code", "roberta-bpe",
     "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum", "modern-bert"): (GPT2,),
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
     "minerva", "mellum2"): (r"\p{N}", GPT2),
    ("falcon",): (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"),
    ("default",): (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "midm-2.0",
     "dbrx", "smaug-bpe", "chatglm-bpe", "glm4", "glm5", "jina-v5-nano"): (LLAMA3,),
    ("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan", "solar-open",
     "grok-2", "kormo", "f2llmv2"): (QWEN2,),
    ("qwen35",): (QWEN35,),
    ("tekken",): (TEKKEN,),
    ("gpt-4o", "llama4", "kanana2", "minimax-m2"): (GPT4O,),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK3),
    ("deepseek-llm",): (r"[\r\n]", rf"\s?[{_LETTERS}]+", rf"\s?[{_MARKS}]+", r"\s+$", "[一-龥ࠀ-一가-퟿]+", r"\p{N}+"),
    ("bailingmoe", "bailingmoe2", "llada-moe"): (BAILING,),
    ("seed-coder",): (SEED,),
    ("deepseek-coder",): (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
}  # fmt: skip
PRE = {name: patterns for names, patterns in _FAMILIES.items() for name in names}

UNKNOWN, CONTROL, USER, UNUSED, BYTE = 2, 3, 4, 5, 6  # token types
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
    build = {"gpt2": _byte_bpe, "llama": _sentencepiece, "bert": _wordpiece, "gemma4": _gemma4}.get(kind)
    if build is None:
        raise BadModel(f"a GGUF vocabulary of kind {kind!r} is not supported")
    document = {"version": "1.0", "truncation": None, "padding": None}
    return document | {"added_tokens": _added(meta)} | build(meta)


def _tokens(meta: Json) -> tuple[list[str], list[int]]:
    tokens = meta["tokenizer.ggml.tokens"]
    return tokens, meta.get("tokenizer.ggml.token_type", [1] * len(tokens))


def _added(meta: Json) -> list[Json]:
    return [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": kind != USER}
        for i, (token, kind) in enumerate(zip(*_tokens(meta), strict=False))
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


def _byte_bpe(meta: Json) -> Json:
    pre = meta.get("tokenizer.ggml.pre", "default")
    if pre not in PRE:
        raise BadModel(f"a GGUF vocabulary with pre-tokenizer {pre!r} is not supported")
    splits = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in PRE[pre]]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokens, _ = _tokens(meta)
    model = {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)},
             "merges": meta["tokenizer.ggml.merges"], "ignore_merges": PRE[pre] == (LLAMA3,)}  # fmt: skip
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "post_processor": _ends(meta, bos=PRE[pre] == (LLAMA3,)),
        "decoder": level,
        "model": model,
    }


def _sentencepiece(meta: Json) -> Json:
    """SentencePiece's BPE: merges in the order of the scores of what they make."""
    tokens, _ = _tokens(meta)
    vocab = {t: i for i, t in enumerate(tokens)}
    space = meta.get("tokenizer.ggml.add_space_prefix", True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    spaces = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
              {"type": "Fuse"}]  # fmt: skip
    if space:
        spaces.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    first = [{"type": "Prepend", "prepend": "▁"}] if space else []
    unknown = meta.get("tokenizer.ggml.unknown_token_id")
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*first, replace]},
        "pre_tokenizer": None,
        "post_processor": _ends(meta, bos=True),
        "decoder": {"type": "Sequence", "decoders": spaces},
        "model": {
            "type": "BPE",
            "unk_token": None if unknown is None else tokens[unknown],
            "fuse_unk": True,
            "byte_fallback": "<0x00>" in vocab,
            "vocab": vocab,
            "merges": _merges(meta["tokenizer.ggml.scores"], vocab),
        },  # fmt: skip
    }


def _gemma4(meta: Json) -> Json:
    """SentencePiece's words with merges in an order of their own."""
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    tokens, _ = _tokens(meta)
    unknown = meta.get("tokenizer.ggml.unknown_token_id")
    cut = [merge.find(" ", 1) for merge in meta["tokenizer.ggml.merges"]]  # what is merged may itself be a blank
    return {
        "normalizer": space,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": _ends(meta, bos=True),
        "decoder": {"type": "Sequence", "decoders": back},
        "model": {
            "type": "BPE",
            "unk_token": None if unknown is None else tokens[unknown],
            "fuse_unk": True,
            "byte_fallback": "<0x00>" in tokens,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [[m[:at], m[at + 1 :]] for m, at in zip(meta["tokenizer.ggml.merges"], cut, strict=True)],
        },
    }


def _merges(scores: list[float], vocab: dict[str, int]) -> list[list[str]]:
    pairs = []
    for token, index in vocab.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocab and right in vocab:
                pairs.append((-scores[index], vocab[left], vocab[right], left, right))
    return [[left, right] for *_, left, right in sorted(pairs)]


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


def _ends(meta: Json, *, bos: bool) -> Json | None:
    """The tokens put before and after a text; `bos`: the family's habit where the file does not say."""
    tokens, _ = _tokens(meta)
    single, special = [{"Sequence": {"id": "A", "type_id": 0}}], {}
    for key, habit in (("bos", bos), ("eos", False)):
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
