"""HTML: its text, line for line, without scripts and styles; a heading becomes one of Markdown's.

A page whose blocks share lines (a minified one) gets a line for each block instead. Owns what of a page is text, and in
which lines; where tags begin and end is `markup.py`'s.
"""

from __future__ import annotations

import re

from embed.formats import markup
from embed.formats.text import Text, charset, decoded

HIDDEN = {"script", "style", "template", "noscript", "svg"}
INLINE = {
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img",
    "ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub",
    "sup", "time", "tt", "u", "var", "wbr", "input", "button",
}  # fmt: skip
HEADING = re.compile(r"h[1-6]")
CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]{1,40})", re.IGNORECASE)
BLANKS = re.compile(r"[ \t\r\f\v\u00a0]+")


def read(data: bytes) -> Text:
    found = CHARSET.search(data[:4096])
    named = charset(found[1].decode("ascii", "replace")) if found else ""
    text, latin = decoded(data, named or "cp1252")
    return extracted(text, latin=latin and not named)


def extracted(html: str, *, flow: bool = False, latin: bool = False) -> Text:
    """The text of a page. flow: a line for each block, wherever it is in the source."""
    page = Page(flow=flow)
    for line, text, tag, attributes in markup.parts(html):
        if not tag:
            page.text(text, line)
        elif tag[0] != "/":
            page.start(tag, attributes, line)
        else:
            page.end(tag[1:])
    rows = page.rows()
    if not flow and page.shared > sum(map(bool, rows)) / 2:
        return extracted(html, flow=True, latin=latin)
    return Text("\n".join(rows), joints=page.joints, latin=latin)


class Page:
    """Collects text as it comes."""

    def __init__(self, *, flow: bool) -> None:
        self.flow, self.shared = flow, 0  # shared: blocks that begin where a line already has text
        self.parts: list[str] = []
        self.line, self.fresh = 0, True  # fresh: the line has no text yet
        self.joints: dict[int, int] = {}
        self.hidden, self.depth = "", 0  # the tag that hides, and how many of it are open in each other
        self.joint, self.mark = 1, ""  # of the text that comes next
        self.kept = 0  # open <pre>: blanks are as they are

    def rows(self) -> list[str]:
        return [row.rstrip() for row in "".join(self.parts).split("\n")]

    def start(self, tag: str, attributes: str, line: int) -> None:
        if self.hidden:
            self.depth += tag == self.hidden
            return
        self.kept += tag == "pre"
        if tag in HIDDEN:
            self.hidden, self.depth = tag, 1
        elif tag == "img" and (alt := markup.attribute(attributes, "alt")):
            self.text(f" {alt} ", line)
        elif tag == "title" or HEADING.fullmatch(tag):
            self._block(2, "#" * int(tag[1:] if tag[0] == "h" else 1) + " ")
        elif tag not in INLINE:
            self._block(1)

    def end(self, tag: str) -> None:
        if self.hidden:
            self.depth -= tag == self.hidden
            self.hidden *= self.depth > 0
        elif tag not in INLINE:
            self.kept = max(0, self.kept - (tag == "pre"))
            self._block(1)

    def _block(self, joint: int, mark: str = "") -> None:
        self.joint, self.mark = max(joint, self.joint), mark or self.mark

    def text(self, data: str, line: int) -> None:
        """Text of the page; line: from 0, on which it begins in the source."""
        if self.hidden:
            return
        if not self.kept:
            data = BLANKS.sub(" ", data.replace("\n", " ") if self.flow else data)
        if not data.strip():
            if not self.fresh and not self.joint:
                self.parts.append(" ")
            return
        self._begin(line)
        for i, row in enumerate(data.split("\n")):
            if i:
                self._next_line()
            if not self.kept and (self.fresh or self.parts[-1].endswith(" ")):
                row = row.lstrip(" ")
            if row.strip() and self.fresh:
                self.fresh = False
                if self.joint:
                    self.joints[self.line] = self.joint
                    self.parts.append(self.mark)
                    self.joint, self.mark = 0, ""
            self.parts.append(row)

    def _begin(self, line: int) -> None:
        """Go to the line that the text is on."""
        while not self.flow and self.line < line:
            self._next_line()
        if self.joint and not self.fresh:
            if self.flow:
                self._next_line()
            else:
                self.shared += 1
                self.parts.append(" ")
                self.joint, self.mark = 0, ""

    def _next_line(self) -> None:
        self.parts.append("\n")
        self.line, self.fresh = self.line + 1, True
