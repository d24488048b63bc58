"""Which chunks answer a query: cosines by a scan of the int8 codes, and their fusion with BM25 (`bm25.py`).

Knows nothing of models (a query comes with its vector), of documents or of output.
"""

from __future__ import annotations

from array import array
from math import fsum, log, sqrt
from operator import mul

from embed import vectors
from toast import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import Any

    import mlx.core as mx

    from embed.schema import Database
    from embed.vectors import Segment

    Scores = dict[int, float]  # chunk -> BM25
    Allowed = set[int] | None  # the chunks that filters leave; None: all

POOL = 1000  # best chunks of each kind that enter the fusion
FEW = 20  # chunks whose mean cosine is taken as it is; fewer are filled up
NOTHING = 0.1  # the cosine of a chunk that says nothing, from what `unrelated` texts have (0) to 1
SEEN = 400  # chunks by which a collection says as much of BM25 as is known before one is seen
EXPECTED = 0.3  # what BM25 counts beside a cosine that counts 1, before any chunk is seen
EVIDENCE = 0.085  # and what it counts by how far its best stands out: see `weight`
# what `Scale.answers` asks for: of 30 chunks, by e times as many more, and the least and the most
FLOOR, FLOOR_GROWS, FLOOR_LEAST, FLOOR_MOST = 0.30, 0.075, 0.28, 0.44
LINE, LINES_OF = 0.2, 100  # a line that answers where its chunk does not: so much nearer, of at most so many chunks
ALL = 0.9  # of the weight of a query's words: a chunk that has it is an answer, as to grep
ONE = 1 << 30  # of cosines that are added up
HELD = 64 << 20  # bytes of vectors kept in memory between queries


class Hit:
    """A chunk and its scores: fused (or of the mode asked for), cosine, BM25. first: whatever others score."""

    __slots__ = ("chunk", "score", "cosine", "bm25", "first")

    def __init__(
        self, chunk: int, score: float, *, cosine: float | None = None, bm25: float | None = None, first: bool = False
    ) -> None:
        self.chunk, self.score, self.cosine, self.bm25, self.first = chunk, score, cosine, bm25, first


class Index:
    """An open index, ready to be asked. dims: of its vectors; exact: score the float32 ones; beside: how many are
    searched together, and have room for their vectors in memory together."""

    def __init__(self, db: Database, dims: int, *, exact: bool, beside: int = 1) -> None:
        self.db, self.dims, self.exact, self.room = db, dims, exact, HELD // beside
        self.count = vectors.count(db)
        self._held: list[Segment] | None = None

    # ---- cosines

    def cosines(self, queries: Sequence[bytes]) -> list[tuple[array[int], array[float]]]:
        """(ids, scores) for each query vector (float32, as bytes): two arrays, by chunk number."""
        ids, scores = array("q"), [array("f") for _ in queries]
        for segment in self._segments():
            ids.extend(segment.ids)
            for query, row in zip(queries, scores, strict=True):
                row.frombytes(scan(segment, query))
        return [(ids, row) for row in scores]

    def _segments(self) -> Iterable[Segment]:
        """The segments; of a small index they stay in memory."""
        if self._held is not None:
            return self._held
        found = vectors.segments(self.db, self.dims, exact=self.exact)
        if self.count * self.dims > self.room:
            return found
        self._held = kept.of(
            self.db.file, "segments", lambda: list(found), size=lambda all: sum(one.bytes for one in all)
        )
        return self._held


def scan(segment: Segment, query: bytes) -> bytes:
    """The scores of a segment's rows, float32: from the exact vectors if it has them, else from the codes."""
    if segment.exact is None:
        from toast.kernels.scan import int8_scan

        return int8_scan(segment.codes, segment.scales, query)
    import mlx.core as mx

    from toast.store.safetensors import data

    vector = floats(query)
    rows = floats(segment.exact).reshape(-1, vector.size)
    return bytes(data(mx.where(mx.isfinite(rows), rows, 0) @ vector))


def floats(numbers: bytes | array[float]) -> mx.array:
    """float32 numbers: (N,)."""
    import mlx.core as mx

    return mx.array(memoryview(numbers).cast("B").cast("f"))  # type: ignore[arg-type]  # mlx's stubs know no buffers


# ---------------------------------------------------------------- orders


