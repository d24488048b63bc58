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


LOG = """\
2026-11-02 10:00:01 INFO server started on port 8080
2026-11-02 10:02:11 ERROR could not connect to database: timeout after 30s
2026-11-02 10:02:12 WARN retrying connection 1/5
2026-11-02 10:03:55 ERROR no space left on device while writing /var/spool/mail
2026-11-02 10:04:10 INFO user 123 logged in
2026-11-02 10:05:00 ERROR TLS handshake failed: certificate has expired
2026-11-02 10:06:42 WARN fan speed low in rack 9
2026-11-02 10:07:03 INFO nightly report sent to 14 people
"""


@pytest.mark.model
@pytest.mark.parametrize(
    "query, line", [("cooling", 7), ("ran out of disk", 4), ("user sign in", 5), ("which port does it listen on", 1)]
)
def test_a_line_answers_where_its_chunk_is_about_many_things(query, line, real, tmp_path):
    for name in ("app.md", "app.log"):  # a chunk, and one for each entry
        (tmp_path / name).write_text(LOG)
        found = command("search", "--json", query, name, env=real, cwd=tmp_path).ok().out.splitlines()
        hit = json.loads(found[0])
        assert len(found) == 1, found  # an entry beside it is told where it answers, too
        assert hit["line"] == line and hit["score"] > 0.2, hit


@pytest.mark.model
def test_no_line_answers_what_is_not_there(real, tmp_path):
    for name in ("app.md", "app.log"):
        (tmp_path / name).write_text(LOG)
    for query in ("who painted the Mona Lisa", "bread with olives", "the treaty of Versailles"):
        for name in ("app.md", "app.log"):
            result = command("search", query, name, env=real, cwd=tmp_path)
            assert (result.status, result.out) == (1, b""), result


@pytest.mark.model
def test_each_file_with_a_line_that_answers_is_told(real, tmp_path):
    (tmp_path / "a.md").write_text(LOG)
    (tmp_path / "b.md").write_text(LOG.replace("fan speed low in rack 9", "fan speed low in rack 7"))
    (tmp_path / "c.md").write_text("".join(line for line in LOG.splitlines(True) if "space" not in line))
    names = ["a.md", "b.md", "c.md"]
    found = command("search", "-l", "ran out of disk", *names, env=real, cwd=tmp_path).ok().out.split()
    assert sorted(found) == [b"a.md", b"b.md"]
