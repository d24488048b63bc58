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
from toast import files, kept, pipes
from toast.errors import BadInput, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator
    from sqlite3 import Connection
    from typing import TypeVar

    from toast.command import Call

    C = TypeVar("C", bound=Connection)

APPLICATION = int.from_bytes(b"tidx", "big")
HEADER = 100  # bytes of an SQLite file's header
LARGEST = 256 << 20  # bytes of one value, at most: what a hostile file may make us allocate
LIMITS = {
    sqlite.SQLITE_LIMIT_LENGTH: LARGEST,
    sqlite.SQLITE_LIMIT_SQL_LENGTH: 1 << 20,  # of a statement, a stranger's in the file too
    sqlite.SQLITE_LIMIT_ATTACHED: 0,
    sqlite.SQLITE_LIMIT_TRIGGER_DEPTH: 0,  # a trigger is an error, even if one got by `check`
}
# Steps of SQLite's machine: an honest index takes 3 for a byte of it; pages that are shared take any number.
STEPS, STEPS_PER_BYTE, COUNTED = 10_000_000, 8, 1 << 16
OF_THE_MACHINE = ("FULL", "IOERR", "NOMEM", "CANTOPEN", "READONLY", "PERM", "BUSY", "LOCKED")  # no fault of a file

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
WORDS_2 = f"CREATE VIRTUAL TABLE words USING fts5(text, parts, context, content='', tokenize=\"{STEMS}\")"
SCHEMAS[2] = (*SCHEMAS[1][:-1], WORDS_2)
# what FTS5 makes for the table `words`; of every version so far
SHADOWS = {
    "words_data": "CREATE TABLE 'words_data'(id INTEGER PRIMARY KEY, block BLOB)",
    "words_idx": "CREATE TABLE 'words_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID",
    "words_docsize": "CREATE TABLE 'words_docsize'(id INTEGER PRIMARY KEY, sz BLOB)",
    "words_config": "CREATE TABLE 'words_config'(k PRIMARY KEY, v) WITHOUT ROWID",
}
CURRENT = 2  # the version that is written; the others are read, and upgraded by `index -u`


class Damaged(ValueError):
    """An index has something else where a row, a number or a text should be."""


class Database(sqlite.Connection):
    """A connection. file: what is known of its file as long as that is the same (`kept.py`); None: nothing."""

    file: Hashable = None


def connect(path: str, *, uri: bool = False) -> Database:
    """A connection without implicit transactions, and without what only a stranger's file would ask of it;
    sqlite.Error when that fails."""
    db = sqlite.connect(path, isolation_level=None, uri=uri, cached_statements=64, factory=Database)
    for limit, most in LIMITS.items():
        db.setlimit(limit, most)
    if configure := getattr(db, "setconfig", None):  # Python 3.12
        configure(sqlite.SQLITE_DBCONFIG_DEFENSIVE)  # type: ignore[attr-defined]
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON"):
        db.execute(f"PRAGMA {pragma}")
    return db


def connect_to_build(path: str, *, journal: str = "DELETE") -> Connection:
    """The same to a file that nobody else looks at: a crash costs the last transactions, never the file.

    journal: OFF where nobody needs the file after a crash; SQLite writes no other file then."""
    db = connect(path)
    synchronous = "OFF" if journal == "OFF" else "NORMAL"
    for pragma in ("locking_mode = EXCLUSIVE", f"journal_mode = {journal}", f"synchronous = {synchronous}",
                   "cache_size = -32000", "temp_store = MEMORY"):  # fmt: skip
        db.execute(f"PRAGMA {pragma}")
    return db


def limit(db: Connection) -> None:
    """Let what is asked of an index from here on take the steps that its size explains, and no more."""
    left = STEPS // COUNTED

    def spent() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    db.set_progress_handler(spent, COUNTED)
    pages, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    left += STEPS_PER_BYTE * pages * size // COUNTED


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


def upgrade(db: Connection, steps: dict[int, Callable[[Connection], None]]) -> None:
    """Bring an index of any version to the current one, a version in a transaction. steps: version -> what makes the
    next one of it."""
    for version in range(version_of(db), CURRENT):
        with transaction(db):
            steps[version](db)
            db.execute(f"PRAGMA user_version = {version + 1}")


