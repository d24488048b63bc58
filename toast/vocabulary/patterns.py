"""Regular expressions of pre-tokenizers as automata: a table that tells where a word ends.

Owns the part of Oniguruma's language that they are written in; anything else is Unknown. Of several matches the
leftmost alternative's counts, as for a matcher that tries one after the other (Cox 2009, Regular Expression Matching:
the Virtual Machine Approach). A lookahead is of one character: the table is asked about the one after a word, too.
"""

from __future__ import annotations

from array import array

from toast.vocabulary.characters import END, both, matched, runs, single, without

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.vocabulary.characters import Runs

    Node = tuple[Any, ...]

MOST = 2000  # states of an automaton, and steps of a program
DEAD = 0x7FFF
ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "f": "\f", "v": "\v"}
NAMED = {"s": r"\s", "S": r"\S", "d": r"\d", "D": r"\D"}
LIGATURES = {"ff", "fi", "fl", "st", "ss"}  # one character may be equal to these two but for their case


class Unknown(Exception):
    """What is not understood here: the library is needed."""


class Parser:
    """A pattern -> a tree of ("set", Runs), ("look", negated, Runs), ("all", nodes), ("one", nodes),
    ("times", node, least, most or None)."""

    def __init__(self, pattern: str) -> None:
        self.text, self.at, self.folds = pattern, 0, False

    def parse(self) -> Node:
        node = self._alternatives()
        if self.at < len(self.text):
            raise Unknown(f"unbalanced: {self.text}")
        return node

    def _take(self, what: str) -> bool:
        if self.text.startswith(what, self.at):
            self.at += len(what)
            return True
        return False

    def _next(self) -> str:
        if self.at >= len(self.text):
            raise Unknown(f"ends too soon: {self.text}")
        self.at += 1
        return self.text[self.at - 1]

    def _alternatives(self) -> Node:
        found = [self._sequence()]
        while self._take("|"):
            found.append(self._sequence())
        return ("one", found) if len(found) > 1 else found[0]

    def _sequence(self) -> Node:
        found: list[Node] = []
        letters = ""
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            letters += self.text[self.at].lower()
            found.append(self._counted(self._atom()))
        if self.folds and any(pair in letters for pair in LIGATURES):
            raise Unknown(f"ligatures: {self.text}")
        return ("all", found)

    def _counted(self, node: Node) -> Node:
        for mark, least, most in (("?", 0, 1), ("*", 0, None), ("+", 1, None)):
            if self._take(mark):
                return self._plain(("times", node, least, most))
        if self._take("{"):
            stop = self.text.find("}", self.at)
            low, comma, high = self.text[self.at : stop].partition(",")
            self.at = stop + 1
            if stop < 0 or not low.isdigit() or (high and not high.isdigit()):
                raise Unknown(f"a count: {self.text}")
            return self._plain(("times", node, int(low), int(high) if high else None if comma else int(low)))
        return node

    def _plain(self, node: Node) -> Node:
        if self.text[self.at : self.at + 1] in ("?", "*", "+", "{") or node[1][0] == "look":
            raise Unknown(f"a count of its own kind: {self.text}")
        return node

    def _atom(self) -> Node:
        for mark in ("(?!", "(?="):
            if self._take(mark):
                inside = self._closed()
                while inside[0] == "all" and len(inside[1]) == 1:
                    inside = inside[1][0]
                if inside[0] != "set":
                    raise Unknown(f"a lookahead of more than a character: {self.text}")
                return ("look", mark == "(?!", inside[1])
        if self._take("(?i:"):
            before, self.folds = self.folds, True
            node = self._closed()
            self.folds = before
            return node
        if self._take("(?:") or (not self.text.startswith("(?", self.at) and self._take("(")):
            return self._closed()
        return ("set", self._character())

    def _closed(self) -> Node:
        node = self._alternatives()
        if not self._take(")"):
            raise Unknown(f"unbalanced: {self.text}")
        return node

    def _character(self) -> Runs:
        char = self._next()
        if char == "[":
            return self._bracket()
        if char == "\\":
            return self._escape()
        if char in "^$.()?*+{}":
            raise Unknown(f"{char} in {self.text}")
        return self._folded(char)

    def _folded(self, char: str) -> Runs:
        if not self.folds or not char.isalpha():
            return single(char)
        if not char.isascii():
            raise Unknown(f"{char} of any case")
        return runs((c, c + 1) for c in range(0x2200) if chr(c).casefold() == char.casefold())

    def _escape(self) -> Runs:
        char = self._next()
        if char in "pP":
            stop = self.text.find("}", self.at)
            name = self.text[self.at + 1 : stop]
            if not self._take("{") or stop < 0 or not name.replace("_", "").isalnum():
                raise Unknown(f"a property: {self.text}")
            self.at = stop + 1
            return self._known(rf"\{char}{{{name}}}")
        if char in NAMED:
            return self._known(NAMED[char])
        if char in ESCAPES:
            return single(ESCAPES[char])
        if char.isalnum():
            raise Unknown(rf"\{char} in {self.text}")
        return single(char)

    def _known(self, pattern: str) -> Runs:
        base = pattern.replace(r"\P", r"\p").replace(r"\S", r"\s").replace(r"\D", r"\d")
        found = matched(base)
        return found if base == pattern else without(found)

    def _bracket(self) -> Runs:
        """What stands between brackets; the first of them is read."""
        negated = self._take("^")
        found: list[tuple[int, int]] = []
        while not self._take("]"):
            if self._take("&&"):
                rest = self._rest()
                return without(both(runs(found), rest)) if negated else both(runs(found), rest)
            if self._take("["):
                if self.text[self.at : self.at + 1] == ":":
                    raise Unknown(f"a named class: {self.text}")
                found += self._bracket()
                continue
            found += self._span()
        if self.folds:
            found += [run for a, b in found for c in range(a, min(b, 0x80)) for run in self._folded(chr(c))]
        return without(runs(found)) if negated else runs(found)

    def _rest(self) -> Runs:
        """What stands after &&, up to the end of the brackets."""
        found: list[tuple[int, int]] = []
        while not self._take("]"):
            if self._take("["):
                found += self._bracket()
            elif self.text.startswith("&&", self.at):
                raise Unknown(f"&& twice: {self.text}")
            else:
                found += self._span()
        return runs(found)

    def _span(self) -> Runs:
        """One character, a class, or from one character to another."""
        first = self._member()
        if not (self.text.startswith("-", self.at) and self.text[self.at + 1 : self.at + 2] not in ("]", "")):
            return first
        self.at += 1
        last = self._member()
        (a, b), (c, d) = first[0], last[0]
        if len(first) != 1 or len(last) != 1 or b - a != 1 or d - c != 1 or c < a:
            raise Unknown(f"a range: {self.text}")
        return ((a, d),)

    def _member(self) -> Runs:
        char = self._next()
        return self._escape() if char == "\\" else single(char)


