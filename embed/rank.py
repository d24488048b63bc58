"""Which chunks answer a query: BM25 by FTS5, cosines by a scan of the int8 codes, and their fusion.

Knows nothing of models (a query comes with its vector), of documents or of output.
"""

from array import array
from bisect import bisect_left
from math import log, sqrt

from embed import database
from embed.words import PLAIN, TOKENIZER, terms

QUERY_TERMS = 256  # of a long query, the first ones are looked up
POSTINGS = 20_000  # rows that BM25 may score: a query's common terms are left out beyond it
COMMON = 25  # a word in more than one of so many chunks, and over POSTINGS, tells too little apart
POOL = 1000  # best chunks of each kind that enter the fusion
FEW = 20  # chunks whose mean cosine is taken as it is; fewer are filled up
NOTHING = 0.1  # the cosine of a chunk that says nothing
HELD = 64 << 20  # bytes of vectors kept in memory between queries


class Hit:
    """A chunk and its scores: fused (or of the mode asked for), cosine, BM25."""

    __slots__ = ("chunk", "score", "cosine", "bm25")

    def __init__(self, chunk, score, cosine, bm25):
        self.chunk, self.score, self.cosine, self.bm25 = chunk, score, cosine, bm25


class TermExtractor:
    """Texts to terms as an index with our tokenizer has them: FTS5 itself does it, in memory."""

    def __init__(self):
        self.db = db = database.connect(":memory:")
        for name, tokenizer in (("plain", PLAIN), ("stems", TOKENIZER)):
            db.execute(f"CREATE VIRTUAL TABLE {name} USING fts5(text, content='', tokenize=\"{tokenizer}\")")
            db.execute(f"CREATE VIRTUAL TABLE {name}_terms USING fts5vocab({name}, instance)")
        db.execute("BEGIN")  # for good: a commit would cost more than a text

    def terms(self, text: str) -> dict:
        """The distinct terms of a text, in its order: stem -> the word that has it."""
        db = self.db
        db.execute("INSERT INTO plain (rowid, text) VALUES (1, ?)", (terms(text),))
        words = db.execute(
            "SELECT term FROM plain_terms GROUP BY term ORDER BY min(offset) LIMIT ?", (QUERY_TERMS,)
        ).fetchall()
        db.executemany(
            "INSERT INTO stems (rowid, text) VALUES (?, ?)", ((i, word) for i, (word,) in enumerate(words, 1))
        )
        stems = db.execute("SELECT term, doc FROM stems_terms ORDER BY doc DESC").fetchall()
        for table in ("plain", "stems"):
            db.execute(f"INSERT INTO {table} ({table}) VALUES ('delete-all')")
        return {stem: words[i - 1][0] for stem, i in reversed(stems)}

    def stems(self, texts) -> list:
        """The set of each text's stems."""
        self.db.executemany(
            "INSERT INTO stems (rowid, text) VALUES (?, ?)", ((i, terms(t)) for i, t in enumerate(texts))
        )
        found = [set() for _ in texts]
        for stem, i in self.db.execute("SELECT term, doc FROM stems_terms"):
            found[i].add(stem)
        self.db.execute("INSERT INTO stems (stems) VALUES ('delete-all')")
        return found


