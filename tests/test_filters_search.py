"""`search --path`, `--where`, `-l`, `--per-file`, copies, and what is said of filters that leave nothing."""

import json
import os
import shutil
import subprocess

import pytest
from command import command, shell
from hypothesis import given
from hypothesis import strategies as st

from embed.filters import Condition, Globs, braces

TREE = {
    "docs/g.md": "# giraffe\n", "docs/deep/h.md": "a giraffe\n", "a.txt": "giraffe tall\n", "b.log": "giraffe log\n",
    "src/docs.py": "giraffe = 1\n",
}  # fmt: skip
RECORDS = [
    {"id": 1, "text": "giraffe", "year": 1999, "tags": ["red", "tall"], "author": {"name": "Ann"}, "day": "2024-05-01"},
    {"id": 2, "text": "giraffe two", "year": 2024, "tags": ["blue"], "author": {"name": "Bob"}, "day": "2025-01-31"},
    {"id": 3, "text": "giraffe three", "year": 2025.5, "tags": [], "authors": [{"name": "Ann"}, {"name": "Cy"}]},
    {"id": 4, "text": "giraffe four", "done": True, "by": None, "a.b": "dotted"},
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory, model):
    """A folder with x.db of its files, and r.db of records."""
    folder = tmp_path_factory.mktemp("tree")
    for name, text in TREE.items():
        os.makedirs((folder / name).parent, exist_ok=True)
        (folder / name).write_text(text)
    command("index", "-m", model, ".", "-o", "x.db", cwd=folder).ok()
    data = "".join(json.dumps(r) + "\n" for r in RECORDS).encode()
    command("index", "-m", model, "--jsonl", "--id", "id", "-o", "r.db", stdin=data, cwd=folder).ok()
    return folder


def search(folder, *args, **options):
    return command("search", "--mode", "lexical", *args, cwd=folder, **options)


def paths(folder, *globs):
    words = [word for glob in globs for word in ("--path", glob)]
    return sorted(search(folder, "-l", "giraffe", "x.db", *words).out.decode().split())


def ids(folder, *conditions):
    words = [word for condition in conditions for word in ("--where", condition)]
    return sorted(map(int, search(folder, "-l", "giraffe", "r.db", *words).out.split()))


@pytest.mark.parametrize(
    ("globs", "found"),
    [
        (["docs"], ["docs/deep/h.md", "docs/g.md"]),
        (["docs/"], ["docs/deep/h.md", "docs/g.md"]),
        (["./docs"], ["docs/deep/h.md", "docs/g.md"]),
        (["./docs/*"], ["docs/deep/h.md", "docs/g.md"]),
        (["docs/*.md"], ["docs/g.md"]),
        (["docs/**/*.md"], ["docs/deep/h.md", "docs/g.md"]),
        (["deep"], ["docs/deep/h.md"]),
        (["*.{md,txt}"], ["a.txt", "docs/deep/h.md", "docs/g.md"]),
        (["{docs/deep,src}"], ["docs/deep/h.md", "src/docs.py"]),
        (["*.md", "*.txt"], ["a.txt", "docs/deep/h.md", "docs/g.md"]),
        (["docs", "!g.*"], ["docs/deep/h.md"]),
        (["!docs/"], ["a.txt", "b.log", "src/docs.py"]),
        (["!*.{md,log}", "!src"], ["a.txt"]),
        (["."], sorted(TREE)),
        (["./a.txt"], ["a.txt"]),
        (["docs/../a.txt"], ["a.txt"]),
    ],
)
def test_globs(tree, globs, found):
    assert paths(tree, *globs) == found


