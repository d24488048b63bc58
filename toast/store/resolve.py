"""From a model's name to its files: a folder or a GGUF file, fetched or converted first where that is needed.

The one place that knows every way to name a model. What is inside of one is for `toast/models` to read.
"""

from __future__ import annotations

import os

from toast import files
from toast.errors import BadModel, ModelNotFound, os_error
from toast.store import alias, catalog, compiled, hub

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call
    from toast.store.hub import Reference


def find(call: Call, name: str, *purposes: str, weights: bool = True) -> str:
    """The absolute path of a model's folder or GGUF file, fetched first if the catalog has it.

    `name` is an alias, a catalog name with an optional variant (`minilm@f32`), a path, or a model that another
    program keeps: `org/name`, `org/name@revision`, `org/name:Q4_K_M` or a hub's address (the Hugging Face
    cache, LM Studio, llama.cpp), `ollama:name`. All are used in place. purposes: what it is wanted for, as
    `toast/task.py` has them; it is looked for all the same. weights: False where the vocabulary is enough.
    Raises ModelNotFound, which names models of these purposes, or BadModel.
    """
    wanted = alias.target(call, name)
    if (ours := catalog.canonical(wanted)) in catalog.VARIANTS:
        return catalog.obtain(call, ours)
    return _on_disk(call, wanted) or _kept_elsewhere(call, wanted, purposes, weights=weights)


def _on_disk(call: Call, name: str) -> str | None:
    """A path that exists, if it can be a model's."""
    path = call.path(name)
    if os.path.isdir(path):
        return path
    if not os.path.exists(path):
        return None
    if not name.endswith(".gguf"):
        try:
            probe = is_probe(path)
        except OSError as error:
            raise os_error(error, f"open {name}") from None
        if probe:
            raise BadModel(f"{name} is a probe, which labels records", f"classify -m {name}")
        raise BadModel(f"{name} is neither a model folder nor a .gguf file")
    return path


def _kept_elsewhere(call: Call, name: str, purposes: tuple[str, ...], *, weights: bool) -> str:
    from toast.store import neighbours

    if name.startswith(neighbours.OLLAMA):
        return neighbours.ollama(call, name)
    reference = hub.parse(name)
    if not reference:
        raise ModelNotFound(f"no model {name!r} here", _instead(call, name, purposes))
    found = _of_repository(call, reference, weights=weights)
    if not found and call.env.get("TOAST_PULL") == "1":
        from toast.store import download

        download.pull(call, reference)
        found = _of_repository(call, reference, weights=weights)
    if not found:
        raise ModelNotFound(
            f"no model {name!r} here", f"run: model pull {_sized(call, reference)}; or {_others(purposes)}"
        )
    return found


def _sized(call: Call, reference: Reference) -> str:
    from toast.store import download

    size = download.size_of(call, reference)
    return f"{reference} ({size})" if size else f"{reference}"


def _instead(call: Call, name: str, purposes: tuple[str, ...]) -> str:
    """What to give in the place of a name that says nothing: one that is much like it, else what there is."""
    from difflib import get_close_matches

    from toast.store import inventory

    near = get_close_matches(name, inventory.names(call), 1)
    return f"did you mean {near[0]}?" if near else _others(purposes)


def _others(purposes: tuple[str, ...]) -> str:
    """Which models there are for these purposes."""
    names = [f"{n} ({catalog.SAID[n]})" for n, kind in catalog.PURPOSES.items() if not purposes or kind in purposes]
    ways = ["a folder", *["a .gguf file"] * (not purposes or "generate" in purposes), *names]
    return f"give {', '.join(ways[:-1])} or {ways[-1]}" if ways[1:] else "give a folder"


def _of_repository(call: Call, reference: Reference, *, weights: bool) -> str | None:
    """A repository's model in the Hugging Face cache, else where another program keeps it."""
    from toast.store import neighbours

    folder = hub.snapshot(call, reference)
    return hub.model(folder, reference, weights=weights) if folder else neighbours.find(call, reference)


def as_folder(call: Call, name: str, *, weights: bool = True) -> str:
    """The folder of a model as `find` gives it; of a GGUF file, or of a vocabulary in another form than
    tokenizer.json, what it was converted to, once.

    weights: False where the vocabulary is enough; a GGUF file need not hold more then.
    """
    path = find(call, name, weights=weights)
    compiled.keep_for(call)
    if os.path.isfile(os.path.join(path, "tokenizer.json")):
        return path
    from toast.store import converted

    if os.path.isdir(path):
        return converted.with_tokenizer(call, path)
    return converted.folder(call, path, weights=weights)


def is_probe(path: str) -> bool:
    """Whether a regular file is, or was, a probe of `classify --learn`; a pipe is not read for it. OSError where nobody
    can tell."""
    return os.path.isfile(path) and b'"format":"toastprobe' in files.read(path, 1 << 16).replace(b" ", b"")
