"""The index file, version 1: its tables, how one is created, and how a stranger's is opened.

docs/formats.md describes it. Knows nothing of models, of ranking or of where texts come from.
"""

import _sqlite3 as sqlite  # the package around it imports datetime, for a third of a search's start
import os
import stat
from _blake2 import blake2b
from array import array
from bisect import bisect_left
from contextlib import contextmanager

from embed import checksum
from embed.words import TOKENIZER, terms
from toast import pipes
from toast.errors import BadInput, os_error

APPLICATION = int.from_bytes(b"tidx", "big")
VERSION = 1
HEADER = 100  # bytes of an SQLite file's header
LARGEST = 256 << 20  # bytes of one value, at most: what a hostile file may make us allocate

SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE documents (id INTEGER PRIMARY KEY, path TEXT NOT NULL, number INTEGER, name TEXT,"
    " hash BLOB, data TEXT)",
    "CREATE INDEX documents_path ON documents (path, number)",
    "CREATE INDEX documents_name ON documents (name) WHERE name IS NOT NULL",
    "CREATE INDEX documents_hash ON documents (hash)",
    "CREATE TABLE chunks (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, start_line INTEGER NOT NULL,"
    " end_line INTEGER NOT NULL, hash INTEGER NOT NULL, text TEXT NOT NULL)",
    "CREATE INDEX chunks_document ON chunks (document)",
    "CREATE INDEX chunks_hash ON chunks (hash)",
    "CREATE TABLE segments (first INTEGER PRIMARY KEY, ids BLOB NOT NULL, codes BLOB NOT NULL,"
    " scales BLOB NOT NULL, exact BLOB)",
    f"CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize=\"{TOKENIZER}\")",
)


def connect(path: str, uri: bool = False):
    """A connection without implicit transactions; sqlite.Error when that fails."""
    return sqlite.connect(path, isolation_level=None, uri=uri, cached_statements=64)


def create(db) -> None:
    """Lay out an empty index, in one transaction."""
    db.execute("PRAGMA page_size = 16384")
    db.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def meta(db) -> dict:
    return dict(db.execute("SELECT key, value FROM meta"))


def stored(path: str):
    """A path as the tables have it: text, or its bytes where they are no UTF-8."""
    try:
        path.encode()
        return path
    except UnicodeEncodeError:
        return os.fsencode(path)


def named(path) -> str:
    """The same read back; TypeError for what is no path."""
    return path if isinstance(path, str) else os.fsdecode(path)


def set_meta(db, **values) -> None:
    """Set keys; None removes one."""
    for key, value in values.items():
        if value is None:
            db.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


# ---------------------------------------------------------------- opening


def kind(head: bytes) -> str:
    """What a file's first bytes say: `index`, `sqlite` (somebody else's database) or `text`."""
    ours = head[68:72] == APPLICATION.to_bytes(4, "big")
    if head.startswith(b"SQLite format 3\0"):
        return "index" if ours else "sqlite"
    # no text has NULs there: damage to the first bytes does not turn an index into one
    return "index" if ours and head[60:64] == VERSION.to_bytes(4, "big") else "text"


def open_file(call, path) -> int:
    try:
        return pipes.open_again(call, path)
    except OSError as error:
        raise os_error(error, f"open {path}") from None


