"""`search`: queries and indexes to the chunks that answer, best first.

Owns filters, and the order of hits of several indexes. Knows nothing of where indexes come from (`inputs.py`),
of scoring (`rank.py`), of the file's layout (`database.py`) or of how hits are written (`hits.py`).
"""

from __future__ import annotations

from array import array
from functools import cache

from embed import bm25, database, model, rank, schema, words
from embed.hits import Found, Printer
from embed.lines import Aim
from toast import pipes
from toast.cancel import checkpoint
from toast.errors import BadInput, Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from embed.filters import Filter
    from embed.inputs import Inputs
    from embed.like import Sample
    from embed.schema import Database
    from toast.command import Call
    from toast.encoding.tokens import Tokens

    Shown = Callable[[str], str]
    Scored = tuple[array[int], array[float], rank.Scores]  # chunks and their cosines; chunk -> BM25

BY_LINE = 3  # hits whose lines are looked at, where no chunk answers
NAMED = 3  # indexes that -v names
RERANKED = 50  # hits that --rerank looks at, at least


class Wanted:
    """What the command line asks for. per_file: hits of a file, at most; paths: `-l`, each path is a hit once; files:
    `-l` or `-c`, a file counts for hits that answer, each by itself; rerank: the model that --rerank reads with; like:
    what the hits shall be like, but not be."""

    def __init__(
        self, *, k: int = 10, mode: str = "hybrid", threshold: float | None = None, filter: Filter | None = None,
        per_file: int | None = None, paths: bool = False, files: bool = False, model: str | None = None,
        rerank: str | None = None, like: Sample | None = None,
    ) -> None:  # fmt: skip
        self.k, self.mode, self.threshold, self.model, self.rerank = k, mode, threshold, model, rerank
        self.filter, self.per_file, self.paths, self.files, self.like = filter, per_file, paths, files, like

    def choose(self, hits: Iterable[Found], k: int) -> list[Found]:
        """The first k that are to be told: of equal texts one, of a record its best chunk, of a file not too many.

        Where paths are asked for, those of copies are, too."""
        chosen: list[Found] = []
        same: dict[object, Found] = {}
        counts: dict[object, int] = {}
        records: set[object] = set()
        for hit in hits:
            if self.like and self.like.is_of(hit):
                continue
            if not self.paths and (first := same.get(hit.content)):
                if hit.index != first.index:
                    first.copied.append(hit)
                continue
            key = hit.label() if self.paths else hit.path
            counts[key] = counts.get(key, 0) + 1
            full = counts[key] > (1 if self.paths else self.per_file or counts[key])
            record = (hit.index, hit.document) if hit.number is not None else None
            if full or record in records:
                continue
            if record:
                records.add(record)
            same[hit.content] = hit
            chosen.append(hit)
            if len(chosen) == k:
                break
        return chosen


def filter_of(call: Call, globs: list[str], where: list[str]) -> Filter | None:
    """What --path and --where leave, where there are any: only then what they need is imported."""
    if not (globs or where):
        return None
    from embed.filters import Filter

    return Filter(call, globs, where)


class Query:
    """A text; where vectors are asked for its own (float32, as bytes), the share of it that the model knows, what
    gives vectors to other texts, and the model's cosine of unrelated ones. weights, floor: once it was answered, what
    its words weigh, and what decided whether there is a hit."""

    def __init__(
        self, text: str, vector: bytes = b"", known: float = 0.0, *,
        encode: Callable[[list[str]], Any] | None = None, unrelated: Callable[[], float] = float,
    ) -> None:  # fmt: skip
        self.text, self.vector, self.known, self.encode, self.unrelated = text, vector, known, encode, unrelated
        self.weights: dict[str, float] = {}
        self.floor = ""

    def near(self, texts: list[str]) -> list[float]:
        """The cosines of other texts, where there are vectors."""
        assert self.encode
        found: list[float] = (self.encode(texts) @ rank.floats(self.vector)).tolist()
        return found


def search(call: Call, texts: list[str], inputs: Inputs, *, wanted: Wanted, printer: Printer) -> Exit:
    """Answer each query in turn; the status is that of grep."""
    named = inputs.open(call, name=wanted.model, lexical=wanted.mode == "lexical")
    try:
        shown, filter, count = inputs.shown, wanted.filter, len(named)
        indexes = [Opened(db, name, shown=shown, filter=filter, beside=count) for db, name in named]
        extractor = words.TermExtractor({opened.version for opened in indexes})
        for opened in indexes:
            opened.extractor = extractor
        return _search(call, texts, indexes, wanted=wanted, printer=printer)
    finally:
        for db, _ in named:
            db.close()


