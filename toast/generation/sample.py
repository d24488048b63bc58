"""Logits to a token: greedy, or drawn after temperature, top-k, top-p and min-p, from a fixed seed.

Knows one row of logits and the tokens seen so far; does not know models or texts.
"""

from __future__ import annotations

import mlx.core as mx

COLDEST = 1e-5  # under it only the best token is ever drawn, and logits divided by it can overflow


class Sampler:
    """Chooses tokens for one text; the same seed and logits give the same tokens.

    temperature: 0, or as good as 0, is greedy. top_k: 0 is off. top_p: the smallest set of tokens that holds this
    much probability (Holtzman et al. 2020). min_p: tokens less likely than this share of the best
    are out (Nguyen et al. 2024). repeat_penalty: logits of the tokens seen so far, prompt included,
    are divided by it, or multiplied where negative (Keskar et al. 2019). The order is transformers':
    penalty, temperature, top-k, top-p, min-p.
    """

    def __init__(
        self, *, temperature: float = 0.0, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0,
        repeat_penalty: float = 1.0, seed: int = 0,
    ) -> None:  # fmt: skip
        self.temperature = temperature if temperature > COLDEST else 0.0
        self.top_p, self.top_k, self.min_p = top_p, top_k, min_p
        self.repeat_penalty = repeat_penalty
        self.seen: mx.array | None = None
        self.key = mx.random.key(seed) if self.temperature > 0 else None

    @property
    def is_greedy(self) -> bool:
        """Whether the token is the best logit and nothing else: what may be drafted."""
        return self.temperature <= 0 and self.repeat_penalty == 1.0

    def begin(self, ids: list[int]) -> None:
        """The prompt, for the repeat penalty."""
        self.seen = mx.array(ids, mx.int32) if self.repeat_penalty != 1.0 else None

    def __call__(self, logits: mx.array, allowed: mx.array | None = None) -> mx.array:
        """logits (V,), allowed (V,) bool or None -> token () uint32, not yet evaluated."""
        if self.seen is not None:
            logits = self._penalised(logits)
        if allowed is not None:
            logits = mx.where(allowed, logits, -mx.inf)
        token = mx.argmax(logits) if self.temperature <= 0 else self._drawn(logits.astype(mx.float32))
        if self.seen is not None:
            self.seen = mx.concatenate([self.seen, token.astype(mx.int32)[None]])
        return token

    def _penalised(self, logits: mx.array) -> mx.array:
        values = logits[self.seen]
        factor = mx.where(values > 0, 1 / self.repeat_penalty, self.repeat_penalty)
        logits = mx.array(logits)
        logits[self.seen] = values * factor.astype(values.dtype)
        return logits

    def _drawn(self, logits: mx.array) -> mx.array:
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
        return mx.random.categorical(logits, key=key)


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
