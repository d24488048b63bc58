"""`search`: queries and indexes to the chunks that answer, best first.

Owns filters, and the order of hits of several indexes. Knows nothing of where indexes come from (`inputs.py`),
of scoring (`rank.py`), of the file's layout (`database.py`) or of how hits are written (`hits.py`).
"""

from __future__ import annotations

from array import array

from embed import database, model, rank, schema, words
from embed.hits import Found, Printer
from toast import pipes
from toast.cancel import checkpoint
from toast.errors import BadInput, Exit, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

    from embed.inputs import Inputs, Named
    from toast.command import Call
    from toast.encoding.tokens import Tokens

    Scored = tuple[array[int], array[float], rank.Scores]  # chunks and their cosines; chunk -> BM25

RERANKED = 50  # hits that --rerank looks at, at least


class Wanted:
    """What the command line asks for. path: a GLOB; where: FIELD=VALUE; rerank: the model that --rerank reads with."""

    def __init__(
        self, *, k: int = 10, mode: str = "hybrid", threshold: float | None = None, path: str | None = None,
        where: Sequence[str] = (), model: str | None = None, rerank: str | None = None,
    ) -> None:  # fmt: skip
        self.k, self.mode, self.threshold, self.path, self.model, self.rerank = k, mode, threshold, path, model, rerank
        self.where = []
        for condition in where:
            name, equals, value = condition.partition("=")
            if not (name and equals):
                raise UsageError("--where wants FIELD=VALUE")
            self.where.append((pipes.clean(name), pipes.clean(value)))


class Query:
    """A text, its vector (float32, as bytes) and the share of it that the model knows, where vectors are asked for."""

    def __init__(self, text: str, vector: bytes = b"", known: float = 0.0) -> None:
        self.text, self.vector, self.known = text, vector, known


def search(call: Call, texts: list[str], inputs: Inputs, *, wanted: Wanted, printer: Printer) -> Exit:
    """Answer each query in turn; the status is that of grep."""
    named = inputs.open(call, name=wanted.model, lexical=wanted.mode == "lexical")
    try:
        return _search(call, texts, named, wanted=wanted, printer=printer)
    finally:
        for db, _ in named:
            db.close()


def _search(call: Call, texts: list[str], named: list[Named], *, wanted: Wanted, printer: Printer) -> Exit:
    lexical = wanted.mode == "lexical"
    indexes = [Opened(db, name, wanted) for db, name in named]
    queries = (
        [Query(text) for text in texts] if lexical or not texts else encode(call, texts, indexes, name=wanted.model)
    )
    judge = Judge(call, wanted.rerank) if wanted.rerank else None
    found = Exit.NONE
    for number, query in enumerate(queries):
        checkpoint()
        hits = answer(indexes, query, wanted=wanted, judge=judge) if query.text.strip() else []
        if hits:
            found = Exit.OK
        printer.print(number, query.text, hits, extractor=indexes[0].index.extractor)
    if judge and judge.scorer.queries_cut:
        call.cut(f"{pipes.plural(judge.scorer.queries_cut, 'query')} over the limit of {wanted.rerank} cut")
    return found


def answer(indexes: list[Opened], query: Query, *, wanted: Wanted, judge: Judge | None = None) -> list[Found]:
    """The hits of one query over all indexes, best first."""
    wide = max(RERANKED, wanted.k) if judge else wanted.k
    scored: list[Scored] = []
    for opened in indexes:
        with schema.damage(opened.name, opened.db):
            scored.append(opened.score(query, wanted.mode))
    scale = None
    if wanted.mode == "hybrid":
        scale = rank.Scale([(cosines, found) for _, cosines, found in scored], query.known)
    hits: list[Found] = []
    for opened, parts in zip(indexes, scored, strict=True):
        with schema.damage(opened.name, opened.db):
            hits += opened.find(parts, mode=wanted.mode, scale=scale, k=wide)
    hits.sort(key=lambda hit: -hit.score)
    if judge:
        hits = judge.sort(query.text, hits[:wide], wanted.mode)
    return [hit for hit in hits[: wanted.k] if wanted.threshold is None or hit.score >= wanted.threshold]


class Opened:
    """One index and what the filters leave of it."""

    def __init__(self, db: Connection, name: str, wanted: Wanted) -> None:
        self.db, self.name = db, name
        with schema.damage(name, db):
            made = database.settings(db)
            self.model, self.digest = made["model"], made["digest"]
            self.index = rank.Index(db, made["dims"], exact=bool(made["exact"]), extractor=words.TermExtractor())
            filtered = wanted.path or wanted.where
            self.allowed = database.matching_chunks(db, wanted.path, wanted.where) if filtered else None

    def score(self, query: Query, mode: str) -> Scored:
        """(ids, cosines, chunk -> BM25), as far as the mode has them."""
        found = self.index.bm25(query.text, alone=mode == "lexical") if mode != "vector" else {}
        if mode == "lexical":
            return array("q"), array("f"), found
        [(ids, cosines)] = self.index.cosines([query.vector])
        return ids, cosines, found

    def find(self, scored: Scored, *, mode: str, scale: rank.Scale | None, k: int) -> list[Found]:
        """Hits, best first; of a record, its best chunk only."""
        ids, cosines, found = scored
        wide = max(rank.POOL, 4 * k)
        if mode == "lexical":
            ranked = rank.lexical(found, self.allowed, wide)
        elif scale is None:
            ranked = rank.vector(ids, cosines, allowed=self.allowed, k=wide)
        else:
            ranked = rank.hybrid(ids, cosines, found, scale=scale, allowed=self.allowed, k=wide)
        return self._load(ranked, k)

    def _load(self, ranked: list[rank.Hit], k: int) -> list[Found]:
        hits: list[Found] = []
        records: set[int] = set()
        for hit in ranked:
            found = Found(self.db, hit, self.name)
            if found.number is not None:
                if found.document in records:
                    continue
                records.add(found.document)
            hits.append(found)
            if len(hits) == k:
                break
        return hits


def encode(call: Call, texts: list[str], indexes: list[Opened], *, name: str | None) -> list[Query]:
    """The queries with their vectors, by the model of the indexes, or by `name`, which must be the same."""
    first = indexes[0]
    for other in indexes[1:]:
        if other.digest != first.digest:
            raise BadInput(f"{other.name} was made with another model than {first.name}", "search them one by one")
    name = name or first.model
    if first.digest:
        model.check(call, name, expected=first.digest, index=first.name)
    from toast.encoding.encoder import Encoder
    from toast.store.safetensors import data

    encoder = Encoder(call, name, kind="query")
    if encoder.dims != first.index.dims:
        with schema.damage(first.name):
            raise schema.Damaged(f"{first.index.dims} dimensions, {name} has {encoder.dims}")
    rows, shares = data(encoder.encode(texts)), known_shares(encoder.tokens, texts)
    if encoder.cut:
        call.cut(f"{pipes.plural(encoder.cut, 'query')} over {encoder.tokens.max_length} tokens cut")
    size = 4 * encoder.dims
    vectors = [bytes(rows[size * i : size * (i + 1)]) for i in range(len(texts))]
    return [Query(*parts) for parts in zip(texts, vectors, shares, strict=True)]


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
