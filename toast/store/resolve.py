"""From a model's name to its files: a folder or a GGUF file, fetched or converted first where that is needed.

Knows the catalog and the Hugging Face cache; what is inside of a model is for `toast/models` to read.
"""

from __future__ import annotations

import os

from toast import files
from toast.errors import BadModel, ModelNotFound
from toast.store import catalog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call


def find(call: Call, name: str) -> str:
    """The absolute path of a model's folder or GGUF file, fetched first if the catalog has it.

    `name` is a path, a catalog name with an optional variant (`minilm@f32`), or the name of a
    repository in the Hugging Face cache (`BAAI/bge-small-en-v1.5`), which is used in place.
    Raises ModelNotFound or BadModel.
    """
    if name in catalog.VARIANTS:
        return catalog.obtain(call, name)
    path = call.path(name)
    if os.path.isdir(path):
        return path
    if os.path.exists(path):
        if not name.endswith(".gguf"):
            if is_probe(path):
                raise BadModel(f"{name} is a probe, which labels records", f"classify -m {name}")
            raise BadModel(f"{name} is neither a model folder nor a .gguf file")
        return path
    found = _hugging_face(call, name) if "/" in name else None
    if not found:
        known = ", ".join(n for n in catalog.VARIANTS if "@" not in n)
        raise ModelNotFound(f"no model {name!r}", f"give a folder, a .gguf file or one of: {known}")
    return found


def as_folder(call: Call, name: str, *, weights: bool = True) -> str:
    """The folder of a model as `find` gives it; of a GGUF file, what it was converted to, once.

    weights: False where the vocabulary is enough; a GGUF file need not hold more then.
    """
    path = find(call, name)
    if not os.path.isfile(path):
        return path
    from toast.store import converted

    return converted.folder(call, path, weights=weights)


def is_probe(path: str) -> bool:
    """Whether a regular file is, or was, a probe of `classify --learn`; a pipe is not read for it."""
    if not os.path.isfile(path):
        return False
    try:
        return b'"format":"toastprobe' in files.read(path, 1 << 16).replace(b" ", b"")
    except OSError:
        return False


def _hugging_face(call: Call, name: str) -> str | None:
    """The folder of a repository's main revision in the Hugging Face cache."""
    env = call.env
    hub = env.get("HF_HUB_CACHE") or os.path.join(
        env.get("HF_HOME") or os.path.join(env.get("HOME", "/nonexistent"), ".cache/huggingface"), "hub"
    )
    repository = os.path.join(call.path(hub), "models--" + name.replace("/", "--"))
    try:
        revision = files.read(os.path.join(repository, "refs", "main"), 1 << 10).decode().strip()
        folder = os.path.join(repository, "snapshots", revision)
    except (OSError, ValueError):
        return None
    return folder if os.path.isdir(folder) else None