def _search(call: Call, texts: list[str], indexes: list[Opened], *, wanted: Wanted, printer: Printer) -> Exit:
    lexical = wanted.mode == "lexical"
    if wanted.like:
        queries = [Query(wanted.like.rarest()) if lexical else wanted.like.query(indexes, name=wanted.model)]
    else:
        queries = (
            [Query(text) for text in texts] if lexical or not texts else encode(call, texts, indexes, name=wanted.model)
        )
    judge = Judge(call, wanted.rerank) if wanted.rerank else None
    if call.verbose:
        call.info(searched(indexes, wanted))
    found = Exit.NONE
    for number, query in enumerate(queries):
        checkpoint()
        hits = answer(indexes, query, wanted=wanted, judge=judge) if query.text.strip() or wanted.like else []
        if hits:
            found = Exit.OK
        floor = "no floor" if wanted.threshold is None else f"the threshold is {wanted.threshold:g}"
        if call.verbose:
            which = f"{_short(query.text)}: " if len(queries) > 1 else ""
            copies = 0 if wanted.paths else sum(len(hit.copies()) for hit in hits)
            more = f", {pipes.plural(copies, 'copy')} elsewhere (-l, --json tell where)" if copies else ""
            call.info(f"{which}{pipes.plural(len(hits), 'hit')}{more}; {query.floor or floor}")
        printer.print(number, hits, Aim(query.weights, indexes[0].extractor, query.near if query.encode else None))
    if wanted.filter and (problem := wanted.filter.told()):
        call.warn(problem)
    if judge and judge.scorer.queries_cut:
        call.cut(f"{pipes.plural(judge.scorer.queries_cut, 'query')} over the limit of {wanted.rerank} cut")
    return found


def _short(text: str) -> str:
    """A query as a message names it."""
    from toast import operands

    return operands.quoted(operands.short(text))


def searched(indexes: list[Opened], wanted: Wanted) -> str:
    """What is searched, and how."""
    counts = [database.counts(opened.db) for opened in indexes]
    documents, chunks = (sum(column) for column in zip(*counts, strict=True))
    names = ", ".join(opened.name for opened in indexes[:NAMED]) + ", ..." * (len(indexes) > NAMED)
    left = [len(opened.allowed) for opened in indexes if opened.allowed is not None]
    told = f"{pipes.plural(chunks, 'chunk')} of {pipes.plural(documents, 'document')} in {names}"
    told += f", {sum(left)} of them after --path and --where" if left else ""
    model = "" if wanted.mode == "lexical" else f" by {wanted.model or indexes[0].model}"
    return f"{told}; {wanted.mode}{model}"


def answer(indexes: list[Opened], query: Query, *, wanted: Wanted, judge: Judge | None = None) -> list[Found]:
    """The hits of one query over all indexes, best first."""
    wide = max(RERANKED, wanted.k) if judge else wanted.k
    lexicons = [opened.lexicon for opened in indexes]
    asked = bm25.Asked(query.text, lexicons, indexes[0].extractor, alone=wanted.mode == "lexical")
    query.weights = asked.weights
    scored: list[Scored] = []
    for i, opened in enumerate(indexes):
        with schema.damage(opened.name, opened.db):
            scored.append((*opened.cosines(query, wanted.mode), asked.scores(i) if wanted.mode != "vector" else {}))
    scale = None
    if wanted.mode == "hybrid":
        parts = [(cosines, found) for _, cosines, found in scored]
        scale = rank.Scale(parts, query.known, ideal=asked.ideal, unrelated=query.unrelated)
    hits: list[Found] = []
    for i, (opened, found) in enumerate(zip(indexes, scored, strict=True)):
        first = asked.verbatim(i) | asked.named(i) if wanted.mode != "vector" else set()
        with schema.damage(opened.name, opened.db):
            hits += opened.find(found, wanted=wanted, scale=scale, k=wide + len(first), first=first)
    lift(hits)
    hits.sort(key=order)
    if scale and hits and wanted.threshold is None:
        hits = over_the_floor(hits, query, scale)
        judged = [wanted.files or hit.is_entry() for hit in hits]
        hits = [hit for hit, alone in zip(hits, judged, strict=True)
                if hit is hits[0] or hit.first or not alone or by_itself(hit, scale)]  # fmt: skip
    if scale and hits:
        absolute(hits, scale)
    if scale and wanted.threshold is None:
        hits = [hit for hit in hits if hit.score > 0]  # what is no nearer than the mean of all was not found
    hits = wanted.choose(hits, wide)
    if judge:
        hits = judge.sort(query.text, hits, wanted.mode)
    return [hit for hit in hits[: wanted.k] if wanted.threshold is None or hit.score >= wanted.threshold]


