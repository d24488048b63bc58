"""PDF, by pypdf (the extra `pdf`): the text of its pages."""

from __future__ import annotations

import logging
from io import BytesIO

from embed.formats.text import Text, Unreadable
from toast.cancel import checkpoint


def read(data: bytes) -> Text:
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it makes of odd files is no message of ours
    lines: list[str] = []
    joints: dict[int, int] = {}
    book = pypdf.PdfReader(BytesIO(data))
    if book.is_encrypted and not book.decrypt(""):
        raise Unreadable("it wants a password")
    for page in book.pages:
        checkpoint()
        joints[len(lines)] = 1
        lines += [*page.extract_text().split("\n"), ""]
    return Text("\n".join(lines), joints=joints)
