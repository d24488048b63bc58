"""Files put in place whole, and files without a name.

What is found under a name is foreign until it is proven ours: it is no link and a regular file of this user, and its
lock is free. Knows nothing of streams (`pipes.py`) or of what the bytes mean; standard library alone.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

from toast.errors import BadInput, ignoring, os_error
from toast.locks import lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from toast.command import Call

WRITERS = 100  # that may replace the same file at once
UNNAMED = getattr(os, "O_TMPFILE", 0)
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FOUND = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO of that name would let us wait
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def replace(path: str, parts: Iterable[bytes | memoryview], *, mode: int | None = None) -> None:
    """Put a file with these bytes at `path`, whole or not at all; OSError as `os.open`, `os.write`, `os.rename`.

    A file that is replaced keeps its permissions; `mode` (0o666) less the umask is that of a new one. A link
    is replaced itself: give os.path.realpath to keep it. Where power fails, the old file may come back.
    """
    with Draft(path, 0o666 if mode is None else mode) as draft:
        keep_mode(draft.fd, path)
        for part in parts:
            write(draft.fd, part)
        draft.place()


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
    with ignoring(OSError):  # there is none
        os.fchmod(fd, os.stat(path).st_mode & 0o777 | more)


def write(fd: int, part: bytes | memoryview) -> None:
    view = memoryview(part)
    view = view.cast("B") if view.nbytes else memoryview(b"")
    while view:
        view = view[os.write(fd, view) :]


def open_regular(path: str) -> int:
    """A descriptor of a file to read; OSError for all that is none, of which a FIFO would let us wait."""
    fd = os.open(path, READ)
    mode = os.fstat(fd).st_mode
    if S_ISREG(mode):
        return fd
    os.close(fd)
    if S_ISDIR(mode):
        raise IsADirectoryError(21, "Is a directory", path)
    raise OSError(22, "not a regular file", path)


def read(path: str, limit: int = -1) -> bytes:
    """The bytes of a regular file, `limit` at most unless it is -1; OSError as `open_regular`."""
    with open(open_regular(path), "rb") as file:
        return file.read(limit)


def state(folder: str) -> tuple[tuple[str, int, int, int], ...]:
    """(name, size, time of change, inode) of all in a folder: what changes when a file of it does. A link that leads
    nowhere is as good as none."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with ignoring(FileNotFoundError):
                status = entry.stat()
                found.append((entry.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(sorted(found))


def allow_open(count: int) -> None:
    """Ask the system for so many descriptors, where it would let this process have no more than it has."""
    import resource

    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 64
    if least != resource.RLIM_INFINITY and least < wanted:
        with ignoring(OSError, ValueError):
            soft = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


# ---------------------------------------------------------------- whose a file is


def has_name(fd: int, path: str) -> bool:
    """Whether `path` is still, or again, the file behind `fd`."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except OSError:
        return False


def open_own(path: str) -> int:
    """A descriptor, to write too, of a regular file of this user; FileExistsError for anything else of that name."""
    try:
        fd = os.open(path, os.O_RDWR | FOUND)
    except FileNotFoundError:
        raise
    except OSError as error:  # a link, a folder, a socket, somebody else's
        raise FileExistsError(17, "not a file of ours", path) from error
    status = os.fstat(fd)
    if S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        return fd
    os.close(fd)
    raise FileExistsError(17, "not a file of ours", path)


def remove(fd: int, path: str) -> None:
    """Take the name away from the file behind `fd`, unless it belongs to another by now."""
    with ignoring(OSError):
        if has_name(fd, path):
            os.unlink(path)


# ---------------------------------------------------------------- the file beside
# `.NAME.toast-N`, N from 1, locked for as long as its writer lives. One that is a regular file of ours and
# can be locked is what a killed writer left: the next one that replaces the same file removes it.


class Draft:
    """A new file `fd`, locked, that is to become `path`: a context at whose end it is gone unless it was placed.

    Until then it has no `name`; where a file system has no such files, or it is `named`, one beside `path`.
    """

    def __init__(self, path: str, mode: int = 0o666, *, named: bool = False) -> None:
        self.path, self.name = path, ""
        self.fd = -1 if named else unnamed(os.path.dirname(path), mode)
        if self.fd < 0:
            self.fd, self.name = _create(path, mode)
        else:
            lock(self.fd)

    def place(self) -> None:
        """Take the name `path`, from whatever has it, once the bytes are on the disk."""
        os.fsync(self.fd)
        try:
            if not self.name:
                return _link(self.fd, self.path)
        except FileExistsError:
            self.name = give_name(self.fd, self.path)
        os.rename(self.name, self.path)
        self.name = ""

    def add(self) -> None:
        """Take the name `path`, unless something has it: FileExistsError."""
        if not self.name:
            return _link(self.fd, self.path)
        try:
            os.link(self.name, self.path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if os.path.lexists(self.path):
                raise FileExistsError(17, "File exists", self.path) from None
            os.rename(self.name, self.path)
        self.hide()

    def hide(self) -> None:
        """Take away the name beside `path`; whoever has the file open keeps it."""
        if self.name:
            remove(self.fd, self.name)
            self.name = ""

    def release(self) -> int:
        """The descriptor, which is the caller's to close from here on; of a name that is left, nothing is."""
        self.hide()
        fd, self.fd = self.fd, -1
        return fd

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()
        if self.fd >= 0:
            os.close(self.fd)


def unnamed(folder: str, mode: int) -> int:
    """A descriptor of a new file without a name, which can be given one; -1 where there are no such files."""
    if not UNNAMED:
        return -1
    try:
        fd = os.open(folder or ".", UNNAMED | os.O_RDWR | os.O_CLOEXEC, mode)
    except OSError:  # not every file system has them; what else is wrong comes up with a name, too
        return -1
    if os.path.exists(_link_of(fd)):
        return fd
    os.close(fd)  # no /proc
    return -1


def give_name(fd: int, path: str) -> str:
    """The name beside `path` that a file without one has now; FileNotFoundError for one that was deleted."""
    return _claim(path, lambda name: _link(fd, name))[1]


def tidy(path: str) -> None:
    """Remove what killed writers left beside `path`."""
    missing = 0  # names are taken from the first on, and given back in any order
    for name in names(path):
        missing += not os.path.lexists(name)
        if missing > 2:
            return
        _remove_left(name)


def names(path: str) -> Iterator[str]:
    """What may be beside `path` for as long as it is written."""
    folder, name = os.path.split(path)
    name = os.fsdecode(os.fsencode(name)[:200])  # names have at most 255 bytes
    return (os.path.join(folder, f".{name}.toast-{number}") for number in range(1, WRITERS + 1))


def _claim(path: str, make: Callable[[str], int | None]) -> tuple[int | None, str]:
    """What `make` gives for the first name beside `path` that can be had, and the name."""
    for name in names(path):
        _remove_left(name)
        try:
            return make(name), name
        except FileExistsError:  # another writer's, or not ours
            pass
    raise FileExistsError(17, "too many unfinished files of this name", name)


def _create(path: str, mode: int) -> tuple[int, str]:
    while True:
        fd, name = _claim(path, lambda name: os.open(name, CREATE, mode))
        assert fd is not None
        lock(fd, lambda: None)
        if has_name(fd, name):  # nobody has taken it for one that was left
            return fd, name
        os.close(fd)


def _link_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _link(fd: int, path: str) -> None:
    # a descriptor of a folder, here any, is what makes Python use linkat, which can follow the link
    os.link(_link_of(fd), path, src_dir_fd=fd, follow_symlinks=True)


def _remove_left(name: str) -> None:
    """Remove what a killed writer left under this name, and nothing else."""
    try:
        fd = open_own(name)
    except OSError:
        return
    try:
        if lock(fd):
            remove(fd, name)
    finally:
        os.close(fd)


# ---------------------------------------------------------------- for those who write


def output(call: Call, name: str | None, *, what: str, ours: Callable[[str], bool], like: str) -> str | None:
    """The file that -o names; None for standard output, which - names, too. BadInput before the work where no file
    could be put in place, or where one would be replaced that is not `ours`.

    what, like: what a message calls the file, and what to type."""
    if name is None or name == "-":
        return None
    check_output(call, name)
    path = call.path(name)
    try:
        foreign = os.path.exists(path) and os.path.getsize(path) and not ours(path)
    except OSError as error:
        raise os_error(error, f"open {name}") from None
    if foreign:
        raise BadInput(f"{name} is there, and no {what}", f"choose another name: {like}")
    return name


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
        reason = "Read-only file system" if os.statvfs(folder).f_flag & os.ST_RDONLY else "Permission denied"
    else:
        return
    raise BadInput(f"cannot write {name or repr(name)}: {reason}")


def temporary(call: Call) -> str:
    """The folder for files that pass."""
    return call.path(call.env.get("TMPDIR") or "/tmp")


def _private(call: Call) -> str:
    """What names of private files begin with."""
    return os.path.join(temporary(call), str(os.geteuid()))


def private_file(call: Call) -> int:
    """A descriptor of a new file without a name, in $TMPDIR; it goes when it is closed."""
    path = _private(call)
    fd = unnamed(os.path.dirname(path), 0o600)
    if fd >= 0:
        return fd
    try:
        return Draft(path, 0o600, named=True).release()
    except OSError as error:
        told = os_error(error, f"write in {os.path.dirname(path)}").message
        raise BadInput(told, "TMPDIR=FOLDER names another folder") from None


def spool(call: Call, chunks: Iterable[bytes]) -> int:
    """A private file of these bytes, to be read from its start."""
    fd = private_file(call)
    try:
        for chunk in chunks:
            write_private(fd, chunk)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def write_private(fd: int, data: bytes) -> None:
    """Add to a private file; BadInput when there is no room."""
    try:
        write(fd, data)
    except OSError as error:
        raise no_room(error.strerror) from None


def no_room(reason: object) -> BadInput:
    """What to say and to type where a private file cannot be written."""
    return BadInput(f"cannot write the temporary file: {reason}", "TMPDIR=FOLDER names another folder")


class named:  # noqa: N801  a function to callers
    """A name for a private file, for as long as it takes to open it by name."""

    def __init__(self, call: Call, fd: int) -> None:
        self.fd, self.draft, path = fd, None, _private(call)
        try:
            self.name = give_name(fd, path)
        except OSError:  # it had one, or there are no files without: a copy has
            self.draft = _copied(fd, path)

    def __enter__(self) -> str:
        return self.draft.name if self.draft else self.name

    def __exit__(self, *_: object) -> None:
        self.draft.__exit__() if self.draft else remove(self.fd, self.name)


def _copied(fd: int, path: str) -> Draft:
    draft = Draft(path, 0o600, named=True)
    try:
        for at in range(0, os.fstat(fd).st_size, 1 << 20):
            write(draft.fd, os.pread(fd, 1 << 20, at))
    except BaseException:
        draft.__exit__()
        raise
    return draft
