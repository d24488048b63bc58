"""`search --dupes`: passages and records that say nearly the same, in groups.

Owns what a near-duplicate is. Knows nothing of how groups are made of vectors (`near.py`), of where indexes come
from (`inputs.py`) or of how hits are written (`hits.py`).
"""

from __future__ import annotations

from array import array

from embed import database, near, rank, schema, vectors, words
from embed.hits import Found
from embed.lines import Aim
from embed.search import Opened, expect_one_model
from toast import pipes
from toast.errors import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from embed.hits import Printer
    from embed.inputs import Inputs
    from embed.search import Wanted
    from toast.command import Call

    Place = tuple[Opened, int]  # where a chunk is

# the cosine of vectors of near-duplicates; docs/notebook.md has the curve
THRESHOLD = 0.95


class Texts:
    """The distinct texts of some indexes: where each of them is, and its vector. Equal texts are one: their hashes
    say so, and nothing has to be compared."""

    def __init__(self, indexes: list[Opened]) -> None:
        self.places: list[list[Place]] = []
        self.codes, self.scales, self.dims = bytearray(), bytearray(), indexes[0].index.dims
        known: dict[int, int] = {}  # hash of a text -> its number
        for opened in indexes:
            with schema.damage(opened.name, opened.db):
                self._add(opened, known)

    def _add(self, opened: Opened, known: dict[int, int]) -> None:
        hashes = dict(database.chunk_hashes(opened.db))
        if opened.index.dims != self.dims:
            raise schema.Damaged(f"{opened.index.dims} dimensions, others of its model have {self.dims}")
        for segment in vectors.segments(opened.db, self.dims):
            for row, chunk in enumerate(segment.ids):
                if opened.allowed is not None and chunk not in opened.allowed:
                    continue
                if chunk not in hashes:
                    raise schema.Damaged(f"no chunk {chunk}")
                number = known.setdefault(hashes[chunk], len(self.places))
                if number == len(self.places):
                    codes, scale, _ = segment.row(row, self.dims)
                    self.codes += codes
                    self.scales += scale
                    self.places.append([])
                self.places[number].append((opened, chunk))

    def groups(self, threshold: float, call: Call) -> list[list[int]]:
        """The numbers of near texts, and of those that are in two places or more, by their first."""
        with pipes.progress(call, len(self.places)) as bar:
            found = near.groups(bytes(self.codes), len(self.places), threshold, tick=bar.update)
        alone = [[number] for number, places in enumerate(self.places) if len(places) > 1]
        return sorted(found.found() + [one for one in alone if found.labels[one[0]] not in found.members])

    def cosines(self, group: list[int]) -> list[float]:
        """Of each of a group's texts to the first one."""
        codes = [self.codes[self.dims * i : self.dims * (i + 1)] for i in group]
        scales = b"".join(self.scales[4 * i : 4 * i + 4] for i in group)
        first = array("f", scales[:4])[0]
        query = array("f", [first * code for code in memoryview(codes[0]).cast("b")])
        from toast.kernels.scan import int8_scan

        scores = array("f", int8_scan(b"".join(codes), scales, query.tobytes()))
        return [1.0, *map(rank.most_one, scores[1:])]


def dupes(call: Call, inputs: Inputs, *, wanted: Wanted, printer: Printer, most: int | None) -> Exit:
    """Write the groups of near-duplicates, at most `most`; of each text that is in several places all of them."""
    named = inputs.open(call, name=wanted.model, lexical=False)
    try:
        indexes = [Opened(db, name, shown=inputs.shown, filter=wanted.filter) for db, name in named]
        expect_one_model(indexes)
        texts = Texts(indexes)
        groups = texts.groups(THRESHOLD if wanted.threshold is None else wanted.threshold, call)[:most]
        aim = Aim({}, words.TermExtractor(), None)  # the first line that says something
        for number, group in enumerate(groups):
            printer.print(number, list(_found(texts, group)), aim)
        if wanted.filter and (problem := wanted.filter.told()):
            call.warn(problem)
        return Exit.OK if groups else Exit.NONE
    finally:
        for db, _ in named:
            db.close()


def _found(texts: Texts, group: list[int]) -> Iterator[Found]:
    for number, cosine in zip(group, texts.cosines(group), strict=True):
        for opened, chunk in texts.places[number]:
            with schema.damage(opened.name, opened.db):
                yield Found(opened, rank.Hit(chunk, cosine, cosine=cosine))