def test_absolute_globs_and_paths(tree, model):
    assert paths(tree, f"{tree}/docs") == ["docs/deep/h.md", "docs/g.md"]
    found = search(tree, "-l", "-m", model, "giraffe", str(tree / "docs"), "--path", "deep/*")
    assert found.ok().out.decode() == f"{tree}/docs/deep/h.md\n"
    found = search(tree, "-l", "-m", model, "giraffe", str(tree / "docs"), "--path", "./docs/deep")
    assert found.ok().out.decode() == f"{tree}/docs/deep/h.md\n"


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["year=2024"], [2]), (["year=2024.0"], [2]), (["year>=2024"], [2, 3]), (["year>2024"], [3]),
        (["year<2024"], [1]), (["year<=1999"], [1]), (["year<900"], []), (["year != 2024"], [1, 3, 4]),
        (["tags=red"], [1]), (["tags!=red"], [2, 3, 4]), (["author.name=Ann"], [1]), (["authors.name=Cy"], [3]),
        (["day>=2025"], [2]), (["day<2025"], [1]), (["done=true"], [4]), (["by=null"], [4]), (["a.b=dotted"], [4]),
        (["year>1000", "year<2025"], [1, 2]), (["author.name>=B"], [2]), (["year==1999"], [1]),
    ],
)  # fmt: skip
def test_conditions(tree, conditions, found):
    assert ids(tree, *conditions) == found


def test_what_leaves_nothing_is_told(tree):
    search(tree, "giraffe", "x.db", "--path", "*.rs").fails("no document matches --path", status=1)
    search(tree, "giraffe", "r.db", "--where", "yaer=1999").fails("'yaer'", "year", "author", status=1)
    search(tree, "giraffe", "r.db", "--where", "year=3").fails("no document matches --where", status=1)
    search(tree, "giraffe", "x.db", "--where", "year=3").fails("no fields", status=1)
    found = search(tree, "-l", "giraffe", "r.db", "--where", "yaer!=3")
    assert found.status == 0 and found.out.count(b"\n") == 4 and b"'yaer'" in found.err
    found = search(tree, "-q", "giraffe", "x.db", "--path", "*.rs")
    assert (found.status, found.out, found.err) == (1, b"", b"")
    search(tree, "giraffe", "x.db", "--path", "").fails("--path wants a GLOB")
    many = "{" + "a," * 2000 + "}"
    search(tree, "giraffe", "x.db", "--path", many).fails("--path {a,a", "braces make over 1000 globs")
    command("index", ".", "-o", "y.db", "--exclude", f"!{many}", cwd=tree).fails("--exclude {a,a", "braces make over")
    # one of several indexes has it
    assert search(tree, "giraffe", "x.db", "r.db", "--where", "year=1999").ok().out == b"1:1:giraffe\n"


def test_quiet_answers_by_its_status_alone(tree):
    for words, status in ((["giraffe"], 0), (["zebra"], 1), (["--json", "giraffe"], 0), (["-l", "giraffe"], 0)):
        found = search(tree, "-q", *words, "x.db")
        assert (found.status, found.out, found.err) == (status, b"", b"")
    search(tree, "-q", "giraffe", "none.db").fails("none.db")
    assert shell("if search -q giraffe x.db; then echo yes; fi", cwd=tree).ok().out == b"yes\n"


def test_k_paths_and_hits_of_a_file(tmp_path, model):
    (tmp_path / "a.md").write_text("".join(f"giraffe giraffe {i}\n\n" for i in range(30)))
    for i in range(5):
        (tmp_path / f"b{i}.md").write_text(f"{i} giraffe among many other words\n")
    words = ["index", "-m", model, "--chunk", "paragraphs", *sorted(os.listdir(tmp_path)), "-o", "x.db"]
    command(*words, cwd=tmp_path).ok()
    for mode in ("lexical", "hybrid", "vector"):
        found = search(tmp_path, "-l", "-k", "4", "giraffe", "x.db", "--mode", mode).ok().out.split()
        assert len(found) == len(set(found)) == 4
    assert search(tmp_path, "-k", "4", "giraffe", "x.db").out.count(b"a.md") == 4
    found = search(tmp_path, "-k", "4", "--per-file", "2", "giraffe", "x.db").out
    assert found.count(b"a.md") == 2 and found.count(b"\n") == 4
    assert len(search(tmp_path, "-l", "-k", "9", "giraffe", "x.db").out.split()) == 6


