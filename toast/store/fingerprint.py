"""Which weights a model's folder has: a digest that all of its precisions share, computed once.

Knows the files' names, sizes and times, and where the store keeps what was computed.
"""

import os
from _blake2 import blake2b

from toast import store
from toast.store.folder import read_config, transformer

HEX = frozenset(b"0123456789abcdef")


def name_of(call, name: str) -> str:
    """The name to keep in a file: paths become absolute, so that it works from other folders."""
    path = call.path(name)
    return path if os.path.exists(path) else name


def digest(call, name: str) -> str:
    """SHA-256, in hex, of the float weights behind a model: the same for all its variants.

    What had to be computed is kept in the store, under the files' names, sizes and times.
    """
    folder = transformer(store.find(call, name))
    known = read_config(folder).get("source_digest")
    return known if isinstance(known, str) else _kept(call, folder)


def _kept(call, folder: str) -> str:
    files = [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith(".safetensors")]
    marks = [(os.path.realpath(f), os.stat(f).st_size, os.stat(f).st_mtime_ns) for f in files]
    kept = os.path.join(store.home(call), "digests", blake2b(repr(marks).encode(), digest_size=16).hexdigest())
    try:
        with open(kept, "rb") as file:
            found = file.read(65)
        if len(found) == 64 and HEX.issuperset(found):  # a machine that lost power may leave it empty
            return found.decode()
    except OSError:
        pass
    from toast.store.quantize import source_digest

    found = source_digest(folder)
    try:
        os.makedirs(os.path.dirname(kept), 0o700, exist_ok=True)
        with open(f"{kept}.{os.getpid()}", "w") as file:
            file.write(found)
        os.rename(f"{kept}.{os.getpid()}", kept)
    except OSError:  # a store that cannot be written: computed anew each time
        pass
    return found
