"""What a person sees: the commands in a real terminal of 80 columns and 24 lines (tmux)."""

import os
import re
import shlex
import shutil
import subprocess
import time

import pytest
from command import environment

pytestmark = [pytest.mark.model, pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not here")]


class Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, folder, env):
        self.socket = os.path.join(folder, "tmux")
        self.env = {**environment(env), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-c", folder, "bash --norc")

    def tmux(self, *words):
        ran = subprocess.run(["tmux", "-S", self.socket, *words], env=self.env, capture_output=True, timeout=20)
        return ran.stdout.decode()

    def type(self, line):
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def key(self, name):
        self.tmux("send-keys", name)

    def screen(self):
        return self.tmux("capture-pane", "-p").rstrip("\n")

    def until(self, pattern, seconds=60):
        """The screen, once the pattern is on it; AssertionError with the screen when it does not come."""
        end = time.monotonic() + seconds
        while not re.search(pattern, screen := self.screen(), re.MULTILINE):
            assert time.monotonic() < end, f"no {pattern!r} in\n{screen}"
            time.sleep(0.05)
        return screen


@pytest.fixture
def terminal(tmp_path, real, own_store):
    found = Terminal(
        str(tmp_path), {**real, "TOAST_HOME": own_store["TOAST_HOME"] or os.path.expanduser("~/.cache/toast")}
    )
    found.until(r"[$#]\s*$")
    yield found
    found.tmux("kill-server")


def test_an_answer_is_seen_as_it_comes(terminal):
    terminal.type("toast -q -n 200 'Tell a long story about a lighthouse'; echo done-$?")
    early = terminal.until(r"^\w+ \w+ \w+")
    assert "done-0" not in early
    terminal.until("^done-0|done-0$")


def test_ctrl_c_ends_an_answer(terminal):
    terminal.type("toast -q -n 2000 'Tell a long story about a lighthouse'; echo status-$?")
    terminal.until(r"^\w+ \w+ \w+")
    terminal.key("C-c")
    screen = terminal.until(r"[$#]\s*$")  # bash leaves the rest of the line when the command died of the signal
    assert "Traceback" not in screen and "toast:" not in screen
    terminal.type("echo status-$?")
    terminal.until("^status-130")


def test_progress_tells_how_much_is_left_and_goes_away(terminal, tmp_path):
    (tmp_path / "many.txt").write_text("".join(f"line {i} about something else, and more of it\n" for i in range(6000)))
    terminal.type("embed many.txt > many.npy; echo done-$?")
    screen = terminal.until(r"\d+.*\d+:\d\d<\d+:\d\d.*records?/s|\d.*record.*/s")
    assert max(map(len, screen.split("\n"))) <= 80
    terminal.tmux("resize-window", "-x", "50", "-y", "20")
    screen = terminal.until("^done-0")
    assert "records/s" not in screen.split("done-0")[0].split("\n")[-1]


def test_an_answer_that_comes_as_a_whole_shows_that_it_grows(terminal):
    terminal.type(r"toast --regex '(.|\n)*' 'Tell a long story about a lighthouse' | wc -l; echo done-$?")
    terminal.until(r"^\d+ tokens \[\d+:\d\d, .*tokens?/s\]|^\d+ tokens .*s/token\]")
    screen = terminal.until("^done-0")
    assert "tokens [" not in screen, screen


def test_wide_characters_are_counted(terminal, tmp_path):
    (tmp_path / "wide.txt").write_text("日本語の文章 " * 30 + "cat\n")
    terminal.type("search --threshold 0 cat wide.txt; echo done-$?")
    screen = terminal.until("^done-0")
    shown = [line for line in screen.split("\n") if "wide.txt:1" in line]
    assert len(shown) == 1 and screen.split("\n").index("done-0") == screen.split("\n").index(shown[0]) + 1, screen


def test_what_is_read_does_not_steer(terminal, tmp_path):
    (tmp_path / "evil.txt").write_text("a cat \x1b[2J\x1b[H\x1b]0;owned\x07 sat\n")
    terminal.type("echo before; rerank cat evil.txt; echo done-$?")
    screen = terminal.until("^done-0")
    assert "before" in screen and r"\u001b[2J" in screen, screen
    terminal.type(f"rerank cat evil.txt | cmp - {shlex.quote(str(tmp_path / 'evil.txt'))} && echo the-same-bytes")
    terminal.until("^the-same-bytes")
