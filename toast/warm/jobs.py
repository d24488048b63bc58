"""A job: a command that runs here for the process that asked, on that process's descriptors; and the threads for it.

Owns when a job is called off: its thread gets an exception, as a signal would make one in a process of its own. Does
not know how requests come in (`server.py`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import stat
import sys
import threading
from importlib import import_module
from time import monotonic, sleep

from toast import options, pipes
from toast.command import SERVED, Call, Command, run
from toast.errors import Exit, ToastError
from toast.pipes import Passed
from toast.warm import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from toast.warm.protocol import Request

AT_ONCE = 4096  # bytes that a pipe with any room takes without making its writer wait (PIPE_BUF)
STACK = 16 << 20  # bytes, of which a thread takes what it needs
MODULES = dict.fromkeys(("toast", "tokenize"), "toast.cli")
MODULES |= dict.fromkeys(("embed", "index", "search"), "embed.cli")
MODULES |= dict.fromkeys(("rerank", "classify"), "rerank.cli")


class Cancelled(BaseException):
    """Whoever asked is gone, or does not want the answer any more: unwind, clean up."""


class Refused(Exception):
    """A request that has to run where it came from."""


def declared(name: str) -> Command:
    """The command of that name; Refused."""
    if name not in SERVED:
        raise Refused(f"{name} does not run here")
    found = getattr(import_module(MODULES[name]), name)
    return found


def check(request: Request) -> tuple[Command, int]:
    """The command of a request that this process can run as its caller would, and how long the process is to stay for
    the next one, 0 where that was not said; Refused.

    Help, completion and mistakes are Typer's, which writes to the streams of its process: they run there."""
    command = declared(request.command)
    try:
        given = options.parse(command.parameters, request.words)
        if given is None or given.get("place") == "here":
            raise Refused("its words are not well-formed, or ask for it")
        warm = given.get("warm_for") or request.env.get("TOAST_WARM")
        lasting = protocol.lasting(warm) if warm else 0
    except ToastError as error:
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
        if not self.begun:
            self.job.say(protocol.BEGUN)
            self.begun = True

    def ready(self, fd: int, *, writing: bool) -> int:
        """How many bytes can be read or written without waiting, once there are some."""
        self.begin()
        wanted = select.POLLOUT if writing else select.POLLIN
        poll = select.poll()
        poll.register(fd, wanted)
        poll.register(self.connection, select.POLLIN)
        while True:
            found = dict(poll.poll())
            if self.connection.fileno() in found:
                self.job.wait_for_end()
            if fd in found:
                return AT_ONCE if writing and not stat.S_ISREG(os.fstat(fd).st_mode) else pipes.CHUNK


class Job:
    """One run of a command for somebody else. fds: stdin, stdout, stderr and, if any, the working directory."""

    def __init__(self, connection: socket, request: Request, command: Command, *, fds: list[int]) -> None:
        self.connection, self.request, self.command, self.fds = connection, request, command, fds
        self.kept: dict[str, int] = {}
        self.began = monotonic()
        self.lock = threading.Lock()  # held while it is decided whether the thread still works for this job
        self.thread = 0  # while it does
        self.cancelled = self.raised = False  # raised: in its thread, which has not seen it yet

    def say(self, line: bytes) -> None:
        """A line for the caller; Cancelled when it cannot be said."""
        try:
            self.connection.sendall(line + b"\n")
        except OSError:
            self.wait_for_end()

    def run(self) -> None:
        """Run it; afterwards nothing of it is left but its status, which the caller gets."""
        status = None
        try:
            with self.lock:
                self.thread = threading.get_ident()
            if not self.cancelled:
                status = self._run()
            self._leave()
        except Cancelled:
            self.raised = False
            self._leave()
        self._close()
        try:
            self.connection.sendall(protocol.DONE + b" %d\n" % (Exit.ERROR if status is None else status))
        except OSError:
            pass

    def _run(self) -> int:
        guard = Guard(self.connection, self)
        streams = {name: Passed(fd, guard) for name, fd in zip(("stdin", "stdout", "stderr"), self.fds, strict=False)}
        call = Call(self.command.name, self.request.env, self.fds[3] if self.fds[3:] else None, **streams).but(
            kept=self.kept
        )
        try:
            return run(self.command, self.request.words, call)
        except Cancelled:
            raise
        except BaseException as error:  # a library's SystemExit, a panic of Rust: they end this job alone
            pipes.say(call.stderr, f"{call.name}: unexpected {type(error).__name__}: {error}")
            return Exit.ERROR

    def _close(self) -> None:
        for fd in (*self.fds, *self.kept.values()):
            try:
                os.close(fd)
            except OSError:
                pass
        self.fds, self.kept = [], {}

    # ---- calling it off

    def cancel(self) -> bool:
        """Let the job's thread unwind as soon as it runs Python again; called from another thread. False: try again,
        it is importing, and half a module would be left to all jobs."""
        self.cancelled = True
        with self.lock:
            if self.thread and not self.raised:
                self.raised = True  # before it is, since its thread takes that back
                if not _raise_in(self.thread):
                    self.raised = False
                    return False
        return True

    def wait_for_end(self) -> None:
        """The caller is gone: `cancel` is about to come from the thread that watches connections."""
        while True:
            sleep(0.01)

    def _leave(self) -> None:
        """From here on the thread works for nobody. What was raised too late comes before this ends.

        (It cannot be taken back: CPython 3.11 forgets to forget it, and then traced code does not go on.)"""
        with self.lock:
            self.thread, late = 0, self.raised
        while late:
            sleep(0.001)


def _raise_in(thread: int) -> bool:
    """Raise Cancelled in a thread, unless it is in the middle of an import."""
    frame = sys._current_frames().get(thread)
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return False
        frame = frame.f_back
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Cancelled))
    return True


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
            worker = self.idle.pop() if self.idle else _Worker(self)
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
            gc.collect(1)
