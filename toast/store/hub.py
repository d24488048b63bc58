"""Repositories of a model hub: how they are named, and where the Hugging Face cache keeps them.

Knows the cache's layout (blobs, refs, snapshots), which every other tool shares. Fetching is `download.py`'s.
Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import os

from toast.errors import BadModel, ModelNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from toast.command import Call

HOSTS = ("huggingface.co", "hf.co", "www.huggingface.co")
# of a model in safetensors, of an adapter, of sentence-transformers where it keeps a model's one folder further in
SETTINGS = frozenset(("config.json", "adapter_config.json", "modules.json"))
WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
SHORTEST_SHA = 4  # digits of a commit that may stand for all of them


class Reference:
    """`org/name`, perhaps a revision of it and one GGUF file in it (`file`: a name or a quantisation)."""

    def __init__(self, repository: str, revision: str = "", file: str = "") -> None:
        self.repository, self.revision, self.file = repository, revision, file

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return self.repository + revision + (f":{self.file}" if self.file else "")


def parse(name: str) -> Reference | None:
    """What `org/name`, `org/name@revision`, `org/name:Q4_K_M` or a hub's address names; None for anything else."""
    address = name.partition("?")[0].split("://", 1)
    host, slash, rest = address[-1].partition("/")
    if host.lower() in HOSTS and slash:
        return _of_address(rest.strip("/").split("/"))
    if len(address) > 1:
        return None
    repository, _, file = name.partition(":")
    repository, at, revision = repository.partition("@")
    parts = repository.split("/")
    if name.endswith(".gguf") and ":" not in name:
        return None  # a path
    if len(parts) != 2 or not all(map(_word, parts)):
        return None
    if at and not safe_path(revision) or ":" in name and not safe_path(file):
        return None
    return Reference(repository, revision, file)


def _of_address(parts: list[str]) -> Reference | None:
    """org/name, org/name/tree/REVISION, org/name/blob|resolve/REVISION/FILE; a short name may follow."""
    if len(parts) == 2:
        return parse("/".join(parts))
    if len(parts) < 4 or parts[2] not in ("tree", "blob", "resolve") or not all(map(_word, parts[:2])):
        return None
    file = "/".join(parts[4:]) if parts[2] != "tree" else ""
    if not safe_path(parts[3]) or file and not safe_path(file):
        return None
    return Reference("/".join(parts[:2]), parts[3], file)


def _word(text: str) -> bool:
    return bool(text) and WORD.issuperset(text) and text[0] not in "-." and ".." not in text and len(text) <= 96


def safe_path(text: str) -> bool:
    """Whether the text may be part of a path below a folder: no empty part, none that leads up."""
    return all(part and part not in (".", "..") and "\0" not in part and "\\" not in part for part in text.split("/"))


def is_offline(call: Call) -> bool:
    """Whether HF_HUB_OFFLINE says so, as the hub's own library reads it."""
    return call.env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


# ---------------------------------------------------------------- the cache


def cache(call: Call) -> str:
    """The folder of the Hugging Face cache, as its own library finds it."""
    env = call.env
    named = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return call.path(named)
    home = env.get("HF_HOME") or os.path.join(
        env.get("XDG_CACHE_HOME") or os.path.join(env.get("HOME", "/nonexistent"), ".cache"), "huggingface"
    )
    return os.path.join(call.path(home), "hub")


def storage(call: Call, repository: str) -> str:
    """The folder of a repository in the cache, whether or not it is there."""
    return os.path.join(cache(call), "models--" + repository.replace("/", "--"))


def snapshot(call: Call, reference: Reference) -> str | None:
    """The folder of a revision: the one that is asked for, else main, else the newest; None where it is not here."""
    folder = storage(call, reference.repository)
    commit = _commit(folder, reference.revision or "main")
    if not commit and not reference.revision:
        commit = _newest(folder)
    return os.path.join(folder, "snapshots", commit) if commit else None


def _commit(folder: str, revision: str) -> str | None:
    """The commit of a branch, a tag, or the beginning of a commit's own name, among those that are here."""
    here = names(os.path.join(folder, "snapshots"))
    try:
        with open(os.path.join(folder, "refs", revision)) as file:
            commit = file.read(100).strip()
    except (OSError, ValueError):
        found = [name for name in here if name.startswith(revision) and len(revision) >= SHORTEST_SHA]
        return revision if revision in here else found[0] if len(found) == 1 else None
    return commit if commit in here else None


def _newest(folder: str) -> str | None:
    parent = os.path.join(folder, "snapshots")
    return max(names(parent), key=lambda name: os.stat(os.path.join(parent, name)).st_mtime_ns, default=None)


