"""Words of an index: what FTS5 is given to read, for documents and for queries alike, and how it is asked.

Owns the table `words` and how a text becomes terms. Knows nothing of ranking.
"""

from __future__ import annotations

from array import array
from functools import cache

from embed.schema import CURRENT, STEMS, WORDS, WORDS_2, Damaged, connect
from toast import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from sqlite3 import Connection

    from embed.schema import Database

QUERY_TERMS = 256  # of a long query, the first ones are looked up
# what a word counts in each column: of the text, of the parts of its compound words, of its path and headings
WEIGHTS = "1.0, 0.6, 0.35"

# Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han.
UNSPACED = (
    "\u0e00-\u0fff", "\u1000-\u109f", "\u1780-\u17ff", "\u3040-\u30ff", "\u3400-\u4dbf", "\u4e00-\u9fff",
    "\uf900-\ufaff", "\U00020000-\U0003ffff",
)  # fmt: skip
HANGUL = "\uac00-\ud7a3"  # has spaces, but words with their particles between them
PAIRED = {1: UNSPACED, 2: (*UNSPACED, HANGUL)}  # what is cut into pairs, by the version of the index

LOWER, UPPER = (
    "a-z\u00df-\u00f6\u00f8-\u00ff\u03b1-\u03c9\u0430-\u045f",
    "A-Z\u00c0-\u00d6\u00d8-\u00de\u0391-\u03a9\u0400-\u042f",
)
SHORT = 200  # characters of a text whose words are looked at one by one: the patterns take a while to make
JOINT = f"[{UPPER}](?:(?<=[{LOWER}0-9][{UPPER}])|[{UPPER}][{LOWER}]{{2}})"  # quick to look for
HUMP = f"(?<=[{LOWER}0-9])(?=[{UPPER}])|(?<=[{UPPER}])(?=[{UPPER}][{LOWER}]{{2}})"
LETTERS = r"[^\W_]+"
LONGEST = 64  # letters of a compound word: longer ones are no words of a language


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Compiling one takes longer than most queries."""
    import re

    return re.compile(text)


def composed(text: str) -> str:
    """The text in NFC: one that a Mac has named, or typed, is found by what others type."""
    if text.isascii():
        return text
    import unicodedata

    return unicodedata.normalize("NFC", text)


def spaced(text: str, version: int = CURRENT, *, asked: bool = False) -> str:
    """The text with runs of an unspaced script cut into overlapping pairs of characters.

    The last pair is one character: with it, every character begins a term. asked: a query, which does without it
    where there are pairs: its last character is followed by others in most texts.
    """
    scripts = PAIRED[version]
    if text.isascii() or not any(span[0] <= c <= span[2] for c in set(text) for span in scripts):
        return text
    return _pattern(f"[{''.join(scripts)}]+").sub(_pairs_asked if asked else _pairs, text)


def _pairs(run: re.Match[str]) -> str:
    characters = run[0]
    return f" {' '.join(characters[i : i + 2] for i in range(len(characters)))} "


def _pairs_asked(run: re.Match[str]) -> str:
    characters = run[0]
    return f" {' '.join(characters[i : i + 2] for i in range(max(len(characters) - 1, 1)))} "


def compounds(text: str) -> list[str]:
    """The words, as often as they are there, that are several without a mark between them (parseHTTPResponse); what has
    a mark between them (parse_http_response) is several words already."""
    if text.islower() or len(text) < SHORT and not any(word[1:] != word[1:].lower() for word in text.split()):
        return []
    found: list[str] = []
    end = 0
    for joint in _pattern(JOINT).finditer(text):
        if joint.start() < end:
            continue
        start = joint.start()
        while start and text[start - 1].isalnum():
            start -= 1
        end = _pattern(LETTERS).match(text, start).end()  # type: ignore[union-attr]  # it begins with one
        if end - start <= LONGEST:
            found.append(text[start:end])
    return found


def parts(text: str) -> str:
    """What the compound words are made of: parse HTTP Response."""
    found = compounds(text)
    return _pattern(HUMP).sub(" ", " ".join(found)) if found else ""


class TermExtractor:
    """Texts to terms as indexes with our tokenizer have them: FTS5 itself does it, in memory.

    versions: of the indexes; where they cut runs of a script in different ways, a query has the terms of all."""

    def __init__(self, versions: Collection[int] = (CURRENT,)) -> None:
        self.versions = sorted(versions, reverse=True)
        self.db = db = connect(":memory:")
        for name, tokenizer in (("words", WORDS), ("stems", STEMS)):
            db.execute(f"CREATE VIRTUAL TABLE {name} USING fts5(text, content='', tokenize=\"{tokenizer}\")")
            db.execute(f"CREATE VIRTUAL TABLE {name}_terms USING fts5vocab({name}, instance)")
        db.execute("BEGIN")  # for good: a commit would cost more than a text

    def sequence(self, text: str) -> list[tuple[str, str]]:
        """(stem, word) of the words of a query as they follow each other, the first QUERY_TERMS."""
        text = composed(text)
        forms = list(dict.fromkeys(spaced(text, version, asked=True) for version in self.versions))
        found = self._words(forms[0])
        for other in forms[1:]:
            found += [word for word in self._words(other) if word not in found]
        stems = self._stems(list(dict.fromkeys(found)))
        return [(stems[word], word) for word in found if word in stems]

    def _words(self, text: str) -> list[str]:
        self.db.execute("INSERT INTO words (rowid, text) VALUES (1, ?)", (text,))
        rows = self.db.execute("SELECT term FROM words_terms ORDER BY offset LIMIT ?", (QUERY_TERMS,)).fetchall()
        self.db.execute("INSERT INTO words (words) VALUES ('delete-all')")
        return [word for (word,) in rows]

    def _stems(self, words: list[str]) -> dict[str, str]:
        """word -> its stem."""
        self.db.executemany("INSERT INTO stems (rowid, text) VALUES (?, ?)", enumerate(words))
        stems = self.db.execute("SELECT doc, term FROM stems_terms").fetchall()
        self.db.execute("INSERT INTO stems (stems) VALUES ('delete-all')")
        return {words[i]: stem for i, stem in stems}

    def compounds(self, text: str) -> dict[str, list[tuple[str, str]]]:
        """stem of a compound word of a query -> (stem, word) of each of its parts."""
        found = dict.fromkeys(compounds(composed(text)))
        return {stem: self.sequence(parts(word)) for word in found for stem, _ in self.sequence(word)}

    def stems(self, texts: Sequence[str]) -> list[set[str]]:
        """The set of each text's stems."""
        self.db.executemany("INSERT INTO stems (rowid, text) VALUES (?, ?)", enumerate(map(self._of_line, texts)))
        found: list[set[str]] = [set() for _ in texts]
        for stem, i in self.db.execute("SELECT term, doc FROM stems_terms"):
            found[i].add(stem)
        self.db.execute("INSERT INTO stems (stems) VALUES ('delete-all')")
        return found

    def _of_line(self, text: str) -> str:
        text = composed(text)
        return " ".join([*dict.fromkeys(spaced(text, version) for version in self.versions), parts(text)])


