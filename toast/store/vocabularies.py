"""A tokenizer.json for folders that have their vocabulary in another form.

Owns which file that is, control tokens, and what is put around a text. What the files mean is for `sentencepiece.py`,
`byte_ranks.py` and `word_lists.py`; where the result is kept, for `converted.py`.
"""

from __future__ import annotations

import json
import os

from toast import files
from toast.errors import BadModel, told
from toast.store.documents import NEVER, token
from toast.store.folder import blame, read_object, transformer
from toast.store.word_lists import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

PIECES = "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"
LARGEST = 64 << 20  # bytes of a vocabulary
ROBERTA = {"roberta", "xlm_roberta", "camembert", "bart", "mpnet", "longformer", "xlm_roberta_xl"}
FAIRSEQ = {  # model type -> pieces before SentencePiece's own, and how many of those they replace
    "xlm_roberta": (["<s>", "<pad>", "</s>", "<unk>"], 3),
    "camembert": (["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"], 1),
}
EXTRA = {"t5", "mt5", "umt5"}  # have <extra_id_N> behind their pieces


def source(folder: str) -> str | None:
    """The file that a folder's tokenizer.json is to be made from; None where there is one, or none is needed."""
    found = os.listdir(folder) if os.path.isdir(folder) else []
    names = {name for name in found if os.path.exists(os.path.join(folder, name))}  # a link may lead nowhere
    if "tokenizer.json" in names:
        return None
    ranked = sorted(n for n in names if n.endswith(".tiktoken") or n.startswith("tokenizer.model.v"))
    for name in ("tekken.json", *PIECES, "tiktoken.model", *ranked[-1:]):
        if name in names:
            return name
    if {"vocab.json", "merges.txt"} <= names:
        return "vocab.json"
    return "vocab.txt" if "vocab.txt" in names else None


def tokenizer_json(folder: str, name: str) -> Json:
    """What the tokenizers library reads, made of the file `name` of a folder. BadModel, naming the file."""
    settings = read_object(folder, "tokenizer_config.json")
    settings = {**read_object(folder, "special_tokens_map.json"), **settings}
    kind = str(read_object(folder, "config.json").get("model_type")).replace("-", "_")
    with blame(os.path.join(folder, name)):
        parts, added, habit = _read(folder, name, kind=kind, settings=settings)
        tokens = _added(folder, settings, {entry["id"]: entry for entry in added})
        ids = _placed(parts["model"], tokens)
        around = _around(kind, settings, ids, habit=habit)
        document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens}
        return _proven(document | parts | {"post_processor": around})


def _proven(document: Json) -> Json:
    """The document, if the library takes it."""
    import tokenizers

    try:
        tokenizers.Tokenizer.from_str(json.dumps(document)).encode("a", "b")
    except BaseException as error:  # a panic of Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BadModel(f"not a vocabulary: {told(error)}") from None
    return document


def _read(folder: str, name: str, *, kind: str, settings: Json) -> tuple[Json, list[Json], bool]:
    """(parts of the document, added tokens, whether a text begins with the first token where settings do not say)."""
    from toast.store import byte_ranks, word_lists

    data = _data(folder, name)
    if name == "tekken.json":
        return *byte_ranks.tekken(json.loads(data)), True
    if name == "vocab.txt":
        return word_lists.wordpiece(data.decode(errors="replace"), settings), [], False
    if name == "vocab.json":
        rest = _data(folder, "merges.txt").decode(errors="replace")
        return word_lists.byte_pairs(json.loads(data), rest, settings, model_type=kind), [], False
    if byte_ranks.is_tiktoken(data):
        return *byte_ranks.tiktoken(data, (name.removesuffix(".tiktoken"), kind)), kind == "llama"
    return _pieces(data, kind, settings)


def _pieces(data: bytes, kind: str, settings: Json) -> tuple[Json, list[Json], bool]:
    from toast.store.sentencepiece import BPE, Model

    model = Model(data)
    if kind in FAIRSEQ:
        first, replaced = FAIRSEQ[kind]
        model.pieces = [*((text, 0.0, 3) for text in first), *model.pieces[replaced:], ("<mask>", 0.0, 3)]
        model.unknown = first.index("<unk>")
    if kind in EXTRA:
        count = settings.get("extra_ids", 100)
        model.pieces += [(f"<extra_id_{i}>", 0.0, 3) for i in reversed(range(count))]
    if settings.get("legacy") is False:
        model.first_alone = True
    return model.document(), model.added(), model.kind == BPE


