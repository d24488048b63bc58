"""CRC-32 of each block of an open file: the extension's, on all threads, or the same by zlib.

Knows nothing of what the blocks hold or of where their sums are kept.
"""

import os
import zlib
from array import array


def crc32_blocks(fd: int, size: int, block: int) -> bytes:
    """zlib's CRC-32 of each block of a file's first `size` bytes -> uint32, as bytes.

    OSError when it cannot be read, ValueError when it is shorter.
    """
    from toast import kernels

    if kernels.variant() != "off":
        from toast.kernels import _ext

        return _ext.crc32_blocks(fd, size, block)
    return reference(fd, size, block)


def reference(fd: int, size: int, block: int) -> bytes:
    """The same by zlib, on one thread."""
    buffer, sums = memoryview(bytearray(min(size, block))), array("I")
    for at in range(0, size, block):
        part = buffer[: size - at]
        if os.preadv(fd, [part], at) != len(part):
            raise ValueError("the file ends too early")
        sums.append(zlib.crc32(part))
    return sums.tobytes()
