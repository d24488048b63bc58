"""The shared weights store: where it is, and from a model's name to its files.

A model is a folder or a GGUF file; what is inside is for `toast/models` to read.
"""

import os

from toast.errors import BadModel, ModelNotFound
from toast.store import catalog


def home(call) -> str:
    """$TOAST_HOME, else $XDG_CACHE_HOME/toast, else ~/.cache/toast, else a per-user folder."""
    env = call.env
    if env.get("TOAST_HOME"):
        return call.path(env["TOAST_HOME"])
    if os.path.isabs(env.get("XDG_CACHE_HOME", "")):
        return os.path.join(env["XDG_CACHE_HOME"], "toast")
    if env.get("HOME"):
        return os.path.join(call.path(env["HOME"]), ".cache", "toast")
    return _home_without_home()


def _home_without_home() -> str:
    """The password database's home; failing that, a folder in /var/tmp that is only ours."""
    import pwd

    try:
        path = pwd.getpwuid(os.getuid()).pw_dir
        if os.access(path, os.W_OK):
            return os.path.join(path, ".cache", "toast")
    except KeyError:
        pass
    path = f"/var/tmp/toast-{os.getuid()}"
    os.makedirs(path, 0o700, exist_ok=True)
    status = os.lstat(path)
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ModelNotFound(f"{path} is not a private folder of yours", "set TOAST_HOME=FOLDER")
    return path


def find(call, name: str) -> str:
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
    found = "/" in name and _hugging_face(call, name)
    if not found:
        known = ", ".join(n for n in catalog.VARIANTS if "@" not in n)
        raise ModelNotFound(f"no model {name!r}", f"give a folder, a .gguf file or one of: {known}")
    return found


def as_folder(call, name: str) -> str:
    """The folder of a model as `find` gives it; of a GGUF file, what it was converted to, once."""
    path = find(call, name)
    if not os.path.isfile(path):
        return path
    from toast.store import convert

    return convert.folder_for(call, path)


def is_probe(path: str) -> bool:
    """Whether a regular file is, or was, a probe of `classify --learn`; a pipe is not read for it."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return b'"format": "toast probe ' in file.read(1 << 16)
    except OSError:
        return False


def _hugging_face(call, name: str) -> str | None:
    """The folder of a repository's main revision in the Hugging Face cache."""
    env = call.env
    hub = env.get("HF_HUB_CACHE") or os.path.join(
        env.get("HF_HOME") or os.path.join(env.get("HOME", "/nonexistent"), ".cache/huggingface"), "hub"
    )
    repository = os.path.join(call.path(hub), "models--" + name.replace("/", "--"))
    try:
        with open(os.path.join(repository, "refs", "main")) as file:
            folder = os.path.join(repository, "snapshots", file.read().strip())
    except OSError:
        return None
    return folder if os.path.isdir(folder) else None