def over_the_floor(hits: list[Found], query: Query, scale: rank.Scale) -> list[Found]:
    """What was found if the best is a hit at all; query.floor says what decided."""
    cosine, bm25 = hits[0].cosine or 0.0, hits[0].bm25 or 0.0
    if hits[0].first or scale.has_words(bm25):
        query.floor = "the words decide, not the floor"
        return hits
    query.floor = f"the best hit has {scale.has(cosine, bm25):.2f}, the floor is {scale.floor:.2f}"
    if scale.answers(cosine, bm25):
        return hits
    hits = by_line(hits, query, scale)
    if hits:
        query.floor = "a line decides, not the floor"
    return hits


def by_line(hits: list[Found], query: Query, scale: rank.Scale) -> list[Found]:
    """What was found where no chunk answers: nothing, or in few chunks those whose line does, before the others."""
    if scale.chunks > rank.LINES_OF:
        return []
    rows = [(hit, text) for hit in hits[:BY_LINE] for _, text in hit.lines() if text.strip()]
    if not rows:
        return []
    cosines = query.near([text for _, text in rows])
    scale.see(cosines)
    top, best = hits[0].score, dict[Found, float]()
    for (hit, _), cosine in zip(rows, cosines, strict=True):
        best[hit] = max(cosine, best.get(hit, cosine))
    for hit, cosine in best.items():
        if scale.line_answers(cosine, hit.bm25 or 0.0):
            hit.first, hit.cosine, hit.score = True, cosine, max(top, cosine)
    hits.sort(key=order)
    return hits if hits[0].first else []


def by_itself(hit: Found, scale: rank.Scale) -> bool:
    return scale.answers(hit.cosine or 0.0, hit.bm25 or 0.0, alone=True)


def order(hit: Found) -> tuple[bool, float]:
    """Best first, after those that come before all others."""
    return not hit.first, -hit.score


def lift(hits: list[Found]) -> None:
    """Let those that come first score as much as the best of the others."""
    best = max((hit.score for hit in hits if not hit.first), default=0.0)
    for hit in hits:
        hit.score = max(hit.score, best) if hit.first else hit.score


def absolute(hits: list[Found], scale: rank.Scale) -> None:
    """Make the scores of a query's hits comparable with those of other queries and collections: of the best one how
    good it is, of the others their share of it."""
    best, top = hits[0].score, scale.absolute(hits[0].cosine or 0.0, hits[0].bm25 or 0.0)
    for hit in hits:
        hit.score = max(top * hit.score / best, 0.0) if best > 0 else 0.0


class Opened:
    """One index and what the filters leave of it. shown: a path as it is in the index -> as it is told; extractor:
    what makes terms of a query, as all of the indexes have them."""

    extractor: words.TermExtractor

    def __init__(self, db: Database, name: str, *, shown: Shown, filter: Filter | None, beside: int = 1) -> None:
        self.db, self.name, self.shown = db, name, shown
        with schema.damage(name, db):
            made = database.settings(db)
            self.model, self.digest = made["model"], made["digest"]
            self.index = rank.Index(db, made["dims"], exact=bool(made["exact"]), beside=beside)
            self.lexicon, self.version = bm25.Lexicon(db, name), schema.version_of(db)
            self.allowed = filter.chunks(db, shown) if filter else None

    def cosines(self, query: Query, mode: str) -> tuple[array[int], array[float]]:
        """Its chunks and their cosines, as far as the mode has them."""
        if mode == "lexical":
            return array("q"), array("f")
        [found] = self.index.cosines([query.vector])
        return found

    def find(self, scored: Scored, *, wanted: Wanted, scale: rank.Scale | None, k: int, first: set[int]) -> list[Found]:
        """At least k hits, best first, if there are so many that `wanted` chooses; first: chunks before all others."""
        wide = 4 * k  # copies, and what is too much of a file, are few
        while True:
            ranked = self._ranked(scored, wanted.mode, scale=scale, k=wide, first=first)
            hits = wanted.choose((Found(self, hit) for hit in ranked), k)
            if len(hits) == k or len(ranked) < wide:
                return hits
            wide *= 8

    def _ranked(
        self, scored: Scored, mode: str, *, scale: rank.Scale | None, k: int, first: set[int]
    ) -> list[rank.Hit]:
        ids, cosines, found = scored
        if mode == "lexical":
            return rank.lexical(found, self.allowed, k, first=first)
        if scale is None:
            return rank.vector(ids, cosines, allowed=self.allowed, k=k)
        return rank.hybrid(ids, cosines, found, scale=scale, allowed=self.allowed, k=k, first=first)


