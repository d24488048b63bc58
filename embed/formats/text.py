"""A file's text, and what bytes say as text: byte order marks, UTF-8, and what was there before it."""

from __future__ import annotations

import codecs

INFLATED = 64 << 20  # bytes that a packed file may become
# what a page may name, and where another name means more than Python's codec has: https://encoding.spec.whatwg.org
CHARSETS = (
    "ascii", "big5", "cp125", "cp437", "cp85", "cp866", "cp874", "cp932", "cp949", "euc", "gb", "iso2022_jp", "iso8859",
    "johab", "koi8", "mac-", "ptcp154", "shift_jis", "tis-620", "utf-8",
)  # fmt: skip
WIDER = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949",
}  # fmt: skip
BOMS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class Unreadable(ValueError):
    """A file is not what its name or its first bytes say, or hides its text."""


class Text:
    """A file's text. suffix: what kind of text it is for the chunker; joints: line from 0 -> 2 where a section begins,
    1 a paragraph, None where the chunker finds them; latin: it was no UTF-8."""

    __slots__ = ("text", "suffix", "joints", "latin")

    def __init__(
        self, text: str, suffix: str = "", *, joints: dict[int, int] | None = None, latin: bool = False
    ) -> None:
        self.text, self.suffix, self.joints, self.latin = _clean(text), suffix, joints, latin


def _clean(text: str) -> str:
    """Text that can be stored: without NUL; what is half of a surrogate pair alone has no UTF-8."""
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "")


def charset(name: str) -> str:
    """Python's codec for the encoding that a file names; nothing for what is no encoding of text in 8 bits."""
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return ""
    return WIDER.get(found, found) if found.startswith(CHARSETS) else ""


def decoded(data: bytes, fallback: str = "cp1252") -> tuple[str, bool]:
    """(text, whether it was no UTF-8): by its byte order mark, as UTF-8, else in the fallback.

    Where most of what is not ASCII is UTF-8, a few bytes that are not are U+FFFD and the rest stays right."""
    for mark, encoding in BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace").removeprefix("\ufeff"), False
    try:
        return data.decode().removeprefix("\ufeff"), False
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    wrong = text.count("\ufffd")
    if sum(not c.isascii() for c in text) > 2 * wrong:
        return text, True
    try:
        return data.decode(fallback), True
    except (UnicodeDecodeError, LookupError):  # five bytes mean nothing in Windows-1252
        return data.decode("latin-1"), True