def shrink(db: Connection) -> None:
    """Give the free pages back where they are over a quarter; temporary tables go. A crash leaves what was there."""
    pages, free = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    if 4 * free <= pages:
        return
    db.setlimit(sqlite.SQLITE_LIMIT_ATTACHED, 1)  # SQLite attaches the new copy to itself
    db.execute("PRAGMA temp_store = FILE")
    try:
        db.execute("VACUUM")
    except sqlite.Error as error:
        if not of_the_machine(error):  # no room for a copy: larger than it has to be, and as good
            raise
    finally:
        db.setlimit(sqlite.SQLITE_LIMIT_ATTACHED, LIMITS[sqlite.SQLITE_LIMIT_ATTACHED])


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


def is_index(path: str) -> bool:
    """Whether a regular file is an index of ours, of any version; OSError."""
    return kind(files.read(path, HEADER)) == "index"


def open_file(call: Call, path: str) -> int:
    """A descriptor of a named file, or of what a pipe gave; BadInput."""
    try:
        return pipes.open_again(call, path)
    except OSError as error:
        raise os_error(error, f"open {path}") from None


def head_of(fd: int, name: str) -> bytes:
    """The first bytes of a seekable file, which stay unread; nothing of a pipe."""
    try:
        return os.pread(fd, HEADER, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError as error:
        raise os_error(error, f"read {name}") from None


# what a damaged or hostile index does to the code that reads it
DAMAGE = (sqlite.Error, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


class DamagedIndex(BadInput):
    """An index is not what was written."""

    def __init__(self, name: str, error: Exception) -> None:
        again = "index FILES > x.db" if name == "standard input" else f"index FILES -o {name}"
        super().__init__(f"{name} is damaged: {_told(error)}", f"build it again: {again}")


@contextmanager
def damage(name: str, db: Connection | None = None) -> Iterator[None]:
    """What is wrong with an index that is read, in one line; it is asked of with a limit."""
    try:
        if db is not None:
            limit(db)
        yield
    except DAMAGE as error:
        if of_the_machine(error):
            raise BadInput(f"cannot read {name}: {error}") from error
        raise DamagedIndex(name, error) from error


def of_the_machine(error: Exception) -> bool:
    """Whether what SQLite says is about disk or memory, not about what the file holds."""
    return getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").startswith(OF_THE_MACHINE)


def _told(error: Exception) -> str:
    if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
        return "to read it takes more steps than its size explains"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def open_fd(call: Call, fd: int, name: str) -> Database:
    """A read-only connection to the index behind a descriptor; BadInput when it is none."""
    path = f"/dev/fd/{fd}"
    # SQLite follows this link by itself, and to what? The file may be renamed over or deleted since it was opened
    there = files.has_name(fd, os.path.realpath(path)) if os.path.islink(path) else os.path.exists(path)
    if not there:
        return open_spooled(call, copy_chunks(fd), name)
    file = kept.identity(fd)
    kept.of(file, "whole", lambda: _check_file(call, fd, name), size=lambda _: 64)
    with damage(name):
        db = connect(f"file:{path}?mode=ro&immutable=1", uri=True)
        db.file = file
        return check(db)


def _check_file(call: Call, fd: int, name: str) -> bool:
    """True, or BadInput, DamagedIndex."""
    expect_index(head_of(fd, name), name)
    with damage(name):
        checksum.verify(call, fd)
    return True


@contextmanager
def opened(call: Call, path: str) -> Iterator[Database]:
    """The index of that name, for as long as it is read; what is wrong with it is told as of `damage`."""
    fd = open_file(call, path)
    try:
        db = open_fd(call, fd, path)
        with damage(path, db):
            yield db
    finally:
        os.close(fd)


def open_spooled(call: Call, chunks: Iterable[bytes], name: str) -> Database:
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


def check(db: C) -> C:
    """The connection, if its file holds the tables of its version and nothing else: Damaged.

    By type, name and statement, so that no trigger, view, table or function of a stranger is ever asked for.
    """
    limit(db)
    ours = list(_entries(SCHEMAS.get(version_of(db), ())))
    found = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT ?", (len(ours) + 1,))
    if sorted(map(repr, found)) != sorted(map(repr, ours)):
        raise Damaged("its tables are not ours")
    return db


def _entries(statements: tuple[str, ...]) -> Iterator[tuple[str, str, str, str]]:
    """(type, name, name of the table, statement) of what sqlite_master should hold."""
    for statement in statements:
        words = statement.split()
        kind, name = words[1:3] if words[1] != "VIRTUAL" else ("table", words[3])
        yield kind.lower(), name, words[4] if kind == "INDEX" else name, statement
    if statements:
        yield from (("table", name, name, statement) for name, statement in SHADOWS.items())
