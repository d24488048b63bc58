"""The vectors of an index: segments of int8 codes with their scales, and float32 rows beside them.

Owns the table `segments`. Knows chunks by their numbers alone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

from embed.schema import Damaged, transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from sqlite3 import Connection

    Row = tuple[bytes, bytes, bytes | None]  # codes, scale, exact

FULL = 8192  # vectors of a full segment


class Segment:
    """Vectors of the chunks `ids`: int8 codes (N, D), float32 scales (N,), perhaps float32 exact (N, D)."""

    __slots__ = ("first", "ids", "codes", "scales", "exact")

    def __init__(self, row: tuple[int, bytes, bytes, bytes, bytes | None], dims: int) -> None:
        first, ids, codes, scales, exact = row
        if not all(type(part) is bytes for part in (ids, codes, scales, exact or b"")):
            raise Damaged(f"vectors of segment {first} are no vectors")
        n = len(ids) // 8
        wrong = len(ids) % 8 or len(codes) != n * dims or len(scales) != 4 * n
        if wrong or exact is not None and len(exact) != 4 * n * dims:
            raise Damaged(f"vectors of segment {first} have the wrong size")
        self.first, self.codes, self.scales, self.exact = first, codes, scales, exact
        self.ids = array("q")
        self.ids.frombytes(ids)

    @property
    def bytes(self) -> int:
        """How many bytes of memory it takes."""
        return 500 + 8 * len(self.ids) + len(self.codes) + len(self.scales) + len(self.exact or b"")

    def place(self, chunk: int) -> int:
        """The row of a chunk; Damaged when it is not here."""
        return row_of(self.ids, chunk)

    def __contains__(self, chunk: int) -> bool:
        row = bisect_left(self.ids, chunk)
        return row < len(self.ids) and self.ids[row] == chunk

    def row(self, i: int, dims: int) -> Row:
        """(codes, scale, exact) of a row, as bytes."""
        exact = self.exact and self.exact[4 * dims * i : 4 * dims * (i + 1)]
        return self.codes[dims * i : dims * (i + 1)], self.scales[4 * i : 4 * i + 4], exact


def row_of(ids: array[int], chunk: int) -> int:
    """Where a chunk is among ascending numbers; Damaged when it is not there."""
    row = bisect_left(ids, chunk)
    if row == len(ids) or ids[row] != chunk:
        raise Damaged(f"no vector of chunk {chunk}")
    return row


class Lookup:
    """Rows of single chunks; the last segment stays in memory, since neighbours are asked for together."""

    def __init__(self, db: Connection, dims: int) -> None:
        self.db, self.dims = db, dims
        self.segment: Segment | None = None

    def row(self, chunk: int) -> Row:
        """Damaged when the index has no vector of it."""
        if self.segment is None or chunk not in self.segment:
            self.segment = segment_of(self.db, chunk, self.dims)
        if self.segment is None:
            raise Damaged(f"no vector of chunk {chunk}")
        return self.segment.row(self.segment.place(chunk), self.dims)

    def forget(self) -> None:
        """Segments have changed."""
        self.segment = None


# ---------------------------------------------------------------- the table


def count(db: Connection) -> int:
    """How many vectors the index has."""
    return db.execute("SELECT coalesce(sum(length(ids)), 0) / 8 FROM segments").fetchone()[0]


def segments(db: Connection, dims: int, *, exact: bool = False) -> Iterator[Segment]:
    """Every segment, in the order of its chunks' numbers; with its exact vectors when they are asked for."""
    last, before = "exact" if exact else "NULL", None
    for row in db.execute(f"SELECT first, ids, codes, scales, {last} FROM segments ORDER BY first"):
        if before is not None and row[0] <= before:  # pages that are shared would give it without an end
            raise Damaged(f"segment {row[0]} comes twice")
        before = row[0]
        yield Segment(row, dims)


def segment_of(db: Connection, chunk: int, dims: int) -> Segment | None:
    """The segment that a chunk's vector is in, if any is."""
    found = db.execute(
        "SELECT first, ids, codes, scales, exact FROM segments WHERE first <= ? ORDER BY first DESC LIMIT 1", (chunk,)
    ).fetchone()
    return Segment(found, dims) if found else None


def insert(db: Connection, rows: Collection[Row], ids: Sequence[int]) -> None:
    """Store rows as one segment; ids: of their chunks, ascending."""
    codes, scales, floats = (list(part) for part in zip(*rows, strict=True))
    exact = None if floats[0] is None else b"".join(floats)
    blob = array("q", ids).tobytes()
    db.execute(
        "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?)",
        (ids[0], blob, b"".join(codes), b"".join(scales), exact),
    )


def remove(db: Connection, chunks: set[int], dims: int) -> None:
    """Drop the vectors of these chunks; a segment is written anew without them."""
    left = sorted(chunks, reverse=True)
    while left:
        segment = segment_of(db, left[-1], dims)
        if segment is None:
            raise Damaged(f"no vector of chunk {left[-1]}")
        last = segment.ids[-1]
        while left and left[-1] <= last:
            left.pop()
        keep = [i for i, chunk in enumerate(segment.ids) if chunk not in chunks]
        db.execute("DELETE FROM segments WHERE first = ?", (segment.first,))
        if keep:
            insert(db, [segment.row(i, dims) for i in keep], [segment.ids[i] for i in keep])


def pack(db: Connection, dims: int) -> None:
    """Join neighbouring segments until each is about full: a search reads fewer of them."""
    group: list[int] = []
    rows = 0
    sizes = db.execute("SELECT first, length(ids) / 8 FROM segments ORDER BY first").fetchall()
    for first, count in [*sizes, (None, FULL)]:
        if rows + count > FULL:
            if len(group) > 1:
                _join(db, group, dims)
            group, rows = [], 0
        group.append(first)
        rows += count


def _join(db: Connection, firsts: list[int], dims: int) -> None:
    parts = [segment for first in firsts if (segment := segment_of(db, first, dims))]
    ids = [id for part in parts for id in part.ids]
    exact = b"".join(part.exact or b"" for part in parts) if parts[0].exact is not None else None
    row = b"".join(part.codes for part in parts), b"".join(part.scales for part in parts), exact
    with transaction(db):
        db.execute("DELETE FROM segments WHERE first BETWEEN ? AND ?", (firsts[0], firsts[-1]))
        insert(db, [row], ids)
