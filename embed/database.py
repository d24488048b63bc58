"""The rows of an index: its settings, documents and chunks, behind verbs. The tables are `schema.py`'s.

Knows nothing of models, of ranking or of where texts come from. A path is stored as text, or as its bytes
where they are no UTF-8.
"""

from __future__ import annotations

import os
from _blake2 import blake2b
from math import isfinite

from embed import vectors, words
from embed.schema import LARGEST, Damaged, version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from sqlite3 import Connection
    from typing import Any

    Path = str | bytes  # as it is stored
    Version = tuple[int, bytes | None]  # id and hash of a document; no hash: it is not complete
    Piece = tuple[int, int, int, str]  # first and last line, hash and text of a chunk

CHUNKERS = ("auto", "paragraphs", "lines")
HEX = frozenset("0123456789abcdef")
LAST_LINE = LARGEST  # of a file: nobody waits for more blank lines than that
# Rows that no index of ours has, by what is wrong with them; `:dims` and `:exact` as of `settings`. Lengths and
# types are in a row's head: texts and vectors are not read.
UNSOUND = {
    "a document is no document": "SELECT 1 FROM documents WHERE typeof(path) NOT IN ('text', 'blob')"
    " OR typeof(number) NOT IN ('integer', 'null') OR typeof(name) NOT IN ('text', 'null')"
    " OR typeof(data) NOT IN ('text', 'null') OR json_type(data) != 'object'",
    "a chunk is no text with a place": "SELECT 1 FROM chunks WHERE typeof(text) != 'text' OR typeof(hash) != 'integer'"
    " OR typeof(start_line) != 'integer' OR typeof(end_line) != 'integer'"
    f" OR start_line < 0 OR end_line < start_line OR end_line > {LAST_LINE}",
    "a chunk is of no document": "SELECT 1 FROM chunks WHERE document NOT IN (SELECT id FROM documents)",
    "vectors have the wrong size": "SELECT 1 FROM segments WHERE typeof(ids) != 'blob' OR typeof(codes) != 'blob'"
    " OR typeof(scales) != 'blob' OR typeof(exact) != iif(:exact, 'blob', 'null') OR length(ids) % 8"
    " OR length(codes) * 8 != length(ids) * :dims OR length(scales) * 2 != length(ids)"
    " OR length(exact) * 2 != length(ids) * :dims",
    "chunks and vectors are not as many": "SELECT (SELECT count(*) FROM chunks) !="
    " (SELECT coalesce(sum(length(ids)), 0) FROM segments) / 8",
    "chunks and words are not as many": "SELECT (SELECT count(*) FROM chunks) != (SELECT count(*) FROM words_docsize)",
}


# ---------------------------------------------------------------- settings


def meta(db: Connection) -> dict[str, Any]:
    """What the index was made with."""
    return dict(db.execute("SELECT key, value FROM meta"))


def settings(db: Connection) -> dict[str, Any]:
    """The same of a finished index: model, digest, dims, chunk and exact; Damaged unless they can be that.

    An index without a file (of texts that have none) says less.
    """
    made = meta(db)
    file = next(path for _, name, path in db.execute("PRAGMA database_list") if name == "main")
    model, digest, dims = (made.get(key) for key in ("model", "digest", "dims"))
    whole = made.get("chunk") in CHUNKERS and type(digest) is str and len(digest) == 64 and HEX.issuperset(digest)
    proper = type(model) is str and "\0" not in model and type(dims) is int and made.get("exact") in (0, 1)
    if not (proper and (whole or not file) and bool(file) <= dims < 1 << 16):  # type: ignore[operator]
        raise Damaged("its settings are no settings")
    return made


def set_meta(db: Connection, **values: Any) -> None:
    """Set keys; None removes one."""
    for key, value in values.items():
        if value is None:
            db.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


# ---------------------------------------------------------------- documents


