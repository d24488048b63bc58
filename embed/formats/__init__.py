"""What files hold as text: which ones are known, and the one that reads each kind.

Owns how a kind is told (by its first bytes, else by its name). Each kind is read by a
file of its own, imported when one is met; what it raises, whatever that is, is made Unreadable here. Knows nothing of
chunks, of models or of where files come from.
"""

from __future__ import annotations

import os
from importlib import import_module

from embed.formats.text import BOMS, INFLATED, Text, Unreadable, decoded
from toast.cancel import checkpoint
from toast.errors import told

__all__ = ["Text", "Unreadable", "decoded", "read", "refused", "suffix_of"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SNIFFED = 8192  # bytes in which a NUL tells a binary file
# suffix -> the file that reads it, where the first bytes are as they should be
PACKED = {
    **dict.fromkeys(("docx", "docm", "dotx", "pptx", "odt", "ott", "odp", "fodt"), "office"), "epub": "epub",
}  # fmt: skip
NAMED = {"html": "html", "htm": "html", "xhtml": "html", "ipynb": "notebook", "eml": "mail", "fodt": "office"}
GZIP = b"\x1f\x8b"
NO_PDF = "PDF (pip install 'toast-filters[pdf]')"  # why one is passed over


def suffix_of(path: str) -> str:
    return os.path.splitext(path)[1][1:].lower()


def refused(path: str, data: bytes) -> str:
    """Why a file cannot be read: "binary", NO_PDF where the package for these is not there; else nothing."""
    if data.startswith(GZIP):
        from embed.formats import gzip

        path, data = _unpacked_name(path), gzip.head(data, SNIFFED)
    if data.startswith(b"%PDF-"):
        from importlib.util import find_spec

        return "" if find_spec("pypdf") else NO_PDF
    packed = data.startswith(b"PK\3\4") and suffix_of(path) in PACKED
    if packed or b"\0" not in data[:SNIFFED] or data.startswith(tuple(mark for mark, _ in BOMS)):
        return "binary" if data.startswith(GZIP) else ""  # packed twice: it may be packed without end
    return "binary"


def read(path: str, data: bytes) -> Text:
    """A file's text; Unreadable."""
    checkpoint()
    try:
        if data.startswith(GZIP):
            from embed.formats import gzip

            path, data = _unpacked_name(path), gzip.unpacked(data, INFLATED)
        suffix = suffix_of(path)
        if reader := _reader(suffix, data):
            return reader(data)
        text, latin = decoded(data)
        return Text(text, suffix, latin=latin)
    except Unreadable:
        raise
    except Exception as error:  # whatever a damaged file does to a reader, ours or a library's
        raise Unreadable(f"damaged: {told(error)[:100] or type(error).__name__}") from None


def _unpacked_name(path: str) -> str:
    return path[:-3] if path.endswith(".gz") else path


def _reader(suffix: str, data: bytes) -> Callable[[bytes], Text] | None:
    if data.startswith(b"%PDF-"):
        name: str | None = "pdf"
    elif data.startswith(b"PK\3\4"):
        name = PACKED.get(suffix)
    else:
        begins = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        name = "html" if begins.startswith((b"<!doctype html", b"<html")) else NAMED.get(suffix)
    return import_module(f"embed.formats.{name}").read if name else None
