"""Compiled vocabularies: the tokenizer.json of a folder, kept in the store in a form that is mapped.

Owns where they are, when one is out of date, and that a vocabulary is compiled once. A file without bytes says that
only the library reads it. What they hold is for `toast/vocabulary`; how one is used, for `mapped.py`.
"""

from __future__ import annotations

import os

from toast import files
from toast import kept as kept_here
from toast.errors import ignoring
from toast.store.folder import read_tokenizer
from toast.store.location import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from toast.command import Call
    from toast.store.mapped import Mapped

FORM = 2  # VERSION of form.h; raise both when vocabularies are to be compiled anew
SMALL = 1 << 18  # bytes of a tokenizer.json that the library reads as fast

PATIENCE = 1.0  # seconds of compiling, after which it is told

_store: str | None = None  # where they are kept; None: nowhere
_tell: Callable[[str], object] | None = None


def keep_for(call: Call) -> None:
    """Keep them in the caller's store from now on: they are the same in any."""
    global _store, _tell
    _store = os.path.join(home(call), "vocabularies")
    seen = kept_here.memory is None and (call.verbose or os.isatty(call.stderr))  # a process that stays has many
    _tell = call.warn if seen else None


def tokenizer(path: str) -> Any:
    """The tokenizer of a folder's tokenizer.json: its compiled form, or else the library's. BadModel."""
    return mapped(path) or library(path)


def mapped(path: str) -> Mapped | None:
    """The compiled form of a folder's tokenizer.json, None where there is none that can be used."""
    key = _key(os.path.join(path, "tokenizer.json")) if _store else None
    return _mapped(os.path.join(_store, "".join(key)), path) if _store and key else None


def library(path: str) -> Any:
    """The library's tokenizer of a folder; a compiled form is made beside it, if there is none yet. BadModel."""
    found = read_tokenizer(path)
    key = _key(os.path.join(path, "tokenizer.json")) if _store and _extension() else None
    if _store and key:
        made = os.path.join(_store, "".join(key))
        with ignoring(OSError):  # a store that cannot be written
            if not _is_empty(made) and _mapped(made, path) is None:
                _make(made, path, found)
                _remove_others(_store, *key)
    return found


def added_in(core: Any, text: str) -> dict[int, Any]:
    """id -> token of the added tokens; of many perhaps only those that may be control tokens beside this text."""
    return core.added_in(text) if hasattr(core, "added_in") else core.get_added_tokens_decoder()


def _extension() -> Any:
    """toast.vocabulary._ext; None without it, and for one that was built for another form."""
    try:
        from toast.vocabulary import _ext
    except ImportError:
        return None
    return _ext if getattr(_ext, "VERSION", None) == FORM else None


def _mapped(made: str, path: str) -> Mapped | None:
    """The compiled form, None where there is none that can be used."""
    extension = _extension()
    if extension is None:
        return None
    try:
        vocabulary = extension.Vocabulary(made)
    except RuntimeError:  # no compiled form
        return None
    from toast.store.mapped import Mapped

    return Mapped(vocabulary, path)


def _is_empty(made: str) -> bool:
    """Whether it is known that only the library reads a vocabulary."""
    try:
        return os.stat(made).st_size == 0
    except OSError:
        return False


def _make(made: str, path: str, library: Any) -> None:
    from threading import Timer

    from toast.vocabulary.compile import Unknown, compiled

    told = Timer(PATIENCE, _tell or str, [f"preparing the vocabulary of {path}, once"])
    told.start()
    try:
        form = compiled(library, os.path.realpath(os.path.join(path, "tokenizer.json")))
    except Unknown:
        form = b""
    finally:
        told.cancel()
    os.makedirs(os.path.dirname(made), 0o700, exist_ok=True)
    files.replace(made, [form])


def _key(file: str) -> tuple[str, str] | None:
    """(what tells the file's path from others, what tells its content from an earlier one); None for a small file."""
    from _blake2 import blake2b  # hashlib would load OpenSSL

    try:
        seen = os.stat(file)
    except OSError:
        return None
    if seen.st_size < SMALL:
        return None

    def digest(text: str) -> str:
        return blake2b(os.fsencode(text), digest_size=12).hexdigest()

    state = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, FORM, _library())
    return digest(os.path.realpath(file)) + "-", digest(repr(state))


def _library() -> str:
    """The library's version, by what its installer noted: it says what a letter is, and the compiled form keeps it. Two
    environments with the same one share what is compiled."""
    import sys

    for place in sys.path:
        with ignoring(OSError):
            changed = os.stat(os.path.join(place, "tokenizers", "__init__.py")).st_mtime_ns
            named = [name for name in os.listdir(place) if name.startswith("tokenizers-") and name.endswith("-info")]
            return named[0] if len(named) == 1 else f"{place} {changed}"
    return ""


def kept(call: Call) -> Iterator[tuple[str, str]]:
    """(file, the tokenizer.json that it was made of) of the compiled vocabularies in the caller's store."""
    folder = os.path.join(home(call), "vocabularies")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        found = _mapped(os.path.join(folder, name), "")
        if found is not None:
            yield os.path.join(folder, name), found.source


def _remove_others(parent: str, family: str, version: str) -> None:
    """Remove what the file gave before it was edited."""
    for name in os.listdir(parent):
        if name.startswith(family) and name != family + version:
            with ignoring(OSError):
                os.unlink(os.path.join(parent, name))