def stored(path: str) -> Path:
    """A path as the tables have it."""
    try:
        path.encode()
        return path
    except UnicodeEncodeError:
        return os.fsencode(path)


def named(path: Path) -> str:
    """The same read back; Damaged for what is no path."""
    if not isinstance(path, str | bytes):
        raise Damaged("a document has no path")
    return path if isinstance(path, str) else os.fsdecode(path)


def fields(data: str | None) -> dict[str, Any]:
    """The other fields of a record; Damaged, RecursionError or ValueError when they are no JSON object."""
    if data is None:
        return {}
    import json

    def number(word: str) -> float:
        if not isfinite(found := float(word)):
            raise Damaged(f"{word[:20]} is not JSON")
        return found

    found = json.loads(data, parse_constant=number, parse_float=number)
    if not isinstance(found, dict):
        raise Damaged("the fields of a record are no object")
    return found


def insert_document(
    db: Connection, path: Path, *, number: int | None, name: str | None, data: str | None, hash: bytes | None = None
) -> int:
    """Store a document, without a hash while it is not complete; its number, higher than any so far."""
    into = "INSERT INTO documents (path, number, name, hash, data) VALUES (?, ?, ?, ?, ?)"
    return _insert(db, into, (path, number, name, hash, data))


def _insert(db: Connection, statement: str, values: tuple[Any, ...]) -> int:
    row = db.execute(statement, values).lastrowid
    assert row is not None  # a row was inserted
    return row


def complete(db: Connection, document: int, hash: bytes | None) -> None:
    """All chunks of a document are there."""
    db.execute("UPDATE documents SET hash = ? WHERE id = ?", (hash, document))


def document(db: Connection, id: int) -> tuple[Path, int | None, str | None, bytes | None, str | None]:
    """(path, number, name, hash, data) of a document."""
    return db.execute("SELECT path, number, name, hash, data FROM documents WHERE id = ?", (id,)).fetchone()


def documents(db: Connection) -> Iterator[tuple[int, Path, str | None]]:
    """(id, path, data) of every document."""
    return db.execute("SELECT id, path, data FROM documents")


def document_ids(db: Connection) -> list[int]:
    return [id for (id,) in db.execute("SELECT id FROM documents ORDER BY id")]


def incomplete(db: Connection) -> list[int]:
    """The documents that a killed run left half done."""
    return [id for (id,) in db.execute("SELECT id FROM documents WHERE hash IS NULL")]


def files(db: Connection) -> Iterator[tuple[int, str]]:
    """(id, path) of every document that is a file."""
    for id, path in db.execute("SELECT id, path FROM documents WHERE number IS NULL"):
        yield id, named(path)


def file_versions(db: Connection, path: Path) -> list[Version]:
    return _versions(db, "path = ? AND number IS NULL", path)


def named_versions(db: Connection, name: str) -> list[Version]:
    """Of records, by their id."""
    return _versions(db, "name = ?", name)


def equal_records(db: Connection, hash: bytes) -> list[Version]:
    return _versions(db, "hash = ? AND number IS NOT NULL", hash)


def records_at(db: Connection, path: Path, number: int) -> list[Version]:
    return _versions(db, "path = ? AND number = ?", path, number)


def has_records(db: Connection, path: Path) -> bool:
    """Whether there are records without an id of this source."""
    asked = "SELECT 1 FROM documents WHERE path = ? AND number IS NOT NULL AND name IS NULL LIMIT 1"
    return db.execute(asked, (path,)).fetchone() is not None


def records_of(db: Connection, path: Path) -> Iterable[tuple[int, bytes]]:
    """(number, hash) of them."""
    asked = "SELECT number, hash FROM documents WHERE path = ? AND number IS NOT NULL AND name IS NULL ORDER BY number"
    return db.execute(asked, (path,))


def documents_of(db: Connection) -> Iterable[tuple[Path, int | None, str | None, bytes | None]]:
    """(path, number, name, hash) of all, as they came in."""
    return db.execute("SELECT path, number, name, hash FROM documents ORDER BY id")


