"""Arrays on standard output: the .npy format, written row after row.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import os
import stat

from toast import pipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call


class Npy:
    """A .npy array (format 1.0) on standard output, row after row, data 64-byte aligned.

    On a file the number of rows is patched in by `close`; anywhere else it must be given.
    """

    HEADER = 128

    def __init__(self, call: Call, descr: str, *, columns: int, rows: int | None = None) -> None:
        self.fd, self.descr, self.columns, self.rows, self.bytes = call.stdout, descr, columns, rows, 0
        self.start = os.lseek(self.fd, 0, os.SEEK_CUR) if rows is None else -1
        # zeros are no .npy: a reader of a file that was never finished is told so
        pipes.write_all(self.fd, bytes(self.HEADER) if rows is None else self._header(rows))

    def write(self, rows: memoryview) -> None:
        """Rows as a C-ordered buffer."""
        data = memoryview(rows).cast("B")
        self.bytes += len(data)
        pipes.write_all(self.fd, data)

    def close(self) -> None:
        if self.rows is None:
            os.pwrite(self.fd, self._header(self.bytes // (int(self.descr[2:]) * self.columns)), self.start)

    def _header(self, rows: int) -> bytes:
        text = f"{{'descr': '{self.descr}', 'fortran_order': False, 'shape': ({rows}, {self.columns}), }}"
        return b"\x93NUMPY\x01\x00v\x00" + text.ljust(self.HEADER - 11).encode() + b"\n"


def can_patch(fd: int) -> bool:
    """Whether bytes written earlier can be replaced: a regular file, not opened for append."""
    import fcntl

    regular = stat.S_ISREG(os.fstat(fd).st_mode)
    return regular and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
