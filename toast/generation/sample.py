"""Logits to a token: greedy, or drawn after temperature, top-k, top-p and min-p, from a fixed seed.

Knows one row of logits and the tokens seen so far; does not know models or texts.
"""

from __future__ import annotations

import mlx.core as mx

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.generation.generate import Sequence

# DRY: so many repeated tokens are free, the loss grows so much for each further one, up to so many
DRY_ALLOWED, DRY_BASE, DRY_LONGEST = 4, 1.75, 16
COLDEST = 1e-5  # under it only the best token is ever drawn, and logits divided by it can overflow


class Sampler:
    """Chooses tokens for one text; the same seed and logits give the same tokens.

    temperature: 0, or as good as 0, is greedy. top_k: 0 is off. top_p: the smallest set of tokens that holds this
    much probability (Holtzman et al. 2020). min_p: tokens less likely than this share of the best
    are out (Nguyen et al. 2024). repeat_penalty: logits of the tokens seen so far, prompt included,
    are divided by it, or multiplied where negative (Keskar et al. 2019). The order is transformers':
    penalty, temperature, top-k, top-p, min-p.

    dry: what a token that would repeat the text loses, times DRY_BASE for each further token that it would repeat (DRY,
    p-e-w 2024); 0 is off. What the prompt says already may be said again. end: each time the likeliest token would
    repeat the text, the tokens that end it gain this much for good: who repeats himself has nothing more to say.
    """

    def __init__(
        self, *, temperature: float = 0.0, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0,
        repeat_penalty: float = 1.0, dry: float = 0.0, end: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        self.temperature = temperature if temperature > COLDEST else 0.0
        self.top_p, self.top_k, self.min_p = top_p, top_k, min_p
        self.repeat_penalty = repeat_penalty
        self.seen: mx.array | None = None
        self.key = mx.random.key(seed) if self.temperature > 0 else None
        self.dry, self.end = dry, end
        self.sequence: Sequence | None = None
        self.prompt: list[int] = []
        self.said: set[tuple[int, ...]] | None = None  # runs of the prompt, made when they are first needed
        self.pressure: mx.array | None = None  # what the ends have gained
        self.before: tuple[int, mx.array | None] = -1, None  # the same before the token at this place
        self.logit: mx.array = mx.array(0.0)  # of the last token: NaN or infinite where the model's numbers are

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn: what may be drafted."""
        return self.temperature <= 0 and self.repeat_penalty == 1.0

    def begin(self, ids: list[int], sequence: Sequence | None = None) -> None:
        """The prompt and the text that follows it, for the penalties."""
        self.prompt, self.sequence = ids, sequence
        self.seen = mx.array(ids, mx.int32) if self.repeat_penalty != 1.0 else None

    def takes_best(self) -> bool:
        """Whether the next token is the best logit and nothing else."""
        return self.is_greedy and self.pressure is None and not self._repeating()

    def __call__(
        self, logits: mx.array, allowed: mx.array | None = None, *,
        refused: Callable[[int], mx.array | None] | None = None,
    ) -> mx.array:  # fmt: skip
        """logits (V,), allowed (V,) bool or None -> token () uint32, not yet evaluated unless it may be refused.

        refused(id): what is allowed in the place of a token that was chosen; None where it may stay."""
        if self.seen is not None:
            logits = self._penalised(logits)
        if self.dry and allowed is None:
            logits = self._without_repeating(logits)
        token = self._chosen(logits, allowed)
        while refused is not None:
            id: Any = token.item()
            if (allowed := refused(id)) is None:
                break
            token = self._chosen(logits, allowed)
        if self.seen is not None:
            self.seen = mx.concatenate([self.seen, token.astype(mx.int32)[None]])
        return token

    def _chosen(self, logits: mx.array, allowed: mx.array | None) -> mx.array:
        if allowed is not None:
            logits = mx.where(allowed, logits, -mx.inf)
        if self.temperature > 0:
            token, logits = self._drawn(logits.astype(mx.float32))
        else:
            token = mx.argmax(logits)
        self.logit = logits[token] if allowed is None else mx.where(mx.any(allowed), logits[token], 0.0)
        return token

    def _penalised(self, logits: mx.array) -> mx.array:
        values = logits[self.seen]
        factor = mx.where(values > 0, 1 / self.repeat_penalty, self.repeat_penalty)
        logits = mx.array(logits)
        logits[self.seen] = values * factor.astype(values.dtype)
        return logits

    def _repeating(self) -> dict[int, float]:
        """Token that would repeat the text -> what it loses."""
        if not (self.dry and self.sequence):
            return {}
        repetition = self.sequence.repetition
        found = repetition.continuations(DRY_ALLOWED)
        if not found:
            return {}
        if self.said is None:
            size = DRY_ALLOWED + 1
            self.said = {tuple(self.prompt[i : i + size]) for i in range(len(self.prompt) - size + 1)}
        last = tuple(repetition.ids[-DRY_ALLOWED:])
        return {
            id: self.dry * DRY_BASE ** min(run - DRY_ALLOWED, DRY_LONGEST)
            for id, run in found.items()
            if (*last, id) not in self.said
        }

    def _without_repeating(self, logits: mx.array) -> mx.array:
        place = len(self.sequence.ids) if self.sequence else 0
        if place != self.before[0]:
            self.before = place, self.pressure
        self.pressure, losses = self.before[1], self._repeating()
        ids = mx.array(list(losses), mx.int32) if losses else None
        if ids is not None and self.end:
            wanted = mx.any(mx.argmax(logits) == ids)
            self.pressure = (0.0 if self.pressure is None else self.pressure) + wanted * self.end
        if ids is None and self.pressure is None:
            return logits
        logits = mx.array(logits)
        if self.pressure is not None and self.sequence and self.sequence.ends:
            ends = mx.array(sorted(self.sequence.ends), mx.int32)
            logits[ends] = logits[ends] + self.pressure.astype(logits.dtype)
        if ids is not None:
            logits[ids] = logits[ids] - mx.array(list(losses.values())).astype(logits.dtype)
        return logits

    def _drawn(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """(token, logits that it was drawn from)."""
        assert self.key is not None
        self.key, key = mx.random.split(self.key)
        logits = logits / self.temperature
        if self.top_k > 0 and self.top_k < logits.size:
            least = mx.min(mx.topk(logits, self.top_k))
            logits = mx.where(logits < least, -mx.inf, logits)
        if self.top_p < 1.0:
            logits = _nucleus(logits, self.top_p)
        if self.min_p > 0.0:
            logits = mx.where(logits < mx.max(logits) + mx.log(mx.array(self.min_p)), -mx.inf, logits)
        return mx.random.categorical(logits, key=key), logits


def _nucleus(logits: mx.array, top_p: float) -> mx.array:
    """Keep the likeliest tokens until they hold top_p; always at least one."""
    order = mx.argsort(-logits)
    shares = mx.softmax(logits[order])
    before = mx.cumsum(shares) - shares
    kept = mx.where(before < max(top_p, 1e-9), logits[order], -mx.inf)
    out = mx.zeros_like(logits)
    out[order] = kept
    return out


def logprobs(logits: mx.array, token: mx.array, k: int = 0) -> tuple[mx.array, ...]:
    """Of logits (V,): (logprob of the token (), ids (k,), their logprobs (k,)), best first; k at most V."""
    k = min(k, logits.size)
    values = logits.astype(mx.float32)
    values = values - mx.logsumexp(values)
    if not k:
        return values[token], mx.zeros((0,), mx.uint32), mx.zeros((0,))
    ids = mx.argpartition(-values, k - 1)[:k]
    ids = ids[mx.argsort(-values[ids])]
    return values[token], ids, values[ids]
