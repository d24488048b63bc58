"""Many texts decoded together, each as if it were alone: a finished one's row goes to the next.

Knows what a text asks for and when it is over; no caches (`rows.py`), no tokenizer, no records.
"""

import mlx.core as mx

from toast.generation.generate import Token
from toast.generation.ragged_cache import Rows
from toast.generation.sample import logprobs

ROWS = 16  # more rows gain little once a step is bound by arithmetic


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


def decode(model, make, jobs, rows=ROWS):
    """Run Jobs; each is given back when it is over. make() -> new caches for a single text.

    jobs: gives None where it has none at the moment; then the live ones go on without."""
    jobs, live, texts = iter(jobs), {}, Rows(model, make)
    while True:
        free = [row for row in range(rows) if row not in live]
        new = dict(zip(free, iter(jobs.__next__, None)))
        texts.place({row: job.ids for row, job in new.items()})
        live = dict(sorted({**live, **new}.items()))
        if not live:
            return
        for row, token in zip(list(live), _step(texts, live)):
            live[row].add(token)
        for row in [row for row, job in live.items() if job.reason]:
            yield live.pop(row)


def _step(texts, live) -> list[Token]:
    """The next token of each row."""
    last = {row: job.tokens[-1].id if job.tokens else job.ids[-1] for row, job in live.items()}
    logits = texts.step(last)
    if all(job.sampler.plain and job.guide is None and job.top is None for job in live.values()):
        return [Token(i) for i in mx.argmax(logits, axis=-1).tolist()]
    found = []
    for row, job in zip(logits, live.values()):
        token = job.sampler(row, job.guide and job.guide.allowed())
        found.append((token, *(logprobs(row, token, job.top) if job.top is not None else ())))
    mx.eval(found)
    return [Token(t.item(), *_plain(*extra)) for t, *extra in found]


def _plain(logprob=None, ids=None, values=None):
    if logprob is None:
        return ()
    return logprob.item(), list(zip(ids.tolist(), values.tolist()))
