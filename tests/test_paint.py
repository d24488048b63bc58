"""Colours, links and context of hits: what a pipe and a terminal get, to the byte."""

import os
import socket

import pytest
from command import command
from test_lines import on_terminal

from embed import lines, paint, words
from toast import terminal

TEXT = "# Cat\n\nthe cat sat\non the mat. A dog ran.\n\n# Dog\n\nthe dogs ran to the red bird\n"
PATH, LINE, MATCH, RESET = "\x1b[35m", "\x1b[32m", "\x1b[1;31m", "\x1b[0m"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    made = tmp_path_factory.mktemp("paint")
    (made / "a cat.md").write_text(TEXT)
    command("index", "-m", model, "--chunk", "lines", ".", "-o", "x.db", cwd=made).ok()
    return made


def lexical(folder, *words, **options):
    found = command("search", "--mode", "lexical", "dog ran", "-i", "x.db", *words, cwd=folder, **options)
    return found.ok().out.decode().splitlines()


def head(number, mark=":"):
    return f"{PATH}a cat.md{RESET}{mark}{LINE}{number}{RESET}{mark}"


def test_a_pipe_has_colours_only_if_they_are_asked_for(folder):
    plain = ["a cat.md:8:the dogs ran to the red bird"]
    for words_, env in ([], {}), (["--color", "auto"], {}), (["--color", "never"], {"NO_COLOR": None}):
        assert lexical(folder, "-k", "1", *words_, env=env) == plain
    painted = [f"{head(8)}the {MATCH}dogs{RESET} {MATCH}ran{RESET} to the red bird"]
    assert lexical(folder, "-k", "1", "--color", "always", env={"NO_COLOR": "1"}) == painted


def test_context_in_colour_is_that_of_grep(folder):
    found = lexical(folder, "-C", "1", "--color", "always")
    assert found[:3] == [head(7, "-"), f"{head(8)}the {MATCH}dogs{RESET} {MATCH}ran{RESET} to the red bird", "--"]
    assert found[3] == head(3, "-") + "the cat sat"
    assert found[4] == f"{head(4)}on the mat. A {MATCH}dog{RESET} {MATCH}ran{RESET}."
    assert lexical(folder, "-l", "--color", "always") == [f"{PATH}a cat.md{RESET}"]


def test_a_terminal_has_links_to_files_that_are_there(folder, model):
    words_ = ["search", "-m", model, "--mode", "lexical", "dog ran", "-k", "1", str(folder / "a cat.md")]
    shown = on_terminal(words_, 200)
    address = f"file://{socket.gethostname()}{folder}/a%20cat.md"
    assert f"\x1b]8;;{address}\x1b\\" in shown and f"{MATCH}dog{RESET}" in shown, shown
    for more in ["--color", "never"], ["--json"]:
        assert "\x1b" not in on_terminal([*words_, *more], 200)


def test_records_without_a_file_have_no_link(folder, model):
    records = b"the dog ran\nred\n"
    command("index", "-m", model, "-o", "r.db", stdin=records, cwd=folder).ok()
    shown = on_terminal(["search", "-m", model, "--mode", "lexical", "dog", "-i", str(folder / "r.db")], 100)
    assert f"{PATH}-{RESET}:" in shown and "\x1b]8" not in shown


@pytest.mark.parametrize(
    "query, text, marked",
    [
        ("parse response", "x = parseHttpResponse(y)", ["parseHttpResponse"]),
        ("\u5929\u7a7a", "\u5b83\u662f\u5929\u7a7a\u8272", ["\u5929\u7a7a"]),
        ("caf\u00e9", "the cafe\u0301s of Caf\u00c9", ["cafe\u0301s", "Caf\u00c9"]),
        ("the dog", "the dog", ["dog"]),
        ("zebra", "the dog", []),
    ],
)
def test_words_that_matched(query, text, marked):
    extractor = words.TermExtractor()
    weights = {stem: 0.1 if stem == "the" else 1.0 for stem, _ in extractor.sequence(query)}
    found = paint._marked(text, list(paint._words(text, lines.Aim(weights, extractor, None))), MATCH)
    assert [part.split(RESET)[0] for part in found.split(MATCH)[1:]] == marked
    assert found.replace(MATCH, "").replace(RESET, "") == text


def test_addresses_are_quoted():
    assert paint.uri("/a b/%\udcff\n\u00e9") == f"file://{os.uname().nodename}/a%20b/%25%FF%0A%C3%A9"


@pytest.mark.parametrize(
    "text, expected",
    [("abc", [0, 1, 2, 3]), ("日本", [0, 2, 4]), ("e\u0301x", [0, 1, 1, 2]), ("", [0]), ("ｱ한", [0, 1, 3])],
)
def test_columns_of_characters(text, expected):
    assert terminal.columns(text) == expected
