"""Ragged batches: texts of different lengths decoded at once, each in a row of the caches.

Knows models and caches; no sampling, no jobs. There is no left padding: every row has its own positions from 0,
so that a text's result is bit-identical alone and batched. `batch(model, make)` has two forms with one interface:
`Ragged` where every layer takes packed segments (kernels/modules.py), `Masked` elsewhere.
"""

from __future__ import annotations

import mlx.core as mx

from toast import kernels
from toast.cancel import checkpoint
from toast.generation import device
from toast.generation.generate import STEP, common_prefix, forward, prefill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Caches = list[Any]
    Prompts = dict[int, list[int]]  # row -> ids


def batch(model: Any, make: Callable[[], Caches]) -> Ragged | Masked:
    """Rows for as many texts as are placed; make() -> new caches for a single text, which all are KVCaches."""
    return (Ragged if kernels.supports_ragged_batch(model) else Masked)(model, make)


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


class Part:
    """What a text adds to a batch: ids, and its caches, which get them; wanted: of how many, the last, the logits."""

    def __init__(self, caches: Caches, ids: list[int], *, wanted: int = 1) -> None:
        self.caches, self.ids, self.wanted = caches, ids, wanted


def forward_parts(model: Any, parts: list[Part]) -> mx.array:
    """Feed the new tokens of all texts in one call -> the logits asked for (N, V), not yet computed; of any where none
    are.

    The caches are written in place: they are KVCaches, computed, and nobody else's."""
    tokens: list[int] = []
    wanted: list[int] = []
    for part in parts:
        tokens += part.ids
        wanted += range(len(tokens) - part.wanted, len(tokens))
    lengths, places = [len(part.ids) for part in parts], mx.array(wanted or [0])
    layers = zip(*(part.caches for part in parts), strict=True)
    batch = [kernels.ragged(list(texts), lengths, places) for texts in layers]
    logits = forward(model, mx.array([tokens]), batch)[0]
    return logits if len(logits) == len(places) else logits[places]


class Ragged:
    """New rows of all texts one after the other in one call, prompts and single tokens alike."""

    def __init__(self, model: Any, make: Callable[[], Caches]) -> None:
        self.model, self.make = model, make
        self.ids: dict[int, list[int]] = {}  # the prompt that each row begins with
        self.caches: dict[int, Caches] = {}

    def place(self, prompts: Prompts) -> None:
        """Read prompts {row: ids}, all but their last token; what they share with another row is copied."""
        prompts = {row: ids[:-1] for row, ids in prompts.items()}
        while prompts:
            first = not any(self.ids.values())  # the others may begin as the first one does
            some = dict([next(iter(prompts.items()))]) if first else prompts
            begun = {row: self._begun(ids) for row, ids in some.items()}
            self.caches |= begun
            self._prefill({row: ids[begun[row][0].offset :] for row, ids in some.items()})
            self.ids |= some
            prompts = {row: ids for row, ids in prompts.items() if row not in some}

    def _begun(self, ids: list[int]) -> Caches:
        """Caches that hold as many of the ids as any row begins with."""
        caches = self.make()
        source = max(self.ids, key=lambda row: common_prefix(self.ids[row], ids), default=None)
        if source is not None and (count := common_prefix(self.ids[source], ids)):
            for new, old in zip(caches, self.caches[source], strict=True):
                room = -count % STEP
                keys, values = (
                    mx.pad(x[:, :, :count], [(0, 0), (0, 0), (0, room), (0, 0)]) for x in (old.keys, old.values)
                )
                new.state = keys, values, count
            mx.eval([(cache.keys, cache.values) for cache in caches])
        return caches

    def _prefill(self, prompts: Prompts) -> None:
        """Feed prompts {row: ids}, a piece after the other."""
        while prompts := {row: ids for row, ids in prompts.items() if ids}:
            checkpoint()
            pieces, room = {}, device.piece()
            for row, ids in prompts.items():
                if room:
                    pieces[row] = ids[:room]
                    room -= len(pieces[row])
            self._forward(pieces)
            prompts = {row: ids[len(pieces.get(row, [])) :] for row, ids in prompts.items()}

    def step(self, last: dict[int, int]) -> mx.array:
        """{row: its last token} -> logits (rows, V)."""
        return self._forward({row: [id] for row, id in last.items()})

    def _forward(self, ids: Prompts) -> mx.array:
        return forward_parts(self.model, [Part(self.caches[row], new) for row, new in ids.items()])


# ---------------------------------------------------------------- with a mask


