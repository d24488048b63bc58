"""Indexes that somebody else has made: what is in them is refused, or is damage; it never runs, hangs or is believed.

Each is sealed with checksums of its own, as a stranger would.
"""

import os
import shutil
import sqlite3
import tempfile
import time

import pytest
from command import Result, command

from embed import checksum, cli, database, schema
from toast.command import Call, run
from toast.errors import BadInput

RECORDS = b'{"id": "a", "text": "the cat sat", "k": "v"}\n{"id": "b", "text": "a dog ran", "k": ["w"]}\n'
OTHERS = b'{"id": "a", "text": "the bird"}\n'
LOOKS = [
    ["the cat"],
    ["--mode", "lexical", "-C2", "cat"],
    ["--json", "--explain", "--where", "k=v", "--path", "*", "cat"],
]


@pytest.fixture(scope="module")
def made(tmp_path_factory, model):
    """A folder with an index of files, x.db, and one of records, r.db."""
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "docs").mkdir()
    (folder / "more").mkdir()
    for name, text in (("docs/a.txt", "the cat sat\n\na dog ran\n"), ("docs/b.txt", "red\n"), ("more/c.txt", "sky\n")):
        (folder / name).write_text(text)
    command("index", "-m", model, "-o", "x.db", "docs", cwd=folder).ok()
    command("index", "-m", model, "--id", "id", "-o", "r.db", stdin=RECORDS, cwd=folder).ok()
    return folder


def call_in(folder, name, stdin=b""):
    """(a Call in a folder, its three files)."""
    files = [tempfile.TemporaryFile() for _ in range(3)]
    files[0].write(stdin)
    files[0].seek(0)
    fds = dict(zip(("stdin", "stdout", "stderr"), (file.fileno() for file in files), strict=True))
    return Call(name, dict(os.environ), os.open(folder, os.O_RDONLY), **fds), files


def here(name, *words, folder, stdin=b""):
    """Run a command in this process: there are many."""
    call, files = call_in(folder, name, stdin)
    status = run(getattr(cli, name), list(words), call)
    os.close(call.cwd)
    for file in files[1:]:
        file.seek(0)
    return Result([name, *words], status, files[1].read(), files[2].read())


def change(path, *statements, pages=None):
    """Do to an index what a stranger would, and seal it."""
    with open(path, "r+b") as file:
        checksum.cut(file.fileno())
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()
    if pages:
        data = bytearray(path.read_bytes())
        pages(data)
        path.write_bytes(data)
    seal(path)


def seal(path):
    call, _ = call_in(path.parent, "index")
    with open(path, "r+b") as file:
        checksum.seal(call, file.fileno(), str(path))


def tried(made, folder):
    """What every command that opens an index makes of bad.db, beside a whole one, x.db."""
    for words in LOOKS:
        yield here("search", *words, "-i", "bad.db", folder=folder)
    for words, stdin in ((["more"], b""), (["-"], OTHERS)):
        shutil.copy(folder / "bad.db", folder / "u.db")
        yield here("index", "-u", "u.db", *words, folder=folder, stdin=stdin)
    yield here("index", "--merge", "bad.db", "x.db", "-o", "both.db", folder=folder)


@pytest.fixture(params=["x.db", "r.db"])
def bad(made, tmp_path, request):
    shutil.copytree(made / "more", tmp_path / "more")
    for name, source in (("x.db", request.param), ("bad.db", request.param)):
        shutil.copy(made / source, tmp_path / name)
    return tmp_path / "bad.db"


TABLES = {
    "trigger": ["CREATE TRIGGER t AFTER INSERT ON documents BEGIN UPDATE documents SET path = 'EVIL'; END"],
    "trigger like a shadow": ["CREATE TRIGGER words_t AFTER INSERT ON documents BEGIN DELETE FROM chunks; END"],
    "view": ["CREATE VIEW words_v AS SELECT 1"],
    "index": ["CREATE INDEX words_i ON documents (hash)"],
    "table": ["CREATE TABLE words_x (y)"],
    "virtual table": ["CREATE VIRTUAL TABLE words_v USING fts5(x)"],
    "table for a view": ["DROP TABLE documents", "CREATE VIEW documents AS SELECT 1 AS id, 'a' AS path"],
    "shadow table of another form": [
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, 'block BLOB', 'block BLOB, x DEFAULT (random())')"
        " WHERE name = 'words_data'",
    ],
    "index with a function": ["DROP INDEX documents_hash", "CREATE INDEX documents_hash ON documents (abs(hash))"],
    "index of another table": ["DROP INDEX documents_hash", "CREATE INDEX documents_hash ON chunks (hash)"],
    "statistics": ["ANALYZE"],
    "a table less": ["DROP INDEX chunks_hash"],
    "a shadow table less": ["PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'words_docsize'"],
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_tables_that_are_not_ours(made, bad, kind):
    change(bad, *TABLES[kind])
    before = bad.read_bytes()
    for result in tried(made, bad.parent):
        result.fails("damaged", "(build it again: index FILES -o ")
    with open(bad, "rb") as file:
        call, files = call_in(bad.parent, "search")
        assert run(cli.search, ["cat"], call.but(stdin=file.fileno())) == 2
    assert bad.read_bytes() == before == (bad.parent / "u.db").read_bytes()
    assert not [name for name in os.listdir(bad.parent) if "part" in name or name == "both.db"]


