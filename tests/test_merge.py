"""index --merge: sources stay apart, what is there already is not taken again."""

import json
import os
import shutil
import sqlite3

import pytest
from command import command


@pytest.fixture
def shards(model, tmp_path):
    """index(name, lines, *words): an index of records of standard input."""

    def index(name, lines, *words):
        os.makedirs(tmp_path / os.path.dirname(name), exist_ok=True)
        text = "".join(line + "\n" for line in lines).encode()
        command("index", "-q", "-m", model, *words, "-o", str(tmp_path / name), stdin=text).ok()
        return name

    return index


@pytest.fixture
def merge(tmp_path):
    def run(*names, out="m.db"):
        ran = command("index", "--merge", *names, "-o", out, cwd=tmp_path)
        assert ran.status == 0, ran
        with sqlite3.connect(tmp_path / out) as db:
            places = db.execute("SELECT path, number FROM documents ORDER BY id").fetchall()
        assert len(set(places)) == len(places), "two records at one place"
        return places, ran.err.decode()

    return run


A, B = ["the cat sat", "a dog ate"], ["a mat", "the dog sat"]


def test_records_without_a_name_get_that_of_their_index(shards, merge, tmp_path):
    places, told = merge(shards("a.db", A), shards("b.db", B))
    assert places == [("a", 1), ("a", 2), ("b", 1), ("b", 2)] and not told
    hit = command("search", "-k", "1", "mat", "m.db", cwd=tmp_path).ok().out
    assert hit == b"b:1:a mat\n"


def test_a_source_keeps_its_name(shards, merge):
    one, two = shards("a.db", A, "--source", "part-1"), shards("b.db", B, "--source", "part-2")
    assert [path for path, _ in merge(one, two)[0]] == ["part-1"] * 2 + ["part-2"] * 2


@pytest.mark.parametrize("words", [[], ["--source", "part"]])
def test_indexes_of_one_name_stay_apart(shards, merge, words):
    places, _ = merge(shards("x/s.db", A, *words), shards("y/s.db", B, *words))
    first, second = places[0][0], places[2][0]
    assert len(places) == 4 and first != second


@pytest.mark.parametrize("words", [[], ["--source", "part"], ["--id", "id"]])
def test_a_shard_that_comes_twice_counts_once(shards, merge, tmp_path, words):
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(A)] if "--id" in words else A
    one, two = shards("a.db", lines, *words), shards("b.db", [lines[0] + " "], *words[:-1], *words[-1:])
    shutil.copy(tmp_path / one, tmp_path / "copy.db")
    places, told = merge(one, "copy.db", one)
    assert len(places) == 2 and "2 of the indexes hold what another does, and counted once" in told
    alone = (tmp_path / "m.db").read_bytes()
    merge(one, shards("none.db", [], "--empty-ok"), out="n.db")
    hits = [command("search", "--json", "--threshold", "0", "cat", x, cwd=tmp_path).ok().out for x in ("m.db", "n.db")]
    assert hits[0] == hits[1] and alone and two


def test_merges_of_merges(shards, merge):
    """A tree in which a shard comes by two ways."""
    one, two, three = shards("a.db", A), shards("b.db", B), shards("c.db", ["c"])
    merge(one, two, out="left.db")
    merge(two, three, out="right.db")
    places, told = merge("left.db", "right.db")
    assert places == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)]
    assert "2 documents that were there already" in told


def test_of_an_id_the_last_version_is_kept(shards, merge):
    def record(id, text):
        return json.dumps({"id": id, "text": text})

    one = shards("a.db", [record(1, "old"), record(2, "same")], "--id", "id")
    two = shards("b.db", [record(1, "new"), record(2, "same"), record(3, "more")], "--id", "id")
    places, told = merge(one, two)
    assert len(places) == 3 and "1 document that was there already" in told
    assert "1 document replaced by a later one of the same path or id" in told


def test_files_of_one_path(model, merge, tmp_path):
    (tmp_path / "a.txt").write_text("the cat")
    for name in ("a.db", "b.db"):
        command("index", "-q", "-m", model, "-o", name, "a.txt", cwd=tmp_path).ok()
    (tmp_path / "b.txt").write_text("a dog")
    command("index", "-q", "-m", model, "-o", "b.db", "a.txt", "b.txt", cwd=tmp_path).ok()
    places, told = merge("a.db", "b.db")
    assert [path for path, _ in places] == ["a.txt", "b.txt"] and "1 document that was there already" in told


def test_exact_vectors_and_others_are_not_joined(shards, tmp_path):
    shards("a.db", A)
    shards("b.db", B, "--exact")
    words = ["index", "--merge", "a.db", "b.db", "-o", "m.db"]
    command(*words, cwd=tmp_path).fails("b.db with --exact, a.db without --exact: they have other vectors")


def test_what_output_names(shards, tmp_path):
    """- is standard output for every way to make an index; what is no index is not replaced."""
    names = [shards("a.db", A), shards("b.db", B)]
    piped = command("index", "--merge", *names, "-o", "-", cwd=tmp_path).ok().out
    assert piped == command("index", "--merge", *names, cwd=tmp_path).ok().out and piped.startswith(b"SQLite")
    (tmp_path / "notes.md").write_text("# notes\n")
    command("index", "--merge", *names, "-o", "notes.md", cwd=tmp_path).fails("notes.md is there, and no index")
    command("index", "--split", "2", "a.db", "-o", "-", cwd=tmp_path).fails("--split and -o - exclude each other")
    command("index", "--split", "2", "a.db", "-o", "no/x", cwd=tmp_path).fails("cannot write no/x-1.db")
    (tmp_path / "b").write_text("of a stem nothing is replaced\n")
    command("index", "--split", "2", "a.db", "-o", "b", cwd=tmp_path).ok()
    for made in ("b", "b-1.db", "b-2.db"):
        (tmp_path / made).unlink()
    command("index", "-u", "-", "notes.md", cwd=tmp_path).fails("-u brings a file up to date, and - names none")
    assert sorted(os.listdir(tmp_path)) == ["a.db", "b.db", "notes.md"]
