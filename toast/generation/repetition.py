"""What a text repeats of itself: verbatim cycles at its end, and how it would go on as before.

Knows token ids alone. A *run* at distance d: that many of the last tokens equal those d places before. A cycle of
period d is a long run at distance d. Lists, tables, code and refrains repeat, too, but not for so long without a
change; tests/bench/everyday.py measures both kinds of error.
"""

from __future__ import annotations

REACH = 1024  # tokens that a run can be away
PERIOD = 256  # the longest period of a cycle
COPIES, LEAST = 2, 128  # a cycle repeats itself for that many copies and for that many tokens, at least


class Repetition:
    """Tokens come one by one by `add`; everything else tells of the text so far."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.runs: dict[int, int] = {}  # distance -> length
        self.places: dict[int, list[int]] = {}  # id -> where it stands within REACH

    def add(self, id: int) -> None:
        """Note the next token of the text."""
        here = len(self.ids)
        places = self.places.setdefault(id, [])
        while places and here - places[0] > REACH:
            places.pop(0)
        runs = self.runs
        self.runs = {here - at: runs.get(here - at, 0) + 1 for at in places}
        places.append(here)
        self.ids.append(id)

    @property
    def is_cycle(self) -> bool:
        """Whether the text only repeats itself by now."""
        return any(run >= max(COPIES * d, LEAST) for d, run in self.runs.items() if d <= PERIOD)

    @property
    def repeated(self) -> int:
        """How many of the last tokens stand in the same order before, within the longest period."""
        return max((run for d, run in self.runs.items() if d <= PERIOD), default=0)

    def continuations(self, least: int) -> dict[int, int]:
        """Token that came after `least` or more of the last tokens before -> how many of them, at most."""
        found: dict[int, int] = {}
        for d, run in self.runs.items():
            if run >= least:
                id = self.ids[-d]
                found[id] = max(run, found.get(id, 0))
        return found
