"""What a terminal gets of models, records, names and messages: nothing that steers it; a pipe gets it as it is."""

import contextlib
import json
import os
import pty
import threading

import pytest
from command import start
from hypothesis import given
from hypothesis import strategies as st
from test_contract import COMMANDS, QWEN

from toast import pipes
from toast.command import Call
from toast.terminal import visible, visible_bytes

NASTY = "a cat\x1b[31m red\x07 \x9b2J \u202e gnp.exe \x7f\x08 end\r over"
STEERING = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
]


def steers(data):
    """What in the bytes of a terminal steers it; the terminal itself makes LF CRLF."""
    text = data.replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")
    return sorted({c for c in text if c in STEERING and c not in "\t\n" or "\udc80" <= c <= "\udcff"})


def on_terminal(name, *words, stdin=b"", **options):
    """(status, all that a command writes to a terminal)."""
    ours, theirs = pty.openpty()
    run = start(name, *words, stdout=theirs, stderr=theirs, env={"NO_COLOR": "1"}, **options)
    os.close(theirs)
    seen = bytearray()

    def read():
        try:
            while chunk := os.read(ours, 1 << 16):
                seen.extend(chunk)
        except OSError:  # nobody has the other end
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with contextlib.suppress(BrokenPipeError):  # it has ended before it read
        run.stdin.write(stdin)
        run.stdin.close()
    status = run.wait(60)
    reader.join()
    os.close(ours)
    return status, bytes(seen)


FORMS = {  # name -> further words, and a piece of what is seen of NASTY
    "embed": (["--field", "text"], "\\u001b[31m"), "rerank": (["--scores"], "\\u001b[31m"),
    "classify": ([], "\\u001b[31m"), "search": (["--mode", "lexical", "-C1"], "\\u001b[31m"),
    "toast": (["--repeat-input"], "\\u001b[31m"), "tokenize": ([], "\\u001b"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_answers_do_not_steer(name, model):
    words, piece = FORMS[name]
    record = json.dumps({"text": "a cat", "more": NASTY}) if name == "embed" else NASTY
    status, seen = on_terminal(name, *COMMANDS[name](model), *words, stdin=f"{record}\n".encode())
    assert status in (0, 1) and not steers(seen) and piece.encode() in seen, seen
    assert name in ("embed", "toast", "tokenize") or b"\\u202e gnp.exe" in seen


@pytest.mark.parametrize("name", ["rerank", "classify", "search", "toast"])
def test_a_pipe_gets_what_there_is(name, model):
    run = start(name, *COMMANDS[name](model), *FORMS[name][0])
    out, _ = run.communicate(NASTY.encode() + b" \xff\n")
    assert NASTY.encode() in out


@pytest.mark.parametrize("name", COMMANDS)
def test_messages_do_not_steer(name, model, tmp_path):
    for words in ([f"--{NASTY}"], ["-m", str(tmp_path / NASTY.replace("\x00", ""))]):
        status, seen = on_terminal(name, *words, stdin=b"a\n", cwd=tmp_path)
        assert status == 2 and not steers(seen) and seen.startswith(name.encode()), seen


def test_bytes_that_are_no_utf8(model):
    status, seen = on_terminal("rerank", *COMMANDS["rerank"](model), stdin=b"a cat \xff\x9b2J\n")
    assert status == 0 and b"a cat \\xff\\x9b2J" in seen and not steers(seen)


def test_names_of_files(model, tmp_path):
    (tmp_path / NASTY).write_text("a cat\n")
    status, seen = on_terminal("search", "--mode", "lexical", "cat", NASTY, cwd=tmp_path)
    assert status == 0 and not steers(seen) and b"\\u001b[31m red" in seen


def test_prefills_and_prompts(tmp_path):
    for words in (["--prefill", NASTY, "-n", "2"], ["--dry-run"], ["--dry-run", "--json"], ["--json", "-n", "1"]):
        status, seen = on_terminal("toast", "-m", QWEN, *words, NASTY)
        assert status == 0 and not steers(seen), seen


def test_json_never_holds_control_characters():
    text = "".join(map(chr, range(0x250))) + "\u202e\U0001f431"
    line = pipes.json_line({text: [text]})
    assert json.loads(line) == {text: [text]} and steers(line) == ["\u202e"]
    assert line.decode().isascii() is False
    assert json.loads(visible_bytes(line)) == {text: [text]} and not steers(visible_bytes(line))


@given(st.text(alphabet=st.one_of(st.sampled_from(STEERING), st.characters(codec="utf-8"))))
def test_nothing_else_is_changed(text):
    shown = visible(text)
    assert not steers(shown.encode())
    spelled = {c: f"\\u{ord(c):04x}" for c in STEERING if c not in "\t\n"}
    assert shown == "".join(spelled.get(c, c) for c in text.replace("\r\n", "\n"))
    assert visible(shown) == shown and visible_bytes(text.encode()) == shown.encode()


def test_tokens_are_seen_as_they_come():
    ours, theirs = pty.openpty()
    writer = pipes.LineWriter(Call("toast", {}, None, stdout=theirs))
    seen = []
    for piece in ("né", " \x1b", "[31m", "日", "a\r", "\n", "b\r", "c", "\r"):
        writer.write(piece)
        os.set_blocking(ours, False)
        try:
            seen.append(os.read(ours, 100).decode())
        except BlockingIOError:
            seen.append("")
    writer.close()
    seen.append(os.read(ours, 100).decode())
    os.close(ours), os.close(theirs)
    assert seen == ["né", " \\u001b", "[31m", "日", "a", "\r\n", "b", "\\u000dc", "", "\\u000d"]
