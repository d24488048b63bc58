"""The versions of the index file: old ones are read for ever, `index -u` upgrades them, unknown ones are refused."""

import os
import shutil
import sqlite3

import pytest
from command import command

from embed import cli, database, schema, vectors, words
from toast import command as house
from toast.command import Call
from toast.errors import BadInput

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VERSION_1 = os.path.join(ROOT, "tests", "fixtures", "index-v1.db")
SQL = {"schema.py", "database.py", "words.py", "vectors.py"}


def opened(path):
    call, fd = Call("search", os.environ, os.open(".", os.O_RDONLY)), os.open(path, os.O_RDONLY)
    try:
        return schema.open_fd(call, fd, "x.db")
    finally:
        os.close(fd)
        os.close(call.cwd)


def test_every_verb_reads_version_1():
    db = opened(VERSION_1)
    assert schema.version_of(db) == 1 and database.meta(db)["dims"] == 32 and database.counts(db) == (3, 7)
    assert [path for _, path in database.files(db)] == ["docs/cat.md", "docs/deep/pipe.txt", "docs/sky.txt"]
    assert [text for *_, text in database.chunks_of(db, 3)] == ["the sky is blue\nred", "a slow filter"]
    assert database.chunk(db, 5)[3:6] == ("a fast pipe and a model", 7091344907636011848, "docs/deep/pipe.txt")
    assert sorted(database.chunk_documents(db)) == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 3), (7, 3)]
    assert set(words.bm25(db, "dog")[0]) == {3, 4} and words.matches(db, "the", 9) == 3
    assert vectors.count(db) == 7 and len(vectors.Lookup(db, 32).row(4)[0]) == 32


def test_a_new_index_is_of_the_current_version():
    db = schema.connect("")
    schema.create(db)
    assert schema.version_of(db) == schema.CURRENT == max(schema.SCHEMAS) and schema.check(db)


@pytest.mark.parametrize("form", ["file", "pipe"])
def test_an_unknown_version_is_named(tmp_path, form):
    data = bytearray(open(VERSION_1, "rb").read())
    data[60:64] = (9).to_bytes(4, "big")
    (tmp_path / "x.db").write_bytes(data)
    if form == "file":
        found = command("search", "dog", "-i", "x.db", cwd=tmp_path)
    else:
        found = command("search", "dog", stdin=bytes(data))
    found.fails("is an index of version 9, this reads 1, 2 (index it again)")


def test_sql_stays_in_its_rooms():
    for name in os.listdir(os.path.join(ROOT, "embed")):
        if name.endswith(".py") and name not in SQL:
            with open(os.path.join(ROOT, "embed", name)) as file:
                assert ".execute" not in file.read(), name


# ---------------------------------------------------------------- upgrades

MORE = "CREATE TABLE more (text TEXT NOT NULL)"
TREE = {
    "guide.md": "# Cat\n\nthe cat sat on the mat\n\n## Dog\n\nthe dog ran\n",
    "getUserById.py": "def getUserById(userId):\n    return lookup(userId)\n",
    "seoul.txt": "\ud559\uad50\uc5d0 \uac00\uc694\n",
}


def third_version(db):
    db.execute(MORE)
    db.execute("INSERT INTO more SELECT text FROM chunks ORDER BY id")


@pytest.fixture
def next_version(monkeypatch):
    """A house that writes version 3, which has a table more."""
    monkeypatch.setattr(schema, "SCHEMAS", schema.SCHEMAS | {3: (*schema.SCHEMAS[2], MORE)})
    monkeypatch.setattr(schema, "CURRENT", 3)
    monkeypatch.setattr(database, "UPGRADES", database.UPGRADES | {2: third_version})


@pytest.fixture
def tree(tmp_path, model):
    (tmp_path / "docs").mkdir()
    for name, text in TREE.items():
        (tmp_path / "docs" / name).write_text(text)
    command("index", "-q", "-m", model, "docs", "-o", "x.db", cwd=tmp_path).ok()
    return tmp_path


