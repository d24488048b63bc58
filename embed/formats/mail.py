"""A mail: its subject, who wrote it to whom and when, and its text."""

from __future__ import annotations

from email import message_from_bytes, policy

from embed.formats.text import Text, Unreadable

HEADERS = ("From", "To", "Date")


def read(data: bytes) -> Text:
    try:
        mail = message_from_bytes(data, policy=policy.default)
        rows = [f"{name}: {' '.join(str(mail[name]).split())}" for name in HEADERS if mail[name]]
        if subject := " ".join(str(mail["Subject"] or "").split()):
            rows = [f"# {subject}", "", *rows]
        body = mail.get_body(preferencelist=("plain", "html"))
        content = body.get_content() if body is not None else ""
        if body is not None and body.get_content_subtype() == "html":
            from embed.formats import html

            content = html.extracted(content, flow=True).text
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # as the package has it
        raise Unreadable(f"not a mail: {error}") from None
    return Text("\n".join(rows) + f"\n\n{content}", "md")
