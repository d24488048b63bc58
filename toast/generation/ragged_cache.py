"""Texts of different lengths in one model at once, each in a row of the caches: prompts read, steps taken.

Knows models and caches; no sampling, no jobs. Every row has its own positions, from 0 and without padding on
the left, so that the bits of a row do not depend on its neighbours. Rows(model, make) has two forms with one
interface: `Ragged` where every layer can tell its rows' texts apart (kernels/modules.py), `Masked` elsewhere.
"""

import mlx.core as mx

from toast import kernels
from toast.generation.generate import PIECE, STEP, read


def Rows(model, make):
    """Rows for texts, as many as are placed; make() -> new caches for a single text, which all are KVCaches."""
    return (Ragged if kernels.supports_ragged_batch(model) else Masked)(model, make)


def shared(a: list[int], b: list[int]) -> int:
    """How many ids two texts begin with alike."""
    for n, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return n
    return min(len(a), len(b))


def longer(buffer, shape, dtype):
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


# ---------------------------------------------------------------- without padding


class TextCache:
    """A layer's keys and values (R, H, T, D) of R texts. segments: the packed batch of the next call, as
    (cache row, new tokens, tokens already cached)."""

    ragged = True  # what kernels/modules.py asks a cache: its layers read `segments` and call reserve()

    def __init__(self):
        self.rows, self.keys, self.values, self.segments = 0, None, None, []

    def reserve(self, heads: int, dims: int, dtype) -> None:
        """Room for what comes; the layer calls it, which alone knows the shape."""
        shape = self.rows, heads, max(length + offset for _, length, offset in self.segments), dims
        self.keys, self.values = longer(self.keys, shape, dtype), longer(self.values, shape, dtype)

    def beginning(self, row: int, count: int):
        return [mx.contiguous(x[row, :, :count]) for x in (self.keys, self.values)]

    def begin(self, row: int, keys, values) -> None:
        """Let a row, which may be new, begin with these keys and values (H, n, D)."""

        def begun(buffer, part):
            buffer = longer(buffer, (self.rows, *buffer.shape[1:]), buffer.dtype)
            buffer[row, :, : part.shape[1]] = part
            return buffer

        self.keys, self.values = begun(self.keys, keys), begun(self.values, values)

    def make_mask(self, N, return_array=False, window_size=None):
        return "causal"  # every text sees itself alone


class Ragged:
    """New rows of all texts one after the other in one call, prompts and single tokens alike."""

    def __init__(self, model, make):
        self.model, self.caches = model, [TextCache() for _ in make()]
        self.ids, self.lengths = [], []  # the prompt that each row begins with; tokens in each

    def place(self, prompts: dict) -> None:
        """Read prompts {row: ids}, all but their last token; what they share with another row is copied."""
        prompts = {row: ids[:-1] for row, ids in prompts.items()}
        self._grow(max(prompts, default=0) + 1)
        while prompts:
            first = not any(self.ids)  # the others may begin as the first one does
            some = dict([next(iter(prompts.items()))]) if first else prompts
            known = {row: self._known(row, ids, some) for row, ids in some.items()}
            self._copy([(row, source, n) for row, (source, n) in known.items() if n and source != row])
            self._read({row: (ids, known[row][1]) for row, ids in some.items()})
            for row, ids in some.items():
                self.ids[row], self.lengths[row] = ids, len(ids)
            prompts = {row: ids for row, ids in prompts.items() if row not in some}

    def _grow(self, rows) -> None:
        more = max(0, rows - len(self.ids))
        self.ids, self.lengths = self.ids + [[]] * more, self.lengths + [0] * more
        for cache in self.caches:
            cache.rows = len(self.ids)

    def _known(self, row, ids, changing):
        """(which row begins most like the ids, itself or one that stays as it is; with how many of them)."""
        found = {r: shared(self.ids[r], ids) for r in range(len(self.ids)) if r == row or r not in changing}
        source = max(found, key=lambda r: (found[r], r == row))
        return source, found[source]

    def _copy(self, beginnings) -> None:
        """[(row, source, how many)]: read before anything is written, or MLX would copy whole buffers."""
        for cache in self.caches if beginnings else ():
            parts = [(row, cache.beginning(source, n)) for row, source, n in beginnings]
            mx.eval([part for _, part in parts])
            for row, part in parts:
                cache.begin(row, *part)
            mx.eval(cache.keys, cache.values)

    def _read(self, prompts) -> None:
        """{row: (ids, how many are there)}, a piece after the other."""
        left = [(row, n, ids[n:]) for row, (ids, n) in prompts.items() if ids[n:]]
        while left:
            texts, tokens, room = [], [], PIECE
            for row, offset, ids in left:
                piece = ids[:room]
                texts += [(row, len(piece), offset)] * bool(piece)
                tokens, room = tokens + piece, room - len(piece)
            self._forward(texts, tokens)
            mx.eval([(cache.keys, cache.values) for cache in self.caches])
            done = {row: length for row, length, _ in texts}
            left = [(row, n + done.get(row, 0), ids[done.get(row, 0) :]) for row, n, ids in left]
            left = [part for part in left if part[2]]

    def step(self, last: dict):
        """{row: its last token} -> logits (rows, V)."""
        texts = [(row, 1, self.lengths[row]) for row in last]
        for row in last:
            self.lengths[row] += 1
        return self._forward(texts, list(last.values()))

    def _forward(self, texts, tokens):
        for cache in self.caches:
            cache.segments = texts
        return self.model(mx.array([tokens]), cache=self.caches)[0]


