"""HTML: its text, line for line, without scripts and styles; a heading becomes one of Markdown's.

A page whose blocks share lines (a minified one) gets a line for each block instead.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

from embed.formats.text import Text, decoded

HIDDEN = {"script", "style", "template", "noscript", "svg", "head"}
HEAD = HIDDEN | {"title", "meta", "link", "base", "html"}
INLINE = {
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img",
    "ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub",
    "sup", "time", "tt", "u", "var", "wbr", "input", "button",
}  # fmt: skip
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
HEADING = re.compile(r"h[1-6]")
CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]{1,40})", re.IGNORECASE)
BLANKS = re.compile(r"[ \t\r\f\v\u00a0]+")


def read(data: bytes) -> Text:
    named = CHARSET.search(data[:4096])
    text, latin = decoded(data, named[1].decode() if named else "cp1252")
    return extracted(text, latin=latin and not named)


def extracted(html: str, *, flow: bool = False, latin: bool = False) -> Text:
    """The text of a page. flow: a line for each block, wherever it is in the source."""
    page = Page(flow=flow)
    page.feed(html)
    page.close()
    rows = page.rows()
    if not flow and page.shared > sum(map(bool, rows)) / 2:
        return extracted(html, flow=True, latin=latin)
    return Text("\n".join(rows), joints=page.joints, latin=latin)


class Page(HTMLParser):
    """Collects text as the parser meets it."""

    def __init__(self, *, flow: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.flow, self.shared = flow, 0  # shared: blocks that begin where a line already has text
        self.parts: list[str] = []
        self.line, self.fresh = 0, True  # fresh: the line has no text yet
        self.joints: dict[int, int] = {}
        self.hidden: list[str] = []
        self.joint, self.mark = 1, ""  # of the text that comes next
        self.kept = 0  # open <pre>: blanks are as they are

    def rows(self) -> list[str]:
        return [row.rstrip() for row in "".join(self.parts).split("\n")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.hidden == ["head"] and tag not in HEAD:  # it need not be closed
            self.hidden = []
        if tag == "title" and self.hidden in ([], ["head"]):
            self.hidden, self.joint, self.mark = [], 2, "# "
            return
        if self.hidden or tag in HIDDEN:
            if tag not in VOID:
                self.hidden.append(tag)
            return
        self.kept += tag == "pre"
        if tag == "img" and (alt := dict(attrs).get("alt")):
            self.handle_data(f" {alt} ")
        elif HEADING.fullmatch(tag):
            self._block(2, "#" * int(tag[1]) + " ")
        elif tag not in INLINE:
            self._block(1)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title" and not self.hidden:
            self._block(1)
            self.hidden = ["head"]
        elif self.hidden:
            if tag in self.hidden:
                del self.hidden[self.hidden.index(tag) :]
        elif tag not in INLINE:
            self.kept = max(0, self.kept - (tag == "pre"))
            self._block(1)

    def _block(self, joint: int, mark: str = "") -> None:
        self.joint, self.mark = max(joint, self.joint), mark or self.mark

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if not self.kept:
            data = BLANKS.sub(" ", data.replace("\n", " ") if self.flow else data)
        if not data.strip():
            if not self.fresh and not self.joint:
                self.parts.append(" ")
            return
        self._begin()
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

    def _begin(self) -> None:
        """Go to the line that the text is on."""
        while not self.flow and self.line < self.getpos()[0] - 1:
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
