"""Groups of vectors that are near each other: two are in one group where a chain of near ones joins them.

Knows rows of int8 codes; nothing of texts, tables or output.
"""

from __future__ import annotations

from array import array

from toast.cancel import checkpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 256  # rows that are compared at once with all before them


class Groups:
    """Rows 0 to count - 1, each in a group of its own until `join`. labels: the group that each is in."""

    def __init__(self, count: int) -> None:
        self.labels = array("I", range(count))
        self.members: dict[int, list[int]] = {}  # of the groups of more than one

    def join(self, a: int, b: int) -> None:
        """Make one group of those that two rows are in; the smaller one is labelled anew."""
        groups = sorted({self.labels[a], self.labels[b]}, key=lambda label: -len(self.members.get(label, ())))
        if len(groups) == 1:
            return
        kept, gone = groups
        moved = self.members.pop(gone, [gone])
        for row in moved:
            self.labels[row] = kept
        self.members.setdefault(kept, [kept]).extend(moved)

    def found(self) -> list[list[int]]:
        """The groups of two rows or more, each in order, by their first rows."""
        return sorted(sorted(rows) for rows in self.members.values())


def groups(codes: bytes, count: int, threshold: float, *, tick: Callable[[int], object], block: int = BLOCK) -> Groups:
    """The groups of `count` rows: codes (count, D) int8; threshold: the cosine from which two are near.

    Every pair is looked at once; the groups do not depend on the block or on threads. tick: told of rows done.
    """
    from toast.kernels.scan import int8_near

    found = Groups(count)
    for start in range(0, count, block):
        checkpoint()
        stop = min(start + block, count)
        for a, b in int8_near(codes, found.labels, start=start, stop=stop, threshold=threshold):
            found.join(a, b)
        tick(stop - start)
    return found
