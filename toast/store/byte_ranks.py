"""Vocabularies of ranked bytes (tiktoken's files, Mistral's tekken.json) as a tokenizer.json.

Owns how ranks become merges, and the patterns and control tokens of files that say neither. Knows nothing of folders.

Source: https://github.com/openai/tiktoken and https://github.com/mistralai/mistral-common, whose ids are the reference.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error

from toast.errors import BadModel
from toast.store.documents import LEVEL, token
from toast.store.pretokenizers import GPT2, GPT4O, KIMI, LLAMA3, QWEN2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]
    Ranks = dict[bytes, int]

# a file's name without its ending, or a model_type -> how a text is cut
PATTERNS = {
    "qwen": QWEN2, "hy": QWEN2, "hunyuan": QWEN2, "cl100k_base": LLAMA3, "phi3small": LLAMA3, "chatglm": LLAMA3,
    "llama": LLAMA3, "dbrx": LLAMA3, "o200k_base": GPT4O, "kimi_k2": KIMI, "kimi_k25": KIMI, "kimi_linear": KIMI,
    "kimi_vl": KIMI, "deepseek_v3": KIMI, "r50k_base": GPT2, "p50k_base": GPT2, "gpt2": GPT2,
}  # fmt: skip
# the same -> control tokens behind the ranks, where no configuration lists them
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
         "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
         "<|eot_id|>", "<|python_tag|>", *(f"<|reserved_special_token_{i}|>" for i in range(2, 247))]  # fmt: skip
SPECIAL = {
    "qwen": dict(enumerate(QWEN, 151643)),
    "llama": dict(enumerate(LLAMA, 128000)),
    "cl100k_base": {100257: "<|endoftext|>", 100258: "<|fim_prefix|>", 100259: "<|fim_middle|>",
                    100260: "<|fim_suffix|>", 100276: "<|endofprompt|>"},
    "o200k_base": {199999: "<|endoftext|>", 200018: "<|endofprompt|>"},
    "gpt2": {50256: "<|endoftext|>"}, "r50k_base": {50256: "<|endoftext|>"}, "p50k_base": {50256: "<|endoftext|>"},
}  # fmt: skip
FIRST_OF_TEKKEN = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
                   "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]",
                   "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
                   "[TOOL_CONTENT]"]  # fmt: skip


def is_tiktoken(data: bytes) -> bool:
    """Whether a file's lines are bytes in base64 and their rank."""
    try:
        line = data[: data.index(b"\n")].split()
        return len(line) == 2 and line[1].isdigit() and b64decode(line[0], validate=True) != b""
    except (ValueError, Error):
        return False


def tiktoken(data: bytes, names: tuple[str, ...]) -> tuple[Json, list[Json]]:
    """(the parts of a tokenizer.json, added tokens) of a tiktoken file. names: of the file and of the model's type."""
    known = next((name for name in names if name in PATTERNS), None)
    if known is None:
        raise BadModel(f"tiktoken's ranks of a {names[-1]!r} model, whose pattern is not known here")
    try:
        lines = [line.split() for line in data.splitlines() if line]
        ranks = {b64decode(text): int(rank) for text, rank in lines}
    except ValueError as error:
        raise BadModel(f"not tiktoken's ranks: {error}") from None
    parts = document(ranks, PATTERNS[known])
    if known == "qwen":
        parts["normalizer"] = {"type": "NFC"}
    return parts, [token(id, name) for id, name in SPECIAL.get(known, {}).items()]


def tekken(whole: Json) -> tuple[Json, list[Json]]:
    """The same of a tekken.json: ids are the control tokens', then the ranks."""
    config = whole["config"]
    count = config["default_num_special_tokens"]
    size = config["default_vocab_size"] - count
    ranks = {b64decode(entry["token_bytes"]): entry["rank"] + count for entry in whole["vocab"] if entry["rank"] < size}
    named = {entry["rank"]: entry["token_str"] for entry in whole.get("special_tokens") or []}
    named = named or dict(enumerate(FIRST_OF_TEKKEN))
    added = [token(i, named.get(i, f"<SPECIAL_{i}>")) for i in range(count)]
    return document(ranks, config["pattern"]), added


def document(ranks: Ranks, pattern: str) -> Json:
    """normalizer, pre_tokenizer, decoder and model of a tokenizer.json."""
    spelled = spelling()
    vocab = {"".join(map(spelled.__getitem__, text)): rank for text, rank in ranks.items()}
    if len(vocab) != len(set(vocab.values())):
        raise BadModel("two tokens have one rank")
    pairs = merges_of_spelled(vocab)
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, LEVEL]},
        "decoder": LEVEL,
        "model": {"type": "BPE", "vocab": vocab, "merges": pairs, "ignore_merges": True},
    }


def merges_of_spelled(vocab: dict[str, int]) -> list[list[str]]:
    """The merges of a vocabulary in GPT-2's spelling whose ids are ranks; tokens in no such spelling have none."""
    spelled = spelling()
    byte = {char: i for i, char in enumerate(spelled)}
    ranks = {bytes(byte[c] for c in text): rank for text, rank in vocab.items() if all(c in byte for c in text)}
    return [["".join(spelled[b] for b in part) for part in pair] for pair in merges(ranks)]


def merges(ranks: Ranks) -> list[tuple[bytes, bytes]]:
    """The pair that each token is made of last, by rank."""
    found = []
    for text in sorted(ranks, key=ranks.__getitem__):
        if len(text) > 1 and len(parts := _merged(text, ranks)) == 2:
            found.append((parts[0], parts[1]))
    return found


def _merged(text: bytes, ranks: Ranks) -> list[bytes]:
    """A token's bytes, merged by the ranks below its own."""
    parts, limit = [text[i : i + 1] for i in range(len(text))], ranks[text]
    while len(parts) > 2:
        rank, at = min((ranks.get(a + b, limit), i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False)))
        if rank >= limit:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def spelling() -> list[str]:
    """The character that stands for each byte in a vocabulary of bytes (GPT-2's)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]
