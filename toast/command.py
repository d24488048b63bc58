"""How a command runs: its declaration, the Call that its verb receives, and its exit status.

The only file that ends the process or reads the process's own arguments, environment and
directory. What the command does is the verb's business; what it reads and writes, `pipes.py`'s.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_DFL, SIGHUP, SIGINT, SIGTERM, default_int_handler, getsignal, signal

from toast import options, pipes, start
from toast.errors import Exit, HelpRequested, NoFile, ToastError
from toast.options import Misread, Parameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType
    from typing import Any


def _flag(name: str, *flags: str, help: str) -> Parameter:
    return Parameter(False, *flags, help=help, group="Every command").bind(name, bool)  # noqa: FBT003


COMMON = [
    _flag("quiet", "-q", "--quiet", help="Print nothing but errors on standard error."),
    _flag("verbose", "-v", "--verbose", help="Say more on standard error."),
    _flag("no_input", "--no-input", help="Do not read standard input."),
    _flag("strict", "--strict", help="End with status 3 when an input or an answer was cut."),
]
WARM = [  # of the commands that the warm process runs
    Parameter(
        None, "-p", choices=("toasted", "here"), without="there if one is found",
        help="Run in the warm process, which is started where there is none; or here.",
        hint="it says where to run; a text needs no option",
    ).bind("place", str),
    Parameter(
        None, "--warm", env="TOAST_WARM", metavar="TIME",
        help="Leave a warm process for the next time, until nobody has used it for so long, as 10m; off: use none.",
    ).bind("warm_for", str),
]  # fmt: skip


# the commands that run for others, in the warm process or for a program (`api.py`), and where they are declared
SERVED = {
    "toast": "toast.cli", "tokenize": "toast.cli", "embed": "embed.cli", "index": "embed.cli", "search": "embed.cli",
    "rerank": "rerank.cli", "classify": "rerank.cli",
}  # fmt: skip


class Outcome:
    """What a run has come to so far: all that changes about a Call."""

    was_cut = had_errors = False


class Call:
    """One run of a command: all that a verb may know of whoever called it. Read-only; `but` gives a changed copy.

    `env` maps names to values; `cwd` is a descriptor of the working directory, None where it cannot be
    opened; `stdin`, `stdout` and `stderr` are descriptors. Relative paths are resolved against `cwd`.
    `kept` holds what pipes gave: path -> descriptor of a private file. place, warm_for: what -p and --warm say.
    """

    name: str
    env: Mapping[str, str]
    cwd: int | None
    stdin: int
    stdout: int
    stderr: int
    quiet: bool
    verbose: bool
    no_input: bool
    strict: bool
    place: str | None
    warm_for: str | None
    outcome: Outcome
    kept: dict[str, int]

    def __init__(
        self, name: str, env: Mapping[str, str], cwd: int | None, *, stdin: int = 0, stdout: int = 1, stderr: int = 2
    ) -> None:
        self.__dict__.update(
            name=name, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr,
            quiet=False, verbose=False, no_input=False, strict=False, place=None, warm_for=None,
            outcome=Outcome(), kept={},
        )  # fmt: skip

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Call is read-only: but({name}=...) gives another")

    def but(self, **changes: Any) -> Call:
        """The same Call with these changes; its outcome and what pipes gave stay common to both."""
        other = object.__new__(Call)
        other.__dict__.update(self.__dict__, **changes)
        return other

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """A descriptor of the file; OSError as `os.open`."""
        kept = self.kept and self.kept.get(os.path.normpath(path))
        if kept:
            fd = os.open(f"/dev/fd/{kept}", flags | os.O_CLOEXEC)
            os.lseek(fd, 0, os.SEEK_SET)
            return fd
        return os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=self.cwd)

    def path(self, path: str) -> str:
        """The absolute path, for libraries that cannot take a descriptor; `~` is the caller's HOME."""
        home = self.env.get("HOME")
        if home and (path == "~" or path.startswith("~/")):
            path = home + path[1:]
        return path if os.path.isabs(path) else os.path.join(pipes.path_of(self.cwd), path)

    def info(self, text: str) -> None:
        """A line on standard error under -v, unless -q."""
        if self.verbose and not self.quiet:
            pipes.say(self.stderr, f"{self.name}: {text}")

    def warn(self, text: str) -> None:
        """A line on standard error unless -q."""
        if not self.quiet:
            pipes.say(self.stderr, f"{self.name}: {text}")

    def cut(self, text: str) -> None:
        """Something was cut short: say so; with --strict the status will be 3."""
        self.outcome.was_cut = True
        self.warn(text)

    def error(self, text: str) -> None:
        """A soft error: say it, go on; the status will be 2."""
        self.outcome.had_errors = True
        pipes.say(self.stderr, f"{self.name}: {text}")


