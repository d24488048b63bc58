"""Continuous batching (Orca, vLLM): many texts decoded together, each as if it were alone; a finished one's row goes
to the next.

Knows what a text asks for and when it is over; no caches (`ragged_cache.py`), no tokenizer, no records.
"""

from __future__ import annotations

from itertools import count

import mlx.core as mx

from toast import kernels
from toast.cancel import checkpoint
from toast.generation import device
from toast.generation.generate import Sequence, Token, best_of, check, resolved
from toast.generation.ragged_cache import Masked, batch
from toast.generation.sample import Sampler, logprobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from toast.generation.ragged_cache import Ragged

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

    @property
    def takes_best(self) -> bool:
        """Whether the next token is the best logit and nothing else."""
        return self.sampler.takes_best() and self.sequence.guide is None and self.top is None

    @property
    def on_last(self) -> bool:
        """Whether the next token is the last one that the limit allows."""
        return len(self.sequence.ids) + 1 >= self.sequence.limit

    def draw(self, logits: mx.array) -> tuple[mx.array, ...]:
        """logits (V,) -> what `resolved` takes: the token (), and what else is asked for."""
        token = self.sequence.choose(self.sampler, logits)
        return (token, *(logprobs(logits, token, self.top) if self.top is not None else ()))

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
    for steps in count(1):
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
        if steps % device.OFTEN == 0:
            device.tidy()


def _step(texts: Ragged | Masked, live: dict[int, J], name: str) -> list[Token]:
    """The next token of each row; a GPU has what may follow them before anybody looks at them."""
    logits = texts.step({row: job.last for row, job in live.items()})
    jobs = list(live.values())
    drawn = {n: job.draw(logits[n]) for n, job in enumerate(jobs) if not job.takes_best}
    best: Any
    best, values = best_of(logits) if len(drawn) < len(jobs) else (None, None)
    checked = [jobs[n].sampler.logit for n in drawn] + ([] if values is None else [values])
    mx.async_eval(best, list(drawn.values()), checked)
    if isinstance(texts, Masked) and kernels.on_gpu() and not all(job.on_last for job in jobs):
        tokens = [drawn[n][0] if n in drawn else best[n] for n in range(len(jobs))]
        texts.look_ahead(mx.stack(tokens) if drawn else best)
    for found in checked:
        check(name, found)
    ids: Any = [] if best is None else best.tolist()
    return [resolved(*drawn[n]) if n in drawn else Token(ids[n]) for n in range(len(jobs))]
