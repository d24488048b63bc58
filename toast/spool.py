"""Texts kept until their number is known: in memory, then in a private unnamed file.

Standard library alone.
"""

from __future__ import annotations

from toast import pipes
from toast.files import private_file, write_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from toast.command import Call

IN_MEMORY = 8 << 20  # bytes that are held before a file is taken


class Spool:
    """The texts of a call, to be had again once all are there."""

    def __init__(self, call: Call) -> None:
        self.call, self.count = call, 0
        self._held: list[bytes] = []
        self._size = 0
        self._file: Any = None  # closed with this object

    def extend(self, texts: Iterable[str]) -> None:
        for data in map(str.encode, texts):
            self.count += 1
            self._held.append(len(data).to_bytes(8, "little") + data)
            self._size += len(data) + 64  # a bytes object costs more than its bytes
        if self._size > IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = open(private_file(self.call), "rb")  # noqa: SIM115
        write_private(self._file.fileno(), b"".join(self._held))
        self._held, self._size = [], 0

    def windows(self) -> Iterator[list[str]]:
        """The texts again, as lists of at most pipes.WINDOW."""
        window = []
        for data in self._texts():
            window.append(data.decode())
            if len(window) == pipes.WINDOW:
                yield window
                window = []
        yield window

    def _texts(self) -> Iterator[bytes]:
        if self._file is not None:
            self._file.seek(0)
            while size := self._file.read(8):
                yield self._file.read(int.from_bytes(size, "little"))
        for data in self._held:
            yield data[8:]
