"""install(): what it replaces and when it does not; threads, fork, no compiler, cold start."""

import os
import subprocess
import sys

import pytest
from command import command

from toast import kernels

pytest.importorskip("toast.kernels._ext")

ROOT = os.path.dirname(os.path.dirname(__file__))


def python(code, **env):
    """Standard output of a fresh interpreter; whatever it prints on standard error fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": ROOT, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


SETUP = "import mlx.core as mx; from toast import kernels; "


def test_off_changes_nothing_but_the_compiler():
    code = (
        SETUP + "f = mx.matmul; kernels.install('off'); print(mx.matmul is f, kernels.variant(), kernels.map_tensors)"
    )
    assert python(code) == ["True", "off", "None"]


def test_install_puts_kernels_in_place_of_mlx():
    code = SETUP + (
        "name = kernels.install(); from toast.kernels import _ext as e; x = mx.ones((3, 3));"
        "print(name == kernels.variant(), mx.quantized_matmul is e.quantized_matmul, mx.fast.rope is e.rope,"
        "mx.array_equal(x @ x, mx.full((3, 3), 3.0)).item())"
    )
    assert python(code) == ["True"] * 4


def test_an_unknown_variant_falls_back_with_one_line():
    code = SETUP + "print(kernels.install('sse9', warn=lambda text: print(text.split(':')[0].replace(' ', '_'))))"
    assert python(code) == ["plain_MLX_on_the_CPU,_slower", "off"]


def test_another_mlx_falls_back_with_one_line():
    code = (
        SETUP
        + "kernels.MLX = '0.0'; print(kernels.install(warn=lambda text: print('warned' if '0.0' in text else text)))"
    )
    assert python(code) == ["warned", "off"]


def test_a_missing_extension_falls_back_with_one_line():
    code = "import sys; sys.modules['toast.kernels._ext'] = None; " + SETUP
    code += "print(kernels.install(warn=lambda text: print('not_built' if 'not built' in text else text)))"
    assert python(code) == ["not_built", "off"]


def test_an_older_extension_falls_back_with_one_line(tmp_path):
    """The command answers as plain MLX does, whichever name its extension lacks."""
    qwen = os.path.join(ROOT, "tests", "oracles", "qwen3-causal")
    words = ("-m", qwen, "-t", "0", "-n", "4", "hi")
    plain = command("toast", *words, env={"TOAST_KERNELS": "off"}).ok().out
    (tmp_path / "sitecustomize.py").write_text(OLDER)
    for name in kernels.NEEDED:
        ran = command("toast", *words, env={"PYTHONPATH": tmp_path, "LACKING": name})
        assert (ran.status, ran.out) == (0, plain), ran
        line = f"toast: plain MLX on the CPU, slower: the kernels were built by another version, without {name}"
        assert ran.err.decode() == f"{line}: install again\n", ran


OLDER = """
import os, sys, types
from toast.kernels import NEEDED
older = types.ModuleType("toast.kernels._ext")
for name, _, method in (name.partition(".") for name in NEEDED if name != os.environ["LACKING"]):
    vars(older)[name] = types.SimpleNamespace(**{method: None} if method else {})