def _versions(db: Connection, where: str, *values: Any) -> list[Version]:
    return db.execute(f"SELECT id, hash FROM documents WHERE {where}", values).fetchall()


def remove_documents(db: Connection, documents: Iterable[int], dims: int) -> None:
    """Drop documents with their chunks, words and vectors."""
    gone = set()
    for id in documents:
        for chunk, text, context in list(_in_context(db, id)):
            words.remove(db, chunk, text, context=context)
            gone.add(chunk)
        db.execute("DELETE FROM chunks WHERE document = ?", (id,))
        db.execute("DELETE FROM documents WHERE id = ?", (id,))
    if gone:
        vectors.remove(db, gone, dims)


def _in_context(db: Connection, document: int) -> Iterator[tuple[int, str, str]]:
    """(id, text, context) of a document's chunks, in its order."""
    from embed.context import Context  # a search needs none

    for path, number in db.execute("SELECT path, number FROM documents WHERE id = ?", (document,)):
        context = Context(named(path), number)
        for id, *_, text in chunks_of(db, document):
            yield id, text, context.of(text)


def _second_version(db: Connection) -> None:
    """Words beside those of the text: parts of compound ones, paths and headings."""
    words.recreate(db)
    for document in document_ids(db):
        for chunk, text, context in _in_context(db, document):
            words.insert(db, chunk, text, context=context)


# version -> what makes the next one of it, in a transaction
UPGRADES: dict[int, Callable[[Connection], None]] = {1: _second_version}


def counts(db: Connection) -> tuple[int, int]:
    """How many documents and chunks there are."""
    documents, chunks = (db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("documents", "chunks"))
    return documents, chunks