class Program:
    """A tree as steps: ("set", n), ("look", negated, n), ("fork", first, second), ("go", to), ("end",)."""

    def __init__(self, tree: Node, sets: list[Runs]) -> None:
        self.sets, self.steps = sets, list[tuple]()
        self._add(tree)
        self.steps.append(("end",))

    def _set(self, found: Runs) -> int:
        if found not in self.sets:
            self.sets.append(found)
        return self.sets.index(found)

    def _add(self, node: Node) -> None:
        if len(self.steps) > MOST:
            raise Unknown("a long pattern")
        kind = node[0]
        if kind == "set":
            self.steps.append(("set", self._set(node[1])))
        elif kind == "look":
            self.steps.append(("look", node[1], self._set(node[2])))
        elif kind == "all":
            for part in node[1]:
                self._add(part)
        elif kind == "one":
            self._choice(node[1])
        else:
            self._times(*node[1:])

    def _choice(self, parts: list[Node]) -> None:
        leave = []
        for i, part in enumerate(parts):
            fork = len(self.steps)
            if i + 1 < len(parts):
                self.steps.append(())
            self._add(part)
            if i + 1 < len(parts):
                leave.append(len(self.steps))
                self.steps.append(())
                self.steps[fork] = ("fork", fork + 1, len(self.steps))
        for at in leave:
            self.steps[at] = ("go", len(self.steps))

    def _times(self, node: Node, least: int, most: int | None) -> None:
        if _may_be_empty(node):
            raise Unknown("a repeated nothing")
        for _ in range(least):
            self._add(node)
        if most is None:
            fork = len(self.steps)
            self.steps.append(())
            self._add(node)
            self.steps.append(("go", fork))
            self.steps[fork] = ("fork", fork + 1, len(self.steps))
            return
        forks = []
        for _ in range(most - least):
            forks.append(len(self.steps))
            self.steps.append(())
            self._add(node)
        for fork in forks:
            self.steps[fork] = ("fork", fork + 1, len(self.steps))


