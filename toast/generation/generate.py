"""Token ids in, tokens out: the prompt in pieces, then one token after the other until one ends it.

Owns when a text is over (`Sequence`) and the decoding loop of a single text, with speculative decoding. Knows a
model, its caches and a sampler; no tokenizer, no text, no descriptor.
"""

from __future__ import annotations

from math import isfinite
from time import perf_counter

import mlx.core as mx

from toast.cancel import checkpoint
from toast.errors import BadModel, not_numbers, told
from toast.generation import device
from toast.generation.repetition import Repetition
from toast.generation.sample import Sampler, logprobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from toast.generation.constrain import Guide
    from toast.generation.prompt_lookup import Drafter
    from toast.generation.reasoning import AfterReasoning

    Top = list[tuple[int, float]]  # (id, log-probability) of alternatives, best first

STEP = 256  # positions that a cache grows by, MLX-LM's KVCache and ours


class Token:
    """A chosen token; `logprob` and `top` where they were asked for."""

    __slots__ = ("id", "logprob", "top")

    def __init__(self, id: int, logprob: float = 0.0, top: Top | tuple = ()) -> None:
        self.id, self.logprob, self.top = id, logprob, top


def common_prefix(a: list[Any], b: list[Any]) -> int:
    """How many ids, or other things, two lists begin with alike."""
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))


def has_kv_caches(caches: list[Any]) -> bool:
    """Whether all caches are keys and values, which can be cut anywhere and put beside others."""
    return all(type(cache).__name__ == "KVCache" for cache in caches)


def can_trim(caches: list[Any]) -> bool:
    """Whether all caches can forget their last rows, and leave no trace of them."""
    return all(type(cache).__name__ in ("KVCache", "QuantizedKV") for cache in caches)


def forward(model: Any, ids: mx.array, caches: list[Any]) -> mx.array:
    """ids (B, L) -> logits (B, L, V), not yet computed; BadModel where settings make what MLX-LM's code cannot do."""
    try:
        return model(ids, cache=caches)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise BadModel(f"the model's config.json does not fit its weights: {told(error)}") from error


def prefill(model: Any, caches: list[Any], ids: list[int], *, watch: Callable[[int], object] | None = None) -> None:
    """Put the ids into the caches; `watch(n)` hears after each piece how many were read."""
    read = getattr(model, "read", None)  # a Seat's knows how much is good for others
    while ids:
        checkpoint()
        count = read(caches, ids) if read else prefill_piece(model, caches, ids)
        ids = ids[count:]
        if watch:
            watch(count)


def prefill_piece(model: Any, caches: list[Any], ids: list[int]) -> int:
    """Put some of the ids into the caches; how many."""
    piece = ids[: device.piece()]
    forward(model, mx.array([piece]), caches)  # its logits are never computed
    mx.eval([cache.state for cache in caches])
    device.tidy()
    return len(piece)


def begun(model: Any, caches: list[Any]) -> list[Any]:
    """New caches as they are after a token, whose values are never computed: they tell shapes and types."""
    forward(model, mx.array([[0]]), caches)
    return caches


class Sequence:
    """The tokens of one text as they come, and when it is over: the one rule of every decoding loop.

    ends: ids that end it. limit: most tokens. guide: what may come next (constrain.py), None where anything may.
    loop_stop: a text that only repeats itself is over, too; under a guide, which then hurries to an end.
    reason, once it is over: "stop", "length" (a guide's text, too, that its limit made shorter) or "loop".
    """

    def __init__(
        self, ends: Iterable[int] = (), limit: int = 1 << 30, guide: Guide | AfterReasoning | None = None, *,
        loop_stop: bool = True,
    ) -> None:  # fmt: skip
        self.ends, self.limit, self.guide, self.loop_stop = frozenset(ends), limit, guide, loop_stop
        self.repetition = Repetition()
        self.reason: str | None = None

    @property
    def ids(self) -> list[int]:
        """The tokens so far."""
        return self.repetition.ids

    @property
    def kept(self) -> int:
        """How many of the tokens are the text: all, but for the repeated copies that ended it."""
        return len(self.ids) - (self.repetition.repeated if self.reason == "loop" else 0)

    def choose(self, sampler: Sampler, logits: mx.array) -> mx.array:
        """logits (V,) -> the token () that the sampler chooses of those that may come next."""
        if self.guide is None:
            return sampler(logits)
        allowed = self.guide.allowed()
        return sampler(logits, allowed, refused=self.guide.refused if self.guide.watchful else None)

    def take(self, id: int) -> bool:
        """Note a token; False when it ends the text and is not part of it."""
        if id in self.ends:
            self.reason = self._ended()
            return False
        self.repetition.add(id)
        if self.guide is not None:
            self.guide.accept(id)
        if self.guide is not None and self.guide.done():
            self.reason = self._ended()
        elif len(self.ids) >= self.limit:
            self.reason = "length"
        elif self.loop_stop and self.repetition.is_cycle:
            self._break_out()
        return True

    def _ended(self) -> str:
        """Why a text is over whose end has come."""
        return "length" if self.guide is not None and self.guide.pressed else "stop"

    def _break_out(self) -> None:
        if self.guide is None or self.guide.idle:
            self.reason = "loop"
        else:
            self.guide.hurry()

    def stop(self) -> None:
        """End the text here: its reader has what it wants."""
        self.reason = "stop"


