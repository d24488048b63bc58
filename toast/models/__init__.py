"""Architectures: a model folder becomes a callable Model.

Owns: config.json and the choice of the file named after `model_type`. Does not know: text.
"""

import json
import os

from toast.errors import BadModel

NOT_ARCHITECTURES = {"__init__", "layers", "tokens", "sentence", "scorer", "late", "decoder"}


def encoder(path):
    """The encoder in folder `path`, weights mapped: model(ids, lengths, types) -> hidden (B, L, D).

    Raises BadModel when the folder is incomplete or its architecture is not known here.
    """
    from importlib import import_module

    from toast.store import weights

    config = read_config(path)
    name = str(config.get("model_type")).replace("-", "_")
    if name not in architectures():
        known = ", ".join(architectures())
        raise BadModel(f"{path}: model type {config.get('model_type')!r} is not one of {known}")
    module, tensors = import_module(f"toast.models.{name}"), weights.load(path)
    try:
        return module.Model(config, tensors)
    except KeyError as error:
        raise BadModel(f"{path}/config.json: no {error.args[0]!r}") from None
    except (TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise BadModel(f"{path}/config.json: {error}") from None
    except BadModel as error:
        raise BadModel(f"{path}: {error.message}", error.hint) from None


def architectures():
    """Names of the encoders that are here, as files of this folder."""
    names = (os.path.splitext(f) for f in os.listdir(os.path.dirname(__file__)))
    return sorted(n for n, ext in names if ext == ".py" and n not in NOT_ARCHITECTURES)


def read_config(path):
    """config.json of the folder as a dict."""
    if not os.path.isdir(path):
        raise BadModel(f"{path}: not a model folder")
    config = read_json(path, "config.json")
    if config is None:
        raise BadModel(f"{path}: no config.json")
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