# ---------------------------------------------------------------- the table


def _columns(text: str, context: str) -> tuple[str, str, str]:
    """What stands in the columns for a chunk."""
    text, context = composed(text), composed(context)
    return spaced(text), parts(text), f"{spaced(context)} {parts(context)}"


def recreate(db: Connection) -> None:
    """Make the table anew as version 2 has it, empty."""
    db.execute("DROP TABLE words")
    db.execute(WORDS_2)


def insert(db: Connection, chunk: int, text: str, *, context: str = "") -> None:
    """Store the words of a chunk; context: what it stands under."""
    db.execute("INSERT INTO words (rowid, text, parts, context) VALUES (?, ?, ?, ?)", (chunk, *_columns(text, context)))


def remove(db: Connection, chunk: int, text: str, *, context: str) -> None:
    """Take the words of a chunk out; FTS5 keeps no text and must be told which they are."""
    db.execute(
        "INSERT INTO words (words, rowid, text, parts, context) VALUES ('delete', ?, ?, ?, ?)",
        (chunk, *_columns(text, context)),
    )


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


def expression(run: Iterable[str]) -> str:
    """What FTS5 is asked for words in a row. One character of a script of pairs begins a pair."""
    words = list(run)
    begins = len(words) == 1 and len(words[0]) == 1 and spaced(words[0]) != words[0]
    return '"' + " ".join(words).replace('"', '""') + '"' + " *" * begins


