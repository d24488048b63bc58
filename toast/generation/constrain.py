"""Constraints that constrain: a JSON schema, a regular expression, a grammar or a few choices become
masks over the tokens that may come next, and an answer that comes to its end within its limit.

llguidance's parser says what is allowed; the mask is ours to apply. Knows no model and no text.
"""

from __future__ import annotations

from functools import lru_cache

import mlx.core as mx

from toast.errors import BadInput, ToastError, UsageError
from toast.generation.closing import Closing, Rule
from toast.generation.grammar import Grammar, brief
from toast.generation.json_check import TWICE, JsonRule
from toast.generation.vocabulary import Vocabulary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from toast.generation.tokenizer import Tokenizer

KINDS = ("schema", "regex", "grammar", "choice")
NEAR, SPARE = 512, 64  # tokens to the limit: where an end is first looked for; more than four ends need
TRIES = 8  # tokens that may be refused in one place before a known end is taken
EFFORT, GLANCE, LEAST = 3000, 256, 32  # states that a search looks at: for a first end; for that of one token
LITERALS = 40  # texts of a constraint that a search tries everywhere
AGAIN = 8  # tokens until an end is looked for again where none was found


class Unfinished(ToastError):
    """The answer's limit came before the constraint was satisfied."""


class Constraint:
    """A compiled constraint; `guide(limit)` gives the state of one answer under it.

    kind: one of KINDS. text: what the user gave. size: the number of the model's logits. notes: lines that tell what
    it leaves out. Raises UsageError that names what is wrong or not supported."""

    def __init__(self, tokenizer: Tokenizer, ends: Iterable[int], *, size: int, kind: str, text: str) -> None:
        from llguidance import LLMatcher

        grammar = Grammar(kind, text)
        self.grammar, self.size, self.kind, self.ends = grammar, size, kind, frozenset(ends)
        vocabulary, self.tokens = _vocabulary(tokenizer, self.ends)
        self.limits = _limits() if grammar.large else None
        wrong, told = LLMatcher.validate_grammar_with_warnings(grammar.text, self.tokens, limits=self.limits)
        if wrong:
            raise UsageError(f"--{kind} is not supported as it is: {brief(' '.join(told))}")
        self.notes = grammar.heed(told)
        self.rule = JsonRule(grammar.check, strict=grammar.loose_keys) if grammar.json else Rule()
        literals = [text.encode() for text in grammar.literals[:LITERALS]]
        self.closing = Closing(vocabulary, rule=self.rule, literals=literals)

        self.start = LLMatcher(self.tokens, grammar.text, log_level=0, limits=self.limits)
        self.first: tuple[int, bytes | None] = 0, None

    def guide(self, limit: int) -> Guide:
        return Guide(self, self.start.deep_copy(), limit)

    def least(self, limit: int) -> bytes | None:
        """A short answer, of at most so many tokens; None where none is found."""
        limit, before = min(limit, NEAR), self.first
        if before[1] is None and limit > before[0]:
            self.first = limit, self.closing.find(self.start, limit, memory=self.rule.begin(), effort=EFFORT)
        found = self.first[1]
        return found if found is not None and len(self.closing.fewest(found)) <= limit else None


