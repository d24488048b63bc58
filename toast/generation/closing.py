"""The shortest end: few tokens that bring a text under a constraint to where it may stop.

A bounded search over copies of the engine's matcher, cheapest first. A state is known by the tokens that may follow it:
of states alike, few are followed. Knows the engine and bytes; no model, no limit of an answer.
"""

from __future__ import annotations

from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from toast.generation.vocabulary import Vocabulary

BEAM = 12  # states of one cost that are followed
FEW = 32  # so many tokens that may come are all tried
ALIKE = 2  # states with the same tokens that are followed: the shortest and the longest text
SORTS = b"aA0"  # where any character may come, long tokens of these are enough
SLACK = 8  # so much more than a limit is looked at: a whole text may have fewer tokens than its parts
ESCAPE = 0x5C  # of JSON: it leads back to where it stands
LONGEST = 24  # bytes of a token, at most, that a text is split into


class State:
    """A place in the search: `text` leads to it, of `cost` tokens; memory: what the rule remembers of all before.

    allowed: the tokens that may come next, as bits. kind: the short ones of them, and how often these changed on the
    way; so many letters of a word are one kind, the closed word is another. named: it ends with a literal."""

    __slots__ = ("allowed", "cost", "kind", "matcher", "memory", "named", "text")

    def __init__(self, matcher: Any, memory: Any) -> None:
        self.matcher, self.memory, self.text, self.cost = matcher, memory, b"", 0
        self.allowed, self.kind, self.named = 0, (0, 0), False

    def after(self, matcher: Any, memory: Any, text: bytes, *, cost: int, named: bool) -> State:
        """The place to which more text leads, of so many tokens."""
        found = State(matcher, memory)
        found.text, found.cost = self.text + text, self.cost + cost
        found.kind, found.named = self.kind, named
        return found

    def look(self, short: int) -> None:
        """Find out what may come next."""
        if not self.matcher.is_stopped():
            self.allowed = int.from_bytes(self.matcher.compute_bitmask(), "little")
        now, (before, turns) = self.allowed & short, self.kind
        self.kind = now, turns + (now != before)


class Rule:
    """What counts besides the grammar: nothing here. A memory is of one text; it is replaced, never changed."""

    strict = False  # whether it may fail for more than a mistake that `add` finds

    def begin(self) -> Any:
        """The memory of an empty text."""
        return ()

    def add(self, memory: Any, text: bytes) -> Any:
        """The memory after more of the text; None where the text can no longer become right."""
        return memory

    def fault(self, memory: Any) -> str:
        """What is wrong with a text that the grammar accepts; "" for a right one."""
        return ""


