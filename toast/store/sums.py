"""SHA256SUMS of a folder that the store has made: written once it is whole, compared by `model verify`.

Its form is that of sha256sum, which can compare as well: `sha256sum -c SHA256SUMS`. Knows no models.
"""

from __future__ import annotations

import os

from toast import files
from toast.store import hub

NAME = "SHA256SUMS"
LONGEST = 1 << 20  # bytes of one


def write(folder: str) -> None:
    """Note the hash of each file that is in the folder now."""
    lines = [f"{_of(os.path.join(folder, name))}  {name}\n" for name in hub.below(folder)]
    files.replace(os.path.join(folder, NAME), ["".join(lines).encode()])


def of(folder: str, *, ours: bool) -> dict[str, str]:
    """Real path -> hash of the files that were there then; nothing of a folder that was made without.

    ours: whether the store wrote the list; of another one only what is there counts. Names that lead out are passed
    over."""
    try:
        text = files.read(os.path.join(folder, NAME), LONGEST).decode("utf-8", "replace")
    except OSError:
        return {}
    rows = [line.split("  ", 1) for line in text.splitlines() if "  " in line]
    known = {os.path.join(folder, name): digest for digest, name in rows if _is_below(name)}
    return {os.path.realpath(path): digest for path, digest in known.items() if ours or os.path.isfile(path)}


def _is_below(name: str) -> bool:
    return not os.path.isabs(name) and ".." not in name.split("/") and "\0" not in name


def holds(path: str, digest: str) -> bool:
    """Whether a file is there and has this hash."""
    return os.path.isfile(path) and _of(path) == digest


def _of(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return hub.digest(fd, os.fstat(fd).st_size, large=True)
    finally:
        os.close(fd)
