"""Hands a command over to the warm process: its arguments, its environment, and its own descriptors.

The same as `launcher/client.c`, for where there is no launcher, and where a warm process has to be started first.
Owns when to wait and when to run here after all. Standard library alone.
"""

from __future__ import annotations

import os
import sys
from time import monotonic, sleep

from toast.errors import ToastError
from toast.warm import place, protocol, spawn
from toast.warm.protocol import BEGUN, DONE, GREETING, HERE, INFO, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call

STARTING = 30  # seconds for which `-p toasted` waits for a process that it has started
YIELDING = 1  # seconds after which one that was started sooner is there
SENDING = 2  # seconds that a greeting may take, and a request to be read
LONGEST_LINE = 1 << 20  # bytes: of what tells about itself
ENDING = 2  # seconds for which a job that is called off may clean up
UNFINISHED = "the warm process ended before the answer did"


class Conversation:
    """What is said over one connection. `begun`: the job has read or written something, and cannot be run again."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.held, self.begun = connection, b"", False

    def line(self, seconds: float = protocol.SILENCE) -> bytes | None:
        """The next line, None once there will be none: the other side closed, or was silent for too long."""
        until = monotonic() + seconds
        while b"\n" not in self.held and len(self.held) < LONGEST_LINE:
            if not self._wait(max(0.0, until - monotonic())) or not self._receive():
                return None
        line, end, self.held = self.held.partition(b"\n")
        return line if end else None

    def greeted(self) -> bool:
        """Whether this is a warm process of this version, and awake: what is passed cannot be taken back."""
        return self.line(SENDING) == GREETING

    def _wait(self, seconds: float) -> bool:
        import select

        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _receive(self) -> bool:
        try:
            data = self.connection.recv(4096)
        except OSError:
            data = b""
        self.held += data
        return bool(data)

    def status(self) -> int | None:
        """The job's exit status; None where it has to run here."""
        while (line := self.line()) is not None:
            word, _, rest = line.partition(b" ")
            if word == BEGUN:
                self.begun = True
            elif word == HERE and not self.begun:
                return None
            elif word == DONE:
                return int(rest)
        return self._given_up()

    def _given_up(self) -> int | None:
        """Nothing more is taken from us once we have shut the connection; what was said before that, counts."""
        import _socket

        try:
            self.connection.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass
        while self._receive():
            pass
        if not self.begun and BEGUN + b"\n" not in self.held:
            return None
        raise ToastError(UNFINISHED, "run it again, or with -p here")

    def call_off(self) -> None:
        """A signal came: tell the job, and give it a moment to clean up."""
        self.connection.settimeout(ENDING)
        until = monotonic() + ENDING
        try:
            self.connection.send(b"!")
            while self._wait(max(0.0, until - monotonic())) and self.connection.recv(4096):
                pass
        except OSError:
            pass


def ask(call: Call, words: list[str]) -> int | None:
    """The status of a command that the warm process has run; None where it is to run here.

    Under `-p toasted` one is started first; ToastError where that is not possible, or when it dies too late."""
    cwd = call.cwd
    if protocol.reads_elsewhere(words, cwd, terminal=os.isatty(call.stdin)):
        return None
    insisting = call.place == "toasted"
    path = place.socket(call.env)
    if insisting:
        place.check(path)
    connection = _started(call, path) if insisting else connect(path)
    if connection is None:
        return None
    request = Request(
        call.name, words, call.env, umask=protocol.umask(), limits=protocol.limits(), namespace=protocol.namespace()
    )
    descriptors = [call.stdin, call.stdout, call.stderr, *([] if cwd is None else [cwd])]
    conversation = Conversation(connection)
    try:
        if not (conversation.greeted() and send(connection, request, descriptors)):
            return None
        return conversation.status()
    except ToastError:
        raise
    except BaseException:
        conversation.call_off()
        raise
    finally:
        connection.close()


def connect(path: str) -> Any:
    """A connection to this user's warm process; None without one."""
    import _socket

    if not (place.fits(path) and place.is_private(os.path.dirname(path))):
        return None
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(0)  # ours; a full queue of connections is no reason to wait
    try:
        connection.connect(path)
        if place.peer(connection) == os.geteuid():
            connection.settimeout(SENDING)
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _started(call: Call, path: str) -> Any:
    """A connection to a warm process, which is started where there is none; ToastError."""
    connection, until = connect(path), monotonic() + STARTING
    child = 0 if connection else spawn.start(call)
    while connection is None:
        if spawn.is_over(child):  # it cannot, or another has been sooner
            until = min(until, monotonic() + YIELDING)
        if monotonic() > until:
            raise ToastError("cannot start the warm process", "toasted run shows why; -p here does without")
        sleep(0.02)
        connection = connect(path)
    return connection


def send(connection: Any, request: Request, descriptors: list[int]) -> bool:
    """Whether the whole request was taken; the descriptors go with its first byte."""
    import _socket

    data = memoryview(request.pack())
    if len(data) > protocol.LONGEST:
        return False
    numbers = b"".join(fd.to_bytes(4, sys.byteorder) for fd in descriptors)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)] if descriptors else []
    try:
        data = data[connection.sendmsg([data], rights) :]
        if data:
            connection.sendall(data)
    except OSError:
        return False
    return True


def control(call: Call, word: str) -> bytes | None:
    """What the warm process answers to `status` or `stop`; None where there is none, and none is being started.
    ToastError for a silent one."""
    path = place.socket(call.env)
    while True:
        starting = place.is_starting(path)  # is asked first: it may begin to listen in between
        if connection := connect(path):
            break
        if not starting:
            return None
        sleep(0.02)
    try:
        conversation, answer, until = Conversation(connection), b"", monotonic() + protocol.SILENCE
        if conversation.greeted() and send(connection, Request("toasted", [word], {}), []):
            while monotonic() < until and (line := conversation.line()) is not None:
                kind, _, rest = line.partition(b" ")
                if kind == INFO:
                    answer = rest
                elif kind == DONE:
                    return answer
        raise ToastError("the warm process does not answer", f"kill -9 {place.process(connection)} ends it")
    finally:
        connection.close()


def leave_one(call: Call) -> None:
    """Start a warm process for the next time, unless there is one. OSError, ToastError where it cannot be."""
    path = place.socket(call.env)
    place.check(path)
    if connection := connect(path):
        connection.close()
    else:
        place.note_start(path)
        spawn.start(call)
