"""Words of an index beside those of its texts: parts of compound ones, paths, headings; forms of one text."""

import unicodedata

import pytest
from command import command
from hypothesis import given
from hypothesis import strategies as st

from embed import words
from embed.context import Context

FILES = {
    "src/client.py": "def parseHttpResponse(raw):\n    return raw\n",
    "src/other.py": "def parse(raw):\n    response = raw\n    return http\n",
    "src/PipeWriter.txt": "nothing of note\n",
    "peps/pep-0343.txt": "a fast pipe\n",
    "peps/pep-0007.txt": "a slow pipe\n",
    "guide.md": "# Installing\n\nrun it\n\n## Proxies\n\n"
    + "set the line\n\n" * 120
    + "## Mat\n\n"
    + "the cat sat\n" * 9,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def paths(folder, query, where="."):
    found = command("search", "--mode", "lexical", "-l", query, where, cwd=folder)
    return found.out.decode().split()


@pytest.mark.parametrize(
    "word, found",
    [
        ("parseHttpResponse", "parse Http Response"),
        ("HTTPServer", "HTTP Server"),
        ("parseHTTP", "parse HTTP"),
        ("sha256Sum", "sha256 Sum"),
        ("gr\u00f6\u00dfe\u00c4ndern", "gr\u00f6\u00dfe \u00c4ndern"),
        ("get_userById", "user By Id"),
        ("URLs IDs plain Plain CONSTANT get_user_by_id x1 \u5929\u7a7a", ""),
        ("aB" * 40, ""),  # no word of a language
    ],
)
def test_parts_of_compound_words(word, found):
    assert words.parts(word) == found


@given(st.text(st.sampled_from("abAB1_ \u00e9\u00c9\u0436\u0416\u5929")))
def test_parts_are_those_of_the_text(text):
    assert words.parts(text).replace(" ", "") in "".join(
        word for word in text.replace("_", " ").split() if words.compounds(word)
    )


def test_a_compound_word_is_found_by_its_parts_and_best_by_itself(tree):
    assert set(paths(tree, "parse response")[:2]) == {"src/other.py", "src/client.py"}
    assert paths(tree, "parseHttpResponse") == ["src/client.py", "src/other.py"]
    assert paths(tree, "parse_http_response")[0] == "src/client.py"
    assert set(paths(tree, "parseRawResponse")[:2]) == {"src/client.py", "src/other.py"}  # in none: its parts are asked


def test_paths_are_found(tree):
    assert paths(tree, "pep-0343") == ["peps/pep-0343.txt", "peps/pep-0007.txt"]
    assert paths(tree, "pipe writer")[0] == "src/PipeWriter.txt"


def test_a_heading_finds_its_section_and_is_not_the_answer(tree):
    found = command("search", "--mode", "lexical", "proxies", ".", "-k", "20", cwd=tree).ok().out.decode()
    shown = [line.split(":", 2) for line in found.splitlines()]
    assert [(path, text) for path, _, text in shown] == [("guide.md", "run it"), ("guide.md", "set the line")], found


def test_texts_are_found_in_any_form(tmp_path, model):
    composed = "caf\u00e9 \ud55c\uad6d\uc5b4\ub97c \u304c\u3061\n"
    (tmp_path / "nfc.txt").write_text(composed)
    (tmp_path / unicodedata.normalize("NFD", "\ud55c\uae00.txt")).write_text(unicodedata.normalize("NFD", composed))
    command("index", "-q", "-m", model, ".", "-o", "x.db", cwd=tmp_path).ok()
    for query in ("caf\u00e9", "\ud55c\uad6d\uc5b4", "\ud55c\uad6d", "\uad6d\uc5b4", "\u304c\u3061"):
        for form in ("NFC", "NFD"):
            assert len(paths(tmp_path, unicodedata.normalize(form, query), "x.db")) == 2, (query, form)
    assert len(paths(tmp_path, "\ud55c\uae00", "x.db")) == 1  # a name


def test_a_single_character_begins_a_pair(tmp_path, model):
    command("index", "-q", "-m", model, "-o", "x.db", stdin="\u5929\u7a7a\u8272\n\u732b\n".encode(), cwd=tmp_path).ok()
    for query, line in (("\u5929", 1), ("\u7a7a", 1), ("\u8272", 1), ("\u732b", 2)):
        found = command("search", "--mode", "lexical", query, "-i", "x.db", cwd=tmp_path).ok()
        assert found.out.startswith(f"-:{line}:".encode())


# ---------------------------------------------------------------- what a chunk stands under


def contexts(path, *chunks, number=None):
    context = Context(path, number)
    return [context.of(chunk).split("\n") for chunk in chunks]


def test_markdown_headings():
    found = contexts(
        "a.md", "# One\n\ntext", "## Two ##\nmore", "more", "Three\n-----\n\n```\n# no heading", "# none\n```\n# Four"
    )
    assert found == [
        ["a.md", "One"], ["a.md", "One", "Two"], ["a.md", "One", "Two"], ["a.md", "One", "Three"],
        ["a.md", "One", "Three", "Four"],
    ]  # fmt: skip


def test_restructured_headings():
    found = contexts("a.rst", "=====\nTitle\n=====\n\nOne\n===\n\nx", "Two\n---\n\ny", "Three\n=====\nz", "w")
    assert found == [
        ["a.rst", "Title", "One"], ["a.rst", "Title", "One", "Two"], ["a.rst", "Title", "Three"],
        ["a.rst", "Title", "Three"],
    ]  # fmt: skip


def test_other_texts_have_their_path_and_records_nothing():
    assert contexts("a\udcff.txt", "# One", "Two\n---") == [["a?.txt"], ["a?.txt"]]
    assert contexts("a.md", "# One", number=3) == contexts("-", "# One") == [[""]]


@pytest.mark.parametrize("query", ["pep-0343", "PEP-0343.md", "peps/pep-0343", "./peps/pep-0343.md"])
@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
def test_a_file_that_is_called_so_comes_first(model, tmp_path, query, mode):
    """Also before one that has the name twice in its text, and where nothing else of it answers."""
    (tmp_path / "peps").mkdir()
    texts = {
        "pep-0008.md": "this is like pep-0343\nit has pep-0343 twice\n",
        "pep-0343.md": "the cat\n",
        "b.md": "a dog\n",
    }
    for name, text in texts.items():
        (tmp_path / "peps" / name).write_text(text)
    command("index", "-q", "-m", model, "-o", "x.db", "peps", cwd=tmp_path).ok()
    found = command("search", "--mode", mode, query, "x.db", cwd=tmp_path).ok().out
    assert found.startswith(b"peps/pep-0343.md:1:the cat\n")
