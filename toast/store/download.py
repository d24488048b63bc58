"""Fetching a repository of a model hub into the Hugging Face cache, where every other tool finds it.

Only what a model needs and cannot run: weights, settings, vocabularies, templates, licences. A file goes on where
a killed run left it, and takes its name only once its hash is right. The hub's own library asks the hub, knows the
user's token and holds the connection; it does not itself go on with a file, nor check what came.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from urllib.parse import quote, urljoin, urlsplit

from toast import files, locks, pipes
from toast.errors import BadModel, ModelNotFound, ToastError, os_error
from toast.store import hub

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from toast.command import Call
    from toast.store.hub import Reference

SUFFIXES = (".safetensors", ".gguf", ".json", ".jinja", ".txt", ".model", ".tiktoken", ".md")
NAMES = ("license", "notice", "use_policy")  # whatever follows
ELSEWHERE = ("onnx/", "openvino/", "original/", "coreml/", "tf/", "flax/", "metal/")  # the same weights once more
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TRIES = 5  # in a row without a byte
REDIRECTS = 5
PATIENCE = 3  # seconds, where a size would only be nice to know


class File:
    """A file of a repository: its name, bytes, and the hash that is also its blob's name in the cache.

    digest: SHA-256 of a large file, git's SHA-1 of a small one, in hex."""

    def __init__(self, name: str, size: int, digest: str) -> None:
        self.name, self.size, self.digest = name, size, digest


def pull(call: Call, reference: Reference, *, dry_run: bool = False) -> list[File]:
    """Fetch what a model needs of a repository; its files, of which those that were here are not fetched again.

    Raises ModelNotFound, BadModel, BadInput."""
    if hub.is_offline(call):
        raise ModelNotFound(f"cannot fetch {reference}: HF_HUB_OFFLINE is set")
    try:
        commit, wanted = _listed(call, reference)
        if dry_run:
            return wanted
        _fetch_all(call, reference, commit, wanted=wanted)
    except OSError as error:
        raise os_error(error, f"fetch {reference} into {hub.cache(call)}") from None
    return wanted


def size_of(call: Call, reference: Reference) -> str:
    """What a pull would fetch, as `2.3 GB`; "" where the hub does not tell that at once."""
    if hub.is_offline(call):
        return ""
    try:
        return size_text(sum(file.size for file in _listed(call, reference, seconds=PATIENCE)[1]))
    except (ToastError, OSError):
        return ""


# ---------------------------------------------------------------- which files


