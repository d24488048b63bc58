"""gzip: what is packed in it, read up to a bound."""

from __future__ import annotations

import zlib

from embed.formats.text import Unreadable
from toast.cancel import checkpoint

FIRST = 1 << 10  # bytes of a member that are looked at first


def head(data: bytes, size: int) -> bytes:
    """The first bytes of what is packed; nothing where it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data[: 1 << 16], size)
    except zlib.error:
        return b"\0"


def unpacked(data: bytes, limit: int) -> bytes:
    """All of it, of all members; Unreadable where it is damaged or too large."""
    parts: list[bytes] = []
    at, left = 0, limit + 1
    while at < len(data) and left > 0:
        checkpoint()
        try:
            member, at = _member(data, at, left)
        except zlib.error as error:
            if parts:  # what follows the last member is padding, as gunzip takes it
                break
            raise Unreadable(f"damaged gzip: {error}") from None
        parts.append(member)
        left -= len(member)
    if left <= 0:
        raise Unreadable(f"over {limit >> 20} MB when it is unpacked")
    return b"".join(parts)


def _member(data: bytes, at: int, limit: int) -> tuple[bytes, int]:
    """(what is in the member at `at`, up to a limit; where it ends).

    It is given more and more at once: what zlib gives back behind a member's end is a copy."""
    unpacker, parts, size, left = zlib.decompressobj(wbits=31), [], FIRST, limit
    while not unpacker.eof and left > 0:
        given = data[at : at + size]
        if not given:
            raise Unreadable("damaged gzip: it ends too early")
        parts.append(unpacker.decompress(given, left))
        left -= len(parts[-1])
        at += len(given) - len(unpacker.unused_data) - len(unpacker.unconsumed_tail)
        size *= 2
    return b"".join(parts), at
