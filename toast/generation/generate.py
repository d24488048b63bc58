"""Token ids in, tokens out: the prompt in pieces, then one token after the other until one ends it.

Knows a model, its caches and a sampler; no tokenizer, no text, no descriptor.
"""

from time import perf_counter

import mlx.core as mx

from toast.generation.sample import Sampler, logprobs

PIECE = 512  # tokens of a prompt that are read at once: bounds the memory of a layer's activations
STEP = 256  # positions that a cache grows by, MLX-LM's KVCache and ours


class Token:
    """A chosen token; `logprob` and `top` [(id, logprob)] where they were asked for."""

    __slots__ = ("id", "logprob", "top")

    def __init__(self, id: int, logprob: float = 0.0, top=()):
        self.id, self.logprob, self.top = id, logprob, top


def is_plain(caches) -> bool:
    """Whether the caches are keys and values that can be cut anywhere and put beside others."""
    return all(type(cache).__name__ == "KVCache" for cache in caches)


def read(model, caches, ids, watch=None) -> None:
    """Put the ids into the caches; `watch(n)` hears after each piece how many were read."""
    for at in range(0, len(ids), PIECE):
        piece = ids[at : at + PIECE]
        model(mx.array([piece]), cache=caches)  # its logits are never computed
        mx.eval([cache.state for cache in caches])
        if watch:
            watch(len(piece))


class Generation:
    """The tokens that follow a prompt whose last token is not in the caches yet.

    ends: ids that end it. limit: most tokens. top: None, or how many alternatives each token comes
    with. guide: masks what may come next (`allowed()`, `accept(id)`, `done()`), None where anything
    may. drafter: guesses that are checked many at once (Leviathan et al. 2023); only for a plain
    sampler and caches that can be trimmed, and the tokens are the same without it.
    reason, once it is over: "stop" or "length". ids: what was given; fed: ids now in the caches
    after the prompt's last token.
    """

    def __init__(self, model, caches, sampler: Sampler, ends=(), limit=1 << 30, top=None, guide=None, drafter=None):
        self.model, self.caches, self.sampler = model, caches, sampler
        self.ends, self.limit, self.top = frozenset(ends), limit, top
        self.guide, self.drafter = guide, drafter
        self.ids, self.fed, self.reason = [], 0, None

    def run(self, last: int):
        """Tokens after `last`, the prompt's last token; the one that ends the text is not among them."""
        logits = self._forward(mx.array([[last]]))[-1]
        self.fed = 0
        while self.reason is None:
            began = perf_counter()
            guess = self.drafter.guess() if self.drafter else []
            token = self.sampler(logits, self.guide and self.guide.allowed())
            extra = logprobs(logits, token, self.top) if self.top is not None else ()
            following = None
            if self.guide is None and not guess and len(self.ids) + 1 < self.limit:
                following = self._forward(token[None, None])[-1]  # under way before we look
                self.fed += 1
            mx.async_eval(token, *extra, *([] if following is None else [following]))
            chosen, right = Token(token.item(), *_plain(*extra)), []
            if not self._take(chosen.id):
                return
            sound = bool(guess) and chosen.id == guess[0] and self.reason is None
            if sound:
                right, following = self._check(guess)
            elif following is None and self.reason is None:
                following = self._forward(token[None, None])[-1]
                mx.async_eval(following)  # while the guide finds out what it may be
                self.fed += 1
            if self.drafter:
                self.drafter.took(perf_counter() - began, guess, len(right) if sound else None)
            yield chosen
            for id in right:
                if not self._take(id):
                    return
                yield Token(id)
            logits = following

    def _take(self, id: int) -> bool:
        """Note a token; False when it ends the text and is not part of it."""
        if id in self.ends:
            self.reason = "stop"
            return False
        self.ids.append(id)
        if self.drafter:
            self.drafter.add(id)
        if self.guide is not None:
            self.guide.accept(id)
        if self.guide is not None and self.guide.done():
            self.reason = "stop"
        elif len(self.ids) >= self.limit:
            self.reason = "length"
        return True

    def _check(self, guess: list[int]) -> tuple[list[int], mx.array]:
        """Feed guesses, of which the first is known to be right; (those right after it, next logits)."""
        guess = guess[: self.limit - len(self.ids) + 1]
        rows = self._forward(mx.array([guess]))
        best = mx.argmax(rows, axis=-1).tolist()
        right = 0
        while right + 1 < len(guess) and guess[right + 1] == best[right]:
            right += 1
        for cache in self.caches:
            cache.trim(len(guess) - 1 - right)
        self.fed += right + 1
        return best[:right], rows[right]

    def _forward(self, ids: mx.array) -> mx.array:
        """ids (1, L) -> logits (L, V)."""
        return self.model(ids, cache=self.caches)[0]


def _plain(logprob=None, ids=None, values=None):
    if logprob is None:
        return 0.0, ()
    return logprob.item(), list(zip(ids.tolist(), values.tolist()))
