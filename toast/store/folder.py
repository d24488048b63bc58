"""The small files of a model folder: JSON settings, and which folder holds the transformer.

Knows nothing of tensors, of architectures or of where the folder came from.
"""

from __future__ import annotations

import os

from toast import files, json_text
from toast.errors import BadModel, told
from toast.store import plausible
from toast.store.config import normalised

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def read_config(path: str) -> dict[str, Any]:
    """config.json of the folder as a dict, normalised (`config.py`); BadModel when it is missing, no object, or has
    numbers that no model has."""
    if not os.path.isdir(path):
        raise BadModel(f"{path}: not a model folder")
    config = read_json(path, "config.json")
    config = _static(path) if config is None else config
    if isinstance(config, dict) and "model_type" not in config and _holds_static(path):
        config = {"model_type": "model2vec", **config}  # which newer releases do not write
    if not isinstance(config, dict):
        raise BadModel(f"{path}: config.json is {'not an object' if config else 'missing'}")
    with blame(path):
        plausible.check(config)
        return normalised(config, read_object(path, "hf_quant_config.json"))


def read_json(path: str, name: str) -> Any:
    """A JSON object or list of the model folder; None when the file is not there."""
    file = os.path.join(path, name)
    try:
        with open(files.open_regular(file), encoding="utf-8") as f:
            text = f.read()
        value = json_text.loads(text)
        if "\\ud" in text or "\\uD" in text:  # half a surrogate pair is no text: a ValueError
            import json

            json.dumps(value, ensure_ascii=False).encode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadModel(f"{file}: {error}") from None
    if not isinstance(value, (dict, list)):
        raise BadModel(f"{file}: neither an object nor a list")
    return value


def read_object(path: str, name: str) -> dict[str, Any]:
    """A JSON object of the model folder; empty when the file is not there."""
    value = read_json(path, name) or {}
    if not isinstance(value, dict):
        raise BadModel(f"{os.path.join(path, name)}: not an object")
    return value


def read_tokenizer(path: str) -> Any:
    """The library's tokenizer of a folder's tokenizer.json, without truncation and padding of its own; BadModel."""
    import tokenizers

    file = os.path.join(path, "tokenizer.json")
    if not os.path.isfile(file):
        raise BadModel(f"{path}: no tokenizer.json")
    try:
        found = tokenizers.Tokenizer.from_file(file)
        found.encode("a", "b")  # a template of tokens that it lacks is not looked at before
    except BaseException as error:  # what tokenizers raises; a panic of Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BadModel(f"{file}: {told(error)}") from None
    found.no_truncation()
    found.no_padding()
    return found


def write_texts(path: str, texts: Mapping[str, Any]) -> None:
    """Put files into a folder: name -> text, or what JSON writes."""
    for name, content in texts.items():
        if not isinstance(content, str):
            import json

            content = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        files.replace(os.path.join(path, name), [content.encode()])


HOLDERS = "Transformer", "StaticEmbedding"  # kinds of modules that have weights and tokenizer beside them


class blame:  # noqa: N801  it is called as a function; contextlib would load what takes 4 ms
    """What goes wrong while settings of this folder are put to use becomes a BadModel naming it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, BadModel):
            told = error.message if self.path in error.message else f"{self.path}: {error.message}"
            raise BadModel(told, error.hint) from None
        if isinstance(error, KeyError):
            raise BadModel(f"{self.path}: no {error.args[0]!r} in its settings") from None
        if isinstance(error, (TypeError, AttributeError, ValueError, ArithmeticError)):
            raise BadModel(f"{self.path}: {error}") from None


def modules(path: str) -> list[tuple[str, str]]:
    """(kind, folder) of each entry of modules.json; empty without that file."""
    entries = read_json(path, "modules.json") or []
    try:
        pairs = [(entry["type"].rpartition(".")[2], entry["path"].split("/")) for entry in entries]
    except (TypeError, KeyError, AttributeError):
        raise BadModel(f"{path}/modules.json: entries need type and path") from None
    return [(kind, os.path.join(path, *below).rstrip("/")) for kind, below in pairs]


def transformer(path: str) -> str:
    """The folder with config.json, weights and tokenizer: `path`, or the one modules.json names."""
    return next((folder for kind, folder in modules(path) if kind in HOLDERS), path)


def _holds_static(path: str) -> bool:
    """Whether the folder, or the one it is in, says that it holds sentence-transformers' StaticEmbedding."""
    named = [*modules(path), *modules(os.path.dirname(os.path.abspath(path)))]
    return any(kind == "StaticEmbedding" and os.path.realpath(p) == os.path.realpath(path) for kind, p in named)


def _static(path: str) -> dict[str, Any] | None:
    """The settings of a folder of static embeddings without any; None for any other folder."""
    if _holds_static(path):
        return {"model_type": "static"}
    saved = read_json(path, "config_sentence_transformers.json")
    if modules(path) or not isinstance(saved, dict):
        return None
    return {"model_type": "model2vec", "normalize": bool(saved.get("normalize"))}
