"""What a client and the warm process say to each other; docs/formats.md has it, `launcher/client.c` speaks it, too.

Owns the form of requests and the lines of answers. Knows no sockets' lives, no jobs. Standard library alone.
"""

from __future__ import annotations

import os

import toast
from toast import options
from toast.errors import ToastError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
HEAD = b"toast %d " % VERSION  # then the length of the request in decimal digits and a line feed
GREETING = HEAD + toast.__version__.encode()  # the first line of an answer
LONGEST = 8 << 20  # bytes of a request: more than systems let a program's arguments and environment be
FIELDS = 6
HEARTBEAT = 1.0  # seconds between two signs of life
SILENCE = 10.0  # seconds without one, after which the warm process counts as dead

# lines of answers
BEAT, BEGUN, HERE, DONE, INFO = b".", b"begun", b"here", b"done", b"info"


class Malformed(ValueError):
    """What came is no request of this protocol."""


class Request:
    """What a client asks for. limits: its resource limits, `namespace`: of its mounts; both compared as text."""

    def __init__(
        self, command: str, words: list[str], env: Mapping[str, str], *, version: str = toast.__version__,
        umask: int = 0o022, limits: str = "", namespace: str = "",
    ) -> None:  # fmt: skip
        self.version, self.command, self.words, self.env = version, command, words, env
        self.umask, self.limits, self.namespace = umask, limits, namespace

    def pack(self) -> bytes:
        """The bytes, head included."""
        pairs = [f"{key}={value}" for key, value in self.env.items()]
        facts = [self.version, self.command, f"{self.umask:o}", self.limits, self.namespace, str(len(self.words))]
        body = b"".join(os.fsencode(text) + b"\0" for text in (*facts, *self.words, *pairs))
        return HEAD + b"%d\n" % len(body) + body


def length(data: bytes) -> tuple[int, int] | None:
    """(where a request's body begins, how long it is); None while its head is not there; Malformed."""
    if not HEAD.startswith(data[: len(HEAD)]):
        raise Malformed("this speaks toast's protocol, version 1 (docs/formats.md)")
    digits, end, _ = data[len(HEAD) : len(HEAD) + 9].partition(b"\n")
    if digits and not digits.isdigit() or len(digits) > 8:
        raise Malformed("the length of a request is up to 8 digits and a line feed")
    if not end:
        return None
    if int(digits or b"0") > LONGEST:
        raise Malformed(f"a request has at most {LONGEST} bytes")
    return len(HEAD) + len(digits) + 1, int(digits or b"0")


def unpack(body: bytes) -> Request:
    """A request's body; Malformed."""
    fields = [os.fsdecode(part) for part in body.split(b"\0")]
    try:
        version, command, umask, limits, namespace, count = fields[:FIELDS]
        words = fields[FIELDS : FIELDS + int(count)]
        pairs = [pair.partition("=") for pair in fields[FIELDS + int(count) : -1]]
        if fields[-1] or len(words) != int(count) or int(count) < 0 or not 0 <= int(umask, 8) <= 0o777:
            raise ValueError(count)
        env = {key: value for key, _, value in pairs}
        return Request(command, words, env, version=version, umask=int(umask, 8), limits=limits, namespace=namespace)
    except ValueError:
        raise Malformed("a request has six facts, its words and its environment, each ended by NUL") from None


# ---------------------------------------------------------------- what must be alike in both processes


def limits() -> str:
    """The limits of memory, time and files under which this process runs."""
    import resource as r

    kinds = (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_DATA, r.RLIMIT_FSIZE)
    return ",".join(str(r.getrlimit(kind)[0]) for kind in kinds)


def namespace() -> str:
    """What tells this process's tree of files from another's: its root, and on Linux its mounts."""
    found = []
    for path in ("/", "/proc/self/ns/mnt"):
        try:
            status = os.stat(path)
            found.append(f"{status.st_dev}:{status.st_ino}")
        except OSError:
            found.append("-")
    return ",".join(found)


def umask() -> int:
    """This process's, which can only be read by setting it."""
    found = os.umask(0o077)
    os.umask(found)
    return found


def reads_elsewhere(words: list[str], cwd: int | None, *, terminal: bool) -> bool:
    """Whether the words may name what is this process's own: a descriptor (/dev/fd/63), a FIFO, a device; or, where
    standard input is a terminal, ask for it (`-`)."""
    from stat import S_ISDIR, S_ISREG

    for word in words:
        if "/dev/" in word or "/proc/" in word or terminal and word.endswith("-"):
            return True
        for path in {word, word.partition("=")[2], word.removeprefix("@")}:
            try:
                mode = os.stat(path, dir_fd=cwd).st_mode
            except (OSError, ValueError):
                continue
            if not (S_ISREG(mode) or S_ISDIR(mode)):
                return True
    return False


def lasting(text: str) -> int:
    """Seconds of `10m`, `1h`, `90s` or `90`; 0 for `off`. ToastError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h") else (text, "s")
    if text == "off":
        return 0
    count = options.whole(number)
    if count is None or count > 10**6:
        raise ToastError(f"--warm (TOAST_WARM) must be a time such as 10m, or off, not {text!r}")
    return count * {"s": 1, "m": 60, "h": 3600}[unit]