sys.modules["toast.kernels._ext"] = older
"""


def test_no_compiler_runs_and_nothing_is_written_to_the_temporary_folder(tmp_path):
    """mx.compile on the CPU calls g++ and loads the result from the temporary folder."""
    fake = tmp_path / "bin"
    fake.mkdir()
    for name in ("g++", "c++", "cc", "clang++"):
        (fake / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/called\nexit 1\n")
        (fake / name).chmod(0o755)
    folder = tmp_path / "tmp"
    folder.mkdir()
    code = SETUP + (
        "kernels.install(); f = mx.compile(lambda x: mx.exp(x) * 2 + mx.sin(x) - 1);"
        "import mlx.nn as nn; kernels.install_nn();"
        "mx.eval(f(mx.ones((9,))), nn.gelu(mx.ones((9,))), nn.silu(mx.ones(9)))"
    )
    python(code, PATH=f"{fake}:{os.environ['PATH']}", TMPDIR=str(folder))
    assert not (tmp_path / "called").exists() and not os.listdir(folder)


POOL = """
import mlx.core as mx, os  # first: it finds libmlx for the extension
from toast.kernels import _ext as e
e.set_threads(4)
x = mx.random.normal((40, 64)); w = mx.quantize(mx.random.normal((300, 64)), group_size=32, bits=4)
f = lambda: e.quantized_matmul(x, *w, group_size=32, bits=4)
"""


def test_threads_may_change_between_calls():
    code = "y = f()\nfor n in (1, 3, 8, 2, 0):\n    e.set_threads(n); assert mx.array_equal(y, f()).item()\n"
    assert python(POOL + code + "print(e.threads() > 0)") == ["True"]


def test_the_pool_follows_the_cpu_affinity():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + POOL
    assert python(code + "e.set_threads(0); print(e.threads())") == ["1"]


QUOTAS = [
    ("0::/\n", {"cpu.max": "150000 100000"}, 2),
    ("0::/\n", {"cpu.max": "max 100000"}, 0),
    ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "400000 100000"}, 3),
    ("0::/docker/unseen\n", {"cpu.max": "20000 100000"}, 1),  # a container's own is the root that it sees
    ("1:name=systemd:/x\n0::/\n", {"cpu.max": "250000 50000"}, 5),
    ("5:memory:/m\n4:cpu,cpuacct:/a\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "200000",
                                         "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 2),
    ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 0),
    ("4:cpuset:/a\n", {"cpuset/a/cpu.cfs_quota_us": "200000", "cpuset/a/cpu.cfs_period_us": "100000"}, 0),
    ("", {}, 0),
    ("nonsense\n0::\n::\n", {"cpu.max": "9"}, 0),
    ("0::/\n", {"cpu.max": "0 0"}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("cgroups", "files", "cpus"), QUOTAS)
def test_the_smallest_quota_of_the_cgroups_counts(tmp_path, cgroups, files, cpus):
    from toast.kernels import _ext

    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert _ext.quota_cpus(cgroups, str(tmp_path)) == cpus


@pytest.fixture
def half_a_cpu():
    """A cgroup of this machine with such a quota."""
    name, version_1 = f"toast-test-{os.getpid()}", os.path.isdir("/sys/fs/cgroup/cpu")
    folder = f"/sys/fs/cgroup/cpu/{name}" if version_1 else f"/sys/fs/cgroup/{name}"
    try:
        os.mkdir(folder)
    except OSError as error:
        pytest.skip(f"no cgroup of our own: {error}")
    try:
        with open(f"{folder}/{'cpu.cfs_quota_us' if version_1 else 'cpu.max'}", "r+") as file:
            file.write("50000" if version_1 else "50000 100000")
        yield folder
    except FileNotFoundError as error:  # a parent leaves the controller to itself
        pytest.skip(f"no quotas: {error}")
    finally:
        os.rmdir(folder)


def test_the_pool_follows_the_cgroups_quota(half_a_cpu):
    code = POOL.replace("e.set_threads(4)", f"open('{half_a_cpu}/cgroup.procs', 'w').write(str(os.getpid()))")
    assert python(code + "e.set_threads(0); mx.eval(f()); print(e.threads())") == ["1"]


def test_a_forked_child_makes_its_own_threads():
    """MLX's own stream thread does not survive a fork, so the child calls the pool directly."""
    code = POOL + (
        "mx.eval(f()); assert e.parallel_sum(1000) == 499500; child = os.fork()\n"
        "if not child:\n    os._exit(0 if e.parallel_sum(1000) == 499500 else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])); mx.eval(f())"
    )
    assert python(code) == ["0"]


def test_many_processes_at_once_finish():
    """More threads than processors, as under xargs -P8."""
    code = POOL + "for _ in range(200): mx.eval(f())\nprint('done')"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": ROOT}
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    assert [p.communicate(timeout=120)[0] for p in running] == ["done\n"] * 8


class Caller:
    """What install_for() needs of a Call."""

    name = "test"

    def __init__(self, variant="", threads=""):
        self.env, self.outcome, self.said = {"TOAST_KERNELS": variant, "TOAST_THREADS": threads}, object(), []
        self.warn = self.said.append


def test_the_first_call_decides():
    kernels.install_for(Caller("generic", "1"))
    assert kernels.variant() == "generic"
    kernels.install_for(Caller("generic", "1"))
    for other in (Caller("off", "1"), Caller("generic", "2"), Caller()):
        with pytest.raises(kernels.KernelsInUse, match="generic kernels, 1 threads"):
            kernels.install_for(other)
    assert kernels.variant() == "generic"
    kernels.install("off")
    kernels.install_for(Caller("off"))
    for threads in ("\u00b2", "9" * 5000, "many"):
        kernels.install_for(Caller("off", threads))
    assert kernels.variant() == "off"


def test_what_auto_has_found_may_be_named():
    kernels.install_for(Caller())
    found = kernels.variant()
    kernels.install_for(Caller(found))
    assert kernels.variant() == found


def test_every_call_is_told_once_that_there_are_no_kernels():
    first, second, quiet = Caller("sse9"), Caller("sse9"), Caller("sse9")
    kernels.install_for(quiet, tell=False)
    for call in (first, first, second):
        kernels.install_for(call)
    assert (len(first.said), len(second.said), quiet.said) == (1, 1, [])
