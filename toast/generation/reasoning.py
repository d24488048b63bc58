"""Reasoning before an answer: a constraint sleeps until it has ended, and a budget ends it.

Stands where a constraint's guide does (`allowed`, `accept`, `done`, `hurry`, `check`). Knows ids alone.
"""

from __future__ import annotations

import mlx.core as mx

from toast.generation.constrain import Unfinished, members
from toast.pipes import plural

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from toast.generation.constrain import Guide


def ended(limit: int) -> str:
    """What to say of an answer that never began."""
    return f"the answer's limit of {plural(limit, 'token')} ended its reasoning: a larger -n"


class ReasoningMarks:
    """The ids of a model's marks. close: what is put in to end reasoning, the end mark last.

    ends: ids that end a text. size: the number of the model's logits."""

    def __init__(self, begin: list[int], end: list[int], close: list[int], *, ends: Iterable[int], size: int) -> None:
        self.begin, self.end, self.close = begin, end, close
        self.ends, self.size = list(ends), size

    def mask(self, ids: Iterable[int]) -> mx.array:
        """(V,) bool: which tokens are among the ids."""
        return members(ids, self.size)


class AfterReasoning:
    """What may come next in an answer that reasoning may precede.

    inside: the prompt has begun it. limit: tokens of both together. budget: of the reasoning; None for what the limit
    leaves. make(limit): the constraint's guide of an answer of so many tokens; None where anything may come.
    """

    def __init__(
        self, marks: ReasoningMarks, *, limit: int, inside: bool = False, budget: int | None = None,
        make: Callable[[int], Guide] | None = None,
    ) -> None:  # fmt: skip
        self.marks, self.make, self.limit = marks, make, limit
        # for an answer under a constraint: more than the shortest one where there is room
        kept = max(limit // 4, min(limit // 2, 32), make(limit).least()) if make else 0
        room = limit - kept - len(marks.close) - (0 if inside else len(marks.begin))
        asked = limit if budget is None else budget
        self.budget = min(asked, room) if make else asked
        self.inside = inside
        # nothing came yet but the beginning of a mark, for which there is room
        self.open = not inside and make is not None and room >= 0
        self.used = self.spent = 0  # tokens; those of the reasoning
        self.seen: list[int] = []  # the last ones, in which a mark may be
        self.forced: list[int] = []
        self.guide = make(limit) if make and not inside else None

    def allowed(self) -> mx.array | None:
        """(V,) bool: what may come next, None where anything may."""
        marks = self.marks
        if self.inside:
            if not self.forced and self.spent >= self.budget:
                self.forced = list(marks.close)
            if self.forced:
                return marks.mask(self.forced[:1])
            return ~marks.mask(marks.ends) if self.make else None
        if self.open:
            begun = marks.mask(self._next())
            return begun | self.guide.allowed() if self.guide and not self.seen else begun
        return self.guide.allowed() if self.guide else None

    @property
    def watchful(self) -> bool:
        """Whether it may refuse a token that it allows at first."""
        return self.guide is not None and not self.inside and not self.seen and self.guide.watchful

    def refused(self, token: int) -> mx.array | None:
        """None where a token may come; else (V,) bool: what may come in its place."""
        if self.guide is None or (self.open and token in self._next()):
            return None
        return self.guide.refused(token)

    def _next(self) -> list[int]:
        """Tokens with which a mark begins or goes on; the end mark may come first where it begins the answer."""
        marks, at = self.marks, len(self.seen)
        found = [marks.begin] if marks.end[0] != marks.begin[0] else [marks.begin, marks.end]
        return [mark[at] for mark in found if mark[:at] == self.seen and at < len(mark)]

    def accept(self, token: int) -> None:
        self.used += 1
        if self.inside:
            self._reason(token)
        elif self.open:
            self._begin(token)
        elif self.guide:
            self.guide.accept(token)
        elif not self.make and self._is_mark(token, self.marks.begin):
            self.inside, self.spent = True, 0

    def done(self) -> bool:
        """Nothing more may follow."""
        return bool(self.guide and not self.inside and not self.open and self.guide.done())

    @property
    def pressed(self) -> bool:
        """Whether its limit took something from the answer."""
        return self.guide is not None and self.guide.pressed

    @property
    def idle(self) -> bool:
        """Whether it does not lead to an end: the reasoning is over, or never was, and anything may come."""
        return not self.inside and self.make is None

    def hurry(self) -> None:
        """Lead to an end from now on: of the reasoning, else of the answer."""
        if self.inside:
            self.budget = min(self.budget, self.spent)
        elif self.guide:
            self.guide.hurry()

    def check(self) -> None:
        """Raises Unfinished unless what was accepted satisfies the constraint, if there is one."""
        if self.make and (self.inside or self.seen):
            raise Unfinished(ended(self.limit))
        if self.guide:
            self.guide.check()

    def _reason(self, token: int) -> None:
        self.spent += 1
        self.forced = self.forced[1:]
        if self._is_mark(token, self.marks.end):
            self._wake()

    def _begin(self, token: int) -> None:
        """The first tokens: of a mark, or of the answer."""
        if token not in self._next():
            self.open = False
            if self.guide:
                self.guide.accept(token)
            return
        self.seen.append(token)
        if self.seen == self.marks.begin:
            self.open, self.inside, self.seen = False, True, []
        elif self.seen == self.marks.end:
            self._wake()

    def _wake(self) -> None:
        """The answer begins."""
        self.inside = self.open = False
        self.seen, self.forced = [], []
        self.guide = self.make(self.limit - self.used) if self.make else None

    def _is_mark(self, token: int, mark: list[int]) -> bool:
        longest = max(len(self.marks.begin), len(self.marks.end))
        self.seen = [*self.seen, token][-longest:]
        return self.seen[-len(mark) :] == mark
