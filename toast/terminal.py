"""What a terminal gets: text in which nothing steers it, overwrites a line or turns the order of what is read.

Knows no descriptors; standard library alone.
"""

# C0 but for tab and line feed, DEL and C1; and the marks that show text in another order than it is in (embeddings,
# overrides, isolates: Trojan Source, CVE-2021-42574). The marks of single characters (U+200E, U+200F) stay.
STEERING = [*(c for c in range(0x20) if chr(c) not in "\t\n"), *range(0x7F, 0xA0), *range(0x202A, 0x202F),
            *range(0x2066, 0x206A)]  # fmt: skip
SHOWN: dict[int, str] = {c: f"\\u{c:04x}" for c in STEERING}  # as JSON has it: an object stays one
SHOWN |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}  # bytes that were no UTF-8


def visible(text: str) -> str:
    """The text with its control characters spelled, \\u001b; a line may end in CRLF, which is as good as LF."""
    return text.replace("\r\n", "\n").translate(SHOWN)


def visible_bytes(data: bytes) -> bytes:
    """The same of UTF-8, whole characters; other bytes are spelled, too: \\xff."""
    return visible(data.decode("utf-8", "surrogateescape")).encode("utf-8", "backslashreplace")


def columns(text: str) -> list[int]:
    """In which column each character begins, and where the text ends; wide ones take two, marks none (UAX #11)."""
    from itertools import accumulate
    from unicodedata import category, east_asian_width

    widths = (0 if category(c) in ("Mn", "Me", "Cf") else 1 + (east_asian_width(c) in "WF") for c in text)
    return list(accumulate(widths, initial=0))
