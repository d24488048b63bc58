"""The warm process: takes requests from a socket, gives jobs to threads, tells the callers that it lives.

Owns connections, and when the process ends. What a job does is `jobs.py`'s, what is kept `life.py`'s.
"""

from __future__ import annotations

import array
import json
import os
import resource
import select
import socket
from collections import Counter
from errno import EMFILE, ENFILE
from math import inf
from signal import SIGINT, SIGTERM, set_wakeup_fd, signal
from stat import S_ISSOCK
from time import monotonic

import toast
from toast import files, kept, loaded, locks
from toast.warm import jobs, life, place, protocol
from toast.warm.jobs import Job, Refused, Workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from toast.warm.protocol import Request

JOBS = 64  # at once; more run where they came from
WAITING = 64  # connections that have not said yet what they want
PATIENCE = 2.0  # seconds in which a request has to be said
GARBAGE = 100  # jobs after which it is collected even when others run
PARTING = 5.0  # seconds that jobs may take when a signal ends the process
SPARE = 64  # descriptors that are not for jobs
EACH = 8  # descriptors that a job may need
GREETING = protocol.GREETING + b"\n"
ABUSE = b"here this is toast's warm process, no server to talk to: run the commands (docs/formats.md)\n"


class Connection:
    """Somebody who has connected; `job` once it is known what he wants."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket, self.since = connection, monotonic()
        self.data, self.fds = b"", list[int]()
        self.head: tuple[int, int] | None = None
        self.job: Job | None = None

    def receive(self) -> Request | None:
        """Take what came; the request once it is whole. Malformed, OSError."""
        data, rights, flags, _ = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(4 * 16), socket.MSG_CMSG_CLOEXEC)
        for level, kind, numbers in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self.fds += array.array("i", numbers[: len(numbers) - len(numbers) % 4])
        if flags & socket.MSG_CTRUNC or len(self.fds) > 4:
            raise protocol.Malformed("a request has up to four descriptors")
        if not data:
            raise protocol.Malformed("a request came to no end")
        self.data += data
        self.head = self.head or protocol.length(self.data)
        if self.head is None or len(self.data) < sum(self.head):
            return None
        if len(self.data) > sum(self.head):
            raise protocol.Malformed("a connection has one request")
        return protocol.unpack(self.data[self.head[0] :])

    def say(self, line: bytes) -> None:
        """Whatever fits: nobody is waited for."""
        try:
            os.write(self.socket.fileno(), line)
        except OSError:
            pass

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.socket.close()


class Server:
    """idle: seconds without a job after which it ends, None for never."""

    def __init__(self, listener: socket.socket, env: Mapping[str, str], *, idle: float | None) -> None:
        self.listener, self.idle, self.began = listener, idle, monotonic()
        self.facts, self.keeper = life.Facts(toast.__version__, env), life.Keeper(env)
        life.share_arenas()
        kept.memory = kept.Memory(self.keeper.limit // 4)
        self.waiting: dict[int, Connection] = {}
        self.running: dict[int, Connection] = {}
        self.ended: list[Job] = []
        self.served: Counter[str] = Counter()
        self.refused = self.uncollected = 0  # jobs: left to their callers; whose garbage is still there
        self.leaving, self.until, self.used = False, inf, 0.0
        self.jobs, self.spare = _room(), os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.poll = select.poll()
        self.workers = Workers(self._ended)
        self.wake_reader, self.wake_writer = socket.socketpair()

    # ---- the loop

    def serve(self) -> None:
        """Until it is told to end, or nobody needs it."""
        for end in (self.wake_reader, self.wake_writer, self.listener):
            end.settimeout(0)
        set_wakeup_fd(self.wake_writer.fileno(), warn_on_full_buffer=False)
        for number in (SIGINT, SIGTERM):
            signal(number, lambda *_: self.leave(PARTING))
        for end in (self.wake_reader, self.listener):
            self.poll.register(end, select.POLLIN)
        self.used = beat = monotonic()
        while not self._is_over():
            for fd, _ in self.poll.poll(self._pause() * 1000):
                self._event(fd)
            self._reap()
            if monotonic() - beat >= protocol.HEARTBEAT:
                beat = monotonic()
                self._beat()

    def _pause(self) -> float:
        """Seconds until something is due."""
        if self.running or self.waiting or self.leaving or self.uncollected:
            return protocol.HEARTBEAT / 4
        return 60.0 if self.idle is None else max(0.1, min(60.0, self.used + self.idle - monotonic()))

    def _is_over(self) -> bool:
        now = monotonic()
        if self.leaving:
            return not self.running or now > self.until
        return self.idle is not None and not (self.running or self.waiting) and now - self.used > self.idle

    def leave(self, within: float = inf) -> None:
        """Take no more jobs; those that run may come to their end, for so many seconds."""
        self.until = min(self.until, monotonic() + within)
        if not self.leaving:
            self.leaving = True
            self.poll.unregister(self.listener)
            self.listener.close()

    def _event(self, fd: int) -> None:
        if fd == self.wake_reader.fileno():
            self.wake_reader.recv(4096)
        elif fd in self.waiting:
            self._receive(self.waiting[fd])
        elif fd in self.running:
            self.poll.unregister(fd)  # he is gone, or calls it off: once is enough
            job = self.running[fd].job
            assert job is not None
            job.cancelled = True
        elif not self.leaving:
            self._accept()

    def _beat(self) -> None:
        for connection in self.running.values():
            if not (connection.job and connection.job.cancelled):  # whoever called it off does not wait for long
                connection.say(protocol.BEAT + b"\n")
        for connection in [c for c in self.waiting.values() if monotonic() - c.since > PATIENCE]:
            self._refuse(connection, ABUSE)
        self._tidy()

    def _tidy(self) -> None:
        if self.uncollected and (not self.running or self.uncollected > GARBAGE):
            self.uncollected = 0
            life.free()  # cycles may hold descriptors, too
        room = self.keeper.tidy(self.idle if self.idle is not None else 600.0)
        if not (room or self.running or self.leaving):
            self.leave()  # what takes the memory is not to be had back in another way

    # ---- connections

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError as error:
            if error.errno in (EMFILE, ENFILE):
                self._turn_away()
            return  # else it is gone again
        connection.settimeout(0)
        found = Connection(connection)
        if place.peer(connection) != os.geteuid():
            found.close()
        elif len(self.waiting) >= WAITING:
            self._refuse(found, GREETING + protocol.HERE + b" too many ask at once\n")
        else:
            found.say(GREETING)
            self.waiting[connection.fileno()] = found
            self.poll.register(connection, select.POLLIN)

    def _turn_away(self) -> None:
        """There are no descriptors: take the next connection by the one that is spared for this, and close it."""
        os.close(self.spare)
        try:
            self.listener.accept()[0].close()
        except OSError:
            pass
        self.spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _receive(self, connection: Connection) -> None:
        try:
            request = connection.receive()
            if request is not None:
                self._decide(connection, request)
        except BlockingIOError:
            return
        except protocol.Malformed as error:
            self._leave_to_caller(connection, error)
        except Refused as error:
            self.refused += 1
            self._leave_to_caller(connection, error)
        except OSError:
            self._refuse(connection, b"")

    def _leave_to_caller(self, connection: Connection, why: Exception) -> None:
        said = " ".join(str(why).split())
        self._refuse(connection, protocol.HERE + f" {said}\n".encode("utf-8", "replace"))

    def _refuse(self, connection: Connection, line: bytes) -> None:
        connection.say(line)
        if self.waiting.pop(fd := connection.socket.fileno(), None):
            self.poll.unregister(fd)
        connection.close()

    def _decide(self, connection: Connection, request: Request) -> None:
        """Do what is asked, or raise Refused."""
        if request.command == "toasted":
            self._answer(connection, request)
            return
        if self.facts.outdated():
            self.leave()
            raise Refused("the programs have changed since it began")
        if differs := self.facts.differs(request):
            raise Refused(differs)
        if len(connection.fds) < 3:
            raise Refused("a request has three descriptors, and one of the working directory")
        command, lasting = jobs.check(request)
        job = Job(connection.socket, request, command, fds=connection.fds)
        if self.workers.running >= self.jobs:
            raise Refused("it is full")
        connection.job, connection.fds, fd = job, [], connection.socket.fileno()
        connection.socket.settimeout(PATIENCE)
        self.workers.take(job)
        self.running[fd] = self.waiting.pop(fd)
        self.served[request.command] += 1
        self.used = monotonic()
        if self.idle is not None:
            self.idle = max(self.idle, lasting)

    def _ended(self, job: Job) -> None:
        """A thread says that its job is over."""
        self.ended.append(job)
        try:
            self.wake_writer.send(b"\0")
        except OSError:  # it is full: the loop wakes up anyway
            pass

    def _reap(self) -> None:
        while self.ended:
            job = self.ended.pop()
            connection = self.running.pop(fd := job.connection.fileno())
            try:
                self.poll.unregister(fd)
            except KeyError:  # it was called off
                pass
            connection.close()
            self.used = monotonic()
            self.uncollected += 1

    # ---- about itself

    def _answer(self, connection: Connection, request: Request) -> None:
        if request.words == ["stop"]:
            self.leave()
        told = json.dumps(self.status()).encode()
        self._refuse(connection, protocol.INFO + b" " + told + b"\n" + protocol.DONE + b" 0\n")

    def status(self) -> dict[str, object]:
        """What `toasted status` tells."""
        return {
            "pid": os.getpid(), "version": toast.__version__, "uptime": round(monotonic() - self.began, 1),
            "idle": self.idle, "memory": life.memory(), "running": len(self.running),
            "served": dict(self.served), "refused": self.refused, "models": loaded.names(),
        }  # fmt: skip


def _room() -> int:
    """How many jobs may run at once: no more than the system has descriptors for, of which it is asked for all."""
    files.allow_open(JOBS * EACH)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return JOBS if limit == resource.RLIM_INFINITY else max(1, min(JOBS, (limit - SPARE) // EACH))


# ---------------------------------------------------------------- the socket


def listen(path: str) -> tuple[socket.socket, int] | None:
    """(the socket at `path`, the lock that says whose it is); None where another process has it. OSError.

    The lock is the system's: it ends with its process, however that ends. What is left of a dead one's is replaced."""
    lock = place.lock(path)
    if not locks.lock(lock):
        os.close(lock)
        return None
    try:
        if S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(128)
    place.note_started(lock)
    return listener, lock


def end(path: str, lock: int) -> None:
    """Take the socket's name away, before the lock is free."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.close(lock)