def head_of(fd: int) -> bytes:
    """The first bytes of a seekable file, which stay unread; nothing of a pipe."""
    return os.pread(fd, HEADER, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""


@contextmanager
def damage(name: str):
    """Whatever a damaged or hostile index does to the code that reads it, in one line."""
    try:
        yield
    except (sqlite.Error, ArithmeticError, LookupError, TypeError, ValueError) as error:
        again = "index FILES > x.db" if name == "standard input" else f"index FILES -o {name}"
        raise BadInput(f"{name} is damaged: {error}", f"build it again: {again}") from error


def open_fd(call, fd: int, name: str):
    """A read-only connection to the index behind a descriptor; BadInput when it is none."""
    head = head_of(fd)
    if kind(head) != "index":
        raise BadInput(f"cannot open {name}: not an index", "run: index FILES > index.db")
    version = int.from_bytes(head[60:64], "big")
    if version != VERSION:
        raise BadInput(f"{name} is an index of version {version}, this reads {VERSION}", "index it again")
    with damage(name):
        checksum.verify(call, fd)
        try:
            db = connect(f"file:/dev/fd/{fd}?mode=ro&immutable=1", uri=True)
        except sqlite.OperationalError:  # renamed over or deleted since it was opened
            return open_spooled(call, copy_chunks(fd), name)
        return check(db)


def open_spooled(call, chunks, name: str):
    """The same for an index that comes in pieces: kept in a private file while it is read."""
    import tempfile

    folder = call.path(call.env.get("TMPDIR") or "/tmp")
    try:
        fd, path = tempfile.mkstemp(dir=folder, prefix="search-")
    except OSError as error:
        raise os_error(error, f"write in {folder}") from None
    try:
        for chunk in chunks:
            pipes.write_all(fd, chunk, "the temporary file")
        if kind(head_of(fd)) != "index":
            raise BadInput(f"cannot open {name}: not an index", "run: index FILES > index.db")
        with damage(name):
            checksum.verify(call, fd)
            return check(connect(f"file:{path}?mode=ro", uri=True))
    finally:
        os.unlink(path)
        os.close(fd)


def copy_chunks(fd: int):
    at = 0
    while chunk := os.pread(fd, pipes.CHUNK, at):
        at += len(chunk)
        yield chunk


def check(db):
    """The connection, made safe against what a stranger may have put in the file.

    The schema must be ours to the letter, so that no trigger, view or function of theirs runs.
    """
    db.setlimit(sqlite.SQLITE_LIMIT_LENGTH, LARGEST)
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    found = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'words\\__%' ESCAPE '\\'")
    if sorted(sql for (sql,) in found) != sorted(SCHEMA):
        raise ValueError("its tables are not ours")
    shadow = db.execute(
        "SELECT count(*) FROM sqlite_master WHERE name LIKE 'words\\__%' ESCAPE '\\' AND type = 'table'"
    )
    if shadow.fetchone() != (4,):
        raise ValueError("its word tables are not ours")
    return db


# ---------------------------------------------------------------- vectors


class Segment:
    """Vectors of the chunks `ids`: int8 codes (N, D), float32 scales (N,), perhaps float32 exact (N, D)."""

    __slots__ = ("first", "ids", "codes", "scales", "exact")

    def __init__(self, first, ids, codes, scales, exact, dims):
        n = len(ids) // 8
        wrong = len(ids) % 8 or len(codes) != n * dims or len(scales) != 4 * n
        if wrong or exact is not None and len(exact) != 4 * n * dims:
            raise ValueError(f"vectors of segment {first} have the wrong size")
        self.first, self.codes, self.scales, self.exact = first, codes, scales, exact
        self.ids = array("q")
        self.ids.frombytes(ids)

    def place(self, chunk: int) -> int:
        """The row of a chunk; LookupError when it is not here."""
        row = bisect_left(self.ids, chunk)
        if row == len(self.ids) or self.ids[row] != chunk:
            raise LookupError(f"no vector of chunk {chunk}")
        return row

    def __contains__(self, chunk) -> bool:
        row = bisect_left(self.ids, chunk)
        return row < len(self.ids) and self.ids[row] == chunk

    def row(self, i: int, dims: int):
        """(codes, scale, exact) of a row, as bytes."""
        exact = self.exact and self.exact[4 * dims * i : 4 * dims * (i + 1)]
        return self.codes[dims * i : dims * (i + 1)], self.scales[4 * i : 4 * i + 4], exact


def segments(db, dims: int, exact: bool = False):
    """Every segment, in the order of its chunks' numbers."""
    last = "exact" if exact else "NULL"
    for row in db.execute(f"SELECT first, ids, codes, scales, {last} FROM segments ORDER BY first"):
        yield Segment(*row, dims)


def segment_of(db, chunk: int, dims: int) -> Segment | None:
    """The segment that a chunk's vector is in, if any is."""
    found = db.execute(
        "SELECT first, ids, codes, scales, exact FROM segments WHERE first <= ? ORDER BY first DESC LIMIT 1", (chunk,)
    ).fetchone()
    return Segment(*found, dims) if found else None


def put_segment(db, rows, ids) -> None:
    """Store rows of (codes, scale, exact) as one segment."""
    codes, scales, exact = (list(part) for part in zip(*rows))
    exact = b"".join(exact) if exact[0] is not None else None
    blob = array("q", ids).tobytes()
    db.execute(
        "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?)",
        (ids[0], blob, b"".join(codes), b"".join(scales), exact),
    )


def remove_vectors(db, chunks: set, dims: int) -> None:
    """Drop the vectors of these chunks; a segment is written anew without them."""
    left = sorted(chunks, reverse=True)
    while left:
        segment = segment_of(db, left[-1], dims)
        if segment is None:
            raise ValueError(f"no vector of chunk {left[-1]}")
        last = segment.ids[-1]
        while left and left[-1] <= last:
            left.pop()
        keep = [i for i, chunk in enumerate(segment.ids) if chunk not in chunks]
        db.execute("DELETE FROM segments WHERE first = ?", (segment.first,))
        if keep:
            put_segment(db, [segment.row(i, dims) for i in keep], [segment.ids[i] for i in keep])


# ---------------------------------------------------------------- documents and chunks


def text_hash(text: str) -> int:
    """64 bits of a text, as SQLite's integers are: signed."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def add_chunk(db, document: int, start_line: int, end_line: int, hash: int, text: str) -> int:
    """Store a chunk and its words; its number, higher than any so far."""
    chunk = db.execute(
        "INSERT INTO chunks (document, start_line, end_line, hash, text) VALUES (?, ?, ?, ?, ?)",
        (document, start_line, end_line, hash, text),
    ).lastrowid
    db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (chunk, terms(text)))
    return chunk


def remove_documents(db, documents, dims: int) -> None:
    """Drop documents with their chunks, words and vectors."""
    gone = set()
    for document in documents:
        for chunk, text in db.execute("SELECT id, text FROM chunks WHERE document = ?", (document,)).fetchall():
            db.execute("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", (chunk, terms(text)))
            gone.add(chunk)
        db.execute("DELETE FROM chunks WHERE document = ?", (document,))
        db.execute("DELETE FROM documents WHERE id = ?", (document,))
    if gone:
        remove_vectors(db, gone, dims)