def test_a_file_with_more_hits_than_the_pool_hides_no_other(tmp_path, model):
    (tmp_path / "a.txt").write_text("".join(f"giraffe giraffe {i}\n" for i in range(1500)))
    (tmp_path / "b.txt").write_text("one giraffe among many other words\n")
    command("index", "-m", model, "--chunk", "lines", "a.txt", "b.txt", "-o", "x.db", cwd=tmp_path).ok()
    assert search(tmp_path, "-l", "-k", "2", "giraffe", "x.db").ok().out == b"a.txt\nb.txt\n"


def test_copies_come_once(tmp_path, model):
    for name in ("a/LICENSE", "b/LICENSE", "c/OTHER"):
        os.makedirs((tmp_path / name).parent)
        (tmp_path / name).write_text("the giraffe licence\n")
    (tmp_path / "c/OTHER").write_text("a giraffe\n")
    command("index", "-m", model, "a", "b", "c", "-o", "x.db", cwd=tmp_path).ok()
    found = search(tmp_path, "--json", "giraffe licence", "x.db").ok().out.splitlines()
    first, second = map(json.loads, found)
    assert first["path"] == "a/LICENSE" and first["copies"] == [{"path": "b/LICENSE", "start_line": 1}]
    assert second["path"] == "c/OTHER" and "copies" not in second
    assert search(tmp_path, "giraffe licence", "-k1", "x.db").ok().out == b"a/LICENSE:1:the giraffe licence\n"
    only = json.loads(search(tmp_path, "--json", "giraffe", "x.db", "--path", "b").ok().out)
    assert only["path"] == "b/LICENSE" and "copies" not in only
    # of another index, too
    command("index", "-m", model, "b", "-o", "y.db", cwd=tmp_path).ok()
    first = json.loads(search(tmp_path, "--json", "licence", "x.db", "y.db").ok().out)
    assert {first["path"]} | {place["path"] for place in first["copies"]} == {"a/LICENSE", "b/LICENSE"}
    assert len(first["copies"]) == 2
    # each is a path of its own
    found = search(tmp_path, "-l", "licence", "x.db").ok().out
    assert found == b"a/LICENSE\nb/LICENSE\n"


def test_records_with_other_fields_are_no_copies(tree):
    records = b'{"text": "giraffe", "k": 1}\n{"text": "giraffe", "k": 2}\n{"text": "giraffe", "k": 1}\n'
    found = search(tree, "--json", "--jsonl", "giraffe", stdin=records).ok().out.splitlines()
    assert [json.loads(line)["k"] for line in found] == [1, 2]
    assert json.loads(found[0])["copies"] == [{"path": "-", "start_line": 3}]


def test_paths_of_the_nearest_index_are_relative_to_here(tree):
    shutil.copy(tree / "x.db", tree / ".index.db")
    try:
        env = {"EMBED_MODEL": "none"}
        for folder, found in (("docs", "g.md"), ("docs/deep", "../g.md"), ("src", "../docs/g.md"), (".", "docs/g.md")):
            ran = shell("search --mode lexical -l giraffe | xargs cat | sort", cwd=tree / folder, env=env)
            assert ran.ok().out.count(b"giraffe") == 5
            listed = search(tree / folder, "-l", "giraffe", stdin=subprocess.DEVNULL).ok().out.decode().split()
            assert found in listed and len(listed) == 5
        found = search(tree / "docs", "-l", "--path", "./*", "giraffe", stdin=subprocess.DEVNULL)
        assert sorted(found.ok().out.split()) == [b"deep/h.md", b"g.md"]
        found = search(tree / "docs/deep", "--path", "../g.md", "--json", "giraffe", stdin=subprocess.DEVNULL)
        assert json.loads(found.ok().out)["path"] == "../g.md"
        found = search(tree / "docs/deep", "-C", "1", "--path", "g.md", "giraffe", stdin=subprocess.DEVNULL)
        assert found.ok().out == b"../g.md:1:# giraffe\n"
    finally:
        os.unlink(tree / ".index.db")


