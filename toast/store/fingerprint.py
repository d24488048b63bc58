"""Which weights a model's folder has: a digest that all of its precisions share, computed once.

Knows the files' names, sizes and times, and where the store keeps what was computed.
"""

from __future__ import annotations

import os
from _blake2 import blake2b

from toast import files
from toast.store.folder import read_config, transformer
from toast.store.location import home
from toast.store.resolve import find
from toast.task import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call

HEX = frozenset(b"0123456789abcdef")


def name_of(call: Call, name: str) -> str:
    """The name to keep in a file: paths become absolute, so that it works from other folders."""
    path = call.path(name)
    return path if os.path.exists(path) else name


def digest(call: Call, name: str) -> str:
    """SHA-256, in hex, of the float weights behind an embedding model: the same for all its variants.

    What had to be computed is kept in the store, under the files' names, sizes and times.
    """
    need(call, name, "embed")  # a chat model's would take a while
    folder = transformer(find(call, name))
    known = read_config(folder).get("source_digest")
    return known if isinstance(known, str) else _kept(call, folder)


def _kept(call: Call, folder: str) -> str:
    names = [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith(".safetensors")]
    marks = [(os.path.realpath(f), os.stat(f).st_size, os.stat(f).st_mtime_ns) for f in names]
    kept = os.path.join(home(call), "digests", blake2b(repr(marks).encode(), digest_size=16).hexdigest())
    return _read(kept) or _compute(folder, kept)


def _read(kept: str) -> str | None:
    try:
        found = files.read(kept, 65)
    except OSError:
        return None
    return found.decode() if len(found) == 64 and HEX.issuperset(found) else None


def _compute(folder: str, kept: str) -> str:
    from toast.store.quantize import source_digest

    found = source_digest(folder)
    try:
        os.makedirs(os.path.dirname(kept), 0o700, exist_ok=True)
        files.replace(kept, [found.encode()])
    except OSError:  # a store that cannot be written: computed anew each time
        pass
    return found
