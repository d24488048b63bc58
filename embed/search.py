"""`search`: a query and an index, or plain text, to the chunks that answer it, best first.

Owns where the texts come from, filters, and the order of hits of several indexes. Knows nothing of
scoring (`rank.py`), of the file's layout (`database.py`) or of how hits are written (`hits.py`).
"""

import os
import stat

from embed import database, model, rank
from embed.hits import Found, Printer
from toast import files, pipes
from toast.errors import BadInput, Exit, UsageError
from toast.records import Records

NEAREST = ".index.db"
RERANKED = 50  # hits that --rerank looks at, at least


class Wanted:
    """What the command line asks for."""

    def __init__(self, k=10, mode="hybrid", threshold=None, path=None, where=(), model=None, rerank=None):
        self.k, self.mode, self.threshold, self.path, self.model, self.rerank = k, mode, threshold, path, model, rerank
        self.where = [condition.partition("=") for condition in where]
        for name, equals, _ in self.where:
            if not (name and equals):
                raise UsageError("--where wants FIELD=VALUE")


def search(call, queries, inputs, wanted: Wanted, printer: Printer) -> Exit:
    """Answer each query in turn; the status is that of grep."""
    indexes = [Opened(call, db, name, wanted) for db, name in inputs(call, wanted)]
    vectors = [None] * len(queries)
    if wanted.mode != "lexical" and queries:
        vectors = encode(call, queries, indexes, wanted)
    judge = Judge(call, wanted.rerank) if wanted.rerank else None
    found = Exit.NONE
    for number, (query, vector) in enumerate(zip(queries, vectors)):
        hits = answer(indexes, query, vector, wanted, judge) if query.strip() else []
        if hits:
            found = Exit.OK
        printer.print(number, query, hits, indexes[0].index.extractor)
    return found


def answer(indexes, query, vector, wanted, judge) -> list:
    """The hits of one query over all indexes, best first."""
    wide = max(RERANKED, wanted.k) if judge else wanted.k
    hits, scored = [], []
    for opened in indexes:
        with database.damage(opened.name):
            scored.append(opened.score(query, vector, wanted.mode))
    scale = rank.Scale([(scores, words) for _, scores, words in scored], vector[1]) if wanted.mode == "hybrid" else None
    for opened, parts in zip(indexes, scored):
        with database.damage(opened.name):
            hits += opened.find(*parts, scale, wanted.mode, wide)
    hits.sort(key=lambda hit: -hit.score)
    if judge:
        hits = judge.sort(query, hits[:wide], wanted.mode)
    return [hit for hit in hits[: wanted.k] if wanted.threshold is None or hit.score >= wanted.threshold]


class Opened:
    """One index and what the filters leave of it."""

    def __init__(self, call, db, name, wanted):
        self.db, self.name = db, name
        with database.damage(name):
            made = database.meta(db)
            self.model, self.digest, dims = made["model"], made["digest"], made["dims"]
            if not (isinstance(self.model, str) and isinstance(dims, int) and 0 <= dims < 1 << 16):
                raise ValueError("its settings are no settings")
            self.index = rank.Index(db, dims, bool(made["exact"]), rank.TermExtractor())
            self.allowed = allowed(db, wanted) if wanted.path or wanted.where else None

    def score(self, query, vector, mode):
        """(ids, cosines, chunk -> BM25), as far as the mode has them."""
        words = self.index.bm25(query, alone=mode == "lexical") if mode != "vector" else {}
        [(ids, scores)] = self.index.cosines([vector[0]]) if mode != "lexical" else [((), ())]
        return ids, scores, words

    def find(self, ids, scores, words, scale, mode, k) -> list:
        """Hits, best first; of a record, its best chunk only."""
        wide = max(rank.POOL, 4 * k)
        if mode == "lexical":
            ranked = rank.lexical(words, self.allowed, wide)
        elif mode == "vector":
            ranked = rank.vector(ids, scores, self.allowed, wide)
        else:
            ranked = rank.hybrid(ids, scores, words, scale, self.allowed, wide)
        return self._load(ranked, k)

    def _load(self, ranked, k):
        hits, records = [], set()
        for hit in ranked:
            found = Found.load(self.db, hit, self.name)
            if found.number is not None:
                if found.document in records:
                    continue
                records.add(found.document)
            hits.append(found)
            if len(hits) == k:
                break
        return hits


