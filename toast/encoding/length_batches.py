"""Length-bucketed batches: encodings of texts, long ones in pieces, computed beside others of similar length.

Owns what becomes of a text over the limit, the bound on a batch and the order of the results.
Knows nothing of models.
"""

from __future__ import annotations

from _thread import allocate_lock

import mlx.core as mx

from toast import kernels
from toast.cancel import checkpoint
from toast.errors import BadText

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

TOKENS = 2048  # padded tokens of a batch: bounds the memory of a layer's activations
AHEAD = 64 << 20  # bytes of outputs that exist at once, about two layers of the default embedder
BATCH = 128  # texts of a batch, fewer where they are long: short ones fill it with half the steps of 32

_lock = allocate_lock()
_calls = _before = 0  # calls that compute now; MLX's memory limit before the first of them


def pieces(encodings: list[Any], long: str) -> tuple[list[Any], list[int], int]:
    """(pieces, the index of the encoding that each comes from, how many encodings were too long).

    An encoding over the limit is its first piece under long="truncate", an error (BadText) under "error",
    and all of its pieces under anything else.
    """
    parts: list[Any] = []
    owners: list[int] = []
    cut = 0
    if long == "error" and (over := [i for i, encoding in enumerate(encodings) if encoding.overflowing]):
        raise BadText(over, f" is longer than {len(encodings[over[0]].ids)} tokens", "--long chooses")
    for i, encoding in enumerate(encodings):
        further = encoding.overflowing
        cut += bool(further)
        own = [encoding] if long == "truncate" else [encoding, *further]
        parts += own
        owners += [i] * len(own)
    return parts, owners, cut


def compute(function: Callable[[list[Any]], mx.array], parts: list[Any], size: int = BATCH) -> mx.array:
    """function(list of at most `size` encodings) -> (B, ...) over all parts: (N, ...), N > 0, in order."""
    order = sorted(range(len(parts)), key=lambda i: len(parts[i].ids))
    groups = [[parts[i] for i in group] for group in _groups(parts, order, size)]
    rows = (_evaluated if kernels.on_gpu() else _bounded)(function, groups)
    place = [0] * len(order)
    for row, i in enumerate(order):
        place[i] = row
    return mx.concatenate(rows)[mx.array(place)]


def _evaluated(function: Callable[[list[Any]], mx.array], groups: list[list[Any]]) -> list[mx.array]:
    rows: list[mx.array] = []
    for group in groups:
        checkpoint()
        rows.append(function(group))
        mx.async_eval(rows[-1])
        mx.eval(rows[-2:-1] if kernels.on_gpu() else rows[-1:])  # a GPU has the next batch before it is done with one
    return rows


def _bounded(function: Callable[[list[Any]], mx.array], groups: list[list[Any]]) -> list[mx.array]:
    """The same on the CPU, where MLX allocates the outputs of many ops ahead of their work; over the limit it waits
    for that work. (On a GPU it would wait after every op.) The limit is the process's: calls at once share it."""
    global _calls, _before
    with _lock:
        _calls += 1
        limit = mx.set_memory_limit(mx.get_active_memory() + AHEAD * _calls)
        _before = limit if _calls == 1 else _before
    try:
        return _evaluated(function, groups)
    finally:
        with _lock:
            _calls -= 1
            if not _calls:
                mx.set_memory_limit(_before)


def _groups(parts: list[Any], order: list[int], size: int) -> Iterator[list[int]]:
    """Indices in groups of at most `size` rows and TOKENS padded tokens; lengths ascend."""
    group: list[int] = []
    for i in order:
        if group and (len(group) == size or (len(group) + 1) * len(parts[i].ids) > TOKENS):
            yield group
            group = []
        group.append(i)
    yield group
