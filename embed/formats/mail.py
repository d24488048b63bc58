"""A mail: its subject, who wrote it to whom and when, its text, and the mails that it forwards.

Of several forms of the same text the plain one is taken; what is attached, but for mails, is not looked into.
https://www.rfc-editor.org/rfc/rfc5322, https://www.rfc-editor.org/rfc/rfc2046
"""

from __future__ import annotations

from email import message_from_bytes
from email.header import decode_header
from email.message import Message
from functools import partial
from typing import Any

from embed.formats.text import Text, Unreadable, charset, decoded
from toast.cancel import checkpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.policy import Policy

HEADERS = ("From", "To", "Date")
LONGEST = 8192  # characters of a header: what the package does with one takes the square of its length
DEEPEST = 20  # mails and multiparts in each other
# how often a line may be compared with a boundary, which takes 0.3 us; what else takes time, in such comparisons
WORK, PART, HEADER = 20_000_000, 150, 30


class Budget:
    """What the package may do for a mail of so many lines."""

    def __init__(self, lines: int) -> None:
        self.lines, self.left = lines, WORK

    def spend(self, work: int) -> None:
        checkpoint()
        self.left -= work
        if self.left < 0:
            raise Unreadable("damaged: too many parts or headers")


class Part(Message):
    """A mail, or a part of one; headers have a bound."""

    def __init__(self, budget: Budget, policy: Policy[Any]) -> None:
        super().__init__(policy)
        self.budget = budget
        budget.spend(PART)

    def set_raw(self, name: str, value: str) -> None:
        lowered = name.lower() == "content-type" and value.lstrip()[:10].lower()
        # each line below it is compared with the boundaries of all that it may be in
        self.budget.spend(self.budget.lines if lowered == "multipart/" else HEADER)
        super().set_raw(name, value[:LONGEST])


def read(data: bytes) -> Text:
    mail = message_from_bytes(data, partial(Part, Budget(data.count(b"\n"))))
    return Text("\n".join(_mail(mail, 0)), "md")


def _mail(mail: Message, depth: int) -> Iterator[str]:
    """Lines of a mail; depth: mails and multiparts around it."""
    subject = _header(mail, "Subject")
    yield from (f"# {subject}", "") if subject else ()
    yield from (f"{name}: {told}" for name in HEADERS if (told := _header(mail, name)))
    yield ""
    yield from _body(mail, depth)


def _body(part: Message, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        raise Unreadable("damaged: its parts are too deep in each other")
    inner = _inner(part)
    kind = part.get_content_type()
    if kind == "message/rfc822":
        for mail in inner:
            yield from ("", *_mail(mail, depth + 1))
    elif kind == "multipart/alternative":
        if best := min(inner, key=_rank, default=None):
            yield from _body(best, depth + 1)
    elif inner:
        for one in inner:
            yield from _body(one, depth + 1)
    elif kind in ("text/plain", "text/html") and part.get_content_disposition() != "attachment":
        yield _text(part, kind)


def _inner(part: Message) -> list[Message]:
    found = part.get_payload()
    return [inner for inner in found if isinstance(inner, Message)] if isinstance(found, list) else []


def _rank(part: Message) -> int:
    """Which of several forms of a text is the first to be taken."""
    kinds = {inner.get_content_type() for inner in part.walk()}
    return 0 if "text/plain" in kinds else 1 if "text/html" in kinds else 2


def _text(part: Message, kind: str) -> str:
    data = part.get_payload(decode=True)
    text, _ = decoded(data if isinstance(data, bytes) else b"", charset(str(part.get_param("charset", ""))) or "cp1252")
    if kind == "text/html":
        from embed.formats import html

        return html.extracted(text, flow=True).text
    return text.replace("\r\n", "\n")


def _header(mail: Message, name: str) -> str:
    """A header in one line, decoded as RFC 2047 has it; or as it is, where it is in UTF-8 or Latin-1."""
    raw = next((value for known, value in mail.raw_items() if known.lower() == name.lower()), "")
    parts = []
    for data, named in decode_header(decoded(raw.encode("utf-8", "surrogateescape"))[0]):
        known = charset(named or "") or "utf-8"
        parts.append(data if isinstance(data, str) else data.decode(known, "replace"))
    return " ".join("".join(parts).split())
