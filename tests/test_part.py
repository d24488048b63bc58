"""What lies beside an index that is built: what is not ours stays whole, what is ours and damaged costs no run."""

import os
import shutil
import sqlite3
import struct
import subprocess
import time

import pytest
from command import command, shell, start

from embed import part, schema

PART = ".x.db.toast-part"
TEXTS = {f"{i}.txt": "\n\n".join(f"{i} the cat {j}" for j in range(200)) for i in range(40)}


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "docs").mkdir()
    for name, text in list(TEXTS.items())[:3]:
        (tmp_path / "docs" / name).write_text(text)
    return tmp_path


def index(model, tree, *words, **options):
    return command("index", *(words or ("docs", "-o", "x.db")), cwd=tree, env={"EMBED_MODEL": model}, **options)


def found(path):
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = db.execute("SELECT path, text FROM chunks JOIN documents d ON d.id = document ORDER BY 1, chunks.id")
        return rows.fetchall(), sorted(key for (key,) in db.execute("SELECT key FROM meta"))


def test_a_blank_part_is_an_empty_database(tmp_path):
    path = str(tmp_path / "x.db")
    with open(path, "wb") as file:
        file.write(part.blank())
    db = schema.connect_to_build(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA page_size").fetchone() == (part.PAGE_SIZE,)
    schema.create(db)
    db.close()
    schema.check(schema.connect(path))


def file(path):
    path.write_bytes(b"precious")


def empty(path):
    path.write_bytes(b"")


def link(path):
    (path.parent / "victim").write_bytes(b"precious")
    path.symlink_to("victim")


def dangling(path):
    path.symlink_to("nowhere")


def second_name(path):
    """An index of somebody's, which has another name, too."""
    (path.parent / "victim").write_bytes(part.blank())
    os.link(path.parent / "victim", path)


def somebodys(path):
    path.write_bytes(part.blank())
    os.chown(path, 1, 1)


def kept(path):
    """What must be the same before and after."""
    status = os.lstat(path)
    victim = path.parent / "victim"
    content = path.read_bytes() if path.is_file() else None
    return status.st_ino, status.st_mode, status.st_uid, content, victim.exists() and victim.read_bytes()


NAMES = ["x.db.part", "x.db.part-journal", "x.db.part-wal", "x.db.part-shm", PART, f"{PART}-journal", f"{PART}-wal",
         f"{PART}-shm", ".x.db.toast-1"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [file, empty, link, dangling, second_name, somebodys, os.mkfifo, os.mkdir])
def test_what_is_not_ours_stays(tree, model, name, make):
    path = tree / name
    if make is somebodys and os.geteuid() != 0:
        pytest.skip("nobody else here")
    if make in (file, empty, second_name) and name.endswith("toast-1") or make is empty and name.endswith("journal"):
        pytest.skip("just what a killed run leaves")
    make(path)
    before = kept(path)
    index(model, tree).ok()
    assert kept(path) == before
    assert set(os.listdir(tree)) <= {"docs", "x.db", "victim", name}
    shutil.copy(tree / "x.db", tree / "y.db")
    (tree / "docs/1.txt").write_text("something else")
    index(model, tree, "docs", "-u", "x.db").ok()
    assert kept(path) == before and found(tree / "x.db") != found(tree / "y.db")


def left_by_a_kill(tree, model):
    """The bytes of a part that is worth going on with, and what the whole index says."""
    for name, text in TEXTS.items():
        (tree / "docs" / name).write_text(text)
    index(model, tree, "docs", "-o", "whole.db").ok()
    run = start("index", "docs", "-o", "x.db", cwd=tree, env={"EMBED_MODEL": model}, stdin=subprocess.DEVNULL)
    path = tree / PART
    while not (path.exists() and path.stat().st_size > 600_000) and run.poll() is None:
        time.sleep(0.001)
    run.kill()
    run.communicate()
    return path, path.read_bytes(), found(tree / "whole.db")


def test_a_damaged_part_costs_no_run(tree, model):
    path, whole, expected = left_by_a_kill(tree, model)
    journal = path.with_name(f"{PART}-journal")
    hot = journal.read_bytes() if journal.exists() else None
    middle = len(whole) // 2
    damages = [
        whole[:middle],
        whole[:200],
        whole[:middle] + bytes(20_000) + whole[middle + 20_000 :],
        whole[:100] + os.urandom(16_000) + whole[16_100:],
        whole[:16] + struct.pack(">H", 777) + whole[18:],  # no page has this size
        whole.replace(b"the cat", b"the bat", 1) if b"the cat" in whole else whole[:-1],
        part.blank(),
    ]
    for number, damaged in enumerate(damages):
        for mine, content in ((path, damaged), (journal, hot)):
            if content is not None:
                mine.write_bytes(content)
        index(model, tree).ok()
        assert found(tree / "x.db") == expected, number
        assert sorted(os.listdir(tree)) == ["docs", "whole.db", "x.db"], number
        os.unlink(tree / "x.db")


def test_a_part_of_other_settings_goes(tree, model):
    path, _, _ = left_by_a_kill(tree, model)
    index(model, tree, "docs/1.txt", "-o", "x.db").ok()
    assert not path.exists() and {row[0] for row in found(tree / "x.db")[0]} == {"docs/1.txt"}


def test_a_merge_leaves_a_part_alone(tree, model):
    """It cannot go on with one, and has another name for its own."""
    path, whole, _ = left_by_a_kill(tree, model)
    index(model, tree, "docs/1.txt", "-o", "a.db").ok()
    index(model, tree, "--merge", "a.db", "whole.db", "-o", "x.db").ok(quiet=False)
    assert path.read_bytes() == whole
    index(model, tree).ok()
    assert not path.exists()


def test_nothing_is_kept_of_nothing(tree, model):
    """A run that failed before it had written a document has left nothing to go on with."""
    command("index", "docs", "-o", "x.db", "-m", "nosuch", cwd=tree).fails("no model")
    index(model, tree, "--jsonl", "-o", "x.db", stdin=b"no json\n").fails("not a JSON object")
    command("search", "-i", "docs/1.txt", "cat", cwd=tree).fails("not an index")
    assert sorted(os.listdir(tree)) == ["docs"]


@pytest.mark.parametrize("store", ["/dev/null/store", "file", "/proc"])
def test_an_index_needs_no_store(tree, model, store):
    """Where the store cannot be written, what is built for standard output is a temporary file."""
    (tree / "file").write_text("no folder")
    (tree / "tmp").mkdir()
    env = {"EMBED_MODEL": model, "TOAST_HOME": store if store != "file" else str(tree / "file"), "TMPDIR": tree / "tmp"}
    for line in ("index < docs/1.txt > y.db", "cat docs/1.txt | index | cat > y.db", "index docs > y.db"):
        shell(f"set -o pipefail; {line}", cwd=tree, env=env).ok()
        assert len(found(tree / "y.db")[0]) >= 100 and os.listdir(tree / "tmp") == []
    env["TMPDIR"] = tree / "none"
    shell("index docs > y.db", cwd=tree, env=env).fails("cannot write in", "TMPDIR=FOLDER")


def test_everywhere_the_same_bytes(tree, model):
    """In a part, in a file without a name, and where the part's name is somebody's."""
    (tree / ".c.db.toast-part").write_text("precious")
    env = {"EMBED_MODEL": model, "TOAST_HOME": str(tree / "home")}
    shell("index docs -o a.db; index docs | cat > b.db; index docs -o c.db; index docs > d.db", cwd=tree, env=env).ok()
    assert len({(tree / f"{name}.db").read_bytes() for name in "abcd"}) == 1


def test_pipes_leave_nothing_that_nobody_can_go_on_with(tree, model):
    env = {"EMBED_MODEL": model, "TOAST_HOME": str(tree / "home")}
    for name, text in TEXTS.items():
        (tree / "docs" / name).write_text(text)
    run = start("index", "docs", cwd=tree, env=env, stdin=subprocess.DEVNULL)
    time.sleep(0.5)
    run.kill()
    run.communicate()
    assert not os.path.exists(tree / "home/index") or os.listdir(tree / "home/index") == []
