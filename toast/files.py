"""Files put in place whole: written beside their name, synced, renamed.

Owns the names of what is written beside, and their removal after a crash. Knows nothing of streams
(`pipes.py`) or of what the bytes mean; standard library alone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from stat import S_ISREG

from toast.errors import BadInput, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from toast.command import Call

WRITERS = 100  # that may replace the same file at once
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
LEFT = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO of that name would let us wait


def replace(path: str, parts: Iterable[bytes | memoryview], *, mode: int | None = None) -> None:
    """Put a file with these bytes at `path`, whole or not at all; OSError as `os.open`, `os.write`, `os.rename`.

    A file that is replaced keeps its permissions; `mode` (0o666) less the umask is that of a new one. A link
    is replaced itself: give os.path.realpath to keep it. Where power fails, the old file may come back.
    """
    fd, beside = _open_beside(path, 0o666 if mode is None else mode)
    try:
        keep_mode(fd, path)
        for part in parts:
            _write(fd, part)
        place(fd, beside, path)
    except BaseException:
        _remove(fd, beside)
        raise
    finally:
        os.close(fd)


def place(fd: int, beside: str, path: str) -> None:
    """Give the file behind `fd`, whose name is `beside`, the name `path`, once its bytes are on the disk."""
    os.fsync(fd)
    os.rename(beside, path)


def sync(path: str) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def keep_mode(fd: int, path: str, more: int = 0) -> None:
    """Give a file that will replace the one at `path` the permissions of that one, and `more`."""
    with suppress(OSError):  # there is none
        os.fchmod(fd, os.stat(path).st_mode & 0o777 | more)


def _write(fd: int, part: bytes | memoryview) -> None:
    view = memoryview(part)
    view = view.cast("B") if view.nbytes else memoryview(b"")
    while view:
        view = view[os.write(fd, view) :]


# ---------------------------------------------------------------- the file beside
# `.NAME.toast-N`, N from 1, locked for as long as its writer lives. One that is a regular file of ours and
# can be locked is what a killed writer left: the next one that replaces the same file removes it.


def _open_beside(path: str, mode: int) -> tuple[int, str]:
    """(a descriptor, locked, the name) of a new file beside `path`."""
    folder, name = os.path.split(path)
    name = os.fsdecode(os.fsencode(name)[:200])  # names have at most 255 bytes
    for number in range(1, WRITERS + 1):
        beside = os.path.join(folder, f".{name}.toast-{number}")
        _remove_left(beside)
        try:
            fd = os.open(beside, CREATE, mode)
        except FileExistsError:  # another writer's, or not ours
            continue
        if _lock(fd, wait=True):
            return fd, beside
        os.close(fd)
    raise FileExistsError(17, "too many unfinished files of this name", beside)


def _remove_left(beside: str) -> None:
    """Remove what a killed writer left under this name, and nothing else."""
    try:
        fd = os.open(beside, LEFT)
    except OSError:  # nothing there, a link, or not ours to open
        return
    try:
        status = os.fstat(fd)
        if S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and _lock(fd, wait=False):
            _remove(fd, beside)
    finally:
        os.close(fd)


def _lock(fd: int, *, wait: bool) -> bool:
    """Lock a file; whether it is ours now and still has its name.

    Without locks (some network file systems) nothing that was left can be told from what is being written.
    """
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return wait
    return os.fstat(fd).st_nlink > 0


def _remove(fd: int, beside: str) -> None:
    """Take the name away from the file behind `fd`, unless it belongs to another by now."""
    with suppress(OSError):
        if os.path.samestat(os.lstat(beside), os.fstat(fd)):
            os.unlink(beside)


# ---------------------------------------------------------------- for those who write


def check_output(call: Call, name: str) -> None:
    """Fail before the work where no file could be put in place: BadInput."""
    path = os.path.realpath(call.path(name)) if name else ""
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        reason = "Is a directory"
    elif not os.path.isdir(folder):
        reason = "No such file or directory"
    elif os.path.exists(path) and not os.path.isfile(path):
        reason = "not a regular file, and would be replaced by one"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = "Permission denied"
    else:
        return
    raise BadInput(f"cannot write {name or repr(name)}: {reason}")


def private_file(call: Call) -> int:
    """A descriptor of a new file without a name, in $TMPDIR; it goes when it is closed."""
    folder = call.path(call.env.get("TMPDIR") or "/tmp")
    try:
        if hasattr(os, "O_TMPFILE"):
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # not every file system has it
        pass
    import tempfile

    try:
        fd, path = tempfile.mkstemp(dir=folder)
    except OSError as error:
        raise os_error(error, f"write in {folder}") from None
    os.unlink(path)
    return fd