def allowed(db, wanted) -> set:
    """The chunks of the documents that --path and --where let through."""
    conditions, values = [], []
    if wanted.path:
        glob = wanted.path if "/" in wanted.path else f"*/{wanted.path}"
        path = "CAST(d.path AS TEXT)" if "/" in wanted.path else "'/' || CAST(d.path AS TEXT)"
        conditions.append(f"{path} GLOB CAST(? AS TEXT)")
        values.append(database.stored(glob))
    for name, _, value in wanted.where:
        conditions.append(
            "EXISTS (SELECT 1 FROM json_each(d.data) WHERE key = ?"
            " AND iif(type IN ('true', 'false', 'null'), type, CAST(value AS TEXT)) = ?)"
        )
        values += [pipes.clean(name), pipes.clean(value)]
    where = " AND ".join(conditions)
    return {
        id
        for (id,) in db.execute(
            f"SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document WHERE {where}", values
        )
    }


def encode(call, queries, indexes, wanted) -> list:
    """A vector, float32 as bytes, and how much of it the model read, for each query, by the model of the indexes."""
    first = indexes[0]
    for other in indexes[1:]:
        if other.digest != first.digest:
            raise BadInput(f"{other.name} was made with another model than {first.name}", "search them one by one")
    name = wanted.model or first.model
    if first.digest:
        model.check(call, name, first.digest, first.name)
    from toast.encoding.encoder import Encoder

    encoder = Encoder(call, name, "query")
    if encoder.dims != first.index.dims:
        raise BadInput(f"{first.name} is damaged: {first.index.dims} dimensions, {name} has {encoder.dims}")
    rows, shares = memoryview(encoder.encode(queries)).cast("B"), read_shares(encoder.tokens, queries)
    if encoder.cut:
        call.cut(f"{pipes.plural(encoder.cut, 'query')} over {encoder.tokens.max_length} tokens cut")
    size = 4 * encoder.dims
    return [(bytes(rows[size * i : size * (i + 1)]), share) for i, share in enumerate(shares)]


def read_shares(tokens, queries) -> list:
    """How much of each query's characters is in tokens that the model knows, 0 to 1."""
    unknown = {tokens.id(name) for name in ("[UNK]", "<unk>")}
    shares = []
    for query, encoding in zip(queries, tokens.encode(queries, special=False)):
        lost = sum(stop - start for id, (start, stop) in zip(encoding.ids, encoding.offsets) if id in unknown)
        shares.append(1 - min(lost / max(len("".join(query.split())), 1), 1))
    return shares


class Judge:
    """--rerank: hits in the order of a scorer that reads query and text together, and of the search.

    The fused score stays a part: what two ways of looking agree on is better than either alone.
    """

    FUSED = 10.0  # logits that a fused score of 1 is worth; tests/bench/retrieval.py measures it

    def __init__(self, call, name):
        from toast.encoding import relevance

        self.scorer = relevance.open_scorer(call, name)

    def sort(self, query, hits, mode):
        worth = self.FUSED if mode == "hybrid" else 0.0  # BM25 alone has another scale
        for hit, logit in zip(hits, self.scorer.logits(query, [hit.text for hit in hits])):
            hit.score = self.scorer.score(logit, hit.score, worth)
        return sorted(hits, key=lambda hit: -hit.score)


# ---------------------------------------------------------------- where texts come from


