"""The file of an index that is being built, `.NAME.toast-part`: what a killed run leaves, the next one goes on with.

It is believed to be ours when it is no link and a regular file of this user under just that name, which begins as an
index; it does so from its first moment. SQLite's journal beside it likewise. Nothing else is written to or removed.
"""

from __future__ import annotations

import os
import re
import struct
import time

from embed import schema
from toast import files, locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = 7 * 86400  # seconds for which the store keeps what a killed run left
PAGE_SIZE = 16384
# of a rollback journal; zeros once its transaction is over
JOURNAL_HEADS = (b"", bytes.fromhex("d9d505f920a163d7"), bytes(8))
IN_STORE = re.compile(r"\.[0-9a-f]{32}\.toast-part")


def beside(path: str) -> str:
    """What the part of the index at `path` is called."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{os.fsdecode(os.fsencode(name)[:200])}.toast-part")


def blank() -> bytes:
    """A database without tables that begins as an index: https://www.sqlite.org/fileformat2.html."""
    head = struct.pack(
        ">16sH6B12I", b"SQLite format 3\0", PAGE_SIZE, 1, 1, 0, 64, 32, 32,
        1, 1, 0, 0, 0, 4, 0, 0, 1, 0, 0, schema.APPLICATION,
    )  # fmt: skip
    leaf = struct.pack(">BHHHB", 13, 0, 0, PAGE_SIZE, 0)  # of the schema's table, without a cell
    return (head + bytes(20) + struct.pack(">II", 1, 3040000) + leaf).ljust(PAGE_SIZE, b"\0")


def hold(path: str, waiting: Callable[[], object]) -> int | None:
    """A descriptor of the part at `path`, locked, where a run left one; FileExistsError for what is not ours.

    waiting: called before waiting for a run that is at it."""
    while True:
        if (journal := _journal(path)) is not None:
            os.close(journal)
        try:
            fd = files.open_own(path)
        except FileNotFoundError:
            return None
        if not _begins_as_index(fd):
            os.close(fd)
            raise FileExistsError(17, "not a part of ours", path)
        try:
            locked = locks.lock(fd, waiting)
        except BaseException:  # nobody waits for it any more
            os.close(fd)
            raise
        if locked and files.has_name(fd, path):
            return fd
        os.close(fd)
        if not locked:
            raise FileExistsError(17, "perhaps another run's", path)
        # the other run has renamed it meanwhile


def _begins_as_index(fd: int) -> bool:
    # a part with another name would be written to under that, too
    return os.fstat(fd).st_nlink == 1 and schema.kind(os.pread(fd, schema.HEADER, 0)) == "index"


def _journal(path: str) -> int | None:
    """A descriptor of the journal that a killed run left; FileExistsError for what SQLite would take for one of its
    files and is not."""
    for kind in ("-wal", "-shm"):  # an index never has them
        if os.path.lexists(path + kind):
            raise FileExistsError(17, "not a file of ours", path + kind)
    try:
        fd = files.open_own(f"{path}-journal")
    except FileNotFoundError:
        return None
    if os.pread(fd, 8, 0) in JOURNAL_HEADS:
        return fd
    os.close(fd)
    raise FileExistsError(17, "not a journal of ours", f"{path}-journal")


def drop_journal(path: str) -> None:
    """Remove what a killed run left of SQLite's journal."""
    if (fd := _journal(path)) is not None:
        files.remove(fd, f"{path}-journal")
        os.close(fd)


def drop(path: str, fd: int) -> None:
    """Remove a part that is held, and close it."""
    drop_journal(path)
    files.remove(fd, path)
    os.close(fd)


def prune(folder: str) -> None:
    """Drop the parts in the store that nobody has come back for."""
    for name in filter(IN_STORE.fullmatch, os.listdir(folder)):
        path = os.path.join(folder, name)
        try:
            fd = files.open_own(path)
        except OSError:
            continue
        try:
            old = time.time() - os.fstat(fd).st_mtime > KEPT
            if old and _begins_as_index(fd) and locks.lock(fd) and files.has_name(fd, path):
                drop_journal(path)
                files.remove(fd, path)
        except OSError:  # a journal that is not ours
            pass
        finally:
            os.close(fd)