def _listed(call: Call, reference: Reference, *, seconds: float | None = None) -> tuple[str, list[File]]:
    """(commit, the files to fetch) of a repository, as the hub tells. seconds: to wait for it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi(endpoint=call.env.get("HF_ENDPOINT") or None)
    name, where = reference.repository, urlsplit(api.endpoint).netloc
    try:
        told = api.model_info(name, revision=reference.revision or None, files_metadata=True, timeout=seconds)
    except GatedRepoError:
        raise ModelNotFound(f"{name} is gated", f"ask for access at {api.endpoint}/{name}, then set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise ModelNotFound(f"{name} has no revision {reference.revision!r} at {where}") from None
    except RepositoryNotFoundError:
        raise ModelNotFound(f"{where} has no {name}, or does not show it", "a private one needs HF_TOKEN") from None
    except HfHubHTTPError as error:
        raise ModelNotFound(f"{where} answered {error.response.status_code} for {name}") from None
    except _errors_of(api) as error:
        raise ModelNotFound(f"cannot reach {where}: {type(error).__name__}", "HF_ENDPOINT names another hub") from None
    except (ValueError, TypeError, KeyError, AttributeError):  # what is no hub answers anything
        raise BadModel(f"{where} did not answer as a hub does") from None
    return _checked(reference, told)


def _errors_of(api: Any) -> tuple[type[Exception], ...]:
    """The errors of the hub library's connection: httpx's, under whatever name it has them."""
    from huggingface_hub.utils import get_session

    library = sys.modules[type(get_session()).__module__.partition(".")[0]]
    return (library.HTTPError, library.InvalidURL, library.StreamError)


def _checked(reference: Reference, told: Any) -> tuple[str, list[File]]:
    """The commit and the files that are wanted of what a hub told; BadModel where it told what cannot be."""
    if not (isinstance(told.sha, str) and _hex(told.sha, 40)):
        raise BadModel(f"{reference}: the hub names no commit")
    known = {}
    for entry in told.siblings or []:
        if not hub.safe_path(entry.rfilename) or len(os.fsencode(entry.rfilename)) > 200:
            raise BadModel(f"{reference}: the hub names a file {entry.rfilename!r}, which leads elsewhere")
        known[entry.rfilename] = entry
    return told.sha, [_file(reference, known[name]) for name in _wanted(reference, sorted(known))]


def _file(reference: Reference, entry: Any) -> File:
    size, digest = (entry.lfs.size, entry.lfs.sha256) if entry.lfs else (entry.size, entry.blob_id)
    if type(size) is not int or size < 0 or not isinstance(digest, str) or not _hex(digest, 64 if entry.lfs else 40):
        raise BadModel(f"{reference}: the hub gives no size and no hash of {entry.rfilename}")
    return File(entry.rfilename, size, digest)


def _hex(text: str, digits: int) -> bool:
    return len(text) == digits and set(text) <= set("0123456789abcdef")


def _wanted(reference: Reference, names: list[str]) -> list[str]:
    """What a model needs of these files: one GGUF file, or weights in safetensors, and what is small."""
    small = [name for name in names if _small(name)]
    weights = [name for name in names if name.endswith(".safetensors") and not name.startswith(ELSEWHERE)]
    if weights and not hub.SETTINGS.isdisjoint(names) and not reference.file:
        return _whole(weights) + small
    file = hub.choose(reference, names)
    if file:
        return [*hub.parts(file, names), *small]
    if reference.file:
        raise ModelNotFound(f"{reference.repository} has no GGUF file {reference.file!r}")
    if weights:  # an adapter has no configuration of a model
        return weights + small
    if any(name.endswith(PICKLES) for name in names):
        raise BadModel(f"{reference} holds pickles alone, which can run code", "look for one with .safetensors files")
    raise BadModel(f"{reference} holds no weights in .safetensors or .gguf")


def _small(name: str) -> bool:
    base = os.path.basename(name).lower()
    fits = name.endswith(SUFFIXES) and not name.endswith((".safetensors", ".gguf"))
    return (fits or base.startswith(NAMES)) and not name.startswith(ELSEWHERE)


def _whole(weights: list[str]) -> list[str]:
    """Without the same weights once more: in one file (Mistral's), or in another precision."""
    ours = [name for name in weights if name == "model.safetensors" or name.startswith("model-")]
    return [name for name in weights if "/" in name or not ours or name in ours]


# ---------------------------------------------------------------- into the cache


def _fetch_all(call: Call, reference: Reference, commit: str, *, wanted: list[File]) -> None:
    """Every file into the cache; the revision gets its name when all are there."""
    storage = hub.storage(call, reference.repository)
    snapshot = os.path.join(storage, "snapshots", commit)
    os.makedirs(os.path.join(storage, "blobs"), exist_ok=True)
    lacking = [file for file in wanted if not os.path.exists(os.path.join(snapshot, file.name))]
    _check_room(storage, lacking)
    with _progress(call, reference, lacking) as progress:
        for file in lacking:
            _fetch(call, reference, commit, file=file, progress=progress)
            _link(storage, snapshot, file)
    if reference.revision != commit:
        name = os.path.join(storage, "refs", reference.revision or "main")
        os.makedirs(os.path.dirname(name), exist_ok=True)
        files.replace(name, [commit.encode()])


def _check_room(storage: str, lacking: list[File]) -> None:
    free = os.statvfs(storage)
    room, needed = free.f_bavail * free.f_frsize, sum(file.size for file in lacking)
    if needed > room:
        raise ToastError(f"no room in {storage}: {size_text(needed)} are to come, {size_text(room)} are free")


def _link(storage: str, snapshot: str, file: File) -> None:
    """Give a blob its name in a revision, relative to it, as the cache's other users do."""
    path, blob = os.path.join(snapshot, file.name), os.path.join(storage, "blobs", file.digest)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    while not os.path.exists(path):  # another process may be at it, too
        with suppress(FileNotFoundError):
            os.unlink(path)  # it leads nowhere
        with suppress(FileExistsError):
            os.symlink(os.path.relpath(blob, os.path.dirname(path)), path)


def _fetch(call: Call, reference: Reference, commit: str, *, file: File, progress: Any) -> None:
    """One file as a blob of the cache, whole and right."""
    blob = os.path.join(hub.storage(call, reference.repository), "blobs", file.digest)
    fd = _open_part(call, blob, file)
    if fd is None:
        progress.update(file.size)
        return
    try:
        received = os.fstat(fd).st_size
        if received > file.size:
            os.ftruncate(fd, received := 0)
        progress.update(received)
        _receive(call, reference, commit, fd=fd, file=file, progress=progress)
        if hub.digest(fd, file.size, large=len(file.digest) == 64) != file.digest:
            os.unlink(f"{blob}.incomplete")
            raise BadModel(f"{file.name} of {reference} came with another hash than the hub gives", "try again")
        files.place(fd, f"{blob}.incomplete", blob)
    finally:
        os.close(fd)


def _open_part(call: Call, blob: str, file: File) -> int | None:
    """The file that a blob comes into, locked; what a killed run left is gone on with. None: the blob is here."""
    path = f"{blob}.incomplete"
    while not os.path.exists(blob):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | files.FOUND, 0o666)
        locks.lock(fd, lambda: call.warn(f"waiting for another process that fetches {file.name}"))
        if files.has_name(fd, path) and not os.path.exists(blob):
            return fd
        files.remove(fd, path)  # the other process has given the one before it the blob's name, or has removed it
        os.close(fd)
    return None


