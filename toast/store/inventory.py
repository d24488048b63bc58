"""All models that are here: those of the store, of the Hugging Face cache, and of other programs.

Knows where each kind is listed, and what a model's small files and headers tell of it. Loads none.
"""

from __future__ import annotations

import json
import os
from math import prod

from toast.errors import ToastError
from toast.store import alias, catalog, hub, neighbours
from toast.store.location import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from toast.command import Call

ORIGIN = "origin.json"  # in a converted folder: what it was made from


class Model:
    """A model by the name that `-m` takes, where it is, and which program keeps it."""

    def __init__(self, name: str, path: str, owner: str) -> None:
        self.name, self.path, self.owner = name, path, owner


def models(call: Call) -> Iterator[Model]:
    """Every model that is here, by owner, then by name."""
    for name in catalog.VARIANTS:
        folder = os.path.join(home(call), "models", catalog.VARIANTS[name][0])
        if "@" in name and os.path.isdir(folder):
            yield Model(name, folder, "toast")
    yield from _of_hugging_face(call)
    for owner, listed in (
        ("LM Studio", neighbours.all_of_lm_studio),
        ("llama.cpp", neighbours.all_of_llama_cpp),
        ("Ollama", neighbours.all_of_ollama),
    ):
        for name, path in listed(call):
            yield Model(name, path, owner)


def names(call: Call) -> list[str]:
    """What -m can be given beside paths: aliases, the catalog, whatever is here."""
    known = [*alias.read(call), *(name for name in catalog.VARIANTS if "@" not in name)]
    return list(dict.fromkeys([*known, *(model.name for model in models(call))]))


def _of_hugging_face(call: Call) -> Iterator[Model]:
    """A model for each revision of each repository; a repository of GGUF files has one for each of them."""
    for entry in hub.names(hub.cache(call)):
        if not entry.startswith("models--"):
            continue
        repository = entry.removeprefix("models--").replace("--", "/", 1)
        snapshots = os.path.join(hub.storage(call, repository), "snapshots")
        main = hub.snapshot(call, hub.Reference(repository))
        for commit in hub.names(snapshots):
            folder = os.path.join(snapshots, commit)
            name = repository if folder == main else f"{repository}@{commit[:8]}"
            yield from (Model(n, path, "Hugging Face") for n, path in neighbours.models(name, folder))


# ---------------------------------------------------------------- conversions


def conversions(call: Call) -> Iterator[tuple[str, str | None]]:
    """(folder, the GGUF file or folder it was made from, None where that is not known) of what the store converted."""
    for kind in ("gguf", "tokenizers"):
        parent = os.path.join(home(call), kind)
        for name in hub.names(parent):
            folder = os.path.join(parent, name)
            if os.path.isdir(folder) and not name.endswith(".part"):
                yield folder, _origin(folder)


def _origin(folder: str) -> str | None:
    try:
        with open(os.path.join(folder, ORIGIN), encoding="utf-8") as file:
            path = json.load(file)["path"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return path if isinstance(path, str) else None


# ---------------------------------------------------------------- what a model is


def describe(model: Model) -> dict[str, Any]:
    """{"name", "architecture", "parameters", "bits", "bytes", "used", "form", "owner", "path"} of a model.

    parameters: a number, bits: of each on average, used: the last access of its weights in seconds since 1970.
    What the files do not tell is None."""
    told: dict[str, Any] = {"name": model.name, "architecture": None, "parameters": None, "bits": None}
    try:
        told.update(_of_gguf(model.path) if os.path.isfile(model.path) else _of_tensors(model.path))
    except ToastError as error:
        told["error"] = str(error)
    held = files(model.path)
    stats = [os.stat(path) for path in held]
    return {
        **told,
        "bytes": sum(s.st_size for s in stats),
        "used": max((s.st_atime for s in stats), default=None),
        "form": "converted" if os.path.isfile(model.path) else "mapped",
        "owner": model.owner,
        "path": model.path,
    }


def files(path: str) -> list[str]:
    """The files of a model: those of its folder, or all parts of a GGUF file."""
    if os.path.isdir(path):
        return [os.path.join(path, name) for name in hub.below(path)]
    folder, name = os.path.split(path)
    return [os.path.join(folder, part) for part in hub.parts(name, hub.names(folder))]


def size(paths: Iterable[str]) -> int:
    """Bytes of files, those that share their data counted once."""
    held = {(s.st_dev, s.st_ino): s.st_size for s in map(os.stat, paths)}
    return sum(held.values())


def _of_tensors(folder: str) -> dict[str, Any]:
    from toast.store.folder import read_config, transformer
    from toast.store.weights import tensors_of

    base = transformer(folder)
    config = read_config(base)
    tensors = tensors_of(base)
    quantization = config.get("quantization") or config.get("quantization_config") or {}
    group = quantization.get("group_size", 64) if isinstance(quantization, dict) else 64
    held, parameters = 0, 0
    for name, (dtype, shape) in tensors.items():
        held += dtype.size * prod(shape)
        scales = tensors.get(name.removesuffix("weight") + "scales") if name.endswith(".weight") else None
        if scales:
            parameters += prod(scales[1]) * group
        elif not name.endswith((".scales", ".biases")):
            parameters += prod(shape)
    kind = config.get("model_type")
    return {"architecture": kind if isinstance(kind, str) else None, **_counted(parameters, held)}


def _of_gguf(path: str) -> dict[str, Any]:
    from toast.store.gguf import Gguf

    whole = [Gguf(part) for part in files(path)]
    tensors = [tensor for part in whole for tensor in part.tensors.values()]
    kind = whole[0].metadata.get("general.architecture")
    numbers = _counted(sum(prod(t.shape) for t in tensors), sum(t.nbytes for t in tensors))
    return {"architecture": kind if isinstance(kind, str) else None, **numbers}


def _counted(parameters: int, held: int) -> dict[str, Any]:
    return {"parameters": parameters, "bits": round(8 * held / parameters, 1) if parameters else None}
