"""Declarations: what the parser makes of a command line. And a Call, statuses, signals."""

import importlib
import os
import signal
import subprocess
import time

import pytest
from command import command, environment, start
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toast import options
from toast.command import Call, Command, run
from toast.errors import Exit, HelpRequested, ToastError, UsageError
from toast.options import Argument, Option


def everything(
    call: Call,
    query: str = Argument(..., metavar="QUERY"),
    files: list[str] = Argument([], metavar="FILE"),
    count: int | None = Option(None, "-k", "--count", min=1, max=99),
    heat: float = Option(0.5, "-t", "--heat", min=0.0),
    kind: str = Option("plain", "--as", choices=("plain", "fancy")),
    stop: list[str] = Option([], "--stop", "-s"),
    name: str | None = Option(None, "-n", "--name", env="EVERYTHING_NAME"),
    json: bool = Option(False, "-j", "--json"),
    nul: bool = Option(False, "-0", "--null"),
):
    """Declares one of each kind."""


EVERYTHING = Command(everything)
VALUES = {
    "count": st.integers(1, 99).map(str), "heat": st.floats(0, 9).map(str), "kind": st.sampled_from(["plain", "fancy"]),
    "stop": st.text(st.characters(codec="utf-8"), max_size=4), "name": st.text(max_size=4),
}  # fmt: skip
BY_NAME = {p.name: p for p in EVERYTHING.parameters}
FLAGS = [name for name, p in BY_NAME.items() if p.type is bool]
word = st.one_of(
    st.sampled_from([flag for p in BY_NAME.values() for flag in p.flags]),
    st.sampled_from(["-jk", "-qt", "-jq0", "--json=1", "--nope", "-z", "-count", "-", "--", "--count=x", "-k=5"]),
    st.text(max_size=4),
)


@st.composite
def meant(draw):
    """(a well-formed command line, the words that it gives): options and operands in any order and spelling."""
    names = draw(st.lists(st.sampled_from([*VALUES, *FLAGS]), max_size=6))
    pieces, given = [], {}
    for name in names:
        flag = draw(st.sampled_from(BY_NAME[name].flags))
        if name in FLAGS:
            given[name] = True
            pieces.append([flag])
            continue
        value = draw(VALUES[name])
        given[name] = [*given.get(name, []), value] if BY_NAME[name].many else [value]
        joined = [flag + value] if len(flag) == 2 and value and flag[1:] + value not in LONG else [flag, value]
        pieces.append(draw(st.sampled_from([[flag, value], [f"{flag}={value}"] if len(flag) > 2 else joined])))
    operands = draw(st.lists(st.text(max_size=4).filter(lambda word: word[:1] != "-"), min_size=1, max_size=3))
    for _ in operands:  # they keep their order among options
        pieces.insert(draw(st.integers(0, len(pieces))), [None])
    words = [word for piece in pieces for word in piece]
    left = iter(operands)
    return [next(left) if word is None else word for word in words], given, operands


LONG = {flag[1:] for p in (*EVERYTHING.parameters, options.HELP, options.VERSION) for flag in p.flags}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(meant())
def test_what_is_meant_is_parsed(line):
    words, given, operands = line
    parsed = options.parse(EVERYTHING.parameters, words)
    values = options.values(EVERYTHING.parameters, {**given, "query": operands[:1]})
    assert parsed == {**values, **({"files": operands[1:]} if operands[1:] else {})}, words


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(word, max_size=7))
def test_any_words_give_values_or_a_line(words):
    try:
        EVERYTHING.parse(words, {})
    except HelpRequested as asked:
        assert str(asked) in ("help", "version")
    except UsageError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "words, said",
    [
        (["-k", "0"], "--count must be from 1 to 99, not '0'"),
        (["--count=x"], "--count must be a whole number, not 'x'"),
        (["-k=5"], "--count must be a whole number, not '=5' (-k 5)"),
        (["-t", "nan"], "--heat must be at least 0.0, not 'nan'"),
        (["--heat", "hot"], "--heat must be a number, not 'hot'"),
        (["--as", "bold"], "--as must be plain or fancy, not 'bold'"),
    ],
)
def test_a_wrong_value(words, said):
    with pytest.raises(UsageError) as error:
        options.parse(EVERYTHING.parameters, ["q", *words])
    assert str(error.value) == said


def test_the_last_of_two_counts():
    assert options.parse(EVERYTHING.parameters, ["q", "-k1", "--count", "2", "-sa", "--stop=b"]) == {
        "query": "q", "count": 2, "stop": ["a", "b"],
    }  # fmt: skip


def test_a_wrong_value_is_told_in_a_line():
    command("toast", "-n", "0", "hi").fails("toast: --max-tokens must be at least 1, not '0'\n")
    command("search", "-k", "0", "hi").fails("search: -k must be at least 1, not '0'\n")


def test_environment_gives_the_default():
    assert EVERYTHING.parse(["q"], {"EVERYTHING_NAME": "n"})["name"] == "n"
    assert EVERYTHING.parse(["q", "-n", "m"], {"EVERYTHING_NAME": "n"})["name"] == "m"