class Command:
    """A declared command. Calling it runs the process that was started for it."""

    commands: Mapping[str, Command] = {}  # of a Group

    def __init__(self, function: Callable, name: str = "", *, quiet: str = "") -> None:
        """quiet: what -q does here, where that is more than anywhere else."""
        self.function, self.name = function, name or function.__name__
        self.help = function.__doc__ or ""
        self.shared = [*COMMON, *WARM] if self.name in SERVED else [*COMMON]
        if quiet:
            self.shared[0] = _flag("quiet", "-q", "--quiet", help=quiet)
        self.parameters = options.declared(function, self.shared)

    def __call__(self) -> None:
        _main(self)

    def choose(self, words: list[str]) -> tuple[Command, list[str]]:
        """(the command that the words are for, its words): itself, with all of them."""
        return self, words

    def parse(self, words: list[str], env: Mapping[str, str]) -> dict[str, Any]:
        """Every parameter's value; raises UsageError, or HelpRequested."""
        try:
            return options.fill(self.parameters, options.parse(self.parameters, words), env)
        except Misread as found:
            from toast import usage

            raise usage.explained(self, words, found) from None


class Group:
    """Commands under one name, of which the first word says which: `model pull NAME`; flags of all may be before it."""

    parameters: Sequence[Parameter] = COMMON

    def __init__(self, name: str, help: str, commands: list[Command]) -> None:
        self.name, self.help = name, help
        self.commands = {command.name.rpartition(" ")[2]: command for command in commands}

    def __call__(self) -> None:
        _main(self)

    def choose(self, words: list[str]) -> tuple[Command, list[str]]:
        """(the command that the first word names, the other words); HelpRequested, UsageError."""
        flags = [flag for p in COMMON for flag in p.flags]
        at = next((i for i, word in enumerate(words) if word not in flags), len(words))
        if at < len(words) and words[at] in self.commands:
            return self.commands[words[at]], words[:at] + words[at + 1 :]
        from toast import usage

        raise usage.choice(self, words[at:])


def command(function: Callable) -> Command:
    """Declare a command: a function of a Call and of parameters whose defaults declare them.

    Its docstring is the help: a sentence, paragraphs, examples (lines that begin with "$ ") and what status 1 means."""
    return Command(function)


def silent(help: str) -> Callable[[Callable], Command]:
    """The same of a command of which -q silences more than of others: @silent("Print nothing ...")."""
    return lambda function: Command(function, quiet=help)


def named(name: str) -> Command:
    """One of the commands that run for others."""
    from importlib import import_module  # the shell knows none of them

    found: Command = getattr(import_module(SERVED[name]), name)
    return found


def caller(name: str, *, stdin: int = 0, stdout: int = 1) -> Call:
    """A Call of this process; its working directory is a descriptor of its own."""
    return Call(name, os.environ, _working_directory(), stdin=stdin, stdout=stdout)


def run(
    command: Command | Group, words: list[str], call: Call, *, elsewhere: Callable[[Call], int | None] | None = None
) -> int:
    """Run a command for a caller; the exit status. Only signals pass through.

    elsewhere(call): the status where another process has run it, None where it is to run here."""
    subject = command  # of --help
    values: dict[str, Any] = {}
    try:
        chosen, rest = command.choose(words)
        subject = chosen
        values = chosen.parse(rest, call.env)
        call = call.but(**{p.name: values.pop(p.name) for p in chosen.shared})
        if elsewhere and (done := elsewhere(call)) is not None:
            return done
        status = chosen.function(call, **values) or Exit.OK
    except BrokenPipeError:  # the reader has what it wanted
        return Exit.OK
    except HelpRequested as asked:
        from toast import help

        return _say(call, help.version(call) if str(asked) == "version" else help.text(call, subject))
    except ToastError as error:
        if isinstance(error, NoFile) and not error.hint:
            from toast import operands

            error.hint = operands.hint(call, values, error.name)
        return _failed(call, str(error))
    except OSError as error:
        name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return _failed(call, f"{name}{error.strerror or error}")
    except MemoryError:
        return _failed(call, "out of memory")
    except Exception as error:
        return _failed(call, f"unexpected {type(error).__name__}: {error} (TOAST_DEBUG=1 shows where)")
    if call.outcome.had_errors:
        return Exit.ERROR
    return Exit.CUT if status == Exit.OK and call.strict and call.outcome.was_cut else status