def test_lines_of_a_file_are_as_those_of_standard_input(tree, model):
    (tree / "three.txt").write_text("one giraffe\ntwo giraffes\nthree\n")
    try:
        env = {"EMBED_MODEL": str(model)}
        for mode in ("lexical", "hybrid"):
            named = search(tree, "--mode", mode, "--lines", "giraffe", "three.txt", env=env).ok().out
            piped = shell(f"search --mode {mode} giraffe < three.txt", cwd=tree, env=env).ok().out
            assert named == piped.replace(b"-:", b"three.txt:") and named.count(b"\n") >= 2
        whole = search(tree, "giraffe", "three.txt", env=env).ok().out
        assert whole.count(b"\n") == 1
    finally:
        os.unlink(tree / "three.txt")


@given(st.lists(st.text("ab", max_size=2), min_size=2, max_size=3), st.text("xy", max_size=2), st.text("z", max_size=1))
def test_braces_are_choices(choices, head, tail):
    whole = f"{head}{{{','.join(choices)}}}{tail}"
    assert braces(whole) == [head + choice + tail for choice in choices]
    assert braces(f"{{{whole},q}}") == [*braces(whole), "q"]


def test_braces_that_are_characters():
    assert braces("a{b") == ["a{b"] and braces("a}b") == ["a}b"] and braces(r"a\{b,c\}") == [r"a\{b,c\}"]
    assert Globs("/here", ["a[{,}]b"]).match("a,b")


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9))
def test_one_of_three_orders_holds(value, other):
    held = [Condition(f"a{sign}{other}").holds([value]) for sign in ("<", "=", ">")]
    assert sum(held) == 1
    assert Condition(f"a<={other}").holds([value]) == (held[0] or held[1])


# ---------------------------------------------------------------- with the real model


def test_files_that_hold_nothing_of_it_are_not_listed(tmp_path, real):
    """-l and -c tell of hits that answer; without them what comes after a good one is told, too."""
    texts = {
        "disk.md": "The disk is full: delete what is older than a week.\n", "cat.md": "A cat sleeps all day.\n",
        "tax.md": "The tax office wants the forms by May.\n", "tea.md": "Pour boiling water on the leaves.\n",
        "more.md": "There is no space left on the drive.\n",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)

    def found(*words):
        ran = command("search", *words, "the disk is full", *sorted(texts), cwd=tmp_path, env=real)
        return ran.ok().out.decode().splitlines()

    assert found("-l") == ["disk.md", "more.md"] and found("-c") == ["disk.md:1", "more.md:1"]
    assert len(found()) > 2 and len(found("-l", "--threshold", "0")) == len(texts)


def test_entries_of_a_log_are_told_apart(tmp_path, real):
    """A FILE whose lines begin with a time is searched entry by entry, with its index as well as without."""
    times = [f"2026-11-02 10:00:{n:02} " for n in range(40)]
    lines = [time + ("ERROR no space left on device" if n == 30 else f"INFO user {n} logged in")
             for n, time in enumerate(times)]  # fmt: skip
    (tmp_path / "app.log").write_text("\n".join(lines) + "\n")
    (tmp_path / "page.md").write_text("\n".join(lines) + "\n")
    command("index", "-q", "-o", "x.db", "app.log", cwd=tmp_path, env=real).ok()
    for name in ("app.log", "x.db"):
        ran = command("search", "--json", "-k", "1", "the disk is full", name, cwd=tmp_path, env=real).ok()
        hit = json.loads(ran.out)
        assert (hit["start_line"], hit["end_line"], hit["text"]) == (31, 31, lines[30])
    ran = command("search", "--json", "-k", "1", "space", "page.md", cwd=tmp_path, env=real)
    assert json.loads(ran.ok().out)["text"].count("\n") > 5
