"""Runs the installed commands, and shows command, status and both streams when a test fails."""

import contextlib
import hashlib
import os
import shlex
import subprocess
import sys

BIN = os.path.dirname(sys.executable)
COVERAGE = "COVERAGE_PROCESS_CONFIG"  # in the environment of processes whose coverage is measured
# `toast`, which keeps what it has read however quickly that went
KEEPING_TOAST = [
    sys.executable,
    "-c",
    "import toast.answer as a; a.WORTH_KEEPING = -1; import toast.cli as c; c.toast()",
]
_coverage = os.environ.pop(COVERAGE, None)  # no process is but the first of its kind: it takes three times as long
kinds_measured = None  # a folder with a file for each, which all workers of a run share


class Result:
    """What a run left behind; each check returns the result again."""

    def __init__(self, words, status, out, err):
        self.words, self.status, self.out, self.err = words, status, out, err

    def __repr__(self):
        return (
            f"\n$ {shlex.join(map(str, self.words))}\nstatus: {self.status}\n"
            f"stdout: {self.out[:2000]!r}\nstderr: {self.err.decode(errors='replace')[:2000]}"
        )

    def ok(self, quiet=True):
        """Status 0 and, unless told otherwise, not a word on standard error."""
        assert self.status == 0 and not (quiet and self.err), self
        return self

    def fails(self, *words, status=2):
        """This status, one line on standard error that holds the words, and no traceback."""
        text = self.err.decode()
        assert self.status == status, self
        assert text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text, self
        for word in words:
            assert word in text, (word, self)
        return self


def command(name, *args, stdin=None, env=None, timeout=120, **options) -> Result:
    """Run an installed command; stdin is bytes, or anything that subprocess takes, None: nothing."""
    words = [os.path.join(BIN, name), *args]
    given = fed(name, stdin)
    env = environment({COVERAGE: _coverage if _coverage and is_first(name, args) else None, **(env or {})})
    ran = subprocess.run(words, capture_output=True, env=env, timeout=timeout, **given, **options)
    return Result([name, *args], ran.returncode, ran.stdout, ran.stderr)


def is_first(name, args):
    """Whether a command runs for the first time, or one of its flags does."""
    new = False
    for flag in {"", *(str(arg).partition("=")[0] for arg in args if str(arg).startswith("-"))}:
        kind = hashlib.sha256(f"{name} {flag}".encode(errors="replace")).hexdigest()
        with contextlib.suppress(FileExistsError):
            os.close(os.open(os.path.join(kinds_measured, kind), os.O_CREAT | os.O_EXCL))
            new = True
    return new


def fed(name, stdin):
    """Standard input for subprocess; None: an empty pipe, but of toast, which tells of that, /dev/null."""
    if stdin is None:
        stdin = subprocess.DEVNULL if name == "toast" else b""
    return {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}


def shell(line, env=None, timeout=120, **options) -> Result:
    """Run a line of shell with the installed commands on PATH."""
    ran = subprocess.run(
        ["bash", "-c", line], stdin=subprocess.DEVNULL, capture_output=True,
        env=environment(env), timeout=timeout, **options,
    )  # fmt: skip
    return Result(["bash", "-c", line], ran.returncode, ran.stdout, ran.stderr)


def start(name, *args, env=None, **options) -> subprocess.Popen:
    """Start an installed command with pipes on all three streams."""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([os.path.join(BIN, name), *args], env=environment(env), **streams | options)


def environment(changes=None) -> dict:
    """The process's environment, commands first on PATH; a value of None takes a name away."""
    env = dict(os.environ, PATH=f"{BIN}:{os.environ.get('PATH', '')}", **{})
    for name, value in (changes or {}).items():
        env.pop(name, None)
        if value is not None:
            env[name] = str(value)
    return env
