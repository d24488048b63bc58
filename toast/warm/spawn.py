"""Starts a warm process in the background: spawned, not forked, with nothing of ours but the environment.

Standard library alone.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call

DEFAULT = "10m"  # without work, until it leaves
CODE = """from toast.start import resume; resume("toasted", False, (-1, -1, -1))
from toast.cli import toasted; toasted()"""


def start(call: Call) -> int:
    """Start one: its number. It ends by itself where there is one already. OSError where the system lets none be."""
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    close = [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()]
    lasting = call.warm_for if call.warm_for and call.warm_for != "off" else DEFAULT
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-c", CODE, "run", "--idle", lasting],
        dict(call.env),
        file_actions=[*null, *close],
        setsid=True,  # no terminal's Ctrl-C, no hang-up
        setsigmask=(),
        setsigdef=_signals(),
    )


def is_over(child: int) -> bool:
    """Whether it has ended."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True


def _inherited() -> list[int]:
    """What a new program would inherit beyond the standard streams: `x=$(embed ...)` would wait for it to close."""
    try:
        numbers = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        numbers = list(range(3, 256))
    return [fd for fd in numbers if fd > 2 and _is_inherited(fd)]


def _is_inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _signals() -> list[int]:
    from _signal import SIGHUP, SIGINT, SIGPIPE, SIGTERM

    return [SIGHUP, SIGINT, SIGPIPE, SIGTERM]