class RowCache:
    """MLX-LM's KVCache for rows of different lengths: keys and values (B, H, T, D).

    `offset` (A,) is the length of each row that takes part in a step, which adds positions to them.
    kv_dtype: what a layer keeps alone."""

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

    def begin_step(self, rows: list[int] | None = None) -> None:
        """Fix the rows that take part in the step that comes, all without a word, and their lengths."""
        self.active = list(range(len(self.lengths))) if rows is None else rows
        self.rows, self.offset = mx.array(self.active, mx.int32), mx.array(self._before(), mx.int32)

    def _before(self) -> list[int]:
        return [self.lengths[row] for row in self.active]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """keys, values (A, H, L, D) of the step's rows -> all of theirs, (A, H, T, D); what is past a row's length is
        masked."""
        count = keys.shape[2]
        most = max(self._before()) + count
        self._reserve(most, keys, values)
        rows, places = self.rows[:, None], self.offset[:, None] + mx.arange(count)
        self.keys[rows, :, places] = keys.swapaxes(1, 2)
        self.values[rows, :, places] = values.swapaxes(1, 2)
        for row in self.active:
            self.lengths[row] += count
        found = self.keys[..., :most, :], self.values[..., :most, :]
        return found if len(self.active) == len(self.lengths) else (found[0][self.rows], found[1][self.rows])

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> mx.array:  # noqa: FBT001, FBT002
        """Which positions (A, 1, N, T) each row's next N tokens see; MLX-LM asks for it, by position."""
        places = mx.arange(max(self._before()) + N)[None, None]
        last = (self.offset[:, None] + mx.arange(N))[..., None]
        mask = places <= last
        if window_size is not None:
            mask = mask & (places > last - window_size)
        return mask[:, None]

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone, in this order."""
        index = mx.array(rows)
        if self.keys is not None:
            self._reserve(1, self.keys, self.values)  # a row that holds nothing yet may have no place
            self.keys, self.values = self.keys[index], self.values[index]
        self.lengths = [self.lengths[r] for r in rows]


class LastPrompt:
    """The caches of the prompt before: what two prompts begin with is read once."""

    def __init__(self, model: Any, make: Callable[[], Caches]) -> None:
        self.model, self.make = model, make
        self.ids: list[int] = []
        self.caches: Caches = []

    def prefill(self, ids: list[int]) -> Caches:
        """Caches that hold the ids."""
        known, caches = common_prefix(self.ids, ids), self.make()
        if known:
            for new, old in zip(caches, self.caches, strict=True):
                new.state = (old.keys[..., :known, :], old.values[..., :known, :], known)
        prefill(self.model, caches, ids[known:])
        self.ids, self.caches = ids, caches
        return caches


class Masked:
    """A step of all rows at once, as long as the longest. Prompts are read one by one, on a GPU side by side; what they
    begin with alike is read once."""

    def __init__(self, model: Any, make: Callable[[], Caches]) -> None:
        self.model, self.last = model, LastPrompt(model, make)
        self.caches = [RowCache() for _ in make()]
        self.rows: list[int] = []
        self.ahead: list[int | None] = []  # rows whose next step is under way, None for one that is another text's now
        self.logits: Any = None  # of these

    def place(self, prompts: Prompts) -> None:
        """Read prompts {row: ids}, all but their last token."""
        if not prompts:
            return
        self.ahead = [None if row in prompts else row for row in self.ahead]
        new = [row for row in prompts if row not in self.rows]
        self.rows += new
        for cache in self.caches:
            cache.lengths += [0] * len(new)
        texts = {row: ids[:-1] for row, ids in prompts.items()}
        for group in [texts] if kernels.on_gpu() else [{row: ids} for row, ids in texts.items()]:
            self._read(group)

    def _read(self, texts: Prompts) -> None:
        """Put texts {row: ids} into the caches: what they begin with alike once, the rest side by side."""
        first = next(iter(texts.values()))
        head = first[: min(common_prefix(first, ids) for ids in texts.values())]
        for cache, single in zip(self.caches, self.last.prefill(head), strict=True):
            for row in texts:
                cache.place(self.rows.index(row), single)
        texts = {row: ids[len(head) :] for row, ids in texts.items()}
        while texts := {row: ids for row, ids in texts.items() if ids}:
            checkpoint()
            size = min(max(map(len, texts.values())), max(1, device.piece() // len(texts)))
            self._read_piece({row: ids[:size] for row, ids in texts.items()}, size)
            texts = {row: ids[size:] for row, ids in texts.items()}

    def _read_piece(self, texts: Prompts, size: int) -> None:
        """The same for texts of at most `size` ids; after a shorter one comes what its next tokens will replace."""
        self._forward(list(texts), mx.array([ids + [0] * (size - len(ids)) for ids in texts.values()]))
        for cache in self.caches:
            for row, ids in texts.items():
                cache.lengths[self.rows.index(row)] -= size - len(ids)
        mx.eval([(cache.keys, cache.values) for cache in self.caches])
        device.tidy()

    def step(self, last: dict[int, int]) -> mx.array:
        """{row: its last token} -> logits (rows, V); rows that are missing are over."""
        rows, ahead, self.ahead = list(last), self.ahead, []
        if rows != self.rows:
            keep, self.rows = [self.rows.index(row) for row in rows], rows
            for cache in self.caches:
                cache.keep(keep)
        new = [row for row in rows if row not in ahead]
        found = [self.logits] if ahead else []
        if new:
            found.append(self._forward(new, mx.array([last[row] for row in new])[:, None])[:, -1])
        logits, order = mx.concatenate(found), [*ahead, *new]
        return logits if order == rows else logits[mx.array([order.index(row) for row in rows])]

    def look_ahead(self, tokens: mx.array) -> None:
        """Begin the step after tokens (rows,), which nobody has seen yet; `step` gives its logits. A text that is over
        has had its share of it for nothing, which costs a GPU no time."""
        self.ahead, self.logits = list(self.rows), self._forward(self.rows, tokens[:, None])[:, -1]
        mx.async_eval(self.logits)

    def _forward(self, rows: list[int], ids: mx.array) -> mx.array:
        """ids (A, L) of some rows -> logits (A, L, V), not yet computed."""
        places = [self.rows.index(row) for row in rows]
        for cache in self.caches:
            cache.begin_step(places)
        return forward(self.model, ids, self.caches)