# ---------------------------------------------------------------- with a mask


class RowCache:
    """MLX-LM's KVCache for rows of different lengths: keys and values (B, H, T, D).

    `offset` (B,) is each row's length, to which a step adds one position. kv_dtype: what a fused layer stores, else None."""

    def __init__(self, rows: int = 0):
        self.keys = self.values = self.kv_dtype = None
        self.lengths = [0] * rows
        self.begin_step()

    def place(self, row: int, cache) -> None:
        """Put what a KVCache (1, H, T, D) holds into a row."""
        self.lengths[row] = cache.offset
        if cache.keys is None:
            return
        keys, values = (x[..., : cache.offset, :] for x in (cache.keys, cache.values))
        self._reserve(cache.offset, keys, values)
        self.keys[row : row + 1, :, : cache.offset] = keys
        self.values[row : row + 1, :, : cache.offset] = values

    def _reserve(self, length, keys, values):
        def room(buffer, like):
            return longer(buffer, (len(self.lengths), like.shape[1], length, like.shape[3]), self.kv_dtype or like.dtype)

        self.keys, self.values = room(self.keys, keys), room(self.values, values)

    def begin_step(self) -> None:
        """Fix the rows and their lengths for the step that comes."""
        self.rows, self.offset = mx.arange(len(self.lengths)), mx.array(self.lengths, mx.int32)

    def update_and_fetch(self, keys, values):
        """keys, values (B, H, 1, D) -> all of them, (B, H, T, D); what is past a row's length is masked."""
        self._reserve(max(self.lengths) + 1, keys, values)
        self.keys[self.rows, :, self.offset] = keys[:, :, 0]
        self.values[self.rows, :, self.offset] = values[:, :, 0]
        self.lengths = [length + 1 for length in self.lengths]
        most = max(self.lengths)
        return self.keys[..., :most, :], self.values[..., :most, :]

    def make_mask(self, N, return_array=False, window_size=None):
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

    def __init__(self, model, make):
        self.model, self.make, self.ids, self.caches = model, make, [], None

    def read(self, ids):
        """Caches that hold all but the last of the ids."""
        known, caches = shared(self.ids, ids[:-1]), self.make()
        if known:
            for new, old in zip(caches, self.caches):
                new.state = (old.keys[..., :known, :], old.values[..., :known, :], known)
        read(self.model, caches, ids[known:-1])
        self.ids, self.caches = ids[:-1], caches
        return caches


class Masked:
    """Prompts read one by one; a step of all rows at once, as long as the longest."""

    def __init__(self, model, make):
        self.model, self.prefix = model, LastPrompt(model, make)
        self.caches, self.rows = [RowCache() for _ in make()], []

    def place(self, prompts: dict) -> None:
        """Read prompts {row: ids}, all but their last token."""
        new = [row for row in prompts if row not in self.rows]
        self.rows += new
        for cache in self.caches:
            cache.lengths += [0] * len(new)
        for row, ids in prompts.items():
            for cache, single in zip(self.caches, self.prefix.read(ids)):
                cache.place(self.rows.index(row), single)

    def step(self, last: dict):
        """{row: its last token} -> logits (rows, V); rows that are missing are over."""
        if list(last) != self.rows:
            keep, self.rows = [self.rows.index(row) for row in last], list(last)
            for cache in self.caches:
                cache.keep(keep)
        for cache in self.caches:
            cache.begin_step()
        return self.model(mx.array([last[row] for row in self.rows])[:, None], cache=self.caches)[:, -1]
