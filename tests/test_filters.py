"""Filters of an answer's text: however it is cut into pieces, what comes out is the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toast.filters import MARKS, CodeBlock, LastNewline, Reasoning, Stops, marks_for


def run(filter, text, cuts=()):
    """The text through the filter, in pieces that end at the cuts."""
    edges = [0, *sorted({c % (len(text) + 1) for c in cuts}), len(text)]
    pieces = [text[a:b] for a, b in zip(edges, edges[1:])]
    return "".join([filter.add(piece) for piece in pieces] + [filter.finish()])


CUTS = st.lists(st.integers(0, 200), max_size=12)


@given(st.text("ab<>/\n"), st.lists(st.text("ab<>/\n", min_size=1, max_size=4), max_size=3), CUTS)
def test_stops_end_before_the_first_string(text, stops, cuts):
    found = [at for at in map(text.find, stops) if at >= 0]
    stopped = Stops(stops)
    whole = run(Stops(stops), text)
    assert whole == (text[: min(found)] if found else text)
    pieces = run(stopped, text, cuts)
    assert stopped.hit == bool(found)
    # a longer string that begins earlier may be decided later than a shorter one inside it
    assert pieces == whole or (found and pieces.startswith(whole) and len(set(map(len, stops))) > 1)


def test_stops_hold_back_only_what_may_be_one():
    stops = Stops(["END"])
    assert [stops.add(t) for t in ("abE", "N", "X", "EN", "D more", "x")] == ["ab", "", "ENX", "", "", ""]
    assert stops.hit and stops.finish() == ""


@pytest.mark.parametrize("marks", MARKS)
@given(cuts=CUTS)
def test_reasoning_is_told_apart(marks, cuts):
    told = []
    text = f"{marks[0]}\nhm < 3 [x]\n{marks[1]}\n\nThe <answer>."
    assert run(Reasoning(marks, told.append), text, cuts) == "The <answer>."
    assert "".join(told) == "\nhm < 3 [x]\n"


def test_reasoning_that_the_prompt_began():
    told, marks = [], MARKS[0]
    assert run(Reasoning(marks, told.append, inside=True), "hm</think>yes") == "yes"
    assert told == ["hm", "\n"]


def test_reasoning_that_never_ends_is_no_answer():
    told = []
    assert run(Reasoning(MARKS[0], told.append), "<think>and then </thi") == ""
    assert "".join(told) == "and then </thi\n"


@given(cuts=CUTS)
def test_reasoning_comes_before_an_answer_under_a_constraint_or_not_at_all(cuts):
    for text, answer, reasoning in (
        ("<think>hm</think>\n<think>a</think>b", "<think>a</think>b", "hm\n"),
        ('{"a": "<think>b</think>"}', '{"a": "<think>b</think>"}', ""),
        ("</think>x<think>", "x<think>", ""),
    ):
        told = []
        assert run(Reasoning(MARKS[0], told.append, once=True), text, cuts) == answer
        assert "".join(told) == reasoning


def test_without_marks_everything_is_the_answer():
    assert run(Reasoning(None, print), "<think>a</think>") == "<think>a</think>"
    assert marks_for({"a"}.__contains__) is None
    assert marks_for({"<think>", "</think>"}.__contains__) == MARKS[0]
    assert marks_for({"<|channel|>", "<|message|>"}.__contains__) == MARKS[1]


BLOCKS = [
    ("Sure:\n```python\nx = 1\n\ny\n```\nmore\n```\nz\n```\n", "x = 1\n\ny\n"),
    ("````md\n```\ninner\n```\n````\n", "```\ninner\n```\n"),
    ("~~~\na\n```\n~~~", "a\n```\n"),
    ("```\nnever closed", "never closed"),
    ("```\nlast line\n```", "last line\n"),
    ("no code at all\n", ""),
    ("    ```\nindented code, no fence\n", ""),
]


@pytest.mark.parametrize("text, code", BLOCKS)
@given(cuts=CUTS)
def test_first_code_block(text, code, cuts):
    assert run(CodeBlock(), text, cuts) == code


@given(st.text("a\n b"), CUTS)
def test_exactly_one_newline(text, cuts):
    assert run(LastNewline(), text, cuts) == text.rstrip("\n") + "\n"
