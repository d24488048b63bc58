"""HTML cut into text and tags, in time that is linear in its length, whatever it holds.

Owns where a tag, a comment and a script end, and what character references stand for; what tags mean is `html.py`'s.
Of each construct the end is looked for once, as https://html.spec.whatwg.org/multipage/parsing.html has it.
Python's HTMLParser, which looks again at every `<`, takes minutes for a megabyte of `<!--` or `<a `, and fails at some
of what begins with `<![`. One thing is as there, and not as in a browser: a tag that is never closed is text.
"""

from __future__ import annotations

import html
import re

from toast.cancel import checkpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Part = tuple[int, str, str, str]  # line from 0, text, or a tag (`p`, `/p`) and its attributes

# an attribute's value may hold a `>`; possessive: what has been passed is never looked at again
INSIDE = r"((?:[^>=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+')?+)*+)>"
TAG = re.compile(rf"<(/?[a-zA-Z][^\s/>]*+){INSIDE}")
NAME = re.compile(r"</?[a-zA-Z]")
BEGINS = re.compile(r"<(?=[a-zA-Z!?/])")
COMMENT_END = re.compile(r"--!?>")
RAW = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style")}  # no tags inside
ATTRIBUTE = re.compile(r"([^\s=/\"']++)(?:\s*+=\s*+(\"[^\"]*+\"|'[^']*+'|[^\s\"']++))?+")
HUGE = re.compile(r"&#(?:x[0-9a-f]{9,}|[0-9]{9,});?", re.IGNORECASE)  # of no character, and slow to read
SOME = 4096  # parts after which somebody may call it off


def parts(page: str) -> Iterator[Part]:
    """Text and tags in their order; `<x/>` is two tags. Comments, declarations, scripts and styles are left out."""
    at = line = counted = 0
    for number, (first, last, tag, inside) in enumerate(_tags(page)):
        if number % SOME == 0:
            checkpoint()
        if first > at:
            line, counted = line + page.count("\n", counted, at), at
            yield line, _text(page[at:first]), "", ""
        if tag:
            line, counted = line + page.count("\n", counted, first), first
            yield line, "", tag, inside
            if inside.endswith("/") and tag[0] != "/":
                yield line, "", f"/{tag}", ""
        at = last
    if at < len(page):
        yield line + page.count("\n", counted, at), _text(page[at:]), "", ""


def attribute(inside: str, name: str) -> str:
    """An attribute's value in the inside of a tag; nothing where it is not there."""
    for found in ATTRIBUTE.finditer(inside):
        if found[1].lower() == name:
            return _text((found[2] or "").strip("\"'"))
    return ""


def _text(text: str) -> str:
    return html.unescape(HUGE.sub("\ufffd", text)) if "&" in text else text


def _tags(page: str) -> Iterator[tuple[int, int, str, str]]:
    """(where it begins, where it ends, name, inside) of each tag; without a name, what is left out."""
    at = 0
    while begins := BEGINS.search(page, at):
        first = begins.start()
        if page.startswith("<!--", first):
            # `<!-->` and `<!--->` are whole; without an end it is all that follows
            closed = COMMENT_END.search(page, first + (2 if page.startswith(("<!-->", "<!--->"), first) else 4))
            at = closed.end() if closed else len(page)
            yield first, at, "", ""
        elif tag := TAG.match(page, first):
            name, at = tag[1].lower(), tag.end()
            raw = RAW.get(name)
            if raw and not tag[2].endswith("/"):
                closed = raw.search(page, at)
                at = closed.start() if closed else len(page)
            yield first, at, name, tag[2]
        elif NAME.match(page, first) or (closing := page.find(">", first)) < 0:
            return  # no tag after it would be closed, either
        else:
            at = closing + 1
            yield first, at, "", ""
