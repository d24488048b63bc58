"""Which line of a hit is shown."""

import json
import os
import pty
import re

import pytest
from command import BIN, command, environment

from embed import lines, words


def aim(weights, near=None):
    return lines.Aim(weights, words.TermExtractor(), near)


def test_a_rare_word_outweighs_common_ones():
    rows = ["how do I do it", "", "set a proxy", "how to set"]
    assert aim({"how": 0.4, "do": 0.4, "i": 0.4, "set": 2.0, "proxi": 5.0}).best(rows) == 2


def test_what_every_line_has_tells_none_apart():
    rows = ["the Panthers of Carolina", "the Panthers won", "the Panthers had a record", "the Panthers lost"]
    assert aim({"panther": 5.0, "carolina": 2.0, "record": 3.0}).best(rows) == 2


@pytest.mark.parametrize(
    "rows, suffix, expected",
    [
        (["# The cat", "", "it sat"], "md", 2),
        (["The cat", "=======", "it sat"], "md", 2),
        (["The cat", "~~~~~~~", "", "it sat"], "rst", 3),
        (["# The cat"], "md", 0),
        (["# The cat", ""], "md", 0),
        (["# the cat", "x = 1"], "py", 0),  # a comment
        (["", "", "x"], "", 2),
    ],
)
def test_headings_are_no_answers(rows, suffix, expected):
    assert aim({"cat": 1.0}).best(rows, suffix) == expected


def test_without_words_the_nearest_line_is_shown():
    rows = ["a park", "a plane leaves", "a car"]
    assert aim({"flight": 5.0, "a": 0.4}, lambda texts: [float("plane" in text) for text in texts]).best(rows) == 1
    assert aim({"park": 5.0}, lambda texts: pytest.fail("words were enough")).best(rows) == 0


def test_json_names_the_line(model, tmp_path):
    (tmp_path / "a.md").write_text("# Cat\n\nthe sky\nthe cat sat\n\n# Dog\n\na dog ran\n")
    found = command("search", "-m", model, "--json", "cat", "a.md", cwd=tmp_path).ok().out.splitlines()
    hit = next(hit for hit in map(json.loads, found) if "the cat" in hit["text"])
    assert hit["line"] == 4 and hit["start_line"] <= 4 <= hit["end_line"]


def on_terminal(words, columns):
    """What a command shows on a terminal of so many columns."""
    import fcntl
    import struct
    import termios

    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.execve(os.path.join(BIN, words[0]), words, environment({"TERM": "xterm"}))
    out = b""
    while True:
        try:
            part = os.read(fd, 1 << 16)
        except OSError:
            break
        if not part:
            break
        out += part
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, out
    return out.decode()


def test_long_lines_are_cut_around_the_match_on_a_terminal_alone(model, tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("The sky is blue. " * 40 + "The cat sat. " + "The dog ran. " * 40 + "\n")
    words = ["search", "-m", model, "--mode", "lexical", "cat", str(path)]
    shown = on_terminal(words, 120)
    plain = re.sub(r"\x1b\[[0-9;]*m|\x1b\]8;;.*?\x1b\\", "", shown).rstrip("\r\n")  # colours and links
    assert "cat sat" in plain and len(plain) <= 160 and plain.count("\u2026") == 2, shown
    assert len(command(*words).ok().out) > 500