def names(folder: str) -> list[str]:
    """What is in a folder; nothing where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


# ---------------------------------------------------------------- what a folder holds


def model(folder: str, reference: Reference, *, weights: bool = True) -> str:
    """The model in a repository's folder: the folder itself, or the GGUF file in it that is meant.

    Raises BadModel where several are there and none is named, ModelNotFound where parts have not been fetched."""
    found = below(folder)
    if not reference.file and not SETTINGS.isdisjoint(found):
        lacking = weights and missing(folder, found)
        if not lacking:
            return folder
        raise ModelNotFound(f"{reference} is here in part: no {lacking}", f"model pull {reference}")
    file = choose(reference, found)
    if file is None:
        lacking = reference.file or "model"
        raise ModelNotFound(f"{reference} is here in part: no {lacking}", f"model pull {reference}")
    return os.path.join(folder, file)


def models(folder: str) -> list[str]:
    """The models in a folder: "" for itself, and the paths from it of GGUF files, of several parts the first."""
    found = below(folder)
    whole = not SETTINGS.isdisjoint(found) and not missing(folder, found)
    return [""] * whole + firsts(found)


def firsts(files: Iterable[str]) -> list[str]:
    """The GGUF files that are models, of several parts the first; what projects images for one (`mmproj`) is none."""
    return sorted(
        name
        for name in files
        if name.endswith(".gguf")
        and part_of(name)[1] in (0, 1)
        and not os.path.basename(name).startswith("mmproj")
        and "_mmproj" not in name  # as llama.cpp keeps it: ORG_NAME_FILE
    )


def below(folder: str) -> list[str]:
    """The files of a folder and of those in it, by their paths from it; a link to nothing is none."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.exists(path):
                found.append(os.path.relpath(path, folder))
    return sorted(found)


def missing(folder: str, found: list[str]) -> str:
    """What a model folder needs and has not: weights, as its index names them; nothing where all is there."""
    if "model.safetensors.index.json" in found:
        from toast.store.weights import indexed

        wanted = indexed(os.path.join(folder, "model.safetensors.index.json"))
        return next((name for name in wanted if name not in found), "")
    whole = any(name.endswith((".safetensors", ".bin", ".npz", ".pt", ".pth")) for name in found)
    return "" if whole else "model.safetensors"


def choose(reference: Reference, files: Iterable[str]) -> str | None:
    """The GGUF file, of several parts the first, that a reference means; None where there is none.

    Raises BadModel, which lists them, where several could be meant."""
    wanted = [name for name in firsts(files) if not reference.file or _is(name, reference.file)]
    if len(wanted) > 1:
        several = ", ".join(_quantisation(name) for name in wanted[:12])
        raise BadModel(f"{reference} holds several models", f"{reference.repository}:NAME with one of: {several}")
    return wanted[0] if wanted else None


def parts(file: str, files: Iterable[str]) -> list[str]:
    """All parts of a GGUF file of which the first is given."""
    stem, number, _ = part_of(file)
    return [name for name in files if part_of(name)[0] == stem] if number else [file]


def part_of(file: str) -> tuple[str, int, int]:
    """(name, part, parts) of `NAME-00001-of-00003.gguf`; (name, 0, 0) of a file that is whole."""
    stem = file.removesuffix(".gguf")
    tail = stem[-15:]
    if len(tail) == 15 and tail[0] == "-" and tail[6:10] == "-of-" and (tail[1:6] + tail[10:]).isdecimal():
        number, count = int(tail[1:6]), int(tail[10:])
        if 1 <= number <= count:
            return stem[:-15], number, count
    return stem, 0, 0


def _is(file: str, wanted: str) -> bool:
    """Whether `wanted` names the file: its path, its name, its quantisation, or the folder it is in."""
    stem, wanted = part_of(file)[0].lower(), wanted.lower().removesuffix(".gguf")
    wanted = part_of(wanted)[0]
    folder, _, name = stem.rpartition("/")
    return wanted in (stem, name, folder) or (name.endswith(wanted) and name[-len(wanted) - 1] in "-._")


def _quantisation(file: str) -> str:
    """The last word of a file's name, which says how it is quantised: `Q4_K_M`."""
    name = os.path.basename(part_of(file)[0])
    return name.replace(".", "-").rpartition("-")[2]


# ---------------------------------------------------------------- hashes


def digest(fd: int, size: int, *, large: bool) -> str:
    """The hash, in hex, under which a hub knows a file: SHA-256 of a large one, git's SHA-1 of a small one."""
    import hashlib

    os.lseek(fd, 0, os.SEEK_SET)
    found = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    while block := os.read(fd, 1 << 20):
        found.update(block)
    return found.hexdigest()


def is_intact(path: str) -> bool | None:
    """Whether a blob has the hash that is its name (the Hugging Face cache's, Ollama's); None: it has another name."""
    name = os.path.basename(path).removeprefix("sha256-")
    if len(name) not in (40, 64) or not set(name) <= set("0123456789abcdef"):
        return None
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return digest(fd, os.fstat(fd).st_size, large=len(name) == 64) == name
    finally:
        os.close(fd)
