"""PDF, by pypdf (the extra `pdf`): the text of its pages."""

from __future__ import annotations

import logging
from io import BytesIO

from embed.formats.text import Text, Unreadable


def read(data: bytes) -> Text:
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it makes of odd files is no message of ours
    lines: list[str] = []
    joints: dict[int, int] = {}
    try:
        book = pypdf.PdfReader(BytesIO(data))
        if book.is_encrypted and not book.decrypt(""):
            raise Unreadable("it wants a password")
        for page in book.pages:
            joints[len(lines)] = 1
            lines += [*_clean(page.extract_text()).split("\n"), ""]
    except Unreadable:
        raise
    except Exception as error:  # whatever a damaged file does to it
        raise Unreadable(f"damaged: {str(error)[:100] or type(error).__name__}") from None
    return Text("\n".join(lines), joints=joints)


def _clean(text: str) -> str:
    """Text that can be stored: a font may map to anything."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")
