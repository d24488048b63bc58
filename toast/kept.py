"""What a process that stays has computed before, for any number of Calls: values that nobody changes.

Owns how much that may be, and what goes first. A process that was started for a command keeps nothing here.
Standard library alone.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from time import time_ns

from toast import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any, TypeVar

    T = TypeVar("T")

SETTLED = 2_000_000_000  # nanoseconds after which a file's time tells it from what is written now


class Memory:
    """key -> value; at most `limit` bytes, the one used longest ago goes first."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size, self.lock = limit, 0, allocate_lock()
        self.kept: dict[Hashable, tuple[Any, int]] = {}  # in the order of their use

    def find(self, key: Hashable) -> Any:
        """The value, None where there is none."""
        with self.lock:
            if (found := self.kept.pop(key, None)) is None:
                return None
            self.kept[key] = found
            return found[0]

    def keep(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of so many bytes, in the place of another one of that key."""
        with self.lock:
            self.size -= self.kept.pop(key, (None, 0))[1]
            if size <= self.limit:
                self.kept[key] = value, size
                self.size += size
            while self.size > self.limit:
                self.size -= self.kept.pop(next(iter(self.kept)))[1]

    def clear(self) -> bool:
        """Drop all; False where there was nothing."""
        with self.lock:
            some, self.kept, self.size = bool(self.kept), {}, 0
            return some


memory: Memory | None = None  # of a process that stays


def of(file: Hashable, what: Hashable, make: Callable[[], T], *, size: Callable[[T], int]) -> T:
    """What make() gives of a file, known by `identity`: made once where this process stays, if it is known."""
    if memory is None or file is None:
        return make()
    key = file, what
    found: T | None = memory.find(key)
    if found is None:
        found = make()
        memory.keep(key, found, size(found))
    return found


def identity(fd: int) -> Hashable:
    """What is another when a file's contents are; None where this process does not stay, or they are too new."""
    if memory is None:
        return None
    status = os.fstat(fd)
    if time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def folder(path: str) -> Hashable:
    """The same of a model's folder; None of anything else."""
    try:
        return None if memory is None else (path, files.state(path))
    except OSError:
        return None
