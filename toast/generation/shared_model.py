"""Continuous batching across threads: what several texts feed a model at the same time goes through it in one call.

Owns who waits for whom. Each text keeps its caches, its sampler and its thread, so a slow reader, or one that is
called off, just is not there when the next call begins. Knows no text and no job.
"""

from __future__ import annotations

from _thread import allocate_lock

import mlx.core as mx

from toast import kernels
from toast.cancel import checkpoint
from toast.generation import device
from toast.generation.generate import has_kv_caches, prefill_piece
from toast.generation.ragged_cache import Part, forward_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Caches = list[Any]

PATIENCE = 0.005  # seconds for which those who are there wait for those who were there last time
SLICE = 64  # tokens of prompts that are read in a step in which other texts get a token


class SharedModel:
    """A model for any number of texts at once, each at a Seat of its own."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.lock = allocate_lock()
        self.seats = 0
        self.waiting: list[_Asked] = []
        self.before: set[Seat] = set()  # who took part in the last call, and has not left
        self.busy = False  # a thread runs a call for all

    def seat(self, caches: Caches) -> Any:
        """What takes the model's place for the text with these caches; the model itself where it takes no batches."""
        if has_kv_caches(caches) and kernels.supports_ragged_batch(self.model):
            return Seat(self)
        return self.model

    def feed(self, asked: _Asked) -> None:
        """Have it done, by this thread or by another one."""
        with self.lock:
            self.waiting.append(asked)
            leads = self._take_the_lead()
        while not asked.done:
            if leads:
                self._run()
            else:
                self._wait(asked)
            with self.lock:
                leads = not asked.done and self._take_the_lead(late=not leads)
        if asked.error:
            raise asked.error

    def _wait(self, asked: _Asked) -> None:
        """A moment, or until it is done; whoever is called off meanwhile asks no more."""
        if asked.ready.acquire(timeout=PATIENCE):
            return
        try:
            checkpoint()
        except BaseException:
            with self.lock:
                self.waiting = [other for other in self.waiting if other is not asked]
            raise

    def _take_the_lead(self, *, late: bool = False) -> bool:
        if self.busy or not (late or self.before <= {asked.seat for asked in self.waiting}):
            return False
        self.busy = True
        return True

    def _run(self) -> None:
        """One call of the model for those who wait."""
        with self.lock:
            chosen = _chosen(self.waiting)
            self.before = {asked.seat for asked in self.waiting}
            self.waiting = [asked for asked in self.waiting if asked not in chosen]
        logits = error = None
        try:
            logits = forward_parts(self.model, [asked.part for asked in chosen])
            if any(asked.part.wanted for asked in chosen):
                mx.eval(logits)
        except BaseException as found:  # they all have it: what it comes to is each one's business
            error = found
        at = 0
        with self.lock:
            self.busy = False
            for asked in chosen:
                asked.logits, asked.error, asked.done = (logits, at), error, True
                at += asked.part.wanted
                asked.ready.release()


def _chosen(waiting: list[_Asked]) -> list[_Asked]:
    """Of those who wait: all that want a token, and of the prompts what is not too much for these, in turn."""
    decoding = any(asked.part.wanted for asked in waiting)
    chosen, room = [], SLICE if decoding else device.piece()
    for asked in waiting:
        if asked.part.wanted or room > 0:
            chosen.append(asked)
            room -= 0 if asked.part.wanted else len(asked.part.ids)
    return chosen


class _Asked:
    """What a text feeds, and what came of it: the logits of all, and where its own begin."""

    def __init__(self, seat: Seat, part: Part) -> None:
        self.seat, self.part = seat, part
        self.ready, self.done = allocate_lock(), False
        self.ready.acquire()
        self.logits: tuple[Any, int] = None, 0
        self.error: BaseException | None = None


class Seat:
    """One text's use of a shared model, called as the model is; a text that is alone is fed as without all this."""

    def __init__(self, shared: SharedModel) -> None:
        self.shared = shared
        self.computed = False  # whether nothing of the caches is left to this thread to compute
        with shared.lock:
            shared.seats += 1

    @property
    def alone(self) -> bool:
        """Whether there is no other text at the moment; two texts fare better without drafts."""
        return self.shared.seats == 1

    def leave(self) -> None:
        """The text is over."""
        with self.shared.lock:
            self.shared.seats -= 1
            self.shared.before.discard(self)

    def __call__(self, ids: mx.array, cache: Caches) -> mx.array:
        """ids (1, L) -> logits (1, L, V)."""
        if self.alone:
            self.computed = False
            return self.shared.model(ids, cache=cache)
        fed: Any = ids[0].tolist()
        logits, at = self._feed(Part(cache, fed, wanted=len(fed)))
        return logits[None, at : at + len(fed)]

    def read(self, caches: Caches, ids: list[int]) -> int:
        """Put some of a prompt's ids into the caches; how many."""
        if self.alone:
            self.computed = False
            return prefill_piece(self.shared.model, caches, ids)
        piece = ids[:SLICE]
        self._feed(Part(caches, piece, wanted=0))
        return len(piece)

    def _feed(self, part: Part) -> tuple[mx.array, int]:
        if not self.computed:
            mx.eval([x for cache in part.caches for x in (cache.keys, cache.values) if x is not None])
            self.computed = True
        asked = _Asked(self, part)
        self.shared.feed(asked)
        return asked.logits