def expect_one_model(indexes: list[Opened]) -> None:
    """BadInput unless all indexes were made with the same model."""
    first = indexes[0]
    for other in indexes[1:]:
        if other.digest != first.digest:
            raise BadInput(f"{other.name} was made with another model than {first.name}", "search them one by one")


def expected_model(call: Call, indexes: list[Opened], name: str | None) -> str:
    """The name of the indexes' model, or `name`; BadInput where it is not the one that they were made with."""
    expect_one_model(indexes)
    first = indexes[0]
    if first.digest:
        model.check(call, name or first.model, made=first.model, expected=first.digest, index=first.name)
    return name or first.model


def expect_dims(opened: Opened, name: str, dims: int) -> None:
    if dims != opened.index.dims:
        with schema.damage(opened.name):
            raise schema.Damaged(f"{opened.index.dims} dimensions, {name} has {dims}")


def encode(call: Call, texts: list[str], indexes: list[Opened], *, name: str | None) -> list[Query]:
    """The queries with their vectors, by the model of the indexes, or by `name`, which must be the same."""
    name = expected_model(call, indexes, name)
    from toast.encoding.encoder import Encoder
    from toast.store.safetensors import data

    encoder = Encoder(call, name, kind="query")
    expect_dims(indexes[0], name, encoder.dims)
    rows, shares = data(encoder.encode(texts)), known_shares(encoder.tokens, texts)
    if encoder.cut:
        call.cut(f"{pipes.plural(encoder.cut, 'query')} over {encoder.tokens.max_length} tokens cut")
    if not all(map(encoder.tokens.reads, texts)):
        call.warn(model.unread(name, "query"))
    size = 4 * encoder.dims
    vectors = [bytes(rows[size * i : size * (i + 1)]) for i in range(len(texts))]

    @cache
    def documents() -> Encoder:
        return Encoder(call, name)

    def near(texts: list[str]) -> Any:
        return documents().encode(texts)

    @cache
    def unrelated() -> float:
        return model.unrelated(encoder, documents())

    return [Query(*parts, encode=near, unrelated=unrelated) for parts in zip(texts, vectors, shares, strict=True)]


def known_shares(tokens: Tokens, texts: list[str]) -> list[float]:
    """How much of each text's characters is in tokens that the model knows, 0 to 1."""
    unknown = {tokens.id(name) for name in ("[UNK]", "<unk>")}
    shares = []
    for text, encoding in zip(texts, tokens.encode(texts, special=False), strict=True):
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        lost = sum(stop - start for id, (start, stop) in spans if id in unknown)
        shares.append(1 - min(lost / max(len("".join(text.split())), 1), 1))
    return shares


class Judge:
    """--rerank: hits in the order of a scorer that reads query and text together, and of the search.

    The fused score stays a part: what two ways of looking agree on is better than either alone.
    """

    FUSED = 10.0  # logits that a fused score of 1 is worth; tests/bench/retrieval.py measures it

    def __init__(self, call: Call, name: str) -> None:
        from toast.encoding import relevance

        self.scorer = relevance.open_scorer(call, name)

    def sort(self, query: str, hits: list[Found], mode: str) -> list[Found]:
        """The hits with new scores, best first."""
        worth = self.FUSED if mode == "hybrid" else 0.0  # BM25 alone has another scale
        logits = self.scorer.logits(query, [hit.text for hit in hits])
        for hit, logit in zip(hits, logits, strict=True):
            hit.score = self.scorer.score(logit, hit.score, worth)
        return sorted(hits, key=lambda hit: -hit.score)
