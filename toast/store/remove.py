"""Freeing what the store and the Hugging Face cache hold of a model, and nothing that anything else uses.

Owns which files a removal takes. What belongs to other programs or to the user is theirs to remove.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from toast.errors import UsageError
from toast.store import compiled, hub, inventory
from toast.store.inventory import Model
from toast.store.location import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from toast.command import Call


def plan(call: Call, model: Model) -> list[str]:
    """The paths that go with a model; UsageError, which says what to type, where it is not ours to remove."""
    if model.owner == "Hugging Face":
        converted = _converted_from(call, model.path)
        return _of_cache(model.path) + converted + _compiled_from(call, [model.path, *converted])
    if model.owner == "toast":
        return [model.path, *_compiled_from(call, [model.path])]
    converted = _converted_from(call, model.path)
    if converted:  # what was made of somebody's file is ours
        return converted + _compiled_from(call, [model.path, *converted])
    if model.owner == "Ollama":
        raise UsageError(f"{model.name} belongs to Ollama", f"ollama rm {model.name.removeprefix('ollama:')}")
    word = "rm -r" if os.path.isdir(model.path) else "rm"
    raise UsageError(f"{model.name} belongs to {model.owner or 'you'}", f"{word} {model.path}")


def vanished(call: Call) -> list[str]:
    """Conversions whose GGUF file is no more, or is not known, and vocabularies whose tokenizer.json is no more."""
    gone = [folder for folder, origin in inventory.conversions(call) if not origin or not os.path.exists(origin)]
    return gone + [file for file, source in compiled.kept(call) if not os.path.exists(source)]


def remove(call: Call, paths: Iterable[str]) -> None:
    """Remove them, what names a revision last, and the folders that are empty then."""
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
        _prune(os.path.dirname(path), (hub.cache(call), home(call)))


def _prune(folder: str, roots: tuple[str, ...]) -> None:
    """Remove a folder that is empty, and those above it, below the roots."""
    with suppress(OSError):
        while any(folder.startswith(root + os.sep) for root in roots):
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _converted_from(call: Call, path: str) -> list[str]:
    """Folders of the store that were made of a GGUF file, or of one in a folder."""
    real = os.path.realpath(path)
    return [
        folder
        for folder, origin in inventory.conversions(call)
        if origin and (origin in (path, real) or origin.startswith((path + os.sep, real + os.sep)))
    ]


def _compiled_from(call: Call, folders: list[str]) -> list[str]:
    """Compiled vocabularies that were made of a tokenizer.json in one of these folders."""
    real = [os.path.realpath(os.path.join(folder, "tokenizer.json")) for folder in folders]
    return [file for file, source in compiled.kept(call) if source in real]


def _of_cache(path: str) -> list[str]:
    """A revision's links (or a GGUF file's), the blobs that no other link leads to, and the names of a revision."""
    storage, _, below = path.partition("/snapshots/")
    commit = below.split("/")[0]
    snapshots = os.path.join(storage, "snapshots")
    links = _links(os.path.join(snapshots, commit))
    mine = links if below == commit else inventory.files(path)
    if not any(link.endswith((".safetensors", ".gguf")) for link in set(links) - set(mine)):
        mine = links  # without weights the rest serves nothing
    others = {os.path.realpath(link) for link in _links(snapshots) if link not in mine}
    blobs = {os.path.realpath(link) for link in mine} - others
    ours = [blob for blob in sorted(blobs) if blob.startswith(os.path.realpath(storage) + os.sep)]
    refs = _refs(storage, commit) if mine is links else []
    return [*refs, *mine, *(blob for blob in ours if blob not in mine), *(_parts(storage) if mine is links else [])]


def _links(folder: str) -> list[str]:
    return [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in sorted(names)]


def _refs(storage: str, commit: str) -> list[str]:
    """The names that stand for a commit."""
    found = []
    for ref in _links(os.path.join(storage, "refs")):
        with suppress(OSError), open(ref) as file:
            if file.read(100).strip() == commit:
                found.append(ref)
    return found


def _parts(storage: str) -> list[str]:
    """What a fetch that nobody ended left."""
    blobs = os.path.join(storage, "blobs")
    return [path for path in _links(blobs) if path.endswith(".incomplete")]
