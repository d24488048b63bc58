"""Loaded models and tokenizers, each once in a process: immutable, for any number of Calls at once.

Owns this cache and its locks. What is made of a folder,
and how, is the business of the class that is asked for; one use of it is an object of its own, and what a Call asks
for is kept there.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from toast import files
from toast.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from toast.command import Call

    T = TypeVar("T")


class _Slot:
    """Where a model is, or will be once the thread that holds the lock has made it."""

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.model: Any = None
        self.used = monotonic()


_slots: dict[tuple, _Slot] = {}  # (what makes it, folders, state of their files) -> slot


def load(call: Call, name: str, kind: Callable[..., T], *beside: str) -> T:
    """What kind(folder, *beside) makes of the model called `name`, made when it is first asked for.

    beside: further folders that belong to it.
    kind must leave nothing to be computed: MLX's lazy arrays belong to the thread that began them.
    Raises ModelNotFound, BadModel.
    """
    from toast import kernels, store

    try:
        kernels.install_for(call)
    except kernels.KernelsInUse as error:
        raise UsageError(str(error), "a process of its own can") from None
    except kernels.KernelsMissing as error:
        raise UsageError(f"TOAST_KERNELS=require: {error}") from None
    return at(store.as_folder(call, name), kind, *beside)


def at(folder: str, kind: Callable[..., T], *beside: str) -> T:
    """The same for a folder whose kernels are installed."""
    folders = (folder, *beside)
    state = tuple(map(files.state, folders))
    for key in [k for k in _slots if k[:2] == (kind, folders) and k[2] != state]:
        _slots.pop(key, None)  # its files have changed
    slot = _slots.setdefault((kind, folders, state), _Slot())
    with slot.lock:
        if slot.model is None:
            slot.model = kind(*folders)
    slot.used = monotonic()
    return slot.model


def forget() -> None:
    """Drop all models; uses of them that go on keep theirs."""
    _slots.clear()


def drop(before: float) -> None:
    """Drop the models that were last asked for before this moment (of time.monotonic)."""
    for key, slot in list(_slots.items()):
        if slot.model is not None and slot.used < before:
            _slots.pop(key, None)


def drop_oldest() -> bool:
    """Drop the model that was asked for longest ago; False where there is none."""
    found = [(slot.used, key) for key, slot in list(_slots.items()) if slot.model is not None]
    if not found:
        return False
    _slots.pop(min(found, key=lambda pair: pair[0])[1], None)
    return True


def names() -> list[str]:
    """The folders of the models that are there."""
    return sorted({key[1][0] for key, slot in list(_slots.items()) if slot.model is not None})
