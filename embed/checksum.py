"""What an index ends in: checksums of its bytes, by which any damage to them is found.

docs/formats.md describes it. Knows SQLite's header; nothing of tables, of names or of how a file becomes whole.
"""

from __future__ import annotations

import os
import zlib
from array import array

from toast import kernels, pipes
from toast.kernels.checksum import crc32_blocks, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call

MAGIC = b"tidx sums"  # its length is odd: so is the trailer's, which is no multiple of a page then
BLOCK_SIZE = 256 << 10  # bytes under one checksum
SMALL = 16 << 20  # bytes that zlib sums (2 GB/s) while mlx, which the kernels need, is imported (8 to 20 ms)


def seal(call: Call, fd: int, name: str) -> None:
    """End a whole database in its checksums; BadInput when the disk is full."""
    cut(fd)
    size = os.lseek(fd, 0, os.SEEK_END)
    body = MAGIC + _sums(call, fd, size)
    pipes.write_all(fd, body + _sum(body), name)


def cut(fd: int) -> None:
    """Leave the database alone, for somebody who writes to it."""
    size = database_size(fd)
    if os.fstat(fd).st_size > size:
        os.ftruncate(fd, size)


def verify(call: Call, fd: int) -> None:
    """ValueError, which says where, unless a file is what was sealed; one without checksums passes."""
    size = database_size(fd)
    length = os.fstat(fd).st_size - size
    if length < 0:
        raise ValueError(f"its last {-length} bytes are missing")
    if length:
        found, kept = _sums(call, fd, size), _kept(fd, size, length)
        if found != kept:
            wrong = next(i for i in range(0, len(kept), 4) if found[i : i + 4] != kept[i : i + 4])
            raise ValueError(f"block {wrong // 4 + 1} of {len(kept) // 4} has changed")


def database_size(fd: int) -> int:
    """Bytes of the pages that SQLite's header counts."""
    head = os.pread(fd, 32, 0)
    page = int.from_bytes(head[16:18], "big")
    return (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")


def _kept(fd: int, size: int, length: int) -> bytes:
    """The blocks' checksums as the trailer has them."""
    blocks = -(-size // BLOCK_SIZE)
    if length != len(MAGIC) + 4 * blocks + 4:
        raise ValueError("its length is not that of its pages and their checksums")
    trailer = os.pread(fd, length, size)
    body, last = trailer[:-4], trailer[-4:]
    if not body.startswith(MAGIC) or _sum(body) != last:
        raise ValueError("its checksums have changed")
    return body[len(MAGIC) :]


def _sums(call: Call, fd: int, size: int) -> bytes:
    if kernels.variant() == "off":
        if size <= SMALL:
            return reference(fd, size, BLOCK_SIZE)
        kernels.install_for(call, tell=False)
    return crc32_blocks(fd, size, BLOCK_SIZE)


def _sum(data: bytes) -> bytes:
    return array("I", [zlib.crc32(data)]).tobytes()
