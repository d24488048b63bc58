"""Bytes in, answers out: the file that reads and writes the standard streams.

Knows nothing of records (`records.py`), models or the process around it; standard library alone.
"""

from __future__ import annotations

import os
import stat
import sys
from codecs import utf_8_decode

from toast.errors import BadInput, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from toast.command import Call
    from toast.warm.jobs import Guard

    Buffer = bytes | bytearray | memoryview

CHUNK = 1 << 20  # bytes asked of a file or a pipe at once
WINDOW = 4096  # records handed on at once, at most
CONTROLS = {c: f"\\u{c:04x}" for c in range(0x7F, 0xA0)}  # DEL and C1, as JSON may have them
WRITER = 5  # seconds for which a FIFO's first writer is waited for
BEGUN = "of standard input a part was read before: only the rest is read (in a loop: name FILEs, or --no-input{})"


# ---------------------------------------------------------------- descriptors


def hold_standard_descriptors() -> None:
    """Keep 0, 1 and 2 taken, so that no file opened later is mistaken for a standard stream.

    A stream that was closed stays unusable: reading or writing it fails with EBADF.
    """
    for fd, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)


def path_of(fd: int | None) -> str:
    """The path of an open directory; None is a working directory that could not be opened."""
    if fd is None:
        raise BadInput("cannot open the working directory", "cd elsewhere, or give absolute paths")
    if sys.platform != "darwin":
        return os.readlink(f"/proc/self/fd/{fd}")
    import fcntl

    return os.fsdecode(fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))


class Passed(int):
    """A descriptor that another process has passed to this one, which runs a job for it.

    guard: is asked before each use. It tells that process that its job can no longer be run elsewhere, waits until the
    descriptor is ready, and ends the job of a process that is gone."""

    guard: Guard

    def __new__(cls, fd: int, guard: Guard) -> Passed:
        self = super().__new__(cls, fd)
        self.guard = guard
        return self


def commit(call: Call) -> None:
    """Something is about to change that lasts: from here on nobody else may run this command again."""
    if isinstance(call.stdout, Passed):
        call.stdout.guard.begin()


def _ready(fd: int, *, writing: bool = False) -> int:
    """How many bytes may be read or written at once, once the descriptor is ready; our own are left to the system."""
    return fd.guard.ready(fd, writing=writing) if isinstance(fd, Passed) else 1 << 40