def _may_be_empty(node: Node) -> bool:
    kind = node[0]
    if kind == "all":
        return all(map(_may_be_empty, node[1]))
    if kind == "one":
        return any(map(_may_be_empty, node[1]))
    return kind == "look" or (kind == "times" and (node[2] == 0 or _may_be_empty(node[1])))


def _step(program: Program, state: tuple[int, ...], within: set[int] | None) -> tuple[tuple[int, ...], bool]:
    """(the next state, whether a match ends here) when a character that is in these sets comes; None: the end."""
    after: dict[int, None] = {}
    seen: set[int] = set()
    todo = list(reversed(state))
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        kind, *rest = program.steps[at]
        if kind == "end":
            return tuple(after), True
        if kind == "go":
            todo.append(rest[0])
        elif kind == "fork":
            todo += [rest[1], rest[0]]
        elif kind == "look":
            if (within is not None and rest[1] in within) != rest[0]:
                todo.append(at + 1)
        elif within is not None and rest[0] in within:
            after[at + 1] = None
    return tuple(after), False


def _classes(sets: list[Runs]) -> tuple[list[tuple[int, int, int]], list[set[int]]]:
    """(first, after the last, class) of all characters, and the sets that those of each class are in."""
    changes: dict[int, list[int]] = {0: [], END: []}
    for n, found in enumerate(sets):
        for run in found:
            for edge in run:
                changes.setdefault(edge, []).append(n)
    kinds: dict[frozenset[int], int] = {}
    values, inside = [], set[int]()
    edges = sorted(changes)
    for a, b in zip(edges, edges[1:], strict=False):
        inside = inside.symmetric_difference(changes[a])
        values.append((a, b, kinds.setdefault(frozenset(inside), len(kinds))))
    if len(kinds) > 254:
        raise Unknown("too many kinds of characters")
    return values, [set(kind) for kind in kinds]


def automata(trees: list[Node]) -> tuple[list[tuple[int, int, int]], int, list[array[int]]]:
    """(class of each character, how many classes, for each tree its table): rows of classes + 1 entries, the last
    for the end of a text; an entry is next state * 2, + 1 where a match ends before the character."""
    sets: list[Runs] = []
    if any(map(_may_be_empty, trees)):
        raise Unknown("matches nothing")
    programs = [Program(tree, sets) for tree in trees]
    values, kinds = _classes(sets)
    return values, len(kinds), [_table(program, kinds) for program in programs]


def _table(program: Program, kinds: list[set[int]]) -> array[int]:
    found: dict[tuple[int, ...], int] = {(0,): 0}
    states: list[tuple[int, ...]] = [(0,)]
    entries = array("H")
    for state in states:  # which grows
        for within in (*kinds, None):
            after, ends = _step(program, state, within)
            if after and after not in found:
                found[after] = len(states)
                states.append(after)
            entries.append((found[after] if after else DEAD) * 2 + ends)
        if len(states) > MOST:
            raise Unknown("too many states")
    return entries
