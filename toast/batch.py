"""Many texts decoded together, each as if it were alone: a finished one's row goes to the next.

Every row keeps its own positions, from 0 and without padding on the left, so that the bits of a row do
not depend on its neighbours. Knows a model and caches; no tokenizer, no records.
"""

import mlx.core as mx

from toast.generate import Token, read
from toast.sample import logprobs

ROWS = 16  # more rows gain little once a step is bound by arithmetic
STEP = 256  # positions that a cache grows by


class Job:
    """A prompt and how to go on from it. take(token) -> whether the text is over, asked after each
    token; reason: "stop" or "length" once it is."""

    def __init__(self, ids, sampler, ends, limit, take, top=None, guide=None):
        self.ids, self.sampler, self.ends, self.limit = ids, sampler, frozenset(ends), limit
        self.take, self.top, self.guide = take, top, guide
        self.tokens, self.reason = [], None
        sampler.begin(ids)

    def add(self, token: Token) -> None:
        if token.id in self.ends:
            self.reason = "stop"
            return
        self.tokens.append(token)
        if self.guide is not None:
            self.guide.accept(token.id)
        if self.take(token) or (self.guide is not None and self.guide.done()):
            self.reason = "stop"
        elif len(self.tokens) >= self.limit:
            self.reason = "length"


class RowCache:
    """MLX-LM's KVCache for rows of different lengths: keys and values (B, H, T, D).

    `offset` (B,) is each row's length, to which a step adds one position."""

    def __init__(self, rows: int):
        self.rows = mx.arange(rows)
        self.keys = self.values = None
        self.lengths = [0] * rows
        self.offset = mx.zeros((rows,), mx.int32)

    def place(self, row: int, cache) -> None:
        """Put what a KVCache (1, H, T, D) holds into a row."""
        keys, values = (x[..., : cache.offset, :] for x in (cache.keys, cache.values))
        self._reserve(cache.offset, keys, values)
        self.keys[row : row + 1, :, : cache.offset] = keys
        self.values[row : row + 1, :, : cache.offset] = values
        self.lengths[row] = cache.offset

    def _reserve(self, length, keys, values):
        """Room for `length` positions."""
        have = 0 if self.keys is None else self.keys.shape[2]
        if length <= have:
            return
        grow = -(-(length - have) // STEP) * STEP

        def longer(buffer, like):
            more = mx.zeros((len(self.lengths), like.shape[1], grow, like.shape[3]), like.dtype)
            return more if buffer is None else mx.concatenate([buffer, more], axis=2)

        self.keys, self.values = longer(self.keys, keys), longer(self.values, values)

    def begin_step(self) -> None:
        """Fix the rows' lengths for the step that comes."""
        self.offset = mx.array(self.lengths, mx.int32)

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
        """Go on with these rows alone."""
        index = mx.array(rows)
        self.keys, self.values = self.keys[index], self.values[index]
        self.lengths, self.rows = [self.lengths[r] for r in rows], mx.arange(len(rows))


def can_batch(caches) -> bool:
    """Whether every layer keeps plain keys and values; other kinds are decoded one by one."""
    return all(type(cache).__name__ == "KVCache" for cache in caches)


class Prefix:
    """The caches of the prompt before: what two prompts begin with is read once."""

    def __init__(self, model, make):
        self.model, self.make, self.ids, self.caches = model, make, [], None

    def read(self, ids):
        """Caches that hold all but the last of the ids."""
        shared = 0
        for a, b in zip(self.ids, ids[:-1]):
            if a != b:
                break
            shared += 1
        caches = self.make()
        if shared:
            for new, old in zip(caches, self.caches):
                new.state = (old.keys[..., :shared, :], old.values[..., :shared, :], shared)
        read(self.model, caches, ids[shared:-1])
        self.ids, self.caches = ids[:-1], caches
        return caches


def decode(model, make, jobs, rows=ROWS):
    """Run Jobs; each is given back when it is over. make() -> new caches for a single text."""
    jobs, prefix = iter(jobs), Prefix(model, make)
    live = [job for _, job in zip(range(rows), jobs)]
    if not live:
        return
    caches = [RowCache(len(live)) for _ in make()]
    last = [_place(prefix, caches, row, job) for row, job in enumerate(live)]
    while live:
        for row, token in enumerate(_step(model, caches, live, last)):
            job, last[row] = live[row], token.id
            job.add(token)
            if job.reason is None:
                continue
            yield job
            live[row] = next(jobs, None)
            if live[row] is not None:
                last[row] = _place(prefix, caches, row, live[row])
        left = [row for row, job in enumerate(live) if job is not None]
        if len(left) < len(live):
            live, last = [live[r] for r in left], [last[r] for r in left]
            for cache in caches if live else ():
                cache.keep(left)


def _place(prefix, caches, row, job) -> int:
    """Read a job's prompt into a row; its last token, which is not read yet."""
    for cache, single in zip(caches, prefix.read(job.ids)):
        if single.keys is not None:
            cache.place(row, single)
        else:
            cache.lengths[row] = 0
    return job.ids[-1]


def _step(model, caches, live, last) -> list[Token]:
    for cache in caches:
        cache.begin_step()
    logits = model(mx.array(last)[:, None], cache=caches)[:, -1]
    if all(job.sampler.plain and job.guide is None and job.top is None for job in live):
        return [Token(i) for i in mx.argmax(logits, axis=-1).tolist()]
    found = []
    for row, job in zip(logits, live):
        token = job.sampler(row, job.guide and job.guide.allowed())
        found.append((token, *(logprobs(row, token, job.top) if job.top is not None else ())))
    mx.eval(found)
    return [Token(t.item(), *_plain(*extra)) for t, *extra in found]


def _plain(logprob=None, ids=None, values=None):
    if logprob is None:
        return ()
    return logprob.item(), list(zip(ids.tolist(), values.tolist()))
