"""A folder's tokenizer.json as a GGUF file's vocabulary: `vocab.py` the other way round.

Owns what llama.cpp wants said of words. Raises BadModel for a tokenizer whose ids llama.cpp would not find.
"""

from __future__ import annotations

from toast.errors import BadModel
from toast.store.documents import BYTE, CONTROL, UNKNOWN, UNUSED, USER
from toast.store.folder import read_json, read_object
from toast.store.pretokenizers import GPT2, PRE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

NORMAL = 1
PATTERNS = {patterns: name for name, patterns in reversed(PRE.items())}
DIGITS = r"\p{N}"


def metadata(folder: str, size: int, ends: list[int], *, arch: str = "") -> Json:
    """tokenizer.ggml.* of a folder whose model has `size` words, of which `ends` end a text; Gemma 4's have merges."""
    document = read_json(folder, "tokenizer.json")
    if not isinstance(document, dict):
        raise BadModel(f"{folder}: no tokenizer.json", "a GGUF file holds the vocabulary, too")
    settings = read_object(folder, "tokenizer_config.json")
    model = document.get("model") or {}
    kind = model.get("type") or ("BPE" if "merges" in model else "WordPiece")
    if kind == "BPE":
        found = _byte_bpe(document) if _is_byte_level(document) else _sentencepiece(document)
        if arch == "gemma4" and found["model"] == "llama":
            found |= {"model": arch, "pre": arch, "merges": _merges(model["merges"])}
    elif kind == "WordPiece":
        found = {"model": "bert"}
    else:
        raise BadModel(f"{folder}: a {kind} vocabulary is not one that is written as GGUF")
    tokens, types = _words(document, size, kind)
    found |= {"tokens": tokens, "token_type": types} | _special(document, settings, tokens)
    if ends:
        found |= {"eos_token_id": ends[0]} | ({"eot_token_id": ends[1]} if ends[1:] else {})
    if found["model"] == "llama":
        found["scores"] = _scores(model["merges"], tokens)
    keys = {f"tokenizer.ggml.{key}": value for key, value in found.items()}
    template = _template(folder, settings)
    return keys | ({"tokenizer.chat_template": template} if template else {})


def _steps(part: Json | None, several: str) -> list[Json]:
    """A sequence's members, or the one that stands for itself."""
    if not part:
        return []
    return part[several] if part.get("type") == "Sequence" else [part]


def _is_byte_level(document: Json) -> bool:
    steps = _steps(document.get("pre_tokenizer"), "pretokenizers") + _steps(document.get("decoder"), "decoders")
    return any(step.get("type") == "ByteLevel" for step in steps)


def _byte_bpe(document: Json) -> Json:
    patterns: list[str] = []
    for step in _steps(document.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] == "Split":
            patterns.append(next(iter(step["pattern"].values())))
        elif step["type"] == "Digits" and step.get("individual_digits"):
            patterns.append(DIGITS)
        elif step["type"] == "ByteLevel" and step.get("use_regex", True):
            patterns.append(GPT2)
        elif step["type"] != "ByteLevel":
            raise BadModel(f"a pre-tokenizer of type {step['type']} is not one that llama.cpp has")
    if tuple(patterns) not in PATTERNS:
        raise BadModel("a pre-tokenizer that splits texts otherwise than any that llama.cpp has")
    return {"model": "gpt2", "pre": PATTERNS[tuple(patterns)], "merges": _merges(document["model"]["merges"])}


def _merges(merges: list[Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _sentencepiece(document: Json) -> Json:
    steps = _steps(document.get("normalizer"), "normalizers") + _steps(document.get("pre_tokenizer"), "pretokenizers")
    space = any(step.get("type") == "Prepend" for step in steps) or any(
        step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never" for step in steps
    )
    return {"model": "llama", "pre": "default", "add_space_prefix": space}


def _scores(merges: list[Any], tokens: list[str]) -> list[float]:
    """The earlier a merge, the higher the score of what it makes."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault("".join(parts), rank)
    return [float(-ranks.get(token, len(merges))) for token in tokens]


def _words(document: Json, size: int, kind: str) -> tuple[list[str], list[int]]:
    """(tokens, their types); rows of the model without a word have made-up ones."""
    vocab = document["model"]["vocab"]
    added = document.get("added_tokens") or []
    count = max(size, max(vocab.values(), default=-1) + 1, *(token["id"] + 1 for token in added), 0)
    tokens, types = [f"[PAD{i}]" for i in range(count)], [UNUSED] * count
    for token, i in vocab.items():
        tokens[i] = _marked(token) if kind == "WordPiece" else token
        types[i] = BYTE if len(token) == 6 and token.startswith("<0x") and kind == "BPE" else NORMAL
    for token in added:
        tokens[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token.get("special") else USER
    unknown = document["model"].get("unk_token")
    if unknown in vocab:
        types[vocab[unknown]] = UNKNOWN
    return tokens, types


def _marked(token: str) -> str:
    """GGUF marks the beginnings of BERT's words, not their continuations."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else f"▁{token}"


def _special(document: Json, settings: Json, tokens: list[str]) -> Json:
    """The ids of what begins, ends and fills a text, and which of them are put around one."""
    found: Json = {}
    index = {token: i for i, token in enumerate(tokens)}
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "cls": "cls", "sep": "seperator"}
    for ours, theirs in names.items():
        token = settings.get(f"{ours}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token in index:
            found[f"{theirs}_token_id"] = index[token]
    around = _around(document)
    for name in ("bos", "eos"):
        if f"{name}_token_id" in found:
            found[f"add_{name}_token"] = found[f"{name}_token_id"] in around
    return found


def _around(document: Json) -> set[int]:
    """The tokens that a tokenizer puts around a text."""
    found: set[int] = set()
    for step in _steps(document.get("post_processor"), "processors"):
        named = step.get("special_tokens") or {}
        for item in step.get("single") or []:
            token = item.get("SpecialToken", {}).get("id")
            found |= set(named.get(token, {}).get("ids", []))
    return found


def _template(folder: str, settings: Json) -> str | None:
    import os

    from toast import files

    path = os.path.join(folder, "chat_template.jinja")
    if os.path.isfile(path):
        return files.read(path).decode("utf-8", "replace")
    found = settings.get("chat_template")
    if isinstance(found, list):
        found = next((item.get("template") for item in found if item.get("name") == "default"), None)
    return found if isinstance(found, str) else None
