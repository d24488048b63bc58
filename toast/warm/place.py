"""Where the warm process of an installation is found: a socket in a folder that only its user may enter.

Owns the folder's checks and the socket's name, which `launcher/client.c` makes in the same way. Standard library alone.
"""

from __future__ import annotations

import os
import sys
from stat import S_ISDIR
from time import time

import toast
from toast.errors import ToastError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LONGEST = 103  # bytes of a socket's path that every system takes (macOS: 104 with its NUL)
UNTIL_IT_LISTENS = 5  # seconds from the start of a process to its socket, at most


def folder(env: Mapping[str, str]) -> str:
    """$XDG_RUNTIME_DIR/toast where that is this user's own, else /tmp/toast-UID."""
    runtime = env.get("XDG_RUNTIME_DIR", "")
    return os.path.join(runtime, "toast") if runtime.startswith("/") and _is_own(runtime) else f"/tmp/toast-{_user()}"


def _user() -> int:
    return os.geteuid()


def _is_own(path: str, closed: int = 0o022) -> bool:
    """Whether a folder, and no link to one, is this user's and closed to these rights of others."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return S_ISDIR(status.st_mode) and status.st_uid == _user() and not status.st_mode & closed


def is_private(path: str) -> bool:
    """Whether nobody else can have planted what is in a folder."""
    return _is_own(path, 0o077)


def check(path: str) -> None:
    """ToastError unless a socket may have this path, in a folder of one's own if that is there."""
    if not fits(path):
        raise ToastError(f"{path} is too long for a socket", "set XDG_RUNTIME_DIR to a shorter folder, or -p here")
    where = os.path.dirname(path)
    if os.path.lexists(where) and not is_private(where):
        raise ToastError(f"{where} is not a folder that only you may enter", f"chmod 700 {where}, or -p here")


def socket(env: Mapping[str, str]) -> str:
    """The path of the socket: of this version, for the Python that runs this."""
    where = os.path.realpath(os.path.dirname(sys.executable))
    return os.path.join(folder(env), name(f"{toast.__version__}\0{where}"))


def lock(path: str) -> int:
    """A descriptor of the file whose lock says whose the socket is, in a folder that is made. OSError."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    check(path)
    return os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def note_start(path: str) -> None:
    """A process is about to be started: until it listens, the time of its lock file says so."""
    fd = lock(path)
    os.utime(fd)
    os.close(fd)


def note_started(fd: int) -> None:
    """It listens; fd: of its lock."""
    os.utime(fd, (0, 0))


def is_starting(path: str) -> bool:
    """Whether a process has been started and does not listen yet."""
    try:
        return 0 <= time() - os.lstat(path + ".lock").st_mtime < UNTIL_IT_LISTENS
    except OSError:
        return False


def name(of: str) -> str:
    """FNV-1a of 64 bits, in hex: http://www.isthe.com/chongo/tech/comp/fnv/"""
    found = 0xCBF29CE484222325
    for byte in os.fsencode(of):
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{found:016x}"


def fits(path: str) -> bool:
    """Whether a socket can have this path."""
    return len(os.fsencode(path)) <= LONGEST


def peer(connection: Any) -> int:
    """The user id of whoever is at the other end of a connected socket."""
    if sys.platform == "darwin":
        return int.from_bytes(connection.getsockopt(0, 1, 76)[4:8], sys.byteorder)  # LOCAL_PEERCRED's xucred
    import _socket

    return int.from_bytes(connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)[4:8], sys.byteorder)


def process(connection: Any) -> int:
    """The number of the process at the other end."""
    import _socket

    level, option = (0, 2) if sys.platform == "darwin" else (_socket.SOL_SOCKET, _socket.SO_PEERCRED)  # LOCAL_PEERPID
    return int.from_bytes(connection.getsockopt(level, option, 4), sys.byteorder)
