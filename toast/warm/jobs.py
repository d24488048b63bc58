"""A job: a command that runs here for the process that asked, on that process's descriptors; and the threads for it.

Owns when a job is called off: `check`, which its loops come by (`toast/cancel.py`), and the reads and writes on its
descriptors. Does not know how requests come in (`server.py`).
"""

from __future__ import annotations

import os
import select
import stat
import threading

from toast import options, pipes
from toast.cancel import Cancelled, here
from toast.command import SERVED, Call, Command, named, run
from toast.errors import Exit, HelpRequested, ToastError
from toast.pipes import Passed
from toast.warm import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from toast.warm.protocol import Request

AT_ONCE = 4096  # bytes that a pipe with any room takes without making its writer wait (PIPE_BUF)
STACK = 16 << 20  # bytes, of which a thread takes what it needs


class Refused(Exception):
    """A request that has to run where it came from."""


def declared(name: str) -> Command:
    """The command of that name; Refused."""
    if name not in SERVED:
        raise Refused(f"{name} does not run here")
    return named(name)


def check(request: Request) -> tuple[Command, int]:
    """The command of a request that this process can run as its caller would, and how long the process is to stay for
    the next one, 0 where that was not said; Refused.

    Help and mistakes are told by the caller itself."""
    command = declared(request.command)
    try:
        given = options.parse(command.parameters, request.words)
        if given.get("place") == "here":
            raise Refused("its words ask for it")
        warm = given.get("warm_for") or request.env.get("TOAST_WARM")
        lasting = protocol.lasting(warm) if warm else 0
    except (ToastError, options.Misread, HelpRequested) as error:
        raise Refused(str(error)) from error
    if warm and not lasting and not given.get("place"):
        raise Refused("it asks for none")
    return command, lasting


class Guard:
    """Stands before a job's passed descriptors; see `pipes.Passed`."""

    def __init__(self, connection: socket, job: Job) -> None:
        self.connection, self.job, self.begun = connection, job, False

    def begin(self) -> None:
        """Tell the caller that from here on only this process can finish the job; Cancelled when he is gone."""
        self.job.check()
        if not self.begun:
            try:
                self.connection.sendall(protocol.BEGUN + b"\n")
            except OSError:
                self.job.cancelled = True
                self.job.check()
            self.begun = True

    def ready(self, fd: int, *, writing: bool) -> int:
        """How many bytes can be read or written without waiting, once there are some; Cancelled, and BrokenPipeError
        for who tries again after that."""
        self.begin()
        poll = select.poll()
        poll.register(fd, select.POLLOUT if writing else select.POLLIN)
        poll.register(self.connection, select.POLLIN)
        found = dict(poll.poll())
        if self.connection.fileno() in found:
            self.job.cancelled = True
            self.job.check()
        if self.job.cancelled:
            raise BrokenPipeError(32, "Broken pipe")
        return AT_ONCE if writing and not stat.S_ISREG(os.fstat(fd).st_mode) else pipes.CHUNK


class Job:
    """One run of a command for somebody else. fds: stdin, stdout, stderr and, if any, the working directory.

    cancelled: nobody wants it any more; may be set from any thread."""

    def __init__(self, connection: socket, request: Request, command: Command, *, fds: list[int]) -> None:
        self.connection, self.request, self.command, self.fds = connection, request, command, fds
        self.kept: dict[str, int] = {}
        self.cancelled = self.told = False

    def check(self) -> None:
        """Cancelled, the first time that this is asked after it came to that: what cleans up is left alone."""
        if self.cancelled and not self.told:
            self.told = True
            raise Cancelled

    def run(self) -> None:
        """Run it; afterwards nothing of it is left but its status, which the caller gets."""
        here.job = self
        try:
            status = self._run()
        except Cancelled:
            status = Exit.ERROR
        here.job = None
        for fd in (*self.fds, *self.kept.values()):
            try:
                os.close(fd)
            except OSError:
                pass
        try:
            self.connection.sendall(protocol.DONE + b" %d\n" % status)
        except OSError:
            pass

    def _run(self) -> int:
        self.check()
        guard, cwd = Guard(self.connection, self), self.fds[3] if self.fds[3:] else None
        streams = {name: Passed(fd, guard) for name, fd in zip(("stdin", "stdout", "stderr"), self.fds, strict=False)}
        call = Call(self.command.name, self.request.env, cwd, **streams).but(kept=self.kept)
        try:
            return run(self.command, self.request.words, call)
        except Cancelled:
            raise
        except BaseException as error:  # a library's SystemExit, a panic of Rust: they end this job alone
            pipes.say(call.stderr, f"{call.name}: unexpected {type(error).__name__}: {error}")
            return Exit.ERROR


# ---------------------------------------------------------------- threads


class Workers:
    """Threads that run jobs, used again: each has its own streams in MLX, which stay. done(job) hears of each end."""

    def __init__(self, done: Callable[[Job], object]) -> None:
        self.done = done
        self.idle: list[_Worker] = []
        self.lock = threading.Lock()
        self.running = 0
        threading.stack_size(STACK)

    def take(self, job: Job) -> None:
        """Run a job on a thread of its own."""
        with self.lock:
            self.running += 1
            worker = self.idle.pop(0) if self.idle else _Worker(self)  # in turn: what each comes to take shows early
        worker.give(job)

    def free(self, worker: _Worker, job: Job) -> None:
        with self.lock:
            self.running -= 1
            self.idle.append(worker)
        self.done(job)


class _Worker:
    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.job: Job | None = None
        self.wake = threading.Semaphore(0)
        threading.Thread(target=self._work, name="job", daemon=True).start()

    def give(self, job: Job) -> None:
        self.job = job
        self.wake.release()

    def _work(self) -> None:
        while True:
            self.wake.acquire()
            job, self.job = self.job, None
            assert job is not None
            job.run()
            self.workers.free(self, job)
            del job