def write_all(fd: int, data: Buffer, what: str = "standard output") -> None:
    """Write everything, to a non-blocking descriptor too; BrokenPipeError when the reader left."""
    view = memoryview(data).cast("B")
    while view:
        try:
            view = view[os.write(fd, view[: _ready(fd, writing=True)]) :]
        except BlockingIOError:
            _wait(fd, writing=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise os_error(error, f"write {what}") from None


def _wait(fd: int, *, writing: bool = False) -> None:
    """Until a descriptor that somebody made non-blocking is ready."""
    _poll(fd, None, writing=writing)


def _is_ready(fd: int) -> bool:
    """Whether reading would not wait: there is something, or the end."""
    return _poll(fd, 0)


def _poll(fd: int, milliseconds: int | None, *, writing: bool = False) -> bool:
    import select

    poll = select.poll()  # select() takes no descriptor over 1023
    poll.register(fd, select.POLLOUT if writing else select.POLLIN)
    return bool(poll.poll(milliseconds))


def read_some(fd: int, what: str = "standard input", size: int = CHUNK) -> bytes:
    """What is there to read, at least a byte; nothing at the end."""
    while True:
        try:
            return os.read(fd, min(size, _ready(fd)))
        except BlockingIOError:
            _wait(fd)
        except OSError as error:
            raise os_error(error, f"read {what}") from None


def is_pipe(fd: int) -> bool:
    """Whether what a descriptor gives can be read once only: a pipe or a socket."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def is_fed(fd: int) -> bool:
    """Whether somebody put something there to read: a file, a pipe, a socket; a directory, which fails when read."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or is_pipe(fd)


def is_begun(fd: int) -> bool:
    """Whether somebody has read a part of what a descriptor gives, and left some; of a pipe nobody can tell."""
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and 0 < os.lseek(fd, 0, os.SEEK_CUR) < status.st_size


def read_text(call: Call, name: str, limit: int) -> str | None:
    """The text of a file, None where it has more bytes than that; OSError where it cannot be opened."""
    fd = open_again(call, name)
    try:
        data, whole = read_up_to(fd, limit, name)
    finally:
        os.close(fd)
    return decoded(data)[0] if whole else None


def read_up_to(fd: int, limit: int, what: str = "standard input") -> tuple[bytes, bool]:
    """(bytes, whole): at most `limit` bytes, and whether that was all."""
    data = bytearray()
    while len(data) <= limit and (chunk := read_some(fd, what)):
        data += chunk
    return bytes(data[:limit]), len(data) <= limit


def decoded(data: bytes) -> tuple[str, int]:
    """(text without a byte order mark, how many sequences of invalid UTF-8 became U+FFFD in it)."""
    text = data.decode("utf-8", "replace")
    return text.removeprefix("\ufeff"), _invalid(text, data)


def say(fd: int, text: str, *, lines: bool = False) -> None:
    """One line of text on standard error, in one write; a broken standard error is no error."""
    write_stderr(fd, (text if lines else " ".join(text.split())) + "\n")


class Input:
    """The named files one after the other, else standard input, as text, read as far as it is asked for; invalid UTF-8
    becomes U+FFFD and is told of."""

    def __init__(self, call: Call, files: Sequence[str] = ()) -> None:
        names = list(files) or ([] if call.no_input else ["-"])
        for name in names:
            check_input(call, name, asked_for=bool(files))
        told = {name: "standard input" if name == "-" else name for name in names}
        self.chunks = (chunk for name in names for chunk in read_chunks(call, name, told[name]))
        self.what = told[names[0]] if len(names) == 1 else "the text"
        self.call, self.data, self.ended = call, bytearray(), False
        self.whole, self.invalid = False, 0

    def head(self, size: int) -> str:
        """The text of the first `size` bytes, in whole characters, or all of it (`whole`)."""
        while len(self.data) <= size and not self.ended:
            chunk = next(self.chunks, b"")
            self.data += chunk
            self.ended = not chunk
        self.whole = self.ended and len(self.data) <= size
        text, used = utf_8_decode(self.data[:size], "replace", self.whole)
        self.invalid = _invalid(text, self.data[:used])
        return text

    def all(self) -> str:
        return self.head(1 << 62)

    def warn(self) -> None:
        """Tell of what was not UTF-8 in what was read."""
        if self.invalid:
            self.call.warn(f"{self.what} held {plural(self.invalid, 'sequence')} of invalid UTF-8, read as U+FFFD")


def _invalid(text: str, data: bytes | bytearray) -> int:
    """How many U+FFFD of the text stand for bytes that were not UTF-8."""
    return text.count("\ufffd") - data.count(b"\xef\xbf\xbd") if "\ufffd" in text else 0


def write_stderr(fd: int, text: str) -> None:
    """Text on standard error as it comes, without a line of its own."""
    try:
        write_all(fd, for_reader(fd, clean(text).encode()))
    except (OSError, BadInput):
        pass


def clean(text: str) -> str:
    """Text that can be encoded: bytes of an argument that were not UTF-8, and halves of surrogate pairs, become
    U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


def check_input(call: Call, name: str, *, asked_for: bool, takes_files: bool = True) -> None:
    """Fail before the first answer where a file cannot be read, or only a terminal feeds us; tell of a loop's list."""
    if name == "-":
        if not asked_for and os.isatty(call.stdin):
            hint = "pipe text in, name a FILE, or give - to type it" if takes_files else f"{call.name} < FILE"
            raise BadInput("nothing to read: standard input is a terminal", hint)
        if not asked_for and is_begun(call.stdin):
            call.warn(BEGUN.format("; - says that it is meant" * takes_files))
        return
    try:
        mode = os.stat(name, dir_fd=call.cwd).st_mode
        if stat.S_ISREG(mode):  # opening and closing a FIFO would end its writer with SIGPIPE
            os.close(call.open(name))
    except OSError as error:
        raise os_error(error, f"open {name}") from None
    if stat.S_ISDIR(mode):
        raise BadInput(f"cannot read {name}: Is a directory", f"find {name} -type f -exec {call.name} ... {{}} +")


def read_chunks(
    call: Call, name: str, what: str = "standard input", *, busy: Callable[[], bool] = lambda: False
) -> Iterator[bytes]:
    """The bytes of a file, or of standard input, as they come; empty ones while busy() and there is nothing yet."""
    try:
        fd = call.stdin if name == "-" else call.open(name)
    except OSError as error:
        raise os_error(error, f"open {name}") from None
    try:
        while True:
            while busy() and not _is_ready(fd):
                yield b""
            if not (chunk := read_some(fd, what)):
                return
            yield chunk
    finally:
        if fd != call.stdin:
            os.close(fd)


def open_again(call: Call, name: str, limit: int = 1 << 62) -> int:
    """A descriptor of a named file, as often as it is asked for: what a pipe gives, `limit` bytes at most,
    is kept in a private file. Nobody is waited for who might write to a FIFO some day."""
    fd = call.open(name, os.O_RDONLY | os.O_NONBLOCK)
    if not is_pipe(fd):
        return fd
    try:
        from toast.files import spool

        call.kept[os.path.normpath(name)] = spool(call, _pieces(fd, name, limit))
    finally:
        os.close(fd)
    return call.open(name)


def _pieces(fd: int, name: str, limit: int) -> Iterator[bytes]:
    chunk = _first(fd, name, min(CHUNK, limit))
    while chunk:
        yield chunk
        limit -= len(chunk)
        chunk = read_some(fd, name, min(CHUNK, limit))


def _first(fd: int, name: str, size: int) -> bytes:
    """What a non-blocking pipe gives first. Without a writer reading gives nothing, but there is no hang-up either."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    there = poll.poll(WRITER * 1000)
    try:
        first = os.read(fd, size)
    except BlockingIOError:  # somebody has it open, and takes the time
        return read_some(fd, name, size)
    except OSError as error:
        raise os_error(error, f"read {name}") from None
    if not (first or there):
        raise BadInput(f"cannot read {name}: nobody writes to this pipe")
    return first


def plural(count: int, noun: str) -> str:
    """`1 record`, `12 records`, `2 queries`."""
    many = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count} {noun}" if count == 1 else f"{count} {many}"


# ---------------------------------------------------------------- answers out


def write_answer(call: Call, data: bytes) -> None:
    """Text on standard output, in whole characters; BrokenPipeError when the reader left."""
    write_all(call.stdout, for_reader(call.stdout, data))


def for_reader(fd: int, data: bytes) -> bytes:
    """UTF-8 as whoever reads the descriptor gets it: on a terminal nothing steers, elsewhere it is as it is."""
    if not os.isatty(fd):
        return data
    from toast.terminal import visible_bytes

    return visible_bytes(data)


class LineWriter:
    """Text on standard output as it comes: at once to a terminal; elsewhere whole lines, each in one write, so that
    processes that share a pipe never mix within a line. `close` writes what is left."""

    def __init__(self, call: Call) -> None:
        self.fd, self.held = call.stdout, ""
        self.at_once = os.isatty(self.fd)

    def write(self, text: str) -> None:
        """Take text, write what is settled of it."""
        if self.at_once:
            text = self.held + text
            self.held = "\r" * text.endswith("\r")  # until it is known whether the line ends
            write_all(self.fd, for_reader(self.fd, text.removesuffix("\r").encode()))
            return
        *lines, self.held = (self.held + text).split("\n")
        for line in lines:
            write_all(self.fd, (line + "\n").encode())

    def close(self) -> None:
        """Write the last, unfinished line."""
        held, self.held = self.held, ""
        if held:
            write_all(self.fd, for_reader(self.fd, held.encode()))


def refuse_terminal(call: Call, instead: str) -> None:
    """Bytes that are no text do not go to a terminal."""
    if os.isatty(call.stdout):
        raise BadInput("will not write binary data to a terminal", instead)


def json_line(value: dict[str, Any]) -> bytes:
    """A JSON object on a line of its own, without control characters; float32 numbers in as few digits as give them
    back. BadInput for a number that JSON lacks."""
    import json

    # half a surrogate pair has no UTF-8; the replacement, \udXXX, is just how JSON writes it
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    except ValueError:
        raise BadInput("a number of the answer is NaN or infinite, which JSON cannot say") from None
    if b"\x7f" in line or b"\xc2" in line:  # DEL, or the first byte of C1 among others: JSON lets them be
        line = line.decode().translate(CONTROLS).encode()
    return line + b"\n"


class NoProgress:
    """What `progress` gives where nobody would see a bar."""

    def update(self, n: int = 1) -> None:
        pass

    def __enter__(self) -> NoProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def progress(call: Call, total: int | None = None, unit: str = "record") -> Any:
    """A progress bar on a terminal's standard error: a context with `.update(n)`."""
    if call.quiet or not os.isatty(call.stderr):
        return NoProgress()
    from tqdm import tqdm

    stream = os.fdopen(os.dup(call.stderr), "w")
    many = unit == "byte"  # 1.2M of them
    return tqdm(total=total, unit=f" {unit}s", unit_scale=many, file=stream, leave=False, delay=1, dynamic_ncols=True)
