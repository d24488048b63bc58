"""How long the warm process stays, what it keeps, and for whom it can do what: all that it knows of itself.

Knows models by their age and this process's memory; no sockets, no jobs.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from time import monotonic

import toast
from toast import kept, loaded, options
from toast.warm import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from toast.warm.protocol import Request

PACKAGES = ("toast", "embed", "rerank")
MEMORY = 4096  # MB, unless TOAST_WARM_MB says otherwise
ARENA_MAX = -8  # M_ARENA_MAX of glibc's malloc.h
# what Python and the libraries read once, for all of the process
FIXED = (
    "PYTHON", "MLX_", "OMP_", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "RAYON_", "TOKENIZERS_", "TQDM_", "SQLITE_", "HF_",
    "TOAST_KERNELS", "TOAST_THREADS",
)  # fmt: skip
ALIKE = ("C", "POSIX", "C.UTF-8", "C.utf8", "")  # of locales, as far as Python goes


class Facts:
    """What this process is, in which a caller must be like it; `differs` says in what he is not."""

    def __init__(self, version: str, env: Mapping[str, str]) -> None:
        self.version, self.env = version, env
        self.umask, self.limits, self.namespace = protocol.umask(), protocol.limits(), protocol.namespace()
        self.sources = _sources()

    def differs(self, request: Request) -> str:
        """Why a request has to run where it came from; nothing where it need not."""
        if request.version != self.version:
            return f"this is version {self.version}"
        if request.umask != self.umask:
            return f"its umask is {request.umask:03o}, here it is {self.umask:03o}"
        if request.limits != self.limits:
            return "it has other resource limits"
        if request.namespace != self.namespace:
            return "it sees other files"
        if _encoding(request.env) != _encoding(self.env):
            return "it has another locale"
        if request.env.get("TOAST_PULL") == "1":
            return "it may fetch models, by settings of its own"
        return _other(self.env, request.env)

    def outdated(self) -> bool:
        """Whether the programs were changed since this process began."""
        return {path: _changed(path) for path in self.sources} != self.sources


def _other(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    for name in ours.keys() | theirs.keys():
        if name.startswith(FIXED) and ours.get(name) != theirs.get(name):
            return f"it has another {name}"
    return ""


def _encoding(env: Mapping[str, str]) -> str:
    found = next((env[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if env.get(name)), "")
    return "utf-8" if found in ALIKE or found.upper().replace("-", "").endswith("UTF8") else found


def _sources() -> dict[str, int]:
    """When each file of our packages was changed."""
    top = os.path.dirname(os.path.dirname(toast.__file__))
    folders = (folder for name in PACKAGES for folder in os.walk(os.path.join(top, name)))
    paths = (os.path.join(folder, name) for folder, _, names in folders for name in names)
    return {path: _changed(path) for path in paths if path.endswith((".py", ".so"))}


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


# ---------------------------------------------------------------- memory


class Keeper:
    """Keeps models by use: drops those of a certain age, and the ones used longest ago where memory is short."""

    def __init__(self, env: Mapping[str, str]) -> None:
        megabytes = options.whole(env.get("TOAST_WARM_MB", ""))
        self.limit = (MEMORY if megabytes is None else megabytes) << 20

    def tidy(self, age: float) -> bool:
        """Drop what is older than `age` seconds, and more until there is room; False where that did not make any."""
        loaded.drop(monotonic() - age)
        while (full := memory() > self.limit) and (kept.memory and kept.memory.clear() or loaded.drop_oldest()):
            free()
        if full:
            free()
        return memory() <= self.limit


def free() -> None:
    """Give back to the system what nobody uses."""
    gc.collect()
    if mx := sys.modules.get("mlx.core"):
        mx.clear_cache()
    _malloc("malloc_trim", 0)


def share_arenas() -> None:
    """Let all threads share two of malloc's arenas: what one gives back, another takes. Called before there are any."""
    _malloc("mallopt", ARENA_MAX, 2)


def _malloc(name: str, *numbers: int) -> None:
    """Call a function of glibc, where it is that."""
    if sys.platform == "linux":
        import ctypes

        function: Any = getattr(ctypes.CDLL(None), name, None)
        if function:
            function(*numbers)


def memory() -> int:
    """Bytes that are this process's alone; mapped weights are not."""
    try:
        with open("/proc/self/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
        return (resident - shared) * resource.getpagesize()
    except OSError:
        mx = sys.modules.get("mlx.core")
        return mx.get_active_memory() + mx.get_cache_memory() if mx else 0
