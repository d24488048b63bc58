"""What a model is for, by the small files of its folder; weights are not looked at.

Owns the marks of each kind and what to say about a model of another kind. Does not know: loading.
"""

from __future__ import annotations

import os

from toast import kept
from toast.errors import BadModel
from toast.store import alias, catalog
from toast.store.adapter import is_adapter
from toast.store.folder import modules, read_config, read_json, read_object, transformer
from toast.store.resolve import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call

DECODERS = {
    "qwen3",
    "qwen2",
    "llama",
    "mistral",
    "gemma3_text",
    "lfm2",
}  # architectures of this folder that also generate text
GENERATORS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")

# purpose -> what such a model does, and the command that it is for
SAID = {
    "embed": ("is an embedding model", "embed -m {0}"),
    "match": ("is a late-interaction model, which has no single vector", "rerank -m {0}"),
    "label": ("is a classifier or a cross-encoder", "classify -m {0}, rerank -m {0}"),
    "judge": ("ranks records for a query", "rerank -m {0}"),
    "generate": ("generates text", "toast -m {0}"),
    "adapt": ("is an adapter of a language model", "toast -m {0}"),
}


def purpose(path: str) -> str:
    """`embed`, `match` (late interaction), `label` (a sequence classifier, with one label a
    cross-encoder), `judge` (Qwen3-Reranker), `generate` or `adapt`, of a folder or a GGUF file."""
    from toast.models import architectures

    if os.path.isfile(path):
        from toast.store.gguf import architecture
        from toast.store.metadata import ENCODERS

        return "embed" if architecture(path) in ENCODERS else "generate"
    if is_adapter(path):
        return "adapt"
    if is_late(path):
        return "match"
    steps = {kind for kind, _ in modules(path)} - {"Transformer"}
    if steps:
        return "judge" if "LogitScore" in steps else "embed"
    config = read_config(transformer(path))
    kind = str(config.get("model_type")).replace("-", "_")
    name = next(iter(_classes(path)), "")
    if name.endswith("ForSequenceClassification"):
        return "label"
    if name.endswith(GENERATORS) or not name and kind not in set(architectures()) - DECODERS:
        return "judge" if kind == "qwen3" and _judges(path) else "generate"
    return "embed"


def need(call: Call, name: str, *purposes: str) -> str:
    """The purpose of the model called `name`; BadModel, which names its command, unless it is one of these."""
    expect(call, name, *purposes)
    path = find(call, name, *purposes)
    found = kept.of(kept.folder(path), "purpose", lambda: purpose(path), size=len)
    _expect(name, found, purposes)
    return found


def expect(call: Call, name: str, *purposes: str) -> None:
    """The same BadModel of a model of the catalog, which is not fetched to be told so."""
    if ours := catalog.known(alias.target(call, name)):
        _expect(name, catalog.PURPOSES[ours], purposes)


def _expect(name: str, found: str, purposes: tuple[str, ...]) -> None:
    if found not in purposes:
        told, command = SAID[found]
        raise BadModel(f"{name} {told}", command.format(name))


def _judges(path: str) -> bool:
    """Whether a Qwen3 model is a reranker. Its weights and configuration are a chat model's: its name
    tells, in the Hugging Face cache its repository's; else that it comes without settings to generate."""
    folder = path.partition("/snapshots/")[0]
    named = "rerank" in os.path.basename(folder).lower()
    return named or read_json(path, "generation_config.json") is None


def is_late(path: str) -> bool:
    """Whether the folder holds a late-interaction model."""
    saved = read_object(path, "config_sentence_transformers.json")
    return (
        is_stanford(path)
        or saved.get("model_type") in ("ColBERT", "MultiVectorEncoder")
        or any(kind == "MultiVectorMask" for kind, _ in modules(path))
    )


def is_stanford(path: str) -> bool:
    return "HF_ColBERT" in _classes(path)


def _classes(path: str) -> list[str]:
    """The names of the classes that the weights were saved from; BadModel when they are no names."""
    names = read_config(transformer(path)).get("architectures") or []
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise BadModel(f"{path}: architectures in config.json are no list of names")
    return names
