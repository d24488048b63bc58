"""Fixtures: tiny models that the tests make, and a store of their own for every test run."""

import os
import signal
from contextlib import nullcontext
from functools import cache

import mlx.core  # noqa: F401  it finds libmlx for the extension
import pytest
import tiny
from hypothesis import settings
from unmeasured import few_measured

from toast import kernels, loaded

# a shell's background job ignores Ctrl-C and SIGQUIT, nohup SIGHUP, and so would the commands that are started here
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)

# where a change is judged, the same examples every time; at a desk, new ones
settings.register_profile("judge", derandomize=True)
settings.load_profile("judge" if os.environ.get("CI") else "default")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more than the cores that are ours: a worker waits for a clock, a port or a disk every now and then."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # what xdist makes of it
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(ours) + 1


# files that take a minute or more: what comes last keeps the other workers waiting
LONG = {
    "test_release",
    "test_warm",
    "test_warm_parity",
    "test_index",
    "test_killed",
    "test_vocabulary",
    "test_wordpiece",
}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    made = getattr(item.obj, "hypothesis", None)
    with few_measured(made) if made else nullcontext():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory):
    """Tests leave the user's store alone, except those that ask for the real model."""
    kernels.install("off")  # some files ask for them while they are collected
    import command  # not before the workers have started: it takes coverage out of the environment

    base = tmp_path_factory.getbasetemp()  # of this worker, if there are several, in one folder of them all
    command.kinds_measured = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "measured"
    command.kinds_measured.mkdir(exist_ok=True)
    real = {name: os.environ.get(name) for name in ("TOAST_HOME", "EMBED_MODEL")}
    os.environ["TOAST_HOME"] = str(tmp_path_factory.mktemp("store"))
    os.environ["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("run"))  # nobody's warm process is there
    os.environ["HF_HUB_OFFLINE"] = "1"  # nobody asks a hub but the tests that run one
    yield real
    for name, value in real.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def plain_mlx():
    """A test that installs the kernels in this process leaves neither them nor its models to the next one; what a
    fixture of its module has installed stays."""
    before = kernels.variant()
    yield
    if before == "off" or kernels.variant() != before:
        kernels.install(before)
    loaded.forget()


@pytest.fixture(params=["kernels", "plain"], scope="module")
def variant(request):
    """Our kernels, then MLX's own, for all tests of a module."""
    kernels.install("auto" if request.param == "kernels" else "off")
    yield
    kernels.install("off")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, variant):
    """checkpoints(kind, load) -> model(name): what `load` makes of the folder of that oracle, once."""

    def of(kind, load):
        return cache(lambda name: load(tiny.checkpoint(tmp_path_factory.mktemp(name), tiny.oracle(kind, name))))

    return of


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a tiny embedding model (32 dims, 24 tokens at most)."""
    return tiny.bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def real(own_store):
    """Environment changes under which commands use the user's own store and the default models."""
    return {"TOAST_HOME": own_store["TOAST_HOME"], "EMBED_MODEL": None, "HF_HUB_OFFLINE": None}


@pytest.fixture(scope="session")
def smollm2(own_store):
    """The folder of toast's default model, from the user's own store."""
    from toast.command import Call
    from toast.store import catalog

    env = {**os.environ, "TOAST_HOME": own_store["TOAST_HOME"] or "", "HF_HUB_OFFLINE": ""}
    return catalog.obtain(Call("toast", env, os.open(".", os.O_RDONLY)), "smollm2")