# ---------------------------------------------------------------- over the wire


def _receive(call: Call, reference: Reference, commit: str, *, fd: int, file: File, progress: Any) -> None:
    """The rest of a file, through cut connections; ModelNotFound when none brings a byte any more."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    endpoint = (call.env.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    url = f"{endpoint}/{reference.repository}/resolve/{commit}/{quote(file.name)}"
    headers = build_hf_headers()
    failed, at = 0, os.lseek(fd, 0, os.SEEK_END)
    while at < file.size:
        try:
            for block in _blocks(url, {**headers, "Accept-Encoding": "identity"}, at):
                if at + len(block) > file.size:
                    os.ftruncate(fd, 0)
                    raise BadModel(f"{file.name} of {reference} is longer than the hub says")
                files.write(fd, block)
                at, failed = at + len(block), 0
                progress.update(len(block))
        except _errors_of(None) as error:
            reason = type(error).__name__
        else:
            reason = "it ended too early"
        if at < file.size and (failed := failed + 1) >= TRIES:
            raise ModelNotFound(f"cannot fetch {file.name} of {reference}: {reason}", "the same command goes on")


def _blocks(url: str, headers: dict[str, str], at: int) -> Iterator[bytes]:
    """The bytes of an address from `at` on. The token goes to the hub's own host alone."""
    from huggingface_hub.utils import get_session

    for _ in range(REDIRECTS):
        ranged = {**headers, "Range": f"bytes={at}-"}
        with get_session().stream("GET", url, headers=ranged, follow_redirects=False, timeout=30) as response:
            if response.status_code in (301, 302, 303, 307, 308):
                url, headers = _redirected(url, response.headers.get("location", ""), headers)
                continue
            if response.status_code not in (200, 206):
                raise ModelNotFound(f"{urlsplit(url).netloc} answered {response.status_code}")
            skip = at if response.status_code == 200 else 0  # it knows no ranges
            for block in response.iter_raw():  # as it comes: what is gathered would be lost with the connection
                yield block[skip:]
                skip = max(0, skip - len(block))
            return
    raise ModelNotFound(f"{urlsplit(url).netloc} leads from address to address")


def _redirected(url: str, location: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The next address, and what is sent there: nothing secret to another host, nothing in the open."""
    following = urljoin(url, location)
    before, after = urlsplit(url), urlsplit(following)
    if after.scheme not in ("http", "https") or (before.scheme == "https" and after.scheme == "http"):
        raise BadModel(f"{before.netloc} leads to {after.scheme}://{after.netloc}, which is not safe")
    if (before.scheme, before.netloc) != (after.scheme, after.netloc):
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    return following, headers


# ---------------------------------------------------------------- told


def _progress(call: Call, reference: Reference, lacking: Iterable[File]) -> Any:
    """A bar on a terminal, a line elsewhere; both say how much is to come."""
    total = sum(file.size for file in lacking)
    if not total:
        return pipes.NoProgress()
    if call.quiet or not os.isatty(call.stderr):
        call.warn(f"fetching {reference} ({size_text(total)}) into {hub.cache(call)}")
        return pipes.NoProgress()
    from tqdm import tqdm

    return tqdm(desc=str(reference), total=total, unit="B", unit_scale=True, leave=False)


def size_text(size: float) -> str:
    """1234567 -> 1.2 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("bytes", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
