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
    found.fails("is an index of version 9, this reads 1 (index it again)")


def test_sql_stays_in_its_rooms():
    for name in os.listdir(os.path.join(ROOT, "embed")):
        if name.endswith(".py") and name not in SQL:
            with open(os.path.join(ROOT, "embed", name)) as file:
                assert ".execute" not in file.read(), name


# ---------------------------------------------------------------- upgrades

MORE = "CREATE TABLE more (text TEXT NOT NULL)"


def second_version(db):
    db.execute(MORE)
    db.execute("INSERT INTO more SELECT text FROM chunks ORDER BY id")


@pytest.fixture
def two_versions(monkeypatch):
    """A house that writes version 2, which has a table more."""
    monkeypatch.setattr(schema, "SCHEMAS", schema.SCHEMAS | {2: (*schema.SCHEMAS[1], MORE)})
    monkeypatch.setattr(schema, "CURRENT", 2)
    monkeypatch.setattr(schema, "UPGRADES", {1: second_version})


@pytest.fixture
def tree(tmp_path, model):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "cat.md").write_text("# Cat\n\nthe cat sat on the mat\n")
    command("index", "-m", model, "docs", "-o", "x.db", cwd=tmp_path).ok()
    return tmp_path


def update(tree):
    """The status of `index -u x.db docs` in this process."""
    call = Call("index", dict(os.environ), os.open(tree, os.O_RDONLY))
    try:
        return house.run(cli.index, ["-u", "x.db", "docs"], call)
    finally:
        os.close(call.cwd)


def test_an_update_upgrades_without_embedding(tree, two_versions, monkeypatch):
    before = database.meta(opened(tree / "x.db"))
    monkeypatch.setattr("embed.model.Embedder.rows", None)
    assert update(tree) == 0
    db = opened(tree / "x.db")
    assert schema.version_of(db) == 2 and database.meta(db) == before
    assert db.execute("SELECT text FROM more").fetchall() == [("# Cat\n\nthe cat sat on the mat",)]
    state = os.stat(tree / "x.db")
    assert update(tree) == 0 and os.stat(tree / "x.db").st_ino == state.st_ino  # there is nothing to do


def test_the_old_version_is_read_beside_the_new_one(two_versions):
    assert schema.version_of(opened(VERSION_1)) == 1


def test_a_file_that_calls_itself_another_version_is_damaged(tmp_path, two_versions):
    path = shutil.copy(VERSION_1, tmp_path / "x.db")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(BadInput, match="its tables are not ours"):
        opened(path)


def test_an_upgrade_that_fails_leaves_the_file(tree, two_versions, monkeypatch, capfd):
    def fails(db):
        second_version(db)
        raise sqlite3.OperationalError("no room")

    monkeypatch.setattr(schema, "UPGRADES", {1: fails})
    data = (tree / "x.db").read_bytes()
    assert update(tree) == 2 and "no room" in capfd.readouterr().err
    assert (tree / "x.db").read_bytes() == data
