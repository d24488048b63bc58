"""Folders made from GGUF files and kept in the store: one for each file and kind.

Knows when one is out of date; what is made is for `convert.py` and `vocab.py`.
"""

import os
import shutil
from _blake2 import blake2b  # hashlib would load OpenSSL

from toast import store
from toast.errors import os_error
from toast.store import pull


def folder(call, path: str, kind: str, make) -> str:
    """The folder that make(path, folder) fills from the GGUF file at `path`, made the first time.

    Keyed by real path, size, time of change and the first MiB: an edited file is converted anew, and what
    it gave before goes."""
    try:
        with open(path, "rb") as file:
            seen, head = os.fstat(file.fileno()), file.read(1 << 20)
    except OSError as error:
        raise os_error(error, f"open {path}") from None
    parent = os.path.join(store.home(call), "gguf")
    family = f"{_digest(os.fsencode(os.path.realpath(path)))}-{kind}-"
    name = family + _digest(b"%d %d " % (seen.st_size, seen.st_mtime_ns) + head)
    made = os.path.join(parent, name)
    if not os.path.isdir(made):
        call.info(f"converting {path}, once")
        pull.once(call, made, lambda call, part: make(path, part))
        for old in os.listdir(parent):
            if old.startswith(family) and old != name and "." not in old:
                shutil.rmtree(os.path.join(parent, old), ignore_errors=True)
    return made


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest()