class Guide:
    """What may come next in one answer: `allowed()`, then `refused(id)` of each choice, `accept(id)` of the last one.

    Where the limit is near, and wherever more than the grammar counts, a token may come only if an end is known after
    it that fits into what is left."""

    idle = False  # it leads to an end
    pressed = False  # its limit took something from the answer, which says less than it would have

    def __init__(self, constraint: Constraint, matcher: Any, limit: int) -> None:
        self.constraint, self.matcher, self.left = constraint, matcher, limit
        self.rule, self.closing = constraint.rule, constraint.closing
        self.memory, self.begun, self.broken = self.rule.begin(), False, False
        self.mask: mx.array | None = None
        self.denied: set[int] = set()
        self.end: bytes | None = None  # a known one from here
        self.ends: dict[int, bytes | None] = {}  # after tokens that were looked at
        # an end is looked for from this many tokens left on; None: it is known all the time
        self.wake: int | None = limit if self.rule.strict else NEAR

    def allowed(self) -> mx.array:
        """(V,) bool."""
        self.denied, self.ends = set(), {}
        self.mask = self._mask() if self.left > 0 else members(self.constraint.ends, self.constraint.size)
        return self.mask

    def _mask(self) -> mx.array:
        view: Any = memoryview(self.matcher.compute_bitmask())
        packed = mx.array(view)
        bits = (packed[:, None] >> mx.arange(8, dtype=mx.uint8)) & 1
        mask = bits.reshape(-1).astype(mx.bool_)[: self.constraint.size]
        return mx.pad(mask, (0, self.constraint.size - mask.size))

    def least(self) -> int:
        """The tokens of a short answer; 0 where none is known."""
        return len(self.closing.fewest(self.constraint.least(self.left) or b""))

    @property
    def watchful(self) -> bool:
        """Whether it may refuse a token that it allows at first."""
        return self.constraint.grammar.json or self.wake is None or self.left <= self.wake

    def refused(self, token: int) -> mx.array | None:
        """None where a token may come; else (V,) bool: what may come in its place."""
        if self.left <= 0:
            return None
        if self.wake is not None and self.left <= self.wake:
            self._look()
        if self._fits(token):
            return None
        self.pressed |= self._is_short(token)
        self.denied.add(token)
        if len(self.denied) >= TRIES and self.end is not None:
            return members(self.closing.fewest(self.end)[:1] or self.constraint.ends, self.constraint.size)
        if len(self.denied) > TRIES:
            return None
        assert self.mask is not None
        return self.mask & ~members(self.denied, self.constraint.size)

    def _look(self) -> None:
        """Look for an end from here, and when to look again, if not before each token."""
        if not self.begun:
            self.end = self.constraint.least(self.left)
        else:
            self.end = self.closing.find(self.matcher, min(self.left, NEAR), memory=self.memory, effort=EFFORT)
        if self.end is None:
            self.wake = max(0, self.left - AGAIN)
            return
        far = 4 * len(self.closing.fewest(self.end)) + SPARE
        self.wake = None if self.rule.strict or self.left <= far else max(far, self.left // 2)

    def _fits(self, token: int) -> bool:
        """Whether the rule allows a token and an end is known after it, if one is known before."""
        if token in self.constraint.ends:
            return self.wake is not None or not self.rule.fault(self.memory)
        text = self.closing.text([token])
        memory = self.rule.add(self.memory, text)
        if memory is None:
            return False
        if self.wake is not None:
            return True
        matcher = self.matcher.deep_copy()
        if not matcher.consume_token(token):
            return True  # its `accept` will tell
        known, most = self.end or b"", self.left - 1
        end = self.closing.tail(matcher, known, memory)
        if end is None or len(self.closing.fewest(end)) > most:
            effort = max(LEAST, GLANCE >> len(self.denied)) if end is None else LEAST
            end = self.closing.find(matcher, most, memory=memory, known=known, effort=effort, first=True)
        self.ends[token] = end
        return end is not None

    def _is_short(self, token: int) -> bool:
        """Whether a token was refused for want of room: of choices one is whole or not there at all."""
        return token in self.ends and not self.rule.strict and self.constraint.kind != "choice"

    def accept(self, token: int) -> None:
        self.left, self.begun = self.left - 1, True
        if self.wake is None:
            self.end = self.ends.get(token)
            if self.end is None and token not in self.constraint.ends:  # nobody had asked
                self.wake = self.left
        memory = self.rule.add(self.memory, self.closing.text([token])) if not self.broken else None
        self.memory, self.broken = self.memory if memory is None else memory, memory is None
        self.matcher.consume_token(token)

    def hurry(self) -> None:
        """Lead to the nearest end from now on."""
        if self.wake is not None:
            self._look()
        if self.end is not None:
            self.left = min(self.left, len(self.closing.fewest(self.end)))
            self.wake = None

    def done(self) -> bool:
        """Nothing more may follow."""
        return self.matcher.is_stopped()

    def check(self) -> None:
        """Raises unless what was accepted satisfies the constraint."""
        if self.matcher.is_error():
            raise Unfinished(f"the constraint failed: {brief(self.matcher.get_error())}")
        if not self.matcher.is_accepting() and self.matcher.stop_reason() not in ("EndOfSentence", "NoExtension"):
            raise Unfinished(
                f"the answer reached its limit before it satisfied --{self.constraint.kind}", "a larger -n"
            )
        fault = TWICE if self.broken else self.rule.fault(self.memory)
        if fault:
            raise BadInput(f"the answer is not valid by --schema: {' '.join(fault.split())[:200]}")


@lru_cache(1)
def _vocabulary(tokenizer: Tokenizer, ends: frozenset[int]) -> tuple[Vocabulary, Any]:
    """The model's, and the engine's of it: as dear as the whole start, and the same for each constraint."""
    from llguidance import LLTokenizer

    found: Any = Vocabulary(tokenizer, ends)
    # slices make a mask 30 us faster, and take longer to make than an answer of thousands of tokens
    return found, LLTokenizer(found, eos_token=sorted(ends), slices=[])


def _limits() -> Any:
    """Of the engine: as much as thousands of choices need."""
    from llguidance import LLParserLimits

    return LLParserLimits(initial_lexer_fuel=10**9, step_lexer_fuel=10**8, max_lexer_states=10**7,
                          max_grammar_size=10**8)  # fmt: skip


def members(ids: Iterable[int], size: int) -> mx.array:
    """(size,) bool: which numbers are among the ids."""
    flags = bytearray(size)
    for i in ids:
        if i < size:
            flags[i] = 1
    view: Any = memoryview(flags)
    return mx.array(view).astype(mx.bool_)