@pytest.fixture
def declared():
    """Every command of the three packages; importing them is the start of a process, which is undone."""
    before = signal.getsignal(signal.SIGINT)
    modules = [importlib.import_module(f"{package}.cli") for package in ("toast", "embed", "rerank")]
    signal.signal(signal.SIGINT, before)
    return [value for module in modules for value in vars(module).values() if isinstance(value, Command)]


def test_no_flag_is_declared_twice(declared):
    assert len(declared) == 7
    for one in (EVERYTHING, *declared):
        flags = [flag for p in one.parameters for flag in p.flags]
        assert len(flags) == len(set(flags))


class Caller(Call):
    """A Call whose standard error is a pipe that can be read back."""

    def __init__(self):
        reader, stderr = os.pipe()
        super().__init__("test", {}, os.open(".", os.O_RDONLY), stderr=stderr)
        self.__dict__["reader"] = reader

    def said(self):
        os.close(self.stderr)
        return os.read(self.reader, 10000).decode()


@pytest.mark.parametrize(
    "error, status, said",
    [
        (None, Exit.OK, ""),
        (BrokenPipeError(), Exit.OK, ""),
        (ToastError("no such thing", "type x"), Exit.ERROR, "test: no such thing (type x)\n"),
        (FileNotFoundError(2, "No such file", "a\nb"), Exit.ERROR, "test: a b: No such file\n"),
        (MemoryError(), Exit.ERROR, "test: out of memory\n"),
        (KeyError("k"), Exit.ERROR, "test: unexpected KeyError: 'k' (TOAST_DEBUG=1 shows where)\n"),
    ],
)
def test_errors_become_statuses(error, status, said):
    def verb(call: Call):
        if error:
            raise error

    call = Caller()
    assert run(Command(verb), [], call) == status
    assert call.said() == said


def test_a_call_is_read_only():
    call = Call("test", {"HOME": "/home/caller"}, None)
    with pytest.raises(AttributeError, match="read-only"):
        call.stdin = 3
    other = call.but(stdin=3, quiet=True)
    other.error("a record is bad")
    assert (call.stdin, call.quiet, other.stdin, other.quiet) == (0, False, 3, True)
    assert call.outcome.had_errors  # what came of a run is common to all copies


def test_the_tilde_is_the_callers_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/process")
    call = Call("test", {"HOME": "/home/caller"}, None)
    assert [call.path(p) for p in ("~", "~/x", "/y/~")] == ["/home/caller", "/home/caller/x", "/y/~"]


def test_soft_errors_and_cuts_become_statuses():
    def soft(call: Call):
        call.error("record 3 is bad")

    def cut(call: Call):
        call.cut("record 4 was cut")

    assert run(Command(soft), ["-q"], Caller()) == Exit.ERROR
    assert run(Command(cut), [], Caller()) == Exit.OK
    assert run(Command(cut), ["--strict"], Caller()) == Exit.CUT
    quiet = Caller()
    assert run(Command(cut), ["-q"], quiet) == Exit.OK and quiet.said() == ""


def test_version():
    assert command("embed", "--version").ok().out.startswith(b"embed (toast ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_as_the_signal(model, number):
    process = start("embed", "-m", model, "--json")
    process.stdin.write(b"a\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(b'{"index": 0')
    process.send_signal(number)
    assert process.wait(20) == -number
    assert process.stderr.read() == b""


def test_nohup_is_nohup(model):
    process = start("embed", "-m", model, "--json", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.stdin.write(b"a\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(b'{"index": 0')
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(b"b\n", timeout=20)
    assert process.returncode == 0 and out.startswith(b'{"index": 1') and not err


def test_a_shell_loop_stops_at_ctrl_c(model):
    """The shell sees a death by SIGINT, so that its loop ends too."""
    script = f"while :; do embed -m {model} --json; echo again >&2; done"
    process = subprocess.Popen(
        ["bash", "-c", script], stdin=-1, stdout=-1, stderr=-1, start_new_session=True,
        env=environment(),
    )  # fmt: skip
    process.stdin.write(b"a\n")
    process.stdin.flush()
    process.stdout.readline()
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    assert b"again" not in process.stderr.read()


INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(name, path, target=None):
        if name == os.environ["INTERRUPTED_AT"]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(
    "module", ["toast.command", "toast.errors", "mlx.core", "mlx._reprlib_fix", "toast.encoding.encoder"]
)
def test_ctrl_c_at_the_start_is_silent(model, tmp_path, module):
    """Wherever an import is interrupted: Python says nothing, and the shell sees a death by SIGINT."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED)
    ran = command("embed", "-m", model, stdin=b"a\n", env={"PYTHONPATH": tmp_path, "INTERRUPTED_AT": module})
    assert (ran.status, ran.out, ran.err) == (-signal.SIGINT, b"", b""), ran


def test_an_ignored_ctrl_c_stays_ignored(model):
    line = f"trap '' INT; embed -m {model} --json"
    process = subprocess.Popen(["bash", "-c", line], stdin=-1, stdout=-1, stderr=-1, env=environment())
    process.stdin.write(b"a\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(b'{"index": 0')
    process.send_signal(signal.SIGINT)
    process.stdin.write(b"b\n")
    assert process.communicate(timeout=20)[0].startswith(b'{"index": 1')
    assert process.returncode == 0