class Generation:
    """The tokens that follow a prompt whose last token is not in the caches yet, or one that was read to its end.

    top: None, or how many alternatives each token comes with. drafter: guesses that are verified many at once
    (speculative decoding, Leviathan et al. 2023); only for a greedy sampler and caches that can be trimmed, and the
    tokens are the same without it. fed: ids now in the caches after the prompt's last token. name: the model's, for
    BadModel where its logits are not numbers: argmax takes a NaN for the largest, so the chosen token's tells.
    """

    def __init__(
        self, model: Any, caches: list[Any], sampler: Sampler, *,
        sequence: Sequence | None = None, top: int | None = None, drafter: Drafter | None = None,
        name: str = "the model",
    ) -> None:  # fmt: skip
        self.model, self.caches, self.sampler, self.name = model, caches, sampler, name
        self.sequence = sequence or Sequence()
        self.top, self.drafter, self.fed = top, drafter, 0
        self.first: mx.array | None = None  # the logits after the prompt, where it was read to its end

    def run(self, last: int) -> Iterator[Token]:
        """Tokens after `last`, the prompt's last token; the one that ends the text is not among them."""
        sequence = self.sequence
        logits = self._forward(mx.array([[last]]))[-1] if self.first is None else self.first
        self.first, self.fed = None, 0
        while sequence.reason is None:
            checkpoint()
            # 1) choose a token, and compute what may follow it before anybody looks at it
            began = perf_counter()
            alone = getattr(self.model, "alone", True)  # a Seat's: beside others, who fare better without guesses
            draft = self.drafter.draft() if self.drafter and alone else []
            token = sequence.choose(self.sampler, logits)
            extra = logprobs(logits, token, self.top) if self.top is not None else ()
            following, logit = None, self.sampler.logit
            mx.async_eval(token, logit, *extra)
            if sequence.guide is None and alone and not draft and len(sequence.ids) + 1 < sequence.limit:
                following = self._step(token)
                mx.async_eval(following)  # apart: all that one call computes is there when the last of it is
            chosen = resolved(token, *extra)
            check(self.name, logit)
            if not self._take(chosen.id):
                return
            # 2) verify the draft, whose first token is the chosen one or all is wrong; or take the step now
            accepted: list[int] = []
            right = bool(draft) and chosen.id == draft[0] and sequence.reason is None
            if right:
                accepted, following, whole = self._verify(draft)
                if not whole:
                    yield from map(Token, [chosen.id, *accepted])
                    return
            elif following is None and sequence.reason is None:
                following = self._step(token)
                mx.async_eval(following)  # while the guide finds out what it may be
            if self.drafter and alone:
                self.drafter.learn(perf_counter() - began, draft, len(accepted) if right else None)
            # 3) hand them on
            yield chosen
            for n, id in enumerate(accepted):
                if sequence.reason == "stop":  # the reader has what it wants
                    del sequence.ids[len(sequence.ids) - len(accepted) + n :]
                    return
                yield Token(id)
            if following is not None:
                logits = following
            if len(sequence.ids) % device.OFTEN == 0:
                device.tidy()

    def leave(self) -> None:
        """The text is over, and its seat free where others share the model."""
        if leave := getattr(self.model, "leave", None):
            leave()

    def _take(self, id: int) -> bool:
        part = self.sequence.take(id)
        if part and self.drafter:
            self.drafter.add(id)
        return part

    def _verify(self, draft: list[int]) -> tuple[list[int], mx.array, bool]:
        """Feed a draft, the first of which is known to be right; (tokens taken after it, the logits that follow them,
        whether they do not end the text)."""
        draft = draft[: self.sequence.limit - len(self.sequence.ids) + 1]
        rows = self._forward(mx.array([draft]))
        tokens, logits = best_of(rows)
        mx.eval(tokens, logits)
        check(self.name, logits)
        best: Any = tokens.tolist()
        accepted: list[int] = []
        whole = True
        for n, drafted in enumerate(draft[1:]):
            id: Any = best[n] if self.sampler.takes_best() else self.sampler(rows[n]).item()
            if id != drafted or self.sequence.reason:
                break
            if not (whole := self._take(id)):
                break
            accepted.append(id)
        for cache in self.caches:
            cache.trim(len(draft) - 1 - len(accepted))
        self.fed += len(accepted) + 1
        return accepted, rows[len(accepted)], whole

    def _step(self, token: mx.array) -> mx.array:
        """token () -> the logits (V,) that follow it."""
        self.fed += 1
        return self._forward(token[None, None])[-1]

    def _forward(self, ids: mx.array) -> mx.array:
        """ids (1, L) -> logits (L, V)."""
        return forward(self.model, ids, self.caches)[0]


def check(name: str, logits: mx.array) -> None:
    """BadModel unless these logits of chosen tokens are all numbers."""
    found: Any = logits.tolist()
    if not all(map(isfinite, found if isinstance(found, list) else [found])):
        raise not_numbers(name)


def best_of(rows: mx.array) -> tuple[mx.array, mx.array]:
    """Logits (N, V) -> the best token of each row (N,), and its logit (N,)."""
    best = mx.argmax(rows, axis=-1)
    return best, mx.take_along_axis(rows, best[:, None], axis=-1)[:, 0]


def resolved(token: mx.array, *extra: mx.array) -> Token:
    """The Token of a sampler's token () and of what `logprobs` gave for it, once they are computed."""
    id: Any = token.item()
    if not extra:
        return Token(id)
    logprob: Any = extra[0].item()
    ids: Any = extra[1].tolist()
    values: Any = extra[2].tolist()
    return Token(id, logprob, list(zip(ids, values, strict=True)))