def lexical(scores: Scores, allowed: Allowed, k: int, *, first: Collection[int] = ()) -> list[Hit]:
    """The best k chunks by BM25, those before all others that are to be first."""
    ranked = [Hit(chunk, score, bm25=score, first=chunk in first) for score, chunk in heaviest(scores, allowed, k)]
    return sorted(ranked, key=lambda hit: not hit.first)


def heaviest(scores: Scores, allowed: Allowed, k: int) -> list[tuple[float, int]]:
    """The k highest (score, chunk); the earlier chunk first where they are equal."""
    if allowed is not None:
        scores = {chunk: score for chunk, score in scores.items() if chunk in allowed}
    floor = sorted(scores.values())[-k] if len(scores) > k else 0
    best = sorted((-score, chunk) for chunk, score in scores.items() if score >= floor)[:k]
    return [(-score, chunk) for score, chunk in best]


def vector(ids: array[int], scores: array[float], *, allowed: Allowed, k: int) -> list[Hit]:
    """The best k chunks by cosine."""
    best = top(ids, scores, allowed=allowed, k=k)
    return [Hit(chunk, most_one(score), cosine=most_one(score)) for score, chunk in best]


def top(ids: array[int], scores: array[float], *, allowed: Allowed, k: int) -> list[tuple[float, int]]:
    """The k highest (score, chunk); the earlier chunk first where they are equal."""
    rows: Any  # list[int], or a range
    if allowed is not None:
        rows = [i for i, chunk in enumerate(ids) if chunk in allowed]
    elif len(scores) > k:
        import mlx.core as mx

        rows = mx.argpartition(-floats(scores), k)[:k].tolist()
    else:
        rows = range(len(ids))
    best = sorted((-scores[i], ids[i]) for i in rows)[:k]
    return [(-score, chunk) for score, chunk in best]


class Scale:
    """What the scores of one query are measured by, over all the chunks that are searched together.

    Both are normalised: cosines from [their mean, 1] to [0, 1], BM25 by the query's maximum; in a small collection,
    whose maximum is one of few, by what a chunk with all of the query's words would have, if that is more. Below FEW
    chunks the mean is padded with NOTHING, up to that number. BM25 counts as `weight` has it, in a small collection
    nearer to EXPECTED; a query's words that the model does not know leave it to BM25.
    """

    def __init__(
        self, parts: Sequence[tuple[array[float], Scores]], known: float, *, ideal: float = 0.0,
        unrelated: Callable[[], float] = float,
    ) -> None:  # fmt: skip
        """parts: (cosines, chunk -> BM25) of each index; known: the share of the query that the model knows, 0 to 1;
        ideal: the BM25 of a chunk with all of the query's words; unrelated: what cosine the model gives to a query and
        a text that have nothing to do with each other, asked where none is near 0."""
        scores = [score for _, found in parts for score in found.values()]
        found = [moments(cosines) for cosines, _ in parts if cosines]
        self.chunks = sum(len(cosines) for cosines, _ in parts)
        few = max(0, FEW - self.chunks)
        count = few + self.chunks
        total = sum(whole for whole, _, _ in found) / ONE
        far = min((least for *_, least in found), default=0.0) <= NOTHING
        self.unrelated = 0.0 if far else min(unrelated(), total / self.chunks)
        nothing = self.unrelated + NOTHING * (1 - self.unrelated)
        self.mean = (few * nothing + total) / count
        self.own = (few * self.unrelated + total) / count
        self.height = 1 / max(1 - self.mean, 1e-6)
        top = max(scores, default=0.0)
        self.ideal = ideal or top or 1.0
        seen = self.chunks / (self.chunks + SEEN)
        self.most = seen * top + (1 - seen) * max(top, self.ideal)
        best = max((best for _, best, _ in found), default=0.0)
        bm25 = weight(scores, count, height=(best - self.mean) * self.height, ideal=self.ideal)
        bm25 = seen * bm25 + (1 - seen) * EXPECTED
        cosine = known * known
        whole = (cosine + bm25) or 1.0
        self.cosine, self.bm25, self.known = cosine / whole, bm25 / whole, known
        self.empty = not (known or scores)  # nothing of the query says anything

    def score(self, cosine: float, bm25: float) -> float:
        """The fused score of a chunk."""
        return self.cosine * (cosine - self.mean) * self.height + self.bm25 * bm25 / self.most

    def near(self, cosine: float) -> float:
        """A cosine on a scale on which unrelated texts have 0, whatever the model gives them."""
        return (cosine - self.unrelated) / max(1 - self.unrelated, 1e-6)

    def goodness(self, cosine: float, bm25: float) -> float:
        """How near a chunk is, and a third of how much of the words' weight it has."""
        return self.near(cosine) + min(bm25 / self.ideal, 1.0) / 3

    def absolute(self, cosine: float, bm25: float) -> float:
        """How good a hit is whatever else was searched: 0 to 1."""
        return max(0.0, min(self.goodness(cosine, bm25) * 0.75, 1.0))

    def answers(self, cosine: float, bm25: float, *, alone: bool = False) -> bool:
        """Whether a query's best hit is one at all. The cosines' mean tells how far the query is of this collection;
        the best of many chunks is high by chance. docs/notebook.md has the curve. alone: whether a chunk would be one
        by what it says itself, however near the whole collection is."""
        found = self.goodness(cosine, bm25) if alone else self.has(cosine, bm25)
        return self.has_words(bm25) or found >= self.floor

    def has_words(self, bm25: float) -> bool:
        """Whether its words alone make a hit one: almost all of them, or those that the model does not know."""
        return bool(self.known < 1 and bm25) or bm25 >= ALL * self.ideal

    def see(self, cosines: Sequence[float]) -> None:
        """Take note of some lines: few chunks may all be near; a line that is not shows what the model gives."""
        if min(cosines) <= NOTHING:
            self.unrelated = 0.0

    def line_answers(self, cosine: float, bm25: float) -> bool:
        """Whether a line does where its chunk does not: that is about many things, and near to none of them."""
        return self.has(cosine, bm25) - self.floor >= LINE

    def has(self, cosine: float, bm25: float) -> float:
        """What a query's best hit has, of which `floor` is asked."""
        return self.goodness(cosine, bm25) + 2 * max(self.near(self.own), 0.0)

    @property
    def floor(self) -> float:
        """What a query's best hit must have."""
        return min(max(FLOOR + FLOOR_GROWS * log(max(self.chunks, 1) / 30), FLOOR_LEAST), FLOOR_MOST)


