"""`embed --join`: the rows of several .npy files as one, in their order; `cat` would leave all but the first behind.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import os
import stat

from toast import npy, pipes
from toast.errors import BadInput, UsageError, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call

MAGIC = b"\x93NUMPY"
LONGEST = 1 << 16  # bytes of a header


class Part:
    """An open .npy file of rows: type, columns, rows, and where they start."""

    def __init__(self, call: Call, name: str) -> None:
        self.name = name
        try:
            self.fd = pipes.open_again(call, name)
        except OSError as error:
            raise os_error(error, f"open {name}") from None
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{name} is no regular file", "embed --join A.npy B.npy > C.npy")
        self._read_header(os.pread(self.fd, LONGEST + 12, 0))
        self.size = self.rows * self.columns * int(self.descr[2:])
        held = status.st_size - self.start
        if held != self.size:
            told = "more" if held > self.size else "less"
            hint = "were files joined by cat, or with >>?" if held > self.size else "was its writer killed?"
            raise BadInput(f"{name} holds {told} than the {self.rows} rows that it tells of", hint)

    def _read_header(self, head: bytes) -> None:
        from ast import literal_eval

        wide = 4 if head[6:7] > b"\1" else 2
        length = int.from_bytes(head[8 : 8 + wide], "little")
        self.start = 8 + wide + length
        try:
            told = literal_eval(head[8 + wide : self.start].decode("latin-1"))
            (self.rows, self.columns), self.descr = told["shape"], told["descr"]
            plain = type(self.descr) is str and self.descr[1:].isalnum() and self.descr[2:].isdigit()
        except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
            plain, told = False, {}
        if not (head.startswith(MAGIC) and length <= LONGEST and plain) or min(self.rows, self.columns) < 0:
            raise BadInput(f"{self.name} is no .npy file of rows", "embed < file.txt > vectors.npy makes one")
        if told.get("fortran_order"):
            raise BadInput(f"{self.name} is in Fortran order", "numpy.ascontiguousarray makes another of it")


def join(call: Call, names: list[str]) -> None:
    """The rows of all files on standard output."""
    if not names:
        raise UsageError("--join wants files", "embed --join A.npy B.npy > C.npy")
    pipes.refuse_terminal(call, "embed --join A.npy B.npy > C.npy")
    parts = _alike([Part(call, name) for name in names])
    output = npy.Npy(call, parts[0].descr, columns=parts[0].columns, rows=sum(part.rows for part in parts))
    for part in parts:
        os.lseek(part.fd, part.start, os.SEEK_SET)
        left = part.size
        while left and (some := pipes.read_some(part.fd, part.name, min(left, pipes.CHUNK))):
            output.write(memoryview(some))
            left -= len(some)
        if left:
            raise BadInput(f"{part.name} changed while it was read")
        os.close(part.fd)


def _alike(parts: list[Part]) -> list[Part]:
    first = parts[0]
    for part in parts:
        if (part.descr, part.columns) != (first.descr, first.columns):
            kinds = [f"rows of {one.columns} {one.descr[1:]}" for one in (part, first)]
            raise BadInput(f"{part.name} has {kinds[0]}, {first.name} {kinds[1]}", "join what one model has made")
    return parts
