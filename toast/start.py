"""Imported first by every `cli.py`: until a command runs, Ctrl-C ends it without a word, as it ends grep.

Python's own handler would raise KeyboardInterrupt in the middle of an import and print where. Before this file Python
itself starts: toast/launcher keeps SIGINT waiting through that, and `resume` ends the wait.
"""

import os
import sys
from _signal import SIG_DFL, SIG_UNBLOCK, SIGINT, default_int_handler, getsignal, pthread_sigmask, signal

# what a caller ignores (nohup, a script's &) stays ignored; in a program that holds a model, Ctrl-C is the program's
if getsignal(SIGINT) is default_int_handler and "toast.api" not in sys.modules:
    signal(SIGINT, SIG_DFL)


launched = False  # by the launcher, which has looked for a warm process


def resume(name: str, held: bool, moved: tuple[int, int, int]) -> None:  # noqa: FBT001  the launcher writes this call
    """Take over from the launcher, which has blocked SIGINT if `held`, and moved directories away from 0, 1 and 2."""
    global launched
    launched = True
    for fd, there in enumerate(moved):
        if there >= 0:
            os.dup2(there, fd)
            os.close(there)
    _call_process(name)
    if held:
        pthread_sigmask(SIG_UNBLOCK, (SIGINT,))


def _call_process(name: str) -> None:
    """What `ps` and `killall` know it by, which became python3 when Python took the launcher's place."""
    if sys.platform == "linux":
        try:
            fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return
        os.write(fd, name.encode())
        os.close(fd)