class Closing:
    """Shortest ends over a vocabulary. literals: texts to try everywhere."""

    def __init__(self, vocabulary: Vocabulary, *, rule: Rule, literals: Iterable[bytes] = ()) -> None:
        self.vocabulary, self.rule = vocabulary, rule
        self._known: dict[int, list[list[int]]] = {}
        self._splits = lru_cache(64)(self._split)
        self.alike = 2 * ALIKE if rule.strict else ALIKE
        texts = {part for text in literals for part in (text, text[1:]) if part}  # a quote may be forced
        self.literals = [ids for ids in map(self.fewest, sorted(texts)) if ids]

    def fewest(self, text: bytes) -> list[int]:
        """The fewest tokens that spell a text; none where no tokens do."""
        return self._splits(text)[0] or []

    def _split(self, text: bytes) -> list[list[int] | None]:
        """Of each suffix of a text, the fewest tokens that spell it."""
        found: list[list[int] | None] = [[]]
        ids = self.vocabulary.ids
        for at in range(len(text) - 1, -1, -1):
            best: list[int] | None = None
            for stop in range(min(len(text), at + LONGEST), at, -1):
                id = ids.get(text[at:stop])
                rest = found[len(text) - stop] if id is not None else None
                if id is not None and rest is not None and (best is None or len(rest) + 1 < len(best)):
                    best = [id, *rest]
            found.append(best)
        return found[::-1]

    def tail(self, matcher: Any, known: bytes, memory: Any) -> bytes | None:
        """The shortest suffix of a known end that is one from here; None: none is."""
        found = self._tail(matcher, self._splits(known), memory=memory)
        return known[len(known) - len(found) :] if found is not None else None

    def _tail(
        self, matcher: Any, splits: list[list[int] | None], *, memory: Any, allowed: int = 0
    ) -> bytes | None:  # fmt: skip
        """allowed: the tokens that may come next, where they are known."""
        if matcher.compute_ff_tokens():
            allowed = 0  # of a text that is forced only one spelling is
        for ids in reversed(splits):
            if ids is None or (ids and allowed and not allowed >> ids[0] & 1):
                continue
            took = matcher.try_consume_tokens(ids)
            right = took == len(ids) and matcher.is_accepting()
            matcher.rollback(took)
            if right:
                text = self.text(ids)
                after = self.rule.add(memory, text)
                if after is not None and not self.rule.fault(after):
                    return text
        return None

    def text(self, ids: Iterable[int]) -> bytes:
        tokens = self.vocabulary.tokens
        return b"".join(tokens[i] for i in ids if i < len(tokens))

    def find(
        self, matcher: Any, most: int, *, memory: Any, known: bytes = b"", effort: int = 1500, first: bool = False
    ) -> bytes | None:
        """A short end of at most so many tokens; None where none is found.

        known: the end of a place nearby. effort: states that are looked at. first: the first one found will do."""
        splits = self._splits(known)
        waiting: dict[int, list[State]] = {0: [State(matcher.deep_copy(), memory)]}
        best: bytes | None = None
        cost, bound, seen = 0, most, dict[tuple[int, int], int]()
        while cost <= _loose(bound) and effort > 0:
            for state in self._sifted(waiting.pop(cost, []), seen):
                effort -= 1
                tail = self._tail(state.matcher, splits, memory=state.memory, allowed=state.allowed)
                if tail is not None and len(ids := self.fewest(state.text + tail)) <= bound:
                    best, bound = state.text + tail, len(ids) - 1
                    if first:
                        return best
                    continue
                for after in self._next(state):
                    if after.cost <= _loose(bound):
                        waiting.setdefault(after.cost, []).append(after)
            cost += 1
        return best

    def _sifted(self, states: list[State], seen: dict[tuple[int, int], int]) -> list[State]:
        """The states that are followed: of each kind the shortest and the longest, and first of what was seen least."""
        kinds: dict[tuple[int, int], list[State]] = {}
        for state in states:
            state.look(self.vocabulary.short)
            if state.allowed or not self.rule.fault(state.memory):
                kinds.setdefault(state.kind, []).append(state)
        found = []
        for group in kinds.values():
            group.sort(key=lambda state: len(state.text))
            found += _ends(group, self.alike)
            found += [state for state in group[self.alike // 2 : -self.alike // 2] if state.named]
        found.sort(key=lambda state: (seen.get(state.kind, 0), not state.named, len(state.text)))
        for state in found[:BEAM]:
            seen[state.kind] = seen.get(state.kind, 0) + 1
        return found[:BEAM]

    def _next(self, state: State) -> Iterator[State]:
        forced = state.matcher.compute_ff_tokens()
        ways = [forced] if forced else self._ways(state)
        for n, ids in enumerate(ways if forced else [*self.literals, *ways]):
            text, matcher = self.text(ids), state.matcher.deep_copy()
            if text and matcher.try_consume_tokens(ids) == len(ids):
                memory = self.rule.add(state.memory, text)
                if memory is not None:
                    named = not forced and n < len(self.literals)
                    yield state.after(matcher, memory, text, cost=len(ids), named=named)

    def _ways(self, state: State) -> list[list[int]]:
        """The shortest and the longest token of those that lead to one kind of state."""
        short = self.vocabulary.short
        if state.kind[0] not in self._known:
            kinds: dict[int, list[int]] = {}
            for i in self._candidates(state.allowed):
                after = State(state.matcher.deep_copy(), None)
                if after.matcher.consume_token(i):
                    after.look(short)
                    kinds.setdefault(after.kind[0], []).append(i)
            for ids in kinds.values():
                ids.sort(key=lambda i: len(self.vocabulary.tokens[i]))
            self._known[state.kind[0]] = [[i] for ids in kinds.values() for i in _ends(ids, self.alike)]
        return self._known[state.kind[0]]

    def _candidates(self, allowed: int) -> Iterable[int]:
        """Tokens to try of those allowed: all of a few, else closing ones, characters, and long ones."""
        if allowed.bit_count() <= FEW:
            return [i for i in _bits(allowed) if i not in self.vocabulary.ends]
        firsts = {self.vocabulary.tokens[i][0]: i for i in _bits(allowed & self.vocabulary.singles)}
        chosen = {*_bits(allowed & self.vocabulary.closers), *(i for i in self.vocabulary.words if allowed >> i & 1)}
        chosen.update(i for first, i in firsts.items() if first < 0x80 and first != ESCAPE)
        for first in firsts if len(firsts) <= FEW else SORTS:
            chosen.update(self._long(allowed, first))
        return sorted(chosen)

    def _long(self, allowed: int, first: int) -> list[int]:
        """The longest token that may come and begins with a byte."""
        return next(([i] for i in self.vocabulary.groups.get(first, ()) if allowed >> i & 1), [])


def _loose(bound: int) -> int:
    """Tokens of parts that the whole of a text may need so few for."""
    return bound + 2 + bound // SLACK


def _ends(found: list[Any], count: int) -> list[Any]:
    """The first and the last of a list, so many of both together."""
    return found if len(found) <= count else found[: count // 2] + found[-count // 2 :]


def _bits(flags: int) -> Iterator[int]:
    while flags:
        low = flags & -flags
        yield low.bit_length() - 1
        flags ^= low
