"""Ragged batches: texts of different lengths decoded at once, each in a row of the caches.

Knows models and caches; no sampling, no jobs. There is no left padding: every row has its own positions from 0,
so that a text's result is bit-identical alone and batched. `batch(model, make)` has two forms with one interface:
`Ragged` where every layer takes packed segments (kernels/modules.py), `Masked` elsewhere.
"""

from __future__ import annotations

import mlx.core as mx

from toast import kernels
from toast.cancel import checkpoint
from toast.generation.generate import PIECE, STEP, forward, prefill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Caches = list[Any]
    Prompts = dict[int, list[int]]  # row -> ids


def batch(model: Any, make: Callable[[], Caches]) -> Ragged | Masked:
    """Rows for as many texts as are placed; make() -> new caches for a single text, which all are KVCaches."""
    return (Ragged if kernels.supports_ragged_batch(model) else Masked)(model, make)


def common_prefix(a: list[int], b: list[int]) -> int:
    """How many ids two texts begin with alike."""
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))


def grow(buffer: mx.array | None, shape: tuple[int, int, int, int], dtype: mx.Dtype) -> mx.array:
    """A buffer (R, H, T, D), or none yet (one of dtype then), with room for shape[0] texts of shape[2] positions."""
    rows, heads, length, dims = shape
    length = -(-length // STEP) * STEP
    if buffer is None:
        return mx.zeros((rows, heads, length, dims), dtype)
    for axis, size in ((0, rows), (2, length)):
        more = list(buffer.shape)
        more[axis] = size - more[axis]
        if more[axis] > 0:
            buffer = mx.concatenate([buffer, mx.zeros(more, buffer.dtype)], axis=axis)
    return buffer


# ---------------------------------------------------------------- packed segments


class TextCache:
    """A layer's keys and values (R, H, T, D) of R texts. segments: the packed batch of the next call, as
    (cache row, new tokens, tokens already cached)."""

    ragged = True  # what kernels/modules.py asks a cache: its layers read `segments` and call reserve()

    def __init__(self) -> None:
        self.rows = 0
        self.keys: Any = None
        self.values: Any = None
        self.segments: list[tuple[int, int, int]] = []

    def reserve(self, heads: int, dims: int, dtype: mx.Dtype) -> None:
        """Room for what comes; the layer calls it, which alone knows the shape."""
        shape = self.rows, heads, max(length + offset for _, length, offset in self.segments), dims
        self.keys, self.values = grow(self.keys, shape, dtype), grow(self.values, shape, dtype)

    def prefix(self, row: int, count: int) -> list[mx.array]:
        """Copies of a row's first keys and values (H, count, D)."""
        return [mx.contiguous(x[row, :, :count]) for x in (self.keys, self.values)]

    def begin(self, row: int, keys: mx.array, values: mx.array) -> None:
        """Let a row, which may be new, begin with these keys and values (H, n, D)."""

        def begun(buffer: mx.array, part: mx.array) -> mx.array:
            _, heads, length, dims = buffer.shape
            buffer = grow(buffer, (self.rows, heads, length, dims), buffer.dtype)
            buffer[row, :, : part.shape[1]] = part
            return buffer

        self.keys, self.values = begun(self.keys, keys), begun(self.values, values)

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> str:  # noqa: FBT001, FBT002
        """MLX-LM asks for it, by position; every text sees itself alone."""
        return "causal"


class Ragged:
    """New rows of all texts one after the other in one call, prompts and single tokens alike."""

    def __init__(self, model: Any, make: Callable[[], Caches]) -> None:
        self.model, self.caches = model, [TextCache() for _ in make()]
        self.ids: list[list[int]] = []  # the prompt that each row begins with
        self.lengths: list[int] = []  # tokens in each

    def place(self, prompts: Prompts) -> None:
        """Read prompts {row: ids}, all but their last token; what they share with another row is copied."""
        prompts = {row: ids[:-1] for row, ids in prompts.items()}
        self._grow(max(prompts, default=0) + 1)
        while prompts:
            first = not any(self.ids)  # the others may begin as the first one does
            some = dict([next(iter(prompts.items()))]) if first else prompts
            known = {row: self._known(row, ids, some) for row, ids in some.items()}
            self._copy([(row, source, n) for row, (source, n) in known.items() if n and source != row])
            self._prefill({row: (ids, known[row][1]) for row, ids in some.items()})
            for row, ids in some.items():
                self.ids[row], self.lengths[row] = ids, len(ids)
            prompts = {row: ids for row, ids in prompts.items() if row not in some}

    def _grow(self, rows: int) -> None:
        more = max(0, rows - len(self.ids))
        self.ids, self.lengths = self.ids + [[]] * more, self.lengths + [0] * more
        for cache in self.caches:
            cache.rows = len(self.ids)

    def _known(self, row: int, ids: list[int], changing: Prompts) -> tuple[int, int]:
        """(which row begins most like the ids, itself or one that stays as it is; with how many of them)."""
        found = {r: common_prefix(self.ids[r], ids) for r in range(len(self.ids)) if r == row or r not in changing}
        source = max(found, key=lambda r: (found[r], r == row))
        return source, found[source]

    def _copy(self, prefixes: list[tuple[int, int, int]]) -> None:
        """[(row, source, how many)]: read before anything is written, or MLX would copy whole buffers."""
        for cache in self.caches if prefixes else ():
            parts = [(row, cache.prefix(source, n)) for row, source, n in prefixes]
            mx.eval([part for _, part in parts])
            for row, (keys, values) in parts:
                cache.begin(row, keys, values)
            mx.eval(cache.keys, cache.values)

    def _prefill(self, prompts: dict[int, tuple[list[int], int]]) -> None:
        """{row: (ids, how many are there)}, a piece after the other."""
        left = [(row, n, ids[n:]) for row, (ids, n) in prompts.items() if ids[n:]]
        while left:
            checkpoint()
            segments: list[tuple[int, int, int]] = []
            tokens: list[int] = []
            for row, offset, ids in left:
                piece = ids[: PIECE - len(tokens)]
                segments += [(row, len(piece), offset)] * bool(piece)
                tokens = tokens + piece
            self._forward(segments, tokens)
            mx.eval([(cache.keys, cache.values) for cache in self.caches])
            done = {row: length for row, length, _ in segments}
            left = [(row, n + done.get(row, 0), ids[done.get(row, 0) :]) for row, n, ids in left]
            left = [part for part in left if part[2]]

    def step(self, last: dict[int, int]) -> mx.array:
        """{row: its last token} -> logits (rows, V)."""
        segments = [(row, 1, self.lengths[row]) for row in last]
        for row in last:
            self.lengths[row] += 1
        return self._forward(segments, list(last.values()))

    def _forward(self, segments: list[tuple[int, int, int]], tokens: list[int]) -> mx.array:
        for cache in self.caches:
            cache.segments = segments
        return forward(self.model, mx.array([tokens]), self.caches)[0]


# ---------------------------------------------------------------- with a mask


class RowCache:
    """MLX-LM's KVCache for rows of different lengths: keys and values (B, H, T, D).

    `offset` (B,) is each row's length, to which a step adds one position. kv_dtype: what a layer keeps alone."""

    def __init__(self, rows: int = 0) -> None:
        self.keys: Any = None
        self.values: Any = None
        self.kv_dtype: mx.Dtype | None = None
        self.lengths = [0] * rows
        self.begin_step()

    def place(self, row: int, cache: Any) -> None:
        """Put what a KVCache (1, H, T, D) holds into a row."""
        self.lengths[row] = cache.offset
        if cache.keys is None:
            return
        keys, values = (x[..., : cache.offset, :] for x in (cache.keys, cache.values))
        self._reserve(cache.offset, keys, values)
        self.keys[row : row + 1, :, : cache.offset] = keys
        self.values[row : row + 1, :, : cache.offset] = values

    def _reserve(self, length: int, keys: mx.array, values: mx.array) -> None:
        def room(buffer: mx.array | None, like: mx.array) -> mx.array:
            shape = len(self.lengths), like.shape[1], length, like.shape[3]
            return grow(buffer, shape, self.kv_dtype or like.dtype)

        self.keys, self.values = room(self.keys, keys), room(self.values, values)

    def begin_step(self) -> None:
        """Fix the rows and their lengths for the step that comes."""
        self.rows, self.offset = mx.arange(len(self.lengths)), mx.array(self.lengths, mx.int32)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """keys, values (B, H, 1, D) -> all of them, (B, H, T, D); what is past a row's length is masked."""
        self._reserve(max(self.lengths) + 1, keys, values)
        self.keys[self.rows, :, self.offset] = keys[:, :, 0]
        self.values[self.rows, :, self.offset] = values[:, :, 0]
        self.lengths = [length + 1 for length in self.lengths]
        most = max(self.lengths)
        return self.keys[..., :most, :], self.values[..., :most, :]

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:  # noqa: FBT001, FBT002
        """Which positions (B, 1, 1, T) each row's next token sees; MLX-LM asks for it, by position."""
        places, last = mx.arange(max(self.lengths) + 1)[None], self.offset[:, None]
        mask = places <= last
        if window_size is not None:
            mask = mask & (places > last - window_size)
        return mask[:, None, None]

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone, in this order."""
        index = mx.array(rows)
        if self.keys is not None:
            self.keys, self.values = self.keys[index], self.values[index]
        self.lengths = [self.lengths[r] for r in rows]


class LastPrompt:
    """The caches of the prompt before: what two prompts begin with is read once."""

    def __init__(self, model: Any, make: Callable[[], Caches]) -> None:
        self.model, self.make = model, make
        self.ids: list[int] = []
        self.caches: Caches = []

    def prefill(self, ids: list[int]) -> Caches:
        """Caches that hold all but the last of the ids."""
        known, caches = common_prefix(self.ids, ids[:-1]), self.make()
        if known:
            for new, old in zip(caches, self.caches, strict=True):
                new.state = (old.keys[..., :known, :], old.values[..., :known, :], known)
        prefill(self.model, caches, ids[known:-1])
        self.ids, self.caches = ids[:-1], caches
        return caches


class Masked:
    """Prompts read one by one; a step of all rows at once, as long as the longest."""

    def __init__(self, model: Any, make: Callable[[], Caches]) -> None:
        self.model, self.last = model, LastPrompt(model, make)
        self.caches = [RowCache() for _ in make()]
        self.rows: list[int] = []

    def place(self, prompts: Prompts) -> None:
        """Read prompts {row: ids}, all but their last token."""
        new = [row for row in prompts if row not in self.rows]
        self.rows += new
        for cache in self.caches:
            cache.lengths += [0] * len(new)
        for row, ids in prompts.items():
            for cache, single in zip(self.caches, self.last.prefill(ids), strict=True):
                cache.place(self.rows.index(row), single)

    def step(self, last: dict[int, int]) -> mx.array:
        """{row: its last token} -> logits (rows, V); rows that are missing are over."""
        if list(last) != self.rows:
            keep, self.rows = [self.rows.index(row) for row in last], list(last)
            for cache in self.caches:
                cache.keep(keep)
        for cache in self.caches:
            cache.begin_step()
        return forward(self.model, mx.array([last[row] for row in self.rows])[:, None], self.caches)[:, -1]
