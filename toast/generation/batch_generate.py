"""Continuous batching (Orca, vLLM): many texts decoded together, each as if it were alone; a finished one's row goes
to the next.

Knows what a text asks for and when it is over; no caches (`ragged_cache.py`), no tokenizer, no records.
"""

from __future__ import annotations

import mlx.core as mx

from toast.cancel import checkpoint
from toast.generation.generate import Sequence, Token, check, likeliest, resolved
from toast.generation.ragged_cache import batch
from toast.generation.sample import Sampler, logprobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from toast.generation.ragged_cache import Masked, Ragged

    J = TypeVar("J", bound="Job")

ROWS = 16  # more rows gain little once a step is bound by arithmetic


class Job:
    """A prompt and how to go on from it. accept(token) -> whether the text is over, asked after each token."""

    def __init__(
        self, ids: list[int], sampler: Sampler, sequence: Sequence, *,
        accept: Callable[[Token], bool] = lambda token: False, top: int | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.sampler, self.sequence = ids, sampler, sequence
        self.accept, self.top = accept, top
        self.tokens: list[Token] = []
        sampler.begin(ids, sequence)

    @property
    def last(self) -> int:
        """The token that the next one follows."""
        return self.tokens[-1].id if self.tokens else self.ids[-1]

    def add(self, token: Token) -> None:
        """Note a token, unless it ends the text and is not part of it."""
        if self.sequence.take(token.id):
            self.keep(token)

    def keep(self, token: Token) -> None:
        """Note a token that its sequence has taken."""
        self.tokens.append(token)
        if self.accept(token):
            self.sequence.stop()


def decode(
    model: Any, make: Callable[[], list[Any]], jobs: Iterable[J | None], *, rows: int = ROWS, name: str = "the model"
) -> Iterator[J]:
    """Run Jobs; each is given back when it is over. make() -> new caches for a single text.

    jobs: gives None where it has none at the moment; then the live ones go on without. name: the model's, for
    BadModel where its logits are not numbers."""
    coming, texts = iter(jobs), batch(model, make)
    live: dict[int, J] = {}
    while True:
        checkpoint()
        free = [row for row in range(rows) if row not in live]
        new = dict(zip(free, iter(coming.__next__, None), strict=False))
        texts.place({row: job.ids for row, job in new.items()})
        live = dict(sorted({**live, **new}.items()))
        if not live:
            return
        for row, token in zip(list(live), _step(texts, live, name), strict=True):
            live[row].add(token)
        for row in [row for row, job in live.items() if job.sequence.reason]:
            yield live.pop(row)


def _step(texts: Ragged | Masked, live: dict[int, J], name: str) -> list[Token]:
    """The next token of each row."""
    logits = texts.step({row: job.last for row, job in live.items()})
    jobs = list(live.values())
    plain = [job.sampler.takes_best() and job.sequence.guide is None and job.top is None for job in jobs]
    best = likeliest(name, logits) if any(plain) else []
    if all(plain):
        return [Token(i) for i in best]
    found: list[Any] = []
    for n, job in enumerate(jobs):
        if plain[n]:
            found.append(None)
            continue
        token = job.sequence.choose(job.sampler, logits[n])
        found.append((token, *(logprobs(logits[n], token, job.top) if job.top is not None else ())))
    drawn = [job.sampler.logit for job, best_only in zip(jobs, plain, strict=True) if not best_only]
    mx.eval([parts for parts in found if parts], drawn)
    for logit in drawn:
        check(name, logit)
    return [Token(best[n]) if parts is None else resolved(*parts) for n, parts in enumerate(found)]