def sample(db: Connection, count: int) -> list[str]:
    """The texts of some chunks, evenly over the index."""
    most = db.execute("SELECT max(id) FROM chunks").fetchone()[0] or 0
    rows = [db.execute("SELECT text FROM chunks WHERE id > ? LIMIT 1", (most * i // count,)) for i in range(count)]
    return [text for row in rows for (text,) in row]


def _expect_lengths(db: Connection) -> None:
    words.expect_lengths(db, version_of(db))


def expect_sound(db: Connection, *, words: bool = False) -> None:
    """Damaged unless the file's pages and its rows fit together: what is damaged is not written on.

    words: whether to compare the words and the texts with what they were made of, too, as after a crash."""
    made = settings(db)
    problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise Damaged(" ".join(problem.split()))
    for problem, query in UNSOUND.items():
        if any(wrong for (wrong,) in db.execute(f"{query} LIMIT 1", made)):
            raise Damaged(problem)
    _expect_lengths(db)
    if words:
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        ids = {id for segment in vectors.segments(db, made["dims"]) for id in segment.ids}
        for id, hash, text in db.execute("SELECT id, hash, text FROM chunks"):
            if text_hash(text) != hash or id not in ids:
                raise Damaged("a chunk is not what was written")


# ---- which of them a run has met


def track_seen(db: Connection) -> None:
    db.execute("CREATE TEMP TABLE seen (id INTEGER PRIMARY KEY)")


def mark_seen(db: Connection, document: int) -> None:
    db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (document,))


def is_seen(db: Connection, document: int) -> bool:
    return db.execute("SELECT 1 FROM seen WHERE id = ?", (document,)).fetchone() is not None


def unseen(db: Connection) -> list[int]:
    return [id for (id,) in db.execute("SELECT id FROM documents WHERE id NOT IN seen")]


# ---------------------------------------------------------------- chunks


def text_hash(text: str) -> int:
    """64 bits of a text, as SQLite's integers are: signed."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def insert_chunk(db: Connection, document: int, piece: Piece, *, context: str = "") -> int:
    """Store a chunk and its words, and what it stands under; its number, higher than any so far."""
    into = "INSERT INTO chunks (document, start_line, end_line, hash, text) VALUES (?, ?, ?, ?, ?)"
    chunk = _insert(db, into, (document, *piece))
    words.insert(db, chunk, piece[3], context=context)
    return chunk


def chunks_of(db: Connection, document: int) -> Iterator[tuple[int, int, int, int, str]]:
    """(id, start_line, end_line, hash, text) of a document's chunks, in its order; Damaged where they are not that."""
    for row in db.execute(
        "SELECT id, start_line, end_line, hash, text FROM chunks WHERE document = ? ORDER BY id", (document,)
    ):
        expect_chunk(row)
        yield row


def expect_chunk(row: tuple[int, Any, Any, Any, Any]) -> None:
    """Damaged unless (id, start_line, end_line, hash, text) are a text with its hash and a place."""
    id, start, end, hash, text = row
    if not (type(text) is str and type(start) is type(end) is int and 0 <= start <= end <= LAST_LINE):
        raise Damaged(f"chunk {id} is no text with a place")
    if text_hash(text) != hash:
        raise Damaged(f"the text of chunk {id} has changed")


def chunks_with_hash(db: Connection, hash: int) -> Iterator[tuple[int, str]]:
    """(id, text) of the chunks whose text has this hash."""
    return db.execute("SELECT id, text FROM chunks WHERE hash = ?", (hash,))


def chunk(db: Connection, id: int) -> tuple[Any, ...] | None:
    """(document, start_line, end_line, text, hash, path, number, name, data) of a chunk and its document."""
    return db.execute(
        "SELECT c.document, c.start_line, c.end_line, c.text, c.hash, d.path, d.number, d.name, d.data"
        " FROM chunks c JOIN documents d ON d.id = c.document WHERE c.id = ?",
        (id,),
    ).fetchone()


def files_of(db: Connection, chunks: Sequence[int]) -> list[tuple[int, Path]]:
    """(first chunk, path) of each file that one of the chunks is of; records are none."""
    asked = f"SELECT DISTINCT document FROM chunks WHERE id IN ({', '.join('?' * len(chunks))})"
    first = "SELECT (SELECT min(id) FROM chunks WHERE document = d.id), d.path FROM documents d"
    return db.execute(f"{first} WHERE d.id IN ({asked}) AND d.number IS NULL", tuple(chunks)).fetchall()


def records_near(db: Connection, document: int, *, first: int, last: int) -> Iterator[tuple[int, int, str | None, str]]:
    """(document, number, name, text) of the chunks of the records `first` to `last` of a document's input.

    Of several with a number, those come first that were indexed next to `document`.
    """
    return db.execute(
        "SELECT d.id, d.number, d.name, coalesce(c.text, '') FROM documents d LEFT JOIN chunks c ON c.document = d.id"
        " WHERE d.path = (SELECT path FROM documents WHERE id = ?3) AND d.number BETWEEN ?1 AND ?2"
        " ORDER BY d.number, abs(d.id - ?3), c.id",
        (first, last, document),
    )


def chunk_documents(db: Connection) -> Iterator[tuple[int, int]]:
    """(id, its document) of every chunk, from the index that has both."""
    return db.execute("SELECT id, document FROM chunks INDEXED BY chunks_document")


def chunk_hashes(db: Connection) -> Iterator[tuple[int, int]]:
    """(id, hash of its text) of every chunk, from the index that has both."""
    return db.execute("SELECT id, hash FROM chunks INDEXED BY chunks_hash")


def copies(db: Connection, hash: int, text: str) -> Iterator[tuple[Any, ...]]:
    """(id, document, path, start_line, number, name, data) of every chunk with this text."""
    return db.execute(
        "SELECT c.id, d.id, d.path, c.start_line, d.number, d.name, d.data FROM chunks c JOIN documents d"
        " ON d.id = c.document WHERE c.hash = ? AND c.text = ? ORDER BY c.id",
        (hash, text),
    )