class Index:
    """An open index, ready to be asked. dims: of its vectors; exact: score the float32 ones."""

    def __init__(self, db, dims: int, exact: bool, extractor: TermExtractor):
        self.db, self.dims, self.exact, self.extractor = db, dims, exact, extractor
        self.count = db.execute("SELECT coalesce(sum(length(ids)), 0) / 8 FROM segments").fetchone()[0]
        self.common = max(POSTINGS, self.count // COMMON)
        self._held = None
        db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab('main', 'words', 'row')")

    # ---- BM25

    def match(self, text: str, alone: bool = False) -> str:
        """The FTS5 expression for a text: its words, rarest first, as far as POSTINGS go.

        alone: nothing else ranks, so that even of common words the rarest is asked for.
        """
        words = {stem: '"' + word.replace('"', '""') + '"' for stem, word in self.extractor.terms(text).items()}
        found = sorted((self.rows(word), word) for word in words.values())
        kept, rows = [], 0
        for frequency, word in found:
            rows += frequency
            if rows > POSTINGS and kept or frequency > self.common:
                break
            kept += [word] * bool(frequency)
        if not kept and rows and alone:
            kept = [words[stem] for _, stem in sorted(map(self.frequency, words))[:1]]
        return " OR ".join(kept)

    def rows(self, word: str) -> int:
        """In how many chunks a word is; counted no further than one over `common`."""
        counted = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
        return self.db.execute(counted, (word, self.common + 1)).fetchone()[0]

    def frequency(self, stem: str):
        """(in how many chunks a term is, the term); a term in none comes last."""
        row = self.db.execute("SELECT doc FROM vocabulary WHERE term = ?", (stem,)).fetchone()
        return row[0] if row else self.count + 1, stem

    def bm25(self, text: str, alone: bool = False) -> dict:
        """Chunk -> its score (k1 1.2, b 0.75; Robertson & Zaragoza 2009), above 0."""
        expression = self.match(text, alone)
        if not expression:
            return {}
        return dict(self.db.execute("SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?", (expression,)))

    # ---- cosines

    def cosines(self, vectors) -> list:
        """(ids, scores) for each query vector (float32, as bytes): two arrays, by chunk number."""
        ids, scores = array("q"), [array("f") for _ in vectors]
        for segment in self._segments():
            ids.extend(segment.ids)
            for vector, row in zip(vectors, scores):
                row.frombytes(scan(segment, vector))
        return [(ids, row) for row in scores]

    def _segments(self):
        """The segments; of a small index they stay in memory."""
        if self._held is not None:
            return self._held
        if self.count * self.dims <= HELD:
            self._held = list(database.segments(self.db, self.dims, self.exact))
            return self._held
        return database.segments(self.db, self.dims, self.exact)


def scan(segment, vector: bytes) -> bytes:
    """The scores of a segment's rows, float32: from the exact vectors if it has them, else from the codes."""
    if segment.exact is None:
        from toast.kernels.scan import int8_scan

        return int8_scan(segment.codes, segment.scales, vector)
    import mlx.core as mx

    query = mx.array(memoryview(vector).cast("f"))
    rows = mx.array(memoryview(segment.exact).cast("f")).reshape(-1, query.size)
    return bytes(memoryview(mx.where(mx.isfinite(rows), rows, 0) @ query))


# ---------------------------------------------------------------- orders


def lexical(scores: dict, allowed, k: int) -> list:
    """The best k chunks by BM25."""
    return [Hit(chunk, score, None, score) for score, chunk in heaviest(scores, allowed, k)]


def heaviest(scores: dict, allowed, k: int) -> list:
    """The k highest (score, chunk); the earlier chunk first where they are equal."""
    if allowed is not None:
        scores = {chunk: score for chunk, score in scores.items() if chunk in allowed}
    floor = sorted(scores.values())[-k] if len(scores) > k else 0
    best = sorted((-score, chunk) for chunk, score in scores.items() if score >= floor)[:k]
    return [(-score, chunk) for score, chunk in best]


def vector(ids, scores, allowed, k: int) -> list:
    """The best k chunks by cosine."""
    return [Hit(c, most_one(s), most_one(s), None) for s, c in top(ids, scores, allowed, k)]


def top(ids, scores, allowed, k: int) -> list:
    """The k highest (score, chunk); the earlier chunk first where they are equal."""
    if allowed is not None:
        rows = [i for i, chunk in enumerate(ids) if chunk in allowed]
    elif len(scores) > k:
        import mlx.core as mx

        rows = mx.argpartition(-mx.array(memoryview(scores)), k)[:k].tolist()
    else:
        rows = range(len(ids))
    best = sorted((-scores[i], ids[i]) for i in rows)[:k]
    return [(-score, chunk) for score, chunk in best]


class Scale:
    """What the scores of one query are measured by, over all the chunks that are searched together.

    Either score is brought to a scale from a chunk that says nothing to a perfect one: cosines
    from their mean to 1, BM25 from 0 to the query's best. What each then counts is `weight`'s
    business; a query's words that the model does not know leave it to BM25. Fewer than FEW chunks
    have no mean worth the name: they are taken with chunks that say nothing, up to that number.
    """

    def __init__(self, parts, read: float):
        """parts: (cosines, chunk -> BM25) of each index; read: how much of the query the model can read, 0 to 1."""
        words = [score for _, found in parts for score in found.values()]
        means = [(len(scores), *moments(scores)) for scores, _ in parts if scores]
        few = max(0, FEW - sum(n for n, _, _ in means))
        count = few + sum(n for n, _, _ in means)
        # of one index the mean is taken as it is, to the bit
        self.mean = (
            means[0][1] if len(means) == 1 and not few else (few * NOTHING + sum(n * m for n, m, _ in means)) / count
        )
        self.height = 1 / max(1 - self.mean, 1e-6)
        self.most = max(words, default=1.0)
        best = max((best for _, _, best in means), default=0.0)
        cosine, bm25 = read * read, weight(words, count, (best - self.mean) * self.height)
        self.cosine, self.bm25 = cosine / (cosine + bm25), bm25 / (cosine + bm25)
        self.empty = not (read or words)  # nothing of the query says anything

    def score(self, cosine, bm25) -> float:
        return self.cosine * (cosine - self.mean) * self.height + self.bm25 * bm25 / self.most


def hybrid(ids, scores, words: dict, scale: Scale, allowed, k: int) -> list:
    """The best k chunks of an index by both scores."""
    if scale.empty:
        return []
    cosines = {chunk: cosine for cosine, chunk in top(ids, scores, allowed, max(POOL, k))}
    for _, chunk in heaviest(words, allowed, max(POOL, k)):
        if chunk not in cosines:
            cosines[chunk] = scores[row_of(ids, chunk)]
    fused = sorted((-scale.score(cosine, words.get(chunk, 0.0)), chunk) for chunk, cosine in cosines.items())
    return [Hit(c, most_one(-score), most_one(cosines[c]), words.get(c, 0.0)) for score, c in fused[:k]]


def most_one(score) -> float:
    """A score as it is told: int8 codes may make a little more than 1 of it."""
    return min(score, 1.0)


def row_of(ids, chunk) -> int:
    row = bisect_left(ids, chunk)
    if row == len(ids) or ids[row] != chunk:
        raise LookupError(f"no vector of chunk {chunk}")
    return row


def moments(scores):
    """(mean, maximum)."""
    import mlx.core as mx

    values = mx.array(memoryview(scores))
    return mx.mean(values).item(), mx.max(values).item()


def weight(scores, count: int, height: float) -> float:
    """What BM25 counts beside a cosine that counts 1, for one query over `count` chunks.

    More, the further its best stands out: from all chunks, in standard deviations, and from the
    eleventh best; less, the further the best cosine does (`height`, on the scale of `hybrid`).
    tests/bench/retrieval.py measures it: never worse than the better half on thirteen collections.
    """
    best = sorted(scores, reverse=True)[:11]
    if not best:
        return 0.02
    mean = sum(scores) / count
    spread = sqrt(max(sum(s * s for s in scores) / count - mean * mean, 1e-12))
    outstanding = (best[0] - mean) / spread / max(log(count), 1)
    gap = 1 - best[10] / best[0] if len(best) > 10 else 1
    return min(max(0.26 * outstanding * gap / max(height, 0.05) ** 2, 0.02), 10)
