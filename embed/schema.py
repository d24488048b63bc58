"""The versions of the index file: their tables, how one is created, opened, checked and upgraded.

docs/formats.md describes them. Knows the file; nothing of what its rows mean (`database.py`, `words.py`,
`vectors.py`), of models or of ranking.
"""

from __future__ import annotations

import _sqlite3 as sqlite  # the package around it imports datetime, for a third of a search's start
import os
import stat
from contextlib import contextmanager, suppress

from embed import checksum
from toast import files, pipes
from toast.errors import BadInput, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from sqlite3 import Connection

    from toast.command import Call

APPLICATION = int.from_bytes(b"tidx", "big")
HEADER = 100  # bytes of an SQLite file's header
LARGEST = 256 << 20  # bytes of one value, at most: what a hostile file may make us allocate

# Marks belong to words: without them Indic and Arabic words fall apart at their vowel signs.
WORDS = "unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'"
STEMS = f"porter {WORDS}"

# version -> its tables, to the letter: all that a file of that version may hold
SCHEMAS: dict[int, tuple[str, ...]] = {
    1: (
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
        f"CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize=\"{STEMS}\")",
    ),
}
CURRENT = 1  # the version that is written; the others are read, and upgraded by `index -u`
# version -> what makes the next one of it, in a transaction
UPGRADES: dict[int, Callable[[Connection], None]] = {}


def connect(path: str, *, uri: bool = False) -> Connection:
    """A connection without implicit transactions; sqlite.Error when that fails."""
    return sqlite.connect(path, isolation_level=None, uri=uri, cached_statements=64)


def connect_to_build(path: str, *, journal: str = "DELETE") -> Connection:
    """The same to a file that nobody else looks at: a crash costs the last transactions, never the file.

    journal: OFF where nobody needs the file after a crash; SQLite writes no other file then."""
    db = connect(path)
    synchronous = "OFF" if journal == "OFF" else "NORMAL"
    for pragma in ("locking_mode = EXCLUSIVE", f"journal_mode = {journal}", f"synchronous = {synchronous}",
                   "cache_size = -32000", "temp_store = MEMORY"):  # fmt: skip
        db.execute(f"PRAGMA {pragma}")
    return db


@contextmanager
def transaction(db: Connection) -> Iterator[None]:
    """All of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            with suppress(sqlite.Error):  # it cannot be done without a journal, where nobody needs the file then
                db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def create(db: Connection) -> None:
    """Lay out an empty index."""
    db.execute("PRAGMA page_size = 16384")
    with transaction(db):
        for statement in SCHEMAS[CURRENT]:
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {CURRENT}")


def version_of(db: Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def upgrade(db: Connection) -> None:
    """Bring an index of any version to the current one, a version in a transaction."""
    for version in range(version_of(db), CURRENT):
        with transaction(db):
            UPGRADES[version](db)
            db.execute(f"PRAGMA user_version = {version + 1}")


# ---------------------------------------------------------------- opening


def kind(head: bytes) -> str:
    """What a file's first bytes say: `index`, `sqlite` (somebody else's database) or `text`."""
    ours = head[68:72] == APPLICATION.to_bytes(4, "big")
    if head.startswith(b"SQLite format 3\0"):
        return "index" if ours else "sqlite"
    # no text has NULs there: damage to the first bytes does not turn an index into one
    return "index" if ours and _version_in(head) in SCHEMAS else "text"


def _version_in(head: bytes) -> int:
    return int.from_bytes(head[60:64], "big")


def expect_index(head: bytes, name: str) -> None:
    """BadInput unless a file begins as an index of a version that is known."""
    if kind(head) != "index":
        raise BadInput(f"cannot open {name}: not an index", "run: index FILES > index.db")
    if (version := _version_in(head)) not in SCHEMAS:
        known = ", ".join(map(str, SCHEMAS))
        raise BadInput(f"{name} is an index of version {version}, this reads {known}", "index it again")


def open_file(call: Call, path: str) -> int:
    """A descriptor of a named file, or of what a pipe gave; BadInput."""
    try:
        return pipes.open_again(call, path)
    except OSError as error:
        raise os_error(error, f"open {path}") from None


def head_of(fd: int) -> bytes:
    """The first bytes of a seekable file, which stay unread; nothing of a pipe."""
    return os.pread(fd, HEADER, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""


# what a damaged or hostile index does to the code that reads it
DAMAGE = (sqlite.Error, ArithmeticError, LookupError, TypeError, ValueError)


class Damaged(BadInput):
    """An index is not what was written."""

    def __init__(self, name: str, error: Exception) -> None:
        again = "index FILES > x.db" if name == "standard input" else f"index FILES -o {name}"
        super().__init__(f"{name} is damaged: {error}", f"build it again: {again}")


@contextmanager
def damage(name: str) -> Iterator[None]:
    """What is wrong with an index that is read, in one line."""
    try:
        yield
    except DAMAGE as error:
        raise Damaged(name, error) from error


def open_fd(call: Call, fd: int, name: str) -> Connection:
    """A read-only connection to the index behind a descriptor; BadInput when it is none."""
    path = f"/dev/fd/{fd}"
    # SQLite follows this link by itself, and to what? The file may be renamed over or deleted since it was opened
    there = files.has_name(fd, os.path.realpath(path)) if os.path.islink(path) else os.path.exists(path)
    if not there:
        return open_spooled(call, copy_chunks(fd), name)
    _check_file(call, fd, name)
    with damage(name):
        return check(connect(f"file:{path}?mode=ro&immutable=1", uri=True))


def _check_file(call: Call, fd: int, name: str) -> None:
    expect_index(head_of(fd), name)
    with damage(name):
        checksum.verify(call, fd)


@contextmanager
def opened(call: Call, path: str) -> Iterator[Connection]:
    """The index of that name, for as long as it is read; what is wrong with it is told as of `damage`."""
    fd = open_file(call, path)
    try:
        with damage(path):
            yield open_fd(call, fd, path)
    finally:
        os.close(fd)


def open_spooled(call: Call, chunks: Iterable[bytes], name: str) -> Connection:
    """The same for an index that comes in pieces: kept in a private file while it is read."""
    fd = files.spool(call, chunks)
    try:
        _check_file(call, fd, name)
        with files.named(call, fd) as path, damage(name):
            for mark in "%?#":
                path = path.replace(mark, f"%{ord(mark):x}")
            return check(connect(f"file:{path}?mode=ro&immutable=1", uri=True))
    finally:
        os.close(fd)


def copy_chunks(fd: int) -> Iterator[bytes]:
    """A file's bytes from its start, in pieces."""
    at = 0
    while chunk := os.pread(fd, pipes.CHUNK, at):
        at += len(chunk)
        yield chunk


def check(db: Connection) -> Connection:
    """The connection, made safe against what a stranger may have put in the file.

    The schema must be that of its version to the letter, so that no trigger, view or function of theirs runs.
    """
    db.setlimit(sqlite.SQLITE_LIMIT_LENGTH, LARGEST)
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    found = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'words\\__%' ESCAPE '\\'")
    if sorted(sql for (sql,) in found) != sorted(SCHEMAS.get(version_of(db), ())):
        raise ValueError("its tables are not ours")
    shadow = db.execute(
        "SELECT count(*) FROM sqlite_master WHERE name LIKE 'words\\__%' ESCAPE '\\' AND type = 'table'"
    )
    if shadow.fetchone() != (4,):
        raise ValueError("its word tables are not ours")
    return db