class Inputs:
    """Indexes to search: named ones, named texts, standard input, or the nearest index upwards."""

    def __init__(self, index, files, nul=False, jsonl=False, field=None):
        self.index, self.files, self.nul, self.jsonl, self.field = index, files, nul, jsonl, field

    def __call__(self, call, wanted):
        """(database, name) of each."""
        named = [self.index] * bool(self.index) + self.files
        if "-" in named:
            if len(named) > 1:
                raise UsageError("- goes alone", "search QUERY FILE... < /dev/null, or search QUERY < FILE")
            found = self._standard_input(call, wanted)
            if not found:
                raise BadInput("nothing to search: standard input is no file and no pipe")
            return [found]
        if named:
            return list(self._named(call, wanted))
        return [self._standard_input(call, wanted) or self._nearest(call)]

    def _named(self, call, wanted):
        texts, first = [], None
        for name in [self.index] * bool(self.index) + self.files:
            fd = database.open_file(call, name)
            if name != self.index and _is_text(fd):
                os.close(fd)
                texts.append(name)
                continue
            found = _opened(call, fd, name)
            first = first or found
            yield found
        if texts:
            yield self._texts(call, wanted, texts, first)

    def _standard_input(self, call, wanted):
        if call.no_input:
            return None
        mode = os.fstat(call.stdin).st_mode
        if stat.S_ISREG(mode):
            if database.kind(database.head_of(call.stdin)) != "text":
                return database.open_fd(call, call.stdin, "standard input"), "standard input"
        elif stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            first = pipes.read_some(call.stdin)
            while first and len(first) < database.HEADER and (more := pipes.read_some(call.stdin)):
                first += more
            if database.kind(first) != "text":
                return database.open_spooled(call, _rest(call.stdin, first), "standard input"), "standard input"
            fd = files.private_file(call)
            for chunk in _rest(call.stdin, first):
                pipes.write_all(fd, chunk, "the temporary file")
            os.lseek(fd, 0, os.SEEK_SET)
            call = call.but(stdin=fd)
        else:
            return None
        return self._texts(call, wanted, [])

    def _texts(self, call, wanted, names, beside=None):
        """An index, private and passing, of texts that have none; by the model of the index `beside` it."""
        from embed import documents, index, writer

        source = documents.source(call, names, None, documents.LARGEST, self.nul, self.jsonl, self.field, None)
        lexical = wanted.mode == "lexical"
        made = {"model": model.chosen(call, wanted.model), "digest": ""}
        if beside:
            with database.damage(beside[1]):
                meta = database.meta(beside[0])
                made = {"model": wanted.model or str(meta["model"]), "digest": meta["digest"]}
        embedder = model.NoEmbedder() if lexical else model.Embedder(call, made["model"])
        db = database.connect("")
        database.create(db)
        database.set_meta(db, dims=embedder.dims, exact=0, **made)
        index.fill(call, writer.Writer(db, embedder), source)
        return db, "the text"

    def _nearest(self, call):
        folder = pipes.path_of(call.cwd)
        while True:
            path = os.path.join(folder, NEAREST)
            if os.path.isfile(path):
                return _opened(call, database.open_file(call, path), path)
            if folder == os.path.dirname(folder):
                raise BadInput(
                    f"nothing to search: no input, and no {NEAREST} here or above", f"run: index . > {NEAREST}"
                )
            folder = os.path.dirname(folder)


def _opened(call, fd, name):
    """(database, name) of a descriptor, which is closed: the connection has its own."""
    try:
        return database.open_fd(call, fd, name), name
    finally:
        os.close(fd)


def _is_text(fd) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode) or database.kind(database.head_of(fd)) == "text"


def _rest(fd, first):
    yield first
    while chunk := pipes.read_some(fd):
        yield chunk


def read_queries(call, name) -> list:
    """The queries of a file: a line each, or JSON objects with a `text`."""
    import json

    queries = []
    for record in Records(call, [name]):
        text = record.text
        if text.startswith("{"):
            try:
                text = json.loads(text)["text"]
            except (ValueError, KeyError, TypeError, RecursionError):
                pass
        queries.append(text if isinstance(text, str) else record.text)
    return queries
