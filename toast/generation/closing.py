"""The shortest end: few tokens that bring a text under a constraint to where it may stop.

A bounded search over copies of the engine's matcher, cheapest first. A state is known by the tokens that may follow it:
of states alike, few are followed. Knows the engine and bytes; no model, no limit of an answer.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

BEAM = 12  # states of one cost that are followed
FEW = 16  # so many ways on are all tried; of more, one of each sort of character
ALIKE = 2  # states with the same tokens that are followed: the shortest and the longest text
CLOSERS = re.compile(rb"""["'\]})> ]+""")
SORTS = (b"a", b"A", b"0")  # one letter or digit stands for its sort where many may come
LONGEST = 24  # bytes of a token, at most, that a text is split into


class State:
    """A place in the search: `text` leads to it, of `cost` tokens; memory: what the rule remembers of all before."""

    __slots__ = ("cost", "matcher", "memory", "text")

    def __init__(self, matcher: Any, memory: Any, text: bytes = b"", cost: int = 0) -> None:
        self.matcher, self.memory, self.text, self.cost = matcher, memory, text, cost


class Rule:
    """What counts besides the grammar: nothing here. A memory is of one text; it is replaced, never changed."""

    strict = False  # whether it may fail for more than a mistake that `add` finds

    def begin(self) -> Any:
        """The memory of an empty text."""
        return ()

    def add(self, memory: Any, text: bytes) -> Any:
        """The memory after more of the text; None where the text can no longer become right."""
        return memory

    def holds(self, memory: Any) -> bool:
        """Whether a text that the grammar accepts is right."""
        return True


