"""gzip: what is packed in it, read up to a bound."""

from __future__ import annotations

import zlib

from embed.formats.text import Unreadable


def head(data: bytes, size: int) -> bytes:
    """The first bytes of what is packed; nothing where it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data[: 1 << 16], size)
    except zlib.error:
        return b"\0"


def unpacked(data: bytes, limit: int) -> bytes:
    """All of it, of all members; Unreadable where it is damaged or too large."""
    parts: list[bytes] = []
    left = limit + 1
    while data and left > 0:
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(data, left))
        except zlib.error as error:
            if parts:  # what follows the last member is padding, as gunzip takes it
                break
            raise Unreadable(f"damaged gzip: {error}") from None
        left -= len(parts[-1])
        if not member.eof and left > 0:
            raise Unreadable("damaged gzip: it ends too early")
        data = member.unused_data
    if left <= 0:
        raise Unreadable(f"over {limit >> 20} MB when it is unpacked")
    return b"".join(parts)
