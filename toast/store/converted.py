"""Folders made from other forms and kept in the store: of a GGUF file, by what is wanted of it; of a folder whose
vocabulary is in another form, links to it beside the tokenizer.json that it lacks.

Knows when one is out of date; what is made is for `convert.py`, `vocab.py` and `vocabularies.py`.
"""

from __future__ import annotations

import os
import shutil
from _blake2 import blake2b  # hashlib would load OpenSSL
from contextlib import suppress

from toast import files
from toast.errors import os_error
from toast.store import gguf, pull
from toast.store.folder import transformer, write_texts
from toast.store.inventory import ORIGIN
from toast.store.location import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call


FORM = "2 "  # raise when files are to be converted anew


def folder(call: Call, path: str, *, weights: bool) -> str:
    """The folder made from the GGUF file at `path` the first time: the whole model, or its vocabulary alone.

    Of several parts any may be given. Keyed by real path, sizes, times of change and the first MiB: an edited file
    is converted anew, and what it gave before goes."""
    parent = os.path.join(home(call), "gguf")
    path, *more = gguf.parts(path)
    family, version = _key(path, more)
    family += "-model-" if weights else "-vocabulary-"
    made = os.path.join(parent, family + version)
    if not os.path.isdir(made):
        call.info(f"converting {path}, once")
        pull.once(call, made, lambda call, part: _make(path, part, weights=weights))
    _remove_others(parent, family, version)
    return made


def with_tokenizer(call: Call, folder: str) -> str:
    """The folder itself, or where it lacks a tokenizer.json and can be given one, a folder of links with it."""
    if os.path.isfile(os.path.join(folder, "tokenizer.json")):
        return folder
    from toast.store import vocabularies

    base = transformer(folder)
    if vocabularies.source(base) is None:
        return folder
    parent = os.path.join(home(call), "tokenizers")
    family = _digest(os.fsencode(os.path.realpath(folder))) + "-"
    told = [[facts[:3] for facts in files.state(place)] for place in (folder, base)]  # inodes are not kept by a copy
    version = _digest(repr(told).encode())
    made = os.path.join(parent, family + version)
    if not os.path.isdir(made):
        call.info(f"converting the vocabulary of {folder}, once")
        pull.once(call, made, lambda call, part: _link(folder, part))
    _remove_others(parent, family, version)
    return made


def _link(folder: str, part: str) -> None:
    from toast.store import vocabularies

    vocabularies.folder_with(folder, part)
    write_texts(part, {ORIGIN: {"path": os.path.realpath(folder)}})


def _remove_others(parent: str, family: str, version: str) -> None:
    """Remove what the file gave before it was edited, and what killed runs left.

    It goes under the name of an unfinished one first: no half of it is ever taken for a whole."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if name.startswith(f".{family}"):
            pull.clear(path)
        elif name.startswith(family) and name != family + version:
            part = os.path.join(parent, f".{name}.toast-1")
            with suppress(OSError):
                os.rename(path, part)
                shutil.rmtree(part, ignore_errors=True)


def _make(path: str, part: str, *, weights: bool) -> None:
    write_texts(part, {ORIGIN: {"path": os.path.realpath(path)}})
    if weights:
        from toast.store import convert

        convert.gguf_to_folder(path, part)
    else:
        from toast.store import vocab

        vocab.gguf_to_folder(path, part)


def _key(path: str, more: list[str]) -> tuple[str, str]:
    """(what tells the file's path from others, what tells its content from an earlier one)."""
    try:
        with open(files.open_regular(path), "rb") as file:
            seen, head = os.fstat(file.fileno()), file.read(1 << 20)
        others = [os.stat(part) for part in more if os.path.exists(part)]  # what is missing is said by who reads it
    except OSError as error:
        raise os_error(error, f"open {path}") from None
    where = _digest(os.fsencode(os.path.realpath(path)))
    told = FORM + "".join(f"{part.st_size} {part.st_mtime_ns} " for part in (seen, *others))
    return where, _digest(told.encode() + head)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest()