class Closing:
    """Shortest ends over a vocabulary. tokens: bytes of each id; ends: ids that are no text; literals: texts to try."""

    def __init__(self, tokens: list[bytes], ends: Iterable[int], *, rule: Rule, literals: Iterable[bytes] = ()) -> None:
        self.tokens, self.ends, self.rule = tokens, frozenset(ends), rule
        self._splits = lru_cache(64)(self._split)
        self.alike = 2 * ALIKE if rule.strict else ALIKE
        self.literals = [ids for ids in map(self.fewest, literals) if ids]

    @cached_property
    def ids(self) -> dict[bytes, int]:
        return {text: i for i, text in enumerate(self.tokens) if text and i not in self.ends}

    @cached_property
    def _groups(self) -> dict[int, list[int]]:
        """First byte -> the tokens that begin with it, the longest first."""
        found: dict[int, list[int]] = {}
        for i in sorted(self.ids.values(), key=lambda i: -len(self.tokens[i])):
            found.setdefault(self.tokens[i][0], []).append(i)
        return found

    @cached_property
    def _singles(self) -> int:
        return _flags(i for text, i in self.ids.items() if len(text) == 1)

    @cached_property
    def _closers(self) -> int:
        return _flags(i for text, i in self.ids.items() if CLOSERS.fullmatch(text))

    @cached_property
    def _words(self) -> list[int]:
        return [self.ids[text] for text in (b"null", b"true", b"false") if text in self.ids]

    def fewest(self, text: bytes) -> list[int]:
        """The fewest tokens that spell a text; none where no tokens do."""
        return self._splits(text)[0] or []

    def _split(self, text: bytes) -> list[list[int] | None]:
        """Of each suffix of a text, the fewest tokens that spell it."""
        found: list[list[int] | None] = [[]]
        for at in range(len(text) - 1, -1, -1):
            best: list[int] | None = None
            for stop in range(min(len(text), at + LONGEST), at, -1):
                id = self.ids.get(text[at:stop])
                rest = found[len(text) - stop] if id is not None else None
                if id is not None and rest is not None and (best is None or len(rest) + 1 < len(best)):
                    best = [id, *rest]
            found.append(best)
        return found[::-1]

    def tail(self, matcher: Any, known: bytes, memory: Any) -> bytes | None:
        """The shortest suffix of a known end that is one from here; None: none is."""
        found = self._tail(matcher, self._splits(known), memory)
        return known[len(known) - len(found) :] if found is not None else None

    def _tail(self, matcher: Any, splits: list[list[int] | None], memory: Any) -> bytes | None:
        for ids in reversed(splits):
            if ids is None:
                continue
            took = matcher.try_consume_tokens(ids)
            right = took == len(ids) and matcher.is_accepting()
            matcher.rollback(took)
            if right:
                text = self.text(ids)
                after = self.rule.add(memory, text)
                if after is not None and self.rule.holds(after):
                    return text
        return None

    def text(self, ids: Iterable[int]) -> bytes:
        return b"".join(self.tokens[i] for i in ids if i < len(self.tokens))

    def find(self, matcher: Any, most: int, *, memory: Any, known: bytes = b"", effort: int = 1500) -> bytes | None:
        """A short end of at most so many tokens; None where none is found.

        known: the end of a place nearby. effort: states that are looked at."""
        splits = self._splits(known)
        waiting: dict[int, list[State]] = {0: [State(matcher.deep_copy(), memory)]}
        best: bytes | None = None
        cost, bound, seen = 0, most, set[bytes]()
        while cost <= bound and effort > 0:
            for state, mask in self._sifted(waiting.pop(cost, []), seen):
                effort -= 1
                tail = self._tail(state.matcher, splits, state.memory)
                if tail is not None and len(ids := self.fewest(state.text + tail)) <= bound:
                    best, bound = state.text + tail, len(ids) - 1
                    continue
                for after in self._next(state, mask):
                    if after.cost <= bound:
                        waiting.setdefault(after.cost, []).append(after)
            cost += 1
        return best

    def _sifted(self, states: list[State], seen: set[bytes]) -> list[tuple[State, bytes]]:
        """The states that are followed, with the tokens that may come next: those that are new first."""
        alike: dict[bytes, list[State]] = {}
        for state in states:
            stopped = state.matcher.is_stopped()
            alike.setdefault(b"" if stopped else state.matcher.compute_bitmask(), []).append(state)
        fresh, old = [], []
        for mask, group in alike.items():
            group.sort(key=lambda state: len(state.text))
            half = self.alike // 2
            kept = group if len(group) <= self.alike else group[:half] + group[-half:]
            (old if mask in seen else fresh).extend((state, mask) for state in kept)
            seen.add(mask)
        return (fresh + old)[:BEAM]

    def _next(self, state: State, mask: bytes) -> Iterator[State]:
        for ids in self._moves(state.matcher, mask):
            text, matcher = self.text(ids), state.matcher.deep_copy()
            if text and matcher.try_consume_tokens(ids) == len(ids):
                memory = self.rule.add(state.memory, text)
                if memory is not None:
                    yield State(matcher, memory, state.text + text, state.cost + len(ids))

    def _moves(self, matcher: Any, mask: bytes) -> list[list[int]]:
        """Ways on: what is forced, else closing tokens, literals and one token, or more, of each beginning."""
        forced = matcher.compute_ff_tokens()
        if forced:
            return [forced]
        allowed = int.from_bytes(mask, "little")
        if allowed.bit_count() <= 2 * FEW:
            return [[i] for i in _bits(allowed) if i not in self.ends]
        firsts = {self.tokens[i][0]: i for i in _bits(allowed & self._singles)}
        chosen = {*_bits(allowed & self._closers), *(i for i in self._words if allowed >> i & 1)}
        if len(firsts) > FEW:
            chosen.update(i for b, i in firsts.items() if b in b"aA0" or (b < 0x80 and not chr(b).isalnum()))
            for sort in SORTS:
                if sort[0] in firsts:
                    chosen.update(self._long(allowed, sort[0]))
        else:
            chosen.update(firsts.values())
        for first in firsts if len(firsts) <= FEW else ():
            chosen.update(self._long(allowed, first))
        return [[i] for i in sorted(chosen)] + self.literals

    def _long(self, allowed: int, first: int) -> list[int]:
        """The longest token that may come and begins with a byte."""
        return next(([i] for i in self._groups.get(first, ()) if allowed >> i & 1), [])


def _flags(ids: Iterable[int]) -> int:
    found = bytearray()
    for i in ids:
        if i >> 3 >= len(found):
            found.extend(bytes((i >> 3) + 1 - len(found)))
        found[i >> 3] |= 1 << (i & 7)
    return int.from_bytes(found, "little")


def _bits(flags: int) -> Iterator[int]:
    while flags:
        low = flags & -flags
        yield low.bit_length() - 1
        flags ^= low
