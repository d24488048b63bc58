"""Locks of files and folders, which last until they are closed or their process ends.

Owns how long a wait is nobody's business. Standard library alone.
"""

from __future__ import annotations

from toast.errors import ignoring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PAUSES = (0.002, 0.005) + (0.01,) * 9 + (0.05,) * 18  # seconds between tries: a second in all, before it is told


def lock(fd: int, waiting: Callable[[], object] | None = None) -> bool | None:
    """Lock a file or a folder until it is closed; False when somebody else has it locked.

    waiting: is called once whoever has it has been waited for a second. None: there are no locks here (some network
    file systems), so what was left cannot be told from what is being written."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not waiting:
            return False
        if not _lock_soon(fd):
            waiting()
            fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        return None
    return True


def _lock_soon(fd: int) -> bool:
    """Lock it within that second."""
    import fcntl
    from time import sleep

    for pause in PAUSES:
        sleep(pause)
        with ignoring(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