def deep(n):
    return '{"a":' * n + "1" + "}" * n


ROWS = {  # what is changed: a piece of the message that commands end in; None: an answer is as right
    "UPDATE segments SET ids = zeroblob(40)": "wrong size",
    "UPDATE segments SET ids = 'abcdefgh'": "",
    "UPDATE segments SET codes = zeroblob(3)": "wrong size",
    "UPDATE segments SET codes = 'text'": "",
    "UPDATE segments SET scales = zeroblob(400)": "wrong size",
    "UPDATE segments SET codes = zeroblob(40000000)": "wrong size",
    "UPDATE segments SET first = -1 - first * 2": None,
    "UPDATE segments SET exact = 'x'": None,
    "DELETE FROM segments": "",
    "UPDATE meta SET value = 0 WHERE key = 'dims'": "settings",
    "UPDATE meta SET value = 65535 WHERE key = 'dims'": None,
    "UPDATE meta SET value = '32' WHERE key = 'dims'": "settings",
    "UPDATE meta SET value = NULL WHERE key = 'dims'": "settings",
    "UPDATE meta SET value = 1e300 WHERE key = 'dims'": "settings",
    "UPDATE meta SET value = x'00ff' WHERE key = 'model'": "settings",
    "UPDATE meta SET value = 'a' || char(0) WHERE key = 'model'": "settings",
    "UPDATE meta SET value = '' WHERE key = 'digest'": "settings",
    "UPDATE meta SET value = 7 WHERE key = 'digest'": "settings",
    "UPDATE meta SET value = 'abc' WHERE key = 'exact'": "settings",
    "UPDATE meta SET value = 'abc' WHERE key = 'chunk'": "settings",
    "DELETE FROM meta": "settings",
    "UPDATE documents SET path = 5": None,
    "UPDATE documents SET number = 'x'": None,
    "UPDATE documents SET name = x'00ff'": None,
    "UPDATE documents SET data = '[1,2]'": "",
    "UPDATE documents SET data = '[[\"a\", 1]]'": "",
    "UPDATE documents SET data = '{'": "",
    "UPDATE documents SET data = 5": "",
    "UPDATE documents SET data = '{\"a\":NaN}'": "",
    f"UPDATE documents SET data = '{deep(3000)}'": "",
    f"UPDATE documents SET data = '{'[' * 100_000}'": "",
    "DELETE FROM documents": "",
    "DELETE FROM chunks": "",
    "UPDATE chunks SET text = 'EVIL'": None,
    "UPDATE chunks SET text = x'ff00'": "",
    "UPDATE chunks SET text = CAST(x'ff41' AS TEXT)": None,
    "UPDATE chunks SET hash = 'x'": "",
    "UPDATE chunks SET start_line = -5": None,
    "UPDATE chunks SET start_line = 1 << 62, end_line = 1 << 62": None,
    "UPDATE chunks SET start_line = 'x'": "",
    "UPDATE chunks SET document = 'x'": "",
    "INSERT INTO words (rowid, text) VALUES (99999, 'the cat')": None,
    "UPDATE words_data SET block = x'ffffffffffffffffffffffff' WHERE id > 10": None,
    "UPDATE words_data SET block = zeroblob(30000000) WHERE id = 10": None,
    "DELETE FROM words_data": None,
    "DELETE FROM words_docsize": None,
    "UPDATE words_idx SET pgno = pgno + 1000000": None,
    "UPDATE words_config SET v = 99": None,
    "INSERT INTO words_config VALUES ('rank', 'nosuch(1)')": None,
    "UPDATE words_docsize SET sz = x'ffffffffffffffffff'": None,
}  # fmt: skip


