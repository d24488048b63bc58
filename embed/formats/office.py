"""Documents of office programs: paragraphs, headings and cells of DOCX, PPTX (ECMA-376) and ODT, ODP (ISO 26300)."""

from __future__ import annotations

import re

from embed.formats.text import Text, Unreadable
from embed.formats.xml import Archive, parse

SLIDE = re.compile(r"ppt/slides/slide(\d+)\.xml")
STYLE = re.compile(r"(?:heading|title|berschrift|titre)\s*([1-6]?)", re.IGNORECASE)
PARTS = ("word/document.xml", "word/footnotes.xml", "word/endnotes.xml")
BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "line-break": "\n", "s": " "}
DELETED = {"delText", "tracked-changes", "annotation", "instrText"}  # what is no part of the text, or not any more


def read(data: bytes) -> Text:
    if not data.startswith(b"PK"):  # all in one XML text
        return _text([data])
    archive = Archive(data)
    if "content.xml" in archive.names:
        names = ["content.xml"]
    elif PARTS[0] in archive.names:
        names = [name for name in PARTS if name in archive.names]
    else:
        found = sorted((int(match[1]), name) for name in archive.names if (match := SLIDE.fullmatch(name)))
        names = [name for _, name in found]
    if not names:
        raise Unreadable("damaged: no text in it")
    return _text([archive.member(name) for name in names])


def _text(parts: list[bytes]) -> Text:
    document = Document()
    for part in parts:
        parse(part, start=document.start, end=document.end, text=document.text)
    return Text("\n\n".join(document.paragraphs) + "\n", "md")


class Document:
    """Collects paragraphs from XML events."""

    def __init__(self) -> None:
        self.paragraphs: list[str] = []
        self.open: list[list[str]] = []  # paragraphs may hold others (notes, frames)
        self.marks: list[str] = []
        self.run = self.deleted = 0  # inside of what is text in OOXML, and of what is not

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name in DELETED:
            self.deleted += 1
        elif name in ("p", "h"):
            level = _level(attributes.get("outline-level", "1")) if name == "h" else 0
            self.open.append([])
            self.marks.append("#" * min(level, 6))
        elif name == "pStyle" and self.marks and (found := STYLE.match(attributes.get("val", ""))):
            self.marks[-1] = "#" * int(found[1] or 1)
        elif name in BREAKS and self.open and not self.deleted:
            self.open[-1].append(BREAKS[name])

    def end(self, name: str) -> None:
        if name in DELETED:
            self.deleted -= 1
        elif name in ("p", "h") and self.open:
            text, mark = "".join(self.open.pop()).strip(), self.marks.pop()
            if text:
                self.paragraphs.append(f"{mark} {text}" if mark else text)

    def text(self, text: str) -> None:
        if self.open and not self.deleted:
            self.open[-1].append(text)


def _level(text: str) -> int:
    """Of a heading, from 1 to 6; one that says none, or what is none, is of the first."""
    return min(int(text[0]), 6) if text[:1] in tuple("123456789") else 1