def _data(folder: str, name: str) -> bytes:
    try:
        return files.read(os.path.join(folder, name), LARGEST)
    except OSError as error:
        raise BadModel(f"{os.path.join(folder, name)}: {error.strerror}") from None


def _placed(model: Json, tokens: list[Json]) -> dict[str, int]:
    """Text -> id of all tokens. Added ones get a place in the model, too, or the library would number them anew."""
    vocab = model["vocab"]
    if isinstance(vocab, list):
        for entry in tokens:
            vocab += [[f"<{NEVER} {i}>", NEVER] for i in range(len(vocab), entry["id"] + 1)]
            vocab[entry["id"]][0] = entry["content"]
        return {text: i for i, (text, _) in enumerate(vocab)}
    texts = {id: text for text, id in vocab.items()}
    for entry in tokens:
        vocab.pop(texts.get(entry["id"], ""), None)
        vocab[entry["content"]] = entry["id"]
    return vocab


def _added(folder: str, settings: Json, found: dict[int, Json]) -> list[Json]:
    """Added tokens in the order of their ids: those of the file, and those of the folder's settings, which win."""
    named_special = {named(settings, name) for name in settings if name.endswith("_token")}
    for content, id in read_object(folder, "added_tokens.json").items():
        found[id] = token(id, content, special=content in named_special)
    for id, entry in (settings.get("added_tokens_decoder") or {}).items():
        own = {
            name: entry[name] for name in ("lstrip", "rstrip", "single_word", "normalized", "special") if name in entry
        }
        found[int(id)] = token(int(id), entry["content"]) | own
    return [found[id] for id in sorted(found)]


def _around(kind: str, settings: Json, ids: dict[str, int], *, habit: bool) -> Json | None:
    """The template of what is put around a text and between two."""
    cls, sep = named(settings, "cls_token") or "[CLS]", named(settings, "sep_token") or "[SEP]"
    bos, eos = named(settings, "bos_token") or "<s>", named(settings, "eos_token") or "</s>"
    if kind in ROBERTA:
        return _template([bos, "A", eos], [bos, "A", eos, eos, "B", eos], ids)
    if cls in ids and sep in ids:
        return _template([cls, "A", sep], [cls, "A", sep, "B", sep], ids)
    first = [bos] * bool(settings.get("add_bos_token", habit) and bos in ids)
    last = [eos] * bool(settings.get("add_eos_token", kind in EXTRA) and eos in ids)
    if not first and not last:
        return None
    return _template([*first, "A", *last], [*first, "A", *last, *first, "B", *last], ids)


def _template(single: list[str], pair: list[str], ids: dict[str, int]) -> Json:
    special = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in {*pair} - {"A", "B"}}
    bert = "[CLS]" in special  # of the second text all is of the second type

    def steps(names: list[str]) -> list[Json]:
        after = len(names) - 2 if bert and "B" in names else len(names)
        return [
            {"Sequence" if name in ("A", "B") else "SpecialToken": {"id": name, "type_id": int(i >= after)}}
            for i, name in enumerate(names)
        ]

    return {"type": "TemplateProcessing", "single": steps(single), "pair": steps(pair), "special_tokens": special}


def folder_with(folder: str, out: str) -> None:
    """Fill `out` with links to a model's files, and the tokenizer.json that it lacks."""
    base = transformer(folder)
    name = source(base)
    assert name is not None
    document = tokenizer_json(base, name)
    inside = os.path.relpath(base, folder)
    for entry in os.listdir(folder):
        if entry != inside.split(os.sep)[0]:
            os.symlink(os.path.join(os.path.abspath(folder), entry), os.path.join(out, entry))
    place = os.path.normpath(os.path.join(out, inside))
    if place != os.path.normpath(out):
        os.makedirs(place)
        for entry in os.listdir(base):
            os.symlink(os.path.join(os.path.abspath(base), entry), os.path.join(place, entry))
    files.replace(os.path.join(place, "tokenizer.json"), [json.dumps(document, ensure_ascii=False).encode()])
