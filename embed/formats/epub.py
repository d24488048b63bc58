"""EPUB: its pages in reading order. https://www.w3.org/TR/epub-33/"""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from embed.formats import html
from embed.formats.text import Text, Unreadable, decoded
from embed.formats.xml import Archive, parse
from toast.cancel import checkpoint


def read(data: bytes) -> Text:
    archive = Archive(data)
    lines: list[str] = []
    joints: dict[int, int] = {}
    for name in _pages(archive):
        if name in archive.names:
            checkpoint()
            page = html.extracted(decoded(archive.member(name))[0], flow=True)
            joints |= {len(lines) + line: joint for line, joint in (page.joints or {}).items()}
            lines += [*page.text.split("\n"), ""]
    return Text("\n".join(lines), joints=joints)


def _pages(archive: Archive) -> list[str]:
    """The names of the pages, in the order of the spine."""
    packages = [
        a.get("full-path", "") for n, a in _elements(archive.member("META-INF/container.xml")) if n == "rootfile"
    ]
    if not packages:
        raise Unreadable("damaged: no package in it")
    elements = _elements(archive.member(packages[0]))
    items = {a.get("id"): a.get("href", "") for name, a in elements if name == "item"}
    folder = posixpath.dirname(packages[0])
    spine = [items.get(a.get("idref")) for name, a in elements if name == "itemref"]
    names = [posixpath.normpath(posixpath.join(folder, unquote(href))) for href in spine if href]
    return list(dict.fromkeys(names))  # each once, however often it is listed


def _elements(data: bytes) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    parse(data, start=lambda name, attributes: found.append((name, attributes)), end=len, text=len)
    return found
