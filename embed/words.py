"""Words of an index: what FTS5 is given to read, for documents and for queries alike, and how it is asked.

Owns the table `words` and how a text becomes terms. Knows nothing of ranking.
"""

from __future__ import annotations

from array import array
from functools import cache

from embed.schema import STEMS, WORDS, Damaged, connect
from toast import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Sequence
    from sqlite3 import Connection

    from embed.schema import Database

QUERY_TERMS = 256  # of a long query, the first ones are looked up

# Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han.
UNSPACED = (
    "\u0e00-\u0fff", "\u1000-\u109f", "\u1780-\u17ff", "\u3040-\u30ff", "\u3400-\u4dbf", "\u4e00-\u9fff",
    "\uf900-\ufaff", "\U00020000-\U0003ffff",
)  # fmt: skip


@cache
def _runs() -> re.Pattern[str]:
    """The pattern of their runs: compiling it takes longer than most queries."""
    import re

    return re.compile(f"[{''.join(UNSPACED)}]+")


def spaced(text: str) -> str:
    """The text with runs of an unspaced script cut into overlapping pairs of characters.

    The last pair is one character: with it, every character begins a term.
    """
    as_it_is = text.isascii() or not any(span[0] <= c <= span[2] for c in set(text) for span in UNSPACED)
    return text if as_it_is else _runs().sub(_pairs, text)


def _pairs(run: re.Match[str]) -> str:
    characters = run[0]
    return f" {' '.join(characters[i : i + 2] for i in range(len(characters)))} "


class TermExtractor:
    """Texts to terms as an index with our tokenizer has them: FTS5 itself does it, in memory."""

    def __init__(self) -> None:
        self.db = db = connect(":memory:")
        for name, tokenizer in (("words", WORDS), ("stems", STEMS)):
            db.execute(f"CREATE VIRTUAL TABLE {name} USING fts5(text, content='', tokenize=\"{tokenizer}\")")
            db.execute(f"CREATE VIRTUAL TABLE {name}_terms USING fts5vocab({name}, instance)")
        db.execute("BEGIN")  # for good: a commit would cost more than a text

    def terms(self, text: str) -> dict[str, str]:
        """The distinct terms of a text, in its order: stem -> the word that has it."""
        db = self.db
        db.execute("INSERT INTO words (rowid, text) VALUES (1, ?)", (spaced(text),))
        words = db.execute(
            "SELECT term FROM words_terms GROUP BY term ORDER BY min(offset) LIMIT ?", (QUERY_TERMS,)
        ).fetchall()
        db.executemany(
            "INSERT INTO stems (rowid, text) VALUES (?, ?)", ((i, word) for i, (word,) in enumerate(words, 1))
        )
        stems = db.execute("SELECT term, doc FROM stems_terms ORDER BY doc DESC").fetchall()
        for table in ("words", "stems"):
            db.execute(f"INSERT INTO {table} ({table}) VALUES ('delete-all')")
        return {stem: words[i - 1][0] for stem, i in reversed(stems)}

    def stems(self, texts: Sequence[str]) -> list[set[str]]:
        """The set of each text's stems."""
        self.db.executemany(
            "INSERT INTO stems (rowid, text) VALUES (?, ?)", ((i, spaced(t)) for i, t in enumerate(texts))
        )
        found: list[set[str]] = [set() for _ in texts]
        for stem, i in self.db.execute("SELECT term, doc FROM stems_terms"):
            found[i].add(stem)
        self.db.execute("INSERT INTO stems (stems) VALUES ('delete-all')")
        return found


# ---------------------------------------------------------------- the table


def insert(db: Connection, chunk: int, text: str) -> None:
    db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (chunk, spaced(text)))


def remove(db: Connection, chunk: int, text: str) -> None:
    """Take the words of a chunk out; FTS5 keeps no text and must be told which they are."""
    db.execute("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", (chunk, spaced(text)))


def optimize(db: Connection) -> None:
    """Make one tree of the many that were written."""
    db.execute("INSERT INTO words (words) VALUES ('optimize')")


def open_vocabulary(db: Connection) -> None:
    """What `frequency` reads; once for a connection."""
    db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab('main', 'words', 'row')")


def frequency(db: Connection, stem: str) -> int | None:
    """In how many chunks a stem is; None: in none."""
    row = db.execute("SELECT doc FROM vocabulary WHERE term = ?", (stem,)).fetchone()
    return row[0] if row else None


def matches(db: Database, expression: str, limit: int) -> int:
    """In how many chunks an FTS5 expression holds, counted no further than `limit`."""
    counted = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
    asked = expression, limit
    return kept.of(db.file, ("matches", asked), lambda: db.execute(counted, asked).fetchone()[0], size=lambda _: 200)


def bm25(db: Database, expression: str) -> tuple[array[int], array[float]]:
    """The chunks where an expression holds, and FTS5's BM25 of each, above 0: k1 1.2, b 0.75."""

    def asked() -> tuple[array[int], array[float]]:
        rows = db.execute("SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?", (expression,)).fetchall()
        return array("q", [chunk for chunk, _ in rows]), array("d", [score for _, score in rows])

    return kept.of(db.file, ("bm25", expression), asked, size=lambda rows: 200 + 16 * len(rows[0]))


def bm25_and_lengths(db: Connection, expression: str) -> Iterator[tuple[int, float, int]]:
    """The same with each chunk's number of terms."""
    sizes = (
        "SELECT words.rowid, -bm25(words), sz FROM words JOIN words_docsize s ON s.id = words.rowid WHERE words MATCH ?"
    )
    for chunk, score, size in db.execute(sizes, (expression,)):
        yield chunk, score, sum(_numbers(size))


def totals(db: Connection) -> tuple[int, int]:
    """(chunks, terms in them all), as FTS5 keeps them: https://www.sqlite.org/fts5.html (the averages record)."""
    row = db.execute("SELECT block FROM words_data WHERE id = 1").fetchone()
    if not (row and isinstance(row[0], bytes)):
        raise Damaged("no totals of words")
    chunks, *terms = _numbers(row[0]) or [0]
    return chunks, sum(terms)


def _numbers(data: bytes) -> list[int]:
    """SQLite's varints: seven bits a byte, the highest first."""
    found, number = [], 0
    for byte in data:
        number = number << 7 | byte & 127
        if byte < 128:
            found.append(number)
            number = 0
    return found
