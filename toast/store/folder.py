"""The small files of a model folder: JSON settings, and which folder holds the transformer.

Knows nothing of tensors, of architectures or of where the folder came from.
"""

import json
import os
from contextlib import contextmanager

from toast.errors import BadModel


def read_config(path):
    """config.json of the folder as a dict; BadModel when it is missing or not an object."""
    if not os.path.isdir(path):
        raise BadModel(f"{path}: not a model folder")
    config = read_json(path, "config.json")
    if not isinstance(config, dict):
        raise BadModel(f"{path}: config.json is {'not an object' if config else 'missing'}")
    return config


def read_json(path, name):
    """A JSON object or list of the model folder; None when the file is not there."""
    file = os.path.join(path, name)
    try:
        with open(file, encoding="utf-8") as f:
            value = json.load(f)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadModel(f"{file}: {error}") from None
    if not isinstance(value, (dict, list)):
        raise BadModel(f"{file}: neither an object nor a list")
    return value


def read_object(path, name):
    """A JSON object of the model folder; empty when the file is not there."""
    value = read_json(path, name) or {}
    if not isinstance(value, dict):
        raise BadModel(f"{os.path.join(path, name)}: not an object")
    return value


def write_texts(path, texts):
    """Write files into a folder: name -> text, or what JSON writes."""
    for name, content in texts.items():
        with open(os.path.join(path, name), "w", encoding="utf-8") as file:
            if isinstance(content, str):
                file.write(content)
            else:
                json.dump(content, file, ensure_ascii=False, separators=(",", ":"))


@contextmanager
def blame(path):
    """What goes wrong while settings of this folder are put to use becomes a BadModel naming it."""
    try:
        yield
    except BadModel as error:
        told = error.message if path in error.message else f"{path}: {error.message}"
        raise BadModel(told, error.hint) from None
    except KeyError as error:
        raise BadModel(f"{path}: no {error.args[0]!r} in its settings") from None
    except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise BadModel(f"{path}: {error}") from None


def modules(path):
    """(kind, folder) of each entry of modules.json; empty without that file."""
    entries = read_json(path, "modules.json") or []
    try:
        pairs = [(entry["type"].rpartition(".")[2], entry["path"]) for entry in entries]
    except (TypeError, KeyError, AttributeError):
        raise BadModel(f"{path}/modules.json: entries need type and path") from None
    return [(kind, os.path.join(path, *below.split("/")).rstrip("/")) for kind, below in pairs]


def transformer(path):
    """The folder with config.json, weights and tokenizer: `path`, or the one modules.json names."""
    return next((folder for kind, folder in modules(path) if kind == "Transformer"), path)