@pytest.mark.parametrize("statement", ROWS, ids=lambda text: text[:60])
def test_rows_that_are_not_ours(made, bad, statement):
    """An answer, or one line that says what is damaged; what was damaged is never written on and called whole."""
    change(bad, statement)
    told = ROWS[statement]
    began = time.monotonic()
    for result in tried(made, bad.parent):
        assert result.status in (0, 1, 2) and b"unexpected" not in result.err, result
        if result.status == 2 and b"with another model" not in result.err:
            result.fails("damaged", "build it again")
        if told is not None and result.words[0] == "index":
            result.fails("bad.db is damaged" if "--merge" in result.words else "u.db is damaged", told)
        if told == "settings":
            result.fails("settings")
        if result.words[0] == "index" and result.status == 0:
            # what it has made can be searched, but for a text that has changed
            target = "both.db" if "--merge" in result.words else "u.db"
            for words in LOOKS:
                found = here("search", *words, "-i", target, folder=bad.parent)
                assert found.status in (0, 1) or b"text" in found.err, (result, found)
    assert time.monotonic() - began < 10


def test_json_that_is_almost_json(bad):
    for number in ("NaN", "Infinity", "1e999"):
        change(bad, f"UPDATE documents SET data = '{{\"a\": {number}}}'")
        here("search", "--mode", "lexical", "--json", "cat", "-i", "bad.db", folder=bad.parent).fails("not JSON")


def test_pages_that_are_their_own_children(made, bad):
    """A tree whose branches are one page again and again has more rows than anybody can read."""
    with open(bad, "r+b") as file:
        checksum.cut(file.fileno())
    db = sqlite3.connect(bad, isolation_level=None)
    roots = dict(db.execute("SELECT name, rootpage FROM sqlite_master"))
    db.execute("WITH n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 4000)"
               " INSERT INTO documents SELECT 1000 + i, 'x' || i, 1, NULL, zeroblob(16), NULL FROM n")  # fmt: skip
    size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    data = bytearray(bad.read_bytes())

    def page(number):
        return (number - 1) * size

    root = page(roots["documents"])
    assert data[root] == 5  # an interior page
    child = int.from_bytes(data[root + 8 : root + 12], "big")
    leaf = bytes(data[page(child) : page(child) + size])
    assert leaf[0] == 13
    # levels of interior pages, each of which has the next one 500 times
    levels = [roots["documents"], *(len(data) // size + 1 + i for i in range(6))]
    data += bytes(6 * size)
    for number, below in zip(levels, [*levels[1:], child], strict=True):
        data[page(number) : page(number) + size] = shared(below, size)
    data[28:32] = (len(data) // size).to_bytes(4, "big")
    bad.write_bytes(data)
    seal(bad)
    began = time.monotonic()
    for words in (["-u", "bad.db", "more"], ["--merge", "bad.db", "x.db", "-o", "both.db"]):
        here("index", *words, folder=bad.parent).fails("bad.db is damaged")
    call, _ = call_in(bad.parent, "search")
    with pytest.raises(BadInput, match="more steps than its size explains"), schema.opened(call, "bad.db") as db:
        database.document_ids(db)
    assert time.monotonic() - began < 30


def shared(child, size):
    """An interior page of a table, all of whose 500 children are the same page."""
    cells = [child.to_bytes(4, "big") + bytes([i // 128 | 128, i % 128]) for i in range(1, 500)]
    head = bytearray(b"\x05\0\0" + len(cells).to_bytes(2, "big") + (size - 6 * len(cells)).to_bytes(2, "big") + b"\0")
    head += child.to_bytes(4, "big")
    at = size
    for _ in cells:
        at -= 6
        head += at.to_bytes(2, "big")
    page = head + bytes(size - len(head) - 6 * len(cells)) + b"".join(reversed(cells))
    assert len(page) == size
    return bytes(page)


def test_every_connection_is_careful(bad):
    db = schema.connect(str(bad))
    assert db.execute("PRAGMA trusted_schema").fetchone() == (0,)
    assert db.execute("PRAGMA cell_size_check").fetchone() == (1,)
    assert db.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == schema.LARGEST
    db.execute("CREATE TEMP TABLE t (x)")
    db.execute("CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM t; END")
    with pytest.raises(sqlite3.Error):
        db.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(sqlite3.Error):
        db.execute("ATTACH ':memory:' AS other")


def test_a_query_without_an_end_is_ended(bad):
    db = schema.connect(str(bad))
    with pytest.raises(BadInput, match="more steps than its size explains"), schema.damage("bad.db", db):
        db.execute("WITH n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n").fetchone()


def test_a_full_disk_is_no_damage(bad):
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorname = "SQLITE_FULL"
    with pytest.raises(BadInput) as told, schema.damage("bad.db"):
        raise error
    assert "damaged" not in str(told.value)


def test_an_update_needs_the_model_of_the_index(made, bad):
    change(bad, f"UPDATE meta SET value = '{'0' * 64}' WHERE key = 'digest'")
    here("index", "-u", "bad.db", "more", folder=bad.parent).fails("was made with another model")


def test_sound_is_sound(made):
    for name in ("x.db", "r.db"):
        call, _ = call_in(made, "search")
        with schema.opened(call, name) as db:
            database.expect_sound(db)
