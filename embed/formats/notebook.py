"""Jupyter notebooks: the sources of their cells, code in fences. https://nbformat.readthedocs.io"""

from __future__ import annotations

import json

from embed.formats.text import Text, Unreadable, decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def read(data: bytes) -> Text:
    text, latin = decoded(data)
    try:
        book = json.loads(text)
        cells = book["cells"] if "cells" in book else [cell for sheet in book["worksheets"] for cell in sheet["cells"]]
        language = str(book.get("metadata", {}).get("language_info", {}).get("name", ""))
    except (LookupError, TypeError, AttributeError):
        raise Unreadable("not a notebook") from None
    return Text("\n\n".join(_sources(cells, language)) + "\n", "md", latin=latin)


def _sources(cells: list[dict[str, Any]], language: str) -> Iterator[str]:
    for cell in cells:
        source = cell.get("source", cell.get("input", ""))
        text = source if isinstance(source, str) else "".join(source)
        if text.strip():
            fence = "````" if "```" in text else "```"
            code = cell.get("cell_type") == "code"
            yield f"{fence}{language}\n{text.rstrip()}\n{fence}" if code else text.rstrip()