def hybrid(
    ids: array[int], scores: array[float], found: Scores, *, scale: Scale, allowed: Allowed, k: int,
    first: Collection[int] = (),
) -> list[Hit]:  # fmt: skip
    """The best k chunks of an index by both scores; found: chunk -> BM25; first: chunks that come before all others."""
    if scale.empty:
        return []
    cosines = {chunk: cosine for cosine, chunk in top(ids, scores, allowed=allowed, k=max(POOL, k))}
    for _, chunk in heaviest(found, allowed, max(POOL, k)):
        if chunk not in cosines:
            cosines[chunk] = scores[vectors.row_of(ids, chunk)]
    score, bm25 = scale.score, found.get
    fused = sorted([(c not in first, -score(cosine, bm25(c, 0.0)), c) for c, cosine in cosines.items()])
    return [
        Hit(c, most_one(-score), cosine=most_one(cosines[c]), bm25=bm25(c, 0.0), first=not after)
        for after, score, c in fused[:k]
    ]


def most_one(score: float) -> float:
    """A score as it is told: int8 codes may make a little more than 1 of it."""
    return min(score, 1.0)


def moments(scores: array[float]) -> tuple[int, float, float]:
    """(sum in units of 1 / ONE, maximum, minimum). Whole numbers add up to the same in any order and any parts."""
    import mlx.core as mx

    values = floats(scores)
    whole = mx.sum(mx.round(values * ONE).astype(mx.int64))
    return int(whole), float(mx.max(values)), float(mx.min(values))


def weight(scores: Collection[float], count: int, *, height: float, ideal: float) -> float:
    """What BM25 counts beside a cosine that counts 1, for one query over `count` chunks: at most as much.

    More, the further its best stands out: from all chunks, in standard deviations, and from the eleventh best; more,
    the more there is to find (`ideal`, all of the words' weight: long queries); less, the further the best cosine
    stands out (`height`, on the scale of `hybrid`). docs/notebook.md has what was tried.
    """
    best = sorted(scores, reverse=True)[:11]
    if not best:
        return 0.0
    mean = fsum(scores) / count  # exact, so that the order of the indexes does not matter
    spread = sqrt(max(fsum(map(mul, scores, scores)) / count - mean * mean, 1e-12))
    outstanding = (best[0] - mean) / spread / max(log(count), 1)
    gap = 1 - best[10] / best[0] if len(best) > 10 else 1
    return min(EVIDENCE * outstanding * gap * ideal ** (1 / 3) / max(height, 0.05) ** 2, 1.0)
