"""Architectures: a model folder becomes a callable Model.

Owns: the choice of the file named after `model_type` of config.json. Does not know: text.
"""

from __future__ import annotations

import os

from toast.errors import BadModel
from toast.store.folder import blame, read_config, transformer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOT_ARCHITECTURES = {"__init__", "layers", "rotary"}


def encoder(path: str) -> Any:
    """The encoder in folder `path`, weights mapped: model(ids, lengths, types) -> hidden (B, L, D).

    Raises BadModel when the folder is incomplete or its architecture is not known here.
    """
    from importlib import import_module

    from toast.store import weights

    path = transformer(path)
    config = read_config(path)
    name = str(config.get("model_type")).replace("-", "_")
    if name not in architectures():
        known = ", ".join(architectures())
        raise BadModel(f"{path}: model type {config.get('model_type')!r} is not one of {known}")
    module, tensors = import_module(f"toast.models.{name}"), weights.load(path)
    with blame(path):
        return module.Model(config, tensors)


def architectures() -> list[str]:
    """Names of the encoders that are here, as files of this folder."""
    names = (os.path.splitext(f) for f in os.listdir(os.path.dirname(__file__)))
    return sorted(n for n, ext in names if ext == ".py" and n not in NOT_ARCHITECTURES)