def matches(db: Database, expression: str, limit: int) -> int:
    """In how many chunks an FTS5 expression holds, counted no further than `limit`."""
    counted = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
    asked = expression, limit
    return kept.of(db.file, ("matches", asked), lambda: db.execute(counted, asked).fetchone()[0], size=lambda _: 200)


def bm25(db: Database, expression: str) -> tuple[array[int], array[float]]:
    """The chunks where an expression holds, and FTS5's BM25 of each, above 0: k1 1.2, b 0.75. A word counts as often as
    it is there, by WEIGHTS; the length of a chunk is that of all columns. (Version 1 has the first one.)"""
    rows_of = f"SELECT rowid, -bm25(words, {WEIGHTS}) FROM words WHERE words MATCH ?"

    def asked() -> tuple[array[int], array[float]]:
        rows = db.execute(rows_of, (expression,)).fetchall()
        return array("q", [chunk for chunk, _ in rows]), array("d", [score for _, score in rows])

    return kept.of(db.file, ("bm25", expression), asked, size=lambda rows: 200 + 16 * len(rows[0]))


def bm25_and_lengths(db: Connection, expression: str) -> Iterator[tuple[int, float, int]]:
    """The same with each chunk's number of terms."""
    sizes = (
        f"SELECT words.rowid, -bm25(words, {WEIGHTS}), sz FROM words JOIN words_docsize s ON s.id = words.rowid"
        " WHERE words MATCH ?"
    )
    for chunk, score, size in db.execute(sizes, (expression,)):
        yield chunk, score, sum(_numbers(size))


def in_context(db: Connection, expression: str, limit: int) -> list[int]:
    """At most so many chunks with an expression in their path or headings; not of version 1, which has none."""
    asked = "SELECT rowid FROM words WHERE words MATCH ? LIMIT ?"
    return [chunk for (chunk,) in db.execute(asked, (f"context : {expression}", limit))]


def totals(db: Connection) -> tuple[int, int]:
    """(chunks, terms in them all), as FTS5 keeps them: https://www.sqlite.org/fts5.html (the averages record)."""
    row = db.execute("SELECT block FROM words_data WHERE id = 1").fetchone()
    if not (row and isinstance(row[0], bytes)):
        raise Damaged("no totals of words")
    chunks, *terms = _numbers(row[0]) or [0]
    return chunks, sum(terms)


def expect_lengths(db: Connection, version: int) -> None:
    """Damaged unless FTS5 has a number of terms of each chunk for each column."""
    columns, going_on = {1: 1}.get(version, 3), bytes(range(128, 256))
    for (sizes,) in db.execute("SELECT sz FROM words_docsize"):
        if type(sizes) is not bytes or len(sizes.translate(None, going_on)) != columns:
            raise Damaged("lengths of chunks are no numbers")


def _numbers(data: bytes) -> list[int]:
    """SQLite's varints: seven bits a byte, the highest first."""
    found, number = [], 0
    for byte in data:
        number = number << 7 | byte & 127
        if byte < 128:
            found.append(number)
            number = 0
    return found
