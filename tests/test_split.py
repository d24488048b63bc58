"""index --split and many indexes at once: parts are the whole, and searched as one."""

import json
import resource
import subprocess

import pytest
from command import BIN, command, environment


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    lines = "".join(json.dumps({"id": f"r{i}", "text": f"cat {i % 7} dog {i}"}) + "\n" for i in range(50))
    words = ["index", "-q", "-m", model, "--id", "id", "-o", str(folder / "x.db")]
    command(*words, stdin=lines.encode()).ok()
    return folder


def hits(folder, *files, mode="hybrid", query="cat 3"):
    ran = command("search", "--json", "--mode", mode, "--threshold", "0", "-k", "20", query, *files, cwd=folder)
    return [(one["id"], one["score"]) for one in map(json.loads, ran.ok().out.splitlines())]


@pytest.mark.parametrize("mode", ["hybrid", "vector", "lexical"])
def test_parts_are_searched_as_the_whole(whole, mode):
    command("index", "--split", "3", "x.db", "-o", mode, cwd=whole).ok()
    parts = [f"{mode}-{i}.db" for i in (1, 2, 3)]
    assert sorted(hits(whole, *parts, mode=mode)) == sorted(hits(whole, "x.db", mode=mode))
    command("index", "--merge", *parts, "-o", "again.db", cwd=whole).ok()
    assert hits(whole, "again.db", mode=mode) == hits(whole, "x.db", mode=mode)


def test_a_list_of_indexes(whole):
    command("index", "--split", "12", "x.db", "-o", "part.db", cwd=whole).ok()
    names = [f"part-{i:02}.db" for i in range(1, 13)]
    (whole / "list").write_text("".join(name + "\r\n" for name in names))
    assert hits(whole, "@list") == hits(whole, *names)
    command("index", "--merge", "@list", "-o", "again.db", cwd=whole).ok()
    assert hits(whole, "again.db") == hits(whole, "x.db")
    repeated = [word for name in names for word in ("-i", name)]
    assert hits(whole, *repeated) == hits(whole, *names)


def test_what_is_wrong(whole):
    command("index", "--split", "3", cwd=whole).fails("--split takes one index")
    command("index", "--split", "3", "--merge", "x.db", cwd=whole).fails("--merge and --split exclude each other")
    command("index", "--split", "3", "list", cwd=whole).fails("list")
    command("search", "cat", "@nowhere", cwd=whole).fails("nowhere: No such file")
    (whole / "empty").write_text("\n")
    command("search", "cat", "@empty", cwd=whole).fails("empty lists no files")
    (whole / "there-2.db").write_text("mine")
    command("index", "--split", "2", "x.db", "-o", "there", cwd=whole).fails("there-2.db is there already")
    assert (whole / "there-2.db").read_text() == "mine" and not (whole / "there-1.db").exists()


def test_more_files_than_descriptors(whole):
    """Where the system would give more, a soft limit is no reason to stop."""
    command("index", "--split", "12", "x.db", "-o", "few", cwd=whole).ok()
    names = [f"few-{i:02}.db" for i in range(1, 13)] * 4

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    ran = subprocess.run(
        [f"{BIN}/search", "cat 3", *names], capture_output=True, cwd=whole, env=environment(), preexec_fn=few
    )
    assert ran.returncode == 0 and ran.stdout, ran
