"""Models that other programs keep: Ollama's store, LM Studio's and llama.cpp's folders, used where they are.

Knows their layouts, read-only: nothing here is ours to change.
"""

from __future__ import annotations

import json
import os

from toast.errors import BadModel, ModelNotFound
from toast.store import hub

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from toast.command import Call
    from toast.store.hub import Reference

OLLAMA = "ollama:"
WEIGHTS = "application/vnd.ollama.image.model"  # the layer of a manifest that is the GGUF file
REGISTRY = "registry.ollama.ai"


def find(call: Call, reference: Reference) -> str | None:
    """The model of a repository in LM Studio's or llama.cpp's folder; None where neither has it."""
    if reference.revision:
        return None  # neither keeps revisions
    for parent in lm_studio(call):
        folder = os.path.join(parent, reference.repository)
        if os.path.isdir(folder):
            return hub.model(folder, reference)
    parent = llama_cpp(call)
    prefix = reference.repository.replace("/", "_") + "_"
    flat = {name.removeprefix(prefix): name for name in hub.names(parent) if name.startswith(prefix)}
    file = hub.choose(reference, flat)
    return os.path.join(parent, flat[file]) if file else None


def lm_studio(call: Call) -> list[str]:
    """The folders in which LM Studio keeps ORG/NAME, today's first."""
    return [call.path(f"~/{folder}/models") for folder in (".lmstudio", ".cache/lm-studio")]


def llama_cpp(call: Call) -> str:
    """The folder in which llama.cpp keeps ORG_NAME_FILE.gguf."""
    env = call.env
    caches = env.get("XDG_CACHE_HOME") or call.path("~/.cache")
    return call.path(env.get("LLAMA_CACHE") or os.path.join(caches, "llama.cpp"))


def all_of_lm_studio(call: Call) -> Iterator[tuple[str, str]]:
    """(name, path) of each model that LM Studio keeps: ORG/NAME, with :FILE for a GGUF file."""
    for parent in lm_studio(call):
        for organisation in hub.names(parent):
            for name in hub.names(os.path.join(parent, organisation)):
                folder = os.path.join(parent, organisation, name)
                yield from models(f"{organisation}/{name}", folder)


def all_of_llama_cpp(call: Call) -> Iterator[tuple[str, str]]:
    """(file, path) of each GGUF file that llama.cpp keeps."""
    parent = llama_cpp(call)
    for name in hub.firsts(hub.names(parent)):
        yield os.path.join(parent, name), os.path.join(parent, name)


def models(name: str, folder: str) -> Iterator[tuple[str, str]]:
    """(name, path) of each model in the folder of a repository of this name."""
    for file in hub.models(folder):
        yield (f"{name}:{file}", os.path.join(folder, file)) if file else (name, folder)


# ---------------------------------------------------------------- Ollama
# manifests/HOST/NAMESPACE/NAME/TAG is JSON that lists layers by digest; blobs/sha256-HEX holds each once.


def ollama_stores(call: Call) -> list[str]:
    """Where Ollama keeps models: $OLLAMA_MODELS, else the user's own store and that of its Linux service."""
    named = call.env.get("OLLAMA_MODELS")
    return [call.path(named)] if named else [call.path("~/.ollama/models"), "/usr/share/ollama/.ollama/models"]


def ollama(call: Call, name: str) -> str:
    """The GGUF file of `ollama:NAME[:TAG]`; ModelNotFound, BadModel."""
    wanted = name.removeprefix(OLLAMA)
    model, _, tag = wanted.partition(":")
    parts = model.split("/")
    if not hub.safe_path(model) or len(parts) > 3 or tag and ("/" in tag or not hub.safe_path(tag)):
        raise ModelNotFound(f"{name!r} names no model of Ollama's", "ollama:NAME or ollama:NAME:TAG")
    below = [REGISTRY, "library", ""][: 3 - len(parts)] + parts
    for store in ollama_stores(call):
        manifest = os.path.join(store, "manifests", *below, tag or "latest")
        if os.path.isfile(manifest):
            return _blob(store, manifest, name)
    raise ModelNotFound(f"Ollama has no {wanted} here", f"ollama pull {wanted}")


def _blob(store: str, manifest: str, name: str) -> str:
    digest = _digest(manifest)
    path = os.path.join(store, "blobs", digest.replace(":", "-"))
    if not os.path.isfile(path):
        raise ModelNotFound(f"{name} is here in part: no {digest}", f"ollama pull {name.removeprefix(OLLAMA)}")
    return path


def _digest(manifest: str) -> str:
    """`sha256:HEX` of a manifest's weights."""
    try:
        with open(manifest, encoding="utf-8") as file:
            layers = json.load(file)["layers"]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"] == WEIGHTS)
        if not (digest.startswith("sha256:") and len(digest) == 71 and digest[7:].isalnum()):
            raise ValueError(f"{digest!r} is no digest")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise BadModel(f"{manifest}: not a manifest of Ollama's with weights: {error or 'none'}") from None
    return digest


def all_of_ollama(call: Call) -> Iterator[tuple[str, str]]:
    """(`ollama:NAME:TAG`, path) of each model that Ollama keeps."""
    for store in ollama_stores(call):
        manifests = os.path.join(store, "manifests")
        for folder, _, tags in os.walk(manifests):
            for tag in sorted(tags):
                host, *parts = os.path.relpath(folder, manifests).split(os.sep)
                parts = ([] if host == REGISTRY else [host]) + parts
                name = "/".join(parts[1:] if parts[:1] == ["library"] else parts)
                try:
                    yield f"{OLLAMA}{name}:{tag}", _blob(store, os.path.join(folder, tag), name)
                except (BadModel, ModelNotFound):
                    continue
