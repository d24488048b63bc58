"""Token ids in, tokens out: the prompt in pieces, then one token after the other until one ends it.

Knows a model, its caches and a sampler; no tokenizer, no text, no descriptor.
"""

import mlx.core as mx

from toast.sample import Sampler, logprobs

PIECE = 512  # tokens of a prompt that are read at once: bounds the memory of a layer's activations


class Token:
    """A chosen token; `logprob` and `top` [(id, logprob)] where they were asked for."""

    __slots__ = ("id", "logprob", "top")

    def __init__(self, id: int, logprob: float = 0.0, top=()):
        self.id, self.logprob, self.top = id, logprob, top


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

    Iterating gives Tokens, without the one that ended the text. ends: ids that end it. limit: most
    tokens. top: None, or how many alternatives each token comes with. guide: masks what may come
    next (`allowed()`, `accept(id)`, `done()`), None where anything may.
    reason, once it is over: "stop" or "length". ids: what was given; fed: ids now in the caches
    after the prompt's last token.
    """

    def __init__(self, model, caches, sampler: Sampler, ends=(), limit=1 << 30, top=None, guide=None):
        self.model, self.caches, self.sampler = model, caches, sampler
        self.ends, self.limit, self.top, self.guide = frozenset(ends), limit, top, guide
        self.ids, self.fed, self.reason = [], 0, "length"

    def run(self, last: int):
        """Tokens after `last`, the prompt's last token."""
        logits = self._forward(mx.array([[last]]))
        self.fed = 0
        for n in range(self.limit):
            token = self.sampler(logits, self.guide and self.guide.allowed())
            extra = logprobs(logits, token, self.top) if self.top is not None else ()
            following = None
            if self.guide is None and n + 1 < self.limit:  # the next step is under way before we look
                following = self._forward(token[None, None])
            mx.async_eval(token, *extra, *([] if following is None else [following]))
            chosen = Token(token.item(), *_plain(*extra))
            self.fed += following is not None
            if chosen.id in self.ends:
                self.reason = "stop"
                return
            self.ids.append(chosen.id)
            yield chosen
            if self.guide is not None:
                self.guide.accept(chosen.id)
                if self.guide.done():
                    self.reason = "stop"
                    return
                following = self._forward(token[None, None])
                mx.async_eval(following)  # while the guide finds out what it may be
                self.fed += 1
            logits = following

    def _forward(self, ids: mx.array) -> mx.array:
        """ids (1, L) -> logits of the last (V,)."""
        return self.model(ids, cache=self.caches)[0, -1]


def _plain(logprob=None, ids=None, values=None):
    if logprob is None:
        return 0.0, ()
    return logprob.item(), list(zip(ids.tolist(), values.tolist()))
