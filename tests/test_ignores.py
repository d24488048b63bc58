"""Patterns of a .gitignore: the same matches as pathspec's, in time that no pattern can make long."""

import re
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from embed import ignores

NAME = st.lists(st.sampled_from(["a", "b", "*", "**", "?", "[ab]", "[!a]", "x", "."]), min_size=1, max_size=5).map(
    "".join
)
PATTERN = st.tuples(st.sampled_from(["", "!", "/"]), st.lists(st.one_of(NAME, st.just("**")), min_size=1, max_size=5),
                    st.sampled_from(["", "/"])).map(lambda p: p[0] + "/".join(p[1]) + p[2])  # fmt: skip
PATH = st.lists(st.text("abx.", min_size=1, max_size=5), min_size=1, max_size=6).map("/".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(PATTERN, min_size=1, max_size=4), st.lists(PATH, min_size=1, max_size=8), st.booleans())
def test_the_same_verdicts_as_pathspec(patterns, paths, folder):
    ours, whole = ignores.read("\n".join(patterns).encode())
    plain = GitIgnoreSpec.from_lines(patterns)
    for path in paths:
        path += "/" * folder
        assert ours.check_file(path).include == plain.check_file(path).include, (patterns, path)
    assert whole


def test_no_pattern_takes_long():
    name = "a" * 250
    hostile = [
        "*a" * 60 + "*b",
        "**/" + "a*" * 40 + "b",
        "**/a/" * 25 + "b",
        "a**" * 30 + "b",
        "**/*a*/" * 12 + "**/*b",
    ]
    ours, _ = ignores.read("\n".join(hostile).encode())
    began = process_time()
    for path in (name, "/".join(["a"] * 250), "/".join([name] * 15) + "/"):
        assert ours.check_file(path).include is None
    assert process_time() - began < 2


def test_a_huge_file_is_read_in_part():
    ours, whole = ignores.read(b"a.txt\n" + b"x" * 5000 + b"\nb.txt\n")
    assert not whole and ours.check_file("a.txt").include and ours.check_file("b.txt").include
    ours, whole = ignores.read(b"a.txt\n" + b"#\n" * ignores.LARGEST + b"b.txt\n")
    assert not whole and ours.check_file("a.txt").include and ours.check_file("b.txt").include is None


def test_what_becomes_of_a_pattern():
    assert re.fullmatch(ignores.linear("^[^/]*a[^/]*b$"), "xaaxb") and "(?>" in ignores.linear("^[^/]*a[^/]*b$")