def make_first(path, to):
    """The index as version 1 had it: the words of the texts alone, Hangul among them as it is written."""
    db = sqlite3.connect(shutil.copy(path, to), isolation_level=None)
    db.execute("DROP TABLE words")
    db.execute(schema.SCHEMAS[1][-1])
    for id, text in db.execute("SELECT id, text FROM chunks").fetchall():
        db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (id, words.spaced(text, 1)))
    db.execute("PRAGMA user_version = 1")
    db.execute("VACUUM")
    db.close()
    size = os.path.getsize(to)
    os.truncate(to, size - size % 16384)  # the checksums are of what was there before
    return to


def update(tree):
    """The status of `index -u x.db docs` in this process."""
    call = Call("index", dict(os.environ), os.open(tree, os.O_RDONLY))
    try:
        return house.run(cli.index, ["-q", "-u", "x.db", "docs"], call)
    finally:
        os.close(call.cwd)


def terms(path):
    """Every posting of the words, and every vector."""
    db = opened(path)
    db.execute("CREATE VIRTUAL TABLE temp.instances USING fts5vocab('main', 'words', 'instance')")
    return sorted(db.execute("SELECT * FROM instances")), db.execute("SELECT * FROM segments").fetchall()


def test_an_upgraded_index_is_a_new_one_without_embedding(tree, monkeypatch):
    made = terms(tree / "x.db")
    assert {column for _, _, column, _ in made[0]} == {"text", "parts", "context"}
    make_first(tree / "x.db", tree / "old.db")
    os.replace(tree / "old.db", tree / "x.db")
    assert schema.version_of(opened(tree / "x.db")) == 1 and terms(tree / "x.db") != made
    before = database.meta(opened(tree / "x.db"))
    monkeypatch.setattr("embed.model.Embedder.rows", None)
    assert update(tree) == 0
    db = opened(tree / "x.db")
    assert schema.version_of(db) == 2 and database.meta(db) == before and terms(tree / "x.db") == made
    state = os.stat(tree / "x.db")
    assert update(tree) == 0 and os.stat(tree / "x.db").st_ino == state.st_ino  # there is nothing to do


def test_versions_are_merged(tree):
    made = terms(tree / "x.db")
    make_first(tree / "x.db", tree / "old.db")
    command("index", "--merge", "old.db", "x.db", "-o", "both.db", cwd=tree).ok(quiet=False)
    db = opened(tree / "both.db")
    assert schema.version_of(db) == 2 and database.counts(db) == database.counts(opened(tree / "x.db"))
    assert len(terms(tree / "both.db")[0]) == len(made[0])  # the last one's files took the place of the first one's
    for path in ("x.db", "old.db"):
        merged = command("index", "--merge", path, VERSION_1, "-o", "three.db", cwd=tree)
        merged.fails("index-v1.db with --exact", "without --exact")


@pytest.mark.parametrize("indexes", [["old.db"], ["x.db"], ["old.db", "x.db"]])
def test_versions_are_searched_alone_and_together(tree, indexes):
    """Of version 1 a word of Hangul is found as it is written, of version 2 by any pair of its syllables."""
    make_first(tree / "x.db", tree / "old.db")
    found = command("search", "--mode", "lexical", "\ud559\uad50\uc5d0", *indexes, cwd=tree).ok()
    assert found.out.startswith(b"docs/seoul.txt:1:")
    part = command("search", "--mode", "lexical", "\ud559\uad50", *indexes, cwd=tree)
    assert part.status == (0 if "x.db" in indexes else 1)


def test_the_old_versions_are_read_beside_the_new_one(tree, next_version):
    assert schema.version_of(opened(VERSION_1)) == 1 and schema.version_of(opened(tree / "x.db")) == 2


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_file_that_calls_itself_another_version_is_damaged(tree, next_version, version):
    path = shutil.copy(VERSION_1 if version > 1 else tree / "x.db", tree / "y.db")
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {version}")
    size = os.path.getsize(path)
    os.truncate(path, size - size % 16384)
    with pytest.raises(BadInput, match="its tables are not ours"):
        opened(path)


def test_an_upgrade_that_fails_leaves_the_file(tree, next_version, monkeypatch, capfd):
    def fails(db):
        third_version(db)
        raise sqlite3.OperationalError("no room")

    monkeypatch.setattr(database, "UPGRADES", {2: fails})
    data = (tree / "x.db").read_bytes()
    assert update(tree) == 2 and "no room" in capfd.readouterr().err
    assert (tree / "x.db").read_bytes() == data
