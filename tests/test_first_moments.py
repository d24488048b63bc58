"""Before a command begins: signals and descriptors while Python starts, and the launcher that cares for them."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from command import BIN, command, environment, shell, start

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QWEN = os.path.join(ROOT, "tests", "oracles", "qwen3-causal")
COMMANDS = {
    "embed": lambda model: ["-m", model, "--json"],
    "rerank": lambda model: ["-m", model, "a cat"],
    "classify": lambda model: ["-m", model, "-l", "cat,dog"],
    "index": lambda model: ["-m", model],
    "search": lambda model: ["-m", model, "a cat"],
    "toast": lambda model: ["-m", QWEN, "-n", "4", "say it"],
    "tokenize": lambda model: ["-m", QWEN],
}


def is_launcher(path):
    with open(path, "rb") as file:
        return file.read(2) != b"#!"


needs_launcher = pytest.mark.skipif(
    not is_launcher(os.path.join(BIN, "embed")), reason="the commands are Python scripts: there was no C compiler"
)
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")


@pytest.fixture(params=sorted(COMMANDS))
def filter(request, model):
    return request.param, COMMANDS[request.param](model)


# ---------------------------------------------------------------- signals


@needs_launcher
@pytest.mark.parametrize("name", ["embed", "search", "toast", "tokenize"])
def test_ctrl_c_in_the_first_tenth_of_a_second(name, model):
    """Spread over it: Python starts, imports, reads. Each time a death by SIGINT, without a word."""
    ends = set()
    for moment in range(30):
        process = start(name, *COMMANDS[name](model))
        time.sleep(moment / 300)
        process.send_signal(signal.SIGINT)
        process.wait(20)  # standard input stays open: nothing but the signal ends it
        ends.add((process.returncode, *(stream.read() for stream in (process.stdout, process.stderr))))
        process.stdin.close()
    assert ends == {(-signal.SIGINT, b"", b"")}


def blocked(process):
    """The signals that a process has blocked, as bits."""
    with open(f"/proc/{process.pid}/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))


@needs_proc
@pytest.mark.parametrize("held", [False, True])
def test_what_the_caller_blocked_and_nothing_else_is_blocked(model, held):
    if held:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process = start("embed", *COMMANDS["embed"](model))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    process.stdin.write(b"a\n")
    process.stdin.flush()
    assert process.stdout.readline()
    assert bool(blocked(process) & 1 << signal.SIGINT - 1) == held
    process.kill()


@needs_proc
def test_a_command_has_its_name(model):
    """As `ps` shows it and `killall` takes it."""
    process = start("embed", *COMMANDS["embed"](model))
    process.stdin.write(b"a\n")
    process.stdin.flush()
    assert process.stdout.readline()
    with open(f"/proc/{process.pid}/comm") as file:
        assert file.read() == "embed\n"
    process.kill()


# ---------------------------------------------------------------- descriptors


@needs_launcher
def test_a_directory_as_standard_input(filter, tmp_path):
    name, words = filter
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        ran = command(name, *words, stdin=fd, cwd=tmp_path)
    finally:
        os.close(fd)
    ran.fails("cannot read standard input: Is a directory")


def test_standard_input_that_cannot_be_read(filter, tmp_path):
    name, words = filter
    with open(tmp_path / "x", "w") as file:
        ran = command(name, *words, stdin=file, cwd=tmp_path)
    ran.fails("cannot read standard input: Bad file descriptor")


@needs_launcher
def test_a_directory_that_nobody_reads_is_no_error(model, tmp_path):
    (tmp_path / "x").write_text("a cat\n")
    shell(f"embed -m {model} --json x < .", cwd=tmp_path).ok()
    shell("embed --help < .", cwd=tmp_path).ok()
    shell(f"embed -m {model} --no-input < .", cwd=tmp_path).ok()


@needs_launcher
def test_directories_as_the_other_streams(filter):
    name, words = filter
    line = f"printf 'a cat\\n' | {name} {shlex.join(words)}"
    shell(f"{line} 1< .").fails("cannot write standard output: Bad file descriptor")
    shell(f"{line} 2< .").ok()
    assert shell(f"{name} {shlex.join(words)} < . 1< . 2< .").status == 2


@needs_launcher
@needs_proc
def test_a_directory_is_where_it_was_and_nowhere_else(tmp_path):
    """What the launcher moved away is put back, and no copy of it is left."""
    list = (
        "import os; print(sorted(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n != '3'))"
    )
    code = f"from toast import start; start.resume('x', False, (11, -1, -1)); {list}"
    line = f'exec 11< {tmp_path}; {sys.executable} -c "{code}" < /dev/null'
    assert shell(line, cwd=ROOT).ok().out.count(str(tmp_path).encode()) == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams(filter, closed, tmp_path):
    """No file that is opened takes the place of a stream."""
    name, words = filter
    ran = shell(f"{name} {shlex.join(words)} {closed} < /dev/null", cwd=tmp_path)
    assert ran.status in (0, 1, 2) and ran.err.count(b"\n") <= 1, ran


# ---------------------------------------------------------------- which Python

SHOW = '#!/bin/sh\necho "$0"; echo "home=$PYTHONHOME"; printf "%s\\n" "$@"\n'  # in the place of Python


@pytest.fixture
def place(tmp_path):
    """A folder with the launcher and, elsewhere, something that shows how it was called."""
    folder, python = tmp_path / "bin", tmp_path / "a python" / "python3"
    for made in (folder, python.parent):
        made.mkdir()
    shutil.copy(os.path.join(BIN, "embed"), folder / "embed")
    python.write_text(SHOW)
    python.chmod(0o755)
    return folder, python


def launched(path, *words):
    """Lines that SHOW wrote, when called with PYTHONHOME set."""
    ran = subprocess.run([path, *words], env={"PYTHONHOME": "/other"}, capture_output=True, text=True, timeout=20)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    return ran.stdout.splitlines()


@needs_launcher
@pytest.mark.parametrize(
    "head",
    ["#!{}\n", "#!/bin/sh\n'''exec' \"{}\" \"$0\" \"$@\"\n' '''\n", "#!/bin/sh\n'''exec' '{}' \"$0\" \"$@\"\n' '''\n"],
)
def test_python_is_what_the_installer_wrote(place, head):
    folder, python = place
    (folder / "toast-python").write_text(head.format(python))
    name, home, *words = launched(folder / "embed", "-x", "a b", "")
    assert (name, home) == (str(python), "home=/other")
    assert words[:2] == ["-P", "-c"] and words[-4:] == ["from embed.cli import embed; embed()", "-x", "a b", ""]


@needs_launcher
def test_in_an_environment_python_is_beside_the_launcher(place):
    """Wherever the environment was moved to, and through links, as pipx and uv make them."""
    folder, python = place
    (folder / "toast-python").write_text("#!/nowhere/python\n")
    (folder.parent / "pyvenv.cfg").write_text("")
    shutil.copy(python, folder / "python3")
    os.symlink(folder / "embed", folder.parent / "embed")
    for path in (folder / "embed", folder.parent / "embed"):
        assert launched(path)[:2] == [str(folder / "python3"), "home="]


@needs_launcher
@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "#!",
        "#!python\n",
        "#!/bin/sh\n",
        "#!/bin/sh\n'''exec' \"/x",
        "#!/bin/sh\n'''exec' '/x\ny'",
        "#!/nowhere/python\n",
        "#!/" + "x" * 9000,
    ],
)
def test_without_a_python_there_is_a_line_and_status_2(place, text):
    folder, _ = place
    if text is not None:
        (folder / "toast-python").write_text(text)
    ran = subprocess.run([folder / "embed"], capture_output=True, text=True, timeout=20)
    assert ran.returncode == 2 and ran.stderr.startswith("embed: cannot start: ") and ran.stderr.count("\n") == 1
    assert ran.stderr.endswith("(install toast again)\n")


@needs_launcher
def test_nothing_is_imported_from_the_working_directory(model, tmp_path):
    for name in ("toast", "os", "json", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    command("embed", *COMMANDS["embed"](model), stdin=b"a\n", cwd=tmp_path).ok()


@needs_launcher
def test_another_pythons_home_does_no_harm(model):
    if not os.path.exists(os.path.join(BIN, "..", "pyvenv.cfg")):
        pytest.skip("not in a virtual environment")
    command("embed", *COMMANDS["embed"](model), stdin=b"a\n", env={"PYTHONHOME": "/nonexistent"}).ok()


# ---------------------------------------------------------------- files that shrink while they are mapped

needs_kernels = pytest.mark.skipif(
    not [
        name
        for name in os.listdir(os.path.join(ROOT, "toast", "kernels"))
        if name.startswith("_ext.") and name.endswith(".so")
    ],
    reason="plain MLX reads its files",
)


@needs_kernels
def test_a_model_that_shrinks_is_told_of(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "a\nmodel")
    process = start("embed", *COMMANDS["embed"](str(folder)))
    process.stdin.write(b"a cat\n")
    process.stdin.flush()
    assert process.stdout.readline()
    os.truncate(folder / "model.safetensors", 100)
    out, err = process.communicate(b"a dog\n", timeout=60)
    assert (process.returncode, out, err.count(b"\n")) == (2, b"", 1), err
    assert err.startswith(b"embed: /") and b"model.safetensors changed while it was used (" in err


SHRINK = """
import mmap, os, sys, threading
import mlx.core as mx
from toast import kernels
kernels.install("auto", 4)
from toast.kernels import _ext
_ext.tell_of_shrunk_files()
from toast.store import safetensors, weights
path = sys.argv[1]
"""
WEIGHTS = """
open(path, "wb").writelines(safetensors.pack({"w": mx.ones((4096, 1024))}, {}))
w = weights.load(path)["w"]
os.truncate(path, 4096 * 1024)
mx.eval(mx.ones((64, 1024)) @ w.T)
"""
PYTHONS = """
open(path, "wb").truncate(1 << 20)
data = mmap.mmap(os.open(path, os.O_RDWR), 0)
os.truncate(path, 0)
thread = threading.Thread(target=lambda: data[5000]); thread.start(); thread.join()
"""
SENT = "import signal; os.kill(os.getpid(), signal.SIGBUS)"


@needs_kernels
@pytest.mark.parametrize("code", [WEIGHTS, PYTHONS], ids=["kernels", "python"])
def test_on_any_thread_and_whoever_mapped_it(code, tmp_path):
    path = tmp_path / "model.safetensors"
    ran = subprocess.run([sys.executable, "-c", SHRINK + code, path], capture_output=True, text=True, env=environment())
    assert ran.returncode == 2, ran
    name, said = ran.stderr.split(": ", 1)
    assert name.startswith("python") and said == f"{path} changed while it was used (run this again when it is whole)\n"


@needs_kernels
def test_a_sigbus_that_no_file_caused_kills(tmp_path):
    ran = subprocess.run([sys.executable, "-c", SHRINK + SENT, tmp_path], capture_output=True, env=environment())
    assert (ran.returncode, ran.stderr) == (-signal.SIGBUS, b"")