def _say(call: Call, text: str) -> int:
    try:
        pipes.write_answer(call, text.encode())
    except BrokenPipeError:
        pass
    except ToastError as error:
        return _failed(call, str(error))
    return Exit.OK


def _failed(call: Call, text: str) -> int:
    pipes.say(call.stderr, f"{call.name}: {text}")
    if call.env.get("TOAST_DEBUG"):
        import traceback

        pipes.say(call.stderr, traceback.format_exc(), lines=True)
    return Exit.ERROR


STOPS = (SIGHUP, SIGINT, SIGTERM)


class _Stopped(BaseException):
    """A signal came: unwind, clean up, then die of it."""

    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    _let_go()  # a second signal does not wait for the cleaning
    if _importing(frame):  # an exception in the middle of a C extension's start can abort the process
        _die(number)
    raise _Stopped(number)


def _importing(frame: FrameType | None) -> bool:
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def _catch() -> None:
    """Unwind at these, unless the caller ignores them (nohup, a script's &)."""
    for number in STOPS:
        if getsignal(number) in (SIG_DFL, default_int_handler):
            signal(number, _stop)


def _let_go() -> None:
    for number in STOPS:
        if getsignal(number) is _stop:
            signal(number, SIG_DFL)


def _main(command: Command | Group) -> None:
    pipes.hold_standard_descriptors()
    call = caller(command.name)
    warmth = _Warmth(command.name, sys.argv[1:])
    try:
        _catch()
        status = run(command, sys.argv[1:], call, elsewhere=warmth.ask)
        warmth.leave()
        os._exit(status)  # everything is written; the interpreter's own teardown only costs time
    except _Stopped as stopped:
        _die(stopped.number)


class _Warmth:
    """What the warm process is to this run of a command: it may do the work, and be left for the next time."""

    def __init__(self, name: str, words: list[str]) -> None:
        self.name, self.words = name, words
        self.left: Call | None = None  # for whom one is to be left

    def ask(self, call: Call) -> int | None:
        """The status where the warm process has run the command; None where it is to run here."""
        if self.name not in SERVED or not (call.place or call.warm_for or _may_be_warm(call)):
            return None
        from toast.warm import client, protocol

        lasting = protocol.lasting(call.warm_for) if call.warm_for else None
        if call.place == "here" or (lasting == 0 and not call.place):
            return None
        # the launcher has asked already, unless one has to be started
        status = None if start.launched and not call.place else client.ask(call, self.words)
        self.left = call if status is None and lasting else None
        return status

    def leave(self) -> None:
        """The run is over: start a warm process for the next time where that is wished."""
        if self.left:
            from toast.warm import client

            try:
                client.leave_one(self.left)
            except ToastError as error:
                self.left.warn(f"no warm process for the next time: {error}")
            except OSError as error:
                self.left.info(f"cannot start the warm process: {error.strerror}")


def _may_be_warm(call: Call) -> bool:
    """Whether there is a folder for warm processes, where the launcher has not looked; no more is known of it."""
    runtime = call.env.get("XDG_RUNTIME_DIR", "")
    folders = (f"{runtime}/toast", f"/tmp/toast-{os.geteuid()}")
    return not start.launched and any(map(os.path.isdir, folders))


def leave_directory() -> None:
    """A process that stays is in nobody's way."""
    os.chdir("/")


def _working_directory() -> int | None:
    """Its descriptor; None where it cannot be opened, which matters to relative paths alone."""
    try:
        return os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC)
    except OSError:
        return None


def _die(number: int) -> None:
    """End as the signal would have: the shell then knows, and its loops stop."""
    signal(number, SIG_DFL)
    os.kill(os.getpid(), number)
