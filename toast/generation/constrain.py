"""Constraints that constrain: a JSON schema, a regular expression, a grammar or a few choices become
masks over the tokens that may come next.

llguidance's parser says what is allowed; the mask is ours to apply. Knows no model and no text.
"""

from __future__ import annotations

import json

import mlx.core as mx

from toast.errors import ToastError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from toast.generation.tokenizer import Tokenizer

KINDS = ("schema", "regex", "grammar", "choice")
# one spelling of the blanks: with free ones, a small model may write blanks until its limit
COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Unfinished(ToastError):
    """The answer's limit came before the constraint was satisfied."""


class Constraint:
    """A compiled constraint; `guide(limit)` gives the state of one answer under it.

    kind: one of KINDS. text: what the user gave. size: the number of the model's logits.
    Raises UsageError that names what is wrong or not supported."""

    def __init__(self, tokenizer: Tokenizer, ends: Iterable[int], *, size: int, kind: str, text: str) -> None:
        from llguidance import LLMatcher, LLTokenizer

        self.grammar = _grammar(LLMatcher, kind, text)
        self.tokens = LLTokenizer(tokenizer.core.to_str(), eos_token=sorted(ends))
        self.size, self.kind, self.ends = size, kind, ends
        wrong, told = LLMatcher.validate_grammar_with_warnings(self.grammar, self.tokens)
        if wrong or told:
            raise UsageError(f"--{kind} is not supported as it is: {_brief(' '.join(told))}")
        self.closing = self._closing(tokenizer)

    def guide(self, limit: int) -> Guide:
        from llguidance import LLMatcher

        return Guide(self, LLMatcher(self.tokens, self.grammar, log_level=0), limit)

    def _closing(self, tokenizer: Tokenizer) -> list[mx.array]:
        """Tokens that bring a text to its end, in the order in which to prefer them."""
        groups: list[set[int]] = [set(self.ends), set(), set(), set(), set()]
        for token, i in tokenizer.core.get_vocab().items():
            text = token.replace("Ġ", "").replace("▁", "")
            if text and not text.strip("]}"):
                groups[1].add(i)
            elif text[:1] == '"' and text[1:] and not text[1:].strip("]}"):
                groups[2].add(i)
            elif text and not text.strip('",:'):
                groups[3 if text == '"' else 4].add(i)
        self.letter, self.quote = tokenizer.id("a"), tokenizer.id('"')
        return [members(group, self.size) for group in groups]


class Guide:
    """What may come next in one answer: `allowed()` before each token, `accept(id)` after it."""

    idle = False  # it leads to an end

    def __init__(self, constraint: Constraint, matcher: Any, limit: int) -> None:
        self.constraint, self.matcher = constraint, matcher
        self.left, self.hurry_at = limit, max(limit // 4, min(limit // 2, 32))

    def allowed(self) -> mx.array:
        """(V,) bool. Near the limit only what closes the text, as long as anything does."""
        mask = self._mask()
        if self.left > self.hurry_at:
            return mask
        letter, quote = self.constraint.letter, self.constraint.quote
        groups = self.constraint.closing
        if letter is not None and quote is not None and mask[letter].item():  # inside a string
            groups = [groups[0], members([quote], mask.size)]
        for group in groups:
            narrowed = mask & group
            if mx.any(narrowed).item():
                return narrowed
        return mask

    def _mask(self) -> mx.array:
        view: Any = memoryview(self.matcher.compute_bitmask())
        packed = mx.array(view)
        bits = (packed[:, None] >> mx.arange(8, dtype=mx.uint8)) & 1
        mask = bits.reshape(-1).astype(mx.bool_)[: self.constraint.size]
        return mx.pad(mask, (0, self.constraint.size - mask.size))

    def accept(self, token: int) -> None:
        self.left -= 1
        self.matcher.consume_token(token)

    def hurry(self) -> None:
        """From now on only what closes the text, as long as anything does."""
        self.hurry_at = self.left

    def done(self) -> bool:
        """Nothing more may follow."""
        return self.matcher.is_stopped()

    def check(self) -> None:
        """Raises Unfinished unless what was accepted satisfies the constraint."""
        if self.matcher.is_error():
            raise Unfinished(f"the constraint failed: {_brief(self.matcher.get_error())}")
        if not self.matcher.is_accepting() and self.matcher.stop_reason() not in ("EndOfSentence", "NoExtension"):
            raise Unfinished(
                f"the answer reached its limit before it satisfied --{self.constraint.kind}", "a larger -n"
            )


def _brief(told: str) -> str:
    """The parser's message in a line; the dump of its state and the whole grammar may follow."""
    told = " ".join(told.partition("<state>")[0].partition("<grammar>")[0].split())
    return told if len(told) <= 200 else f"{told[:200]}..."


def _grammar(matcher: Any, kind: str, text: str) -> str:
    if kind == "regex":
        return matcher.grammar_from_regex(text)
    if kind == "grammar":
        return matcher.grammar_from_lark(text)
    if kind == "choice":
        choices = [choice for choice in text.split(",") if choice]
        if not choices:
            raise UsageError("--choice needs words: --choice yes,no")
        return matcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, choices)))
    try:
        schema = json.loads(text)
    except RecursionError:
        raise UsageError("--schema is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"--schema is not JSON: {error}") from None
    if not isinstance(schema, (dict, bool)):
        raise UsageError("--schema is not a JSON schema: neither an object nor true or false")
    try:
        return matcher.grammar_from_json_schema(json.dumps(schema), overrides=COMPACT)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--schema is not supported as it is: {_brief(str(error))}") from None


def members(ids: Iterable[int], size: int) -> mx.array:
    """(size,) bool: which numbers are among the ids."""
    flags = bytearray(size)
    for i in ids:
        if i < size:
            flags[i] = 1
    view: Any = memoryview(flags)
    return mx.array(view).astype(mx.bool_)
