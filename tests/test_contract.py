"""The contract, one situation for every command: streams, statuses, bad neighbours.

A new command joins by a line in COMMANDS.
"""

import os
import pty

import pytest

from command import command, shell

# name -> words that make it work on lines from standard input, with the tiny model
COMMANDS = {
    "embed": lambda model: ["-m", model, "--json"],
    "rerank": lambda model: ["-m", model, "a cat"],
    "classify": lambda model: ["-m", model, "-l", "cat,dog"],
}


@pytest.fixture(params=sorted(COMMANDS))
def filter(request, model):
    """(name, its words as a list, the same quoted for a shell)."""
    words = COMMANDS[request.param](model)
    return request.param, words, " ".join(f"'{w}'" for w in words)


def test_reads_stdin_writes_stdout(filter):
    name, words, _ = filter
    assert command(name, *words, stdin=b"a cat\na dog\n").ok().out.endswith(b"\n")


def test_same_input_same_bytes(filter):
    name, words, _ = filter
    runs = {command(name, *words, stdin=b"a cat\na dog\n").ok().out for _ in range(3)}
    assert len(runs) == 1


def test_missing_file(filter, tmp_path):
    name, words, _ = filter
    command(name, *words, "nowhere.txt", cwd=tmp_path).fails("nowhere.txt", "No such file")


def test_directory(filter, tmp_path):
    name, words, _ = filter
    command(name, *words, ".", cwd=tmp_path).fails("Is a directory")


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_unreadable_file(filter, tmp_path):
    name, words, _ = filter
    (tmp_path / "x").write_text("a")
    (tmp_path / "x").chmod(0)
    command(name, *words, "x", cwd=tmp_path).fails("x", "Permission denied")


def test_path_with_a_newline(filter, tmp_path):
    name, words, _ = filter
    (tmp_path / "a\nb").write_text("a cat\n")
    command(name, *words, "a\nb", cwd=tmp_path).ok()
    command(name, *words, "c\nd", cwd=tmp_path).fails("c d: No such file")


def test_file_instead_of_stdin(filter, tmp_path):
    name, words, _ = filter
    (tmp_path / "x").write_text("a cat\n")
    from_file = command(name, *words, "x", cwd=tmp_path).ok().out
    assert from_file == command(name, *words, stdin=b"a cat\n").ok().out
    assert from_file == command(name, *words, "-", stdin=b"a cat\n").ok().out


def test_reader_goes_away(filter):
    name, _, line = filter
    script = f"yes 'a cat' | head -20000 | {name} {line} | head -c1 >/dev/null; echo ${{PIPESTATUS[2]}}"
    result = shell(script).ok()
    assert result.out == b"0\n", result


def test_full_disk(filter):
    name, _, line = filter
    shell(f"echo a | {name} {line} > /dev/full").fails("cannot write standard output", "No space left")


def test_closed_stdout(filter):
    name, _, line = filter
    shell(f"echo a | {name} {line} >&-").fails("cannot write standard output", "Bad file descriptor")


def test_closed_stdin(filter):
    name, _, line = filter
    shell(f"{name} {line} <&-").fails("cannot read standard input", "Bad file descriptor")


def test_closed_stderr(filter):
    name, _, line = filter
    assert shell(f"{name} {line} nowhere.txt 2>&-").status == 2
    assert shell(f"echo a | {name} {line} 2>&-").status == 0


def test_cron(filter, tmp_path):
    """No HOME, no terminal, almost no environment."""
    name, _, line = filter
    result = shell(f'echo a | env -i PATH="$PATH" TOAST_HOME={tmp_path} {name} {line}')
    assert result.ok().out


def test_terminal_as_input_is_not_waited_for(filter):
    name, words, _ = filter
    leader, terminal = pty.openpty()
    try:
        command(name, *words, stdin=terminal, timeout=20).fails("standard input is a terminal")
    finally:
        os.close(leader), os.close(terminal)


def test_no_input_in_a_while_read_loop(filter, tmp_path):
    name, _, line = filter
    (tmp_path / "x").write_text("a\n")
    script = f"printf '1\\n2\\n3\\n' | while read n; do {name} {line} --no-input >/dev/null; echo $n; done"
    assert shell(script, cwd=tmp_path).ok().out == b"1\n2\n3\n"


def test_eight_at_once(filter):
    name, _, line = filter
    result = shell(f"yes 'a cat' | head -16 | xargs -P8 -I{{}} sh -c \"echo {{}} | {name} {line}\"")
    assert len(set(result.ok().out.splitlines())) == 1 and result.out.count(b"\n") == 16


def test_invalid_utf8_in_input(filter):
    name, words, _ = filter
    result = command(name, *words, stdin=b"a \xff cat\n").ok(quiet=False)
    assert result.err == f"{name}: 1 record held invalid UTF-8, read as U+FFFD\n".encode()
    assert command(name, *words, "-q", stdin=b"a \xff cat\n").ok().out == result.out


def test_invalid_utf8_in_an_argument(filter):
    name, words, _ = filter
    command(name, *words, b"\xff.txt").fails("\ufffd.txt", "No such file")


def test_unknown_option(filter):
    name, words, _ = filter
    command(name, *words, "--frobnicate").fails(f"{name}: no such option: --frobnicate", f"(try: {name} --help)")


def test_unknown_model(filter, tmp_path):
    name, words, _ = filter
    command(name, *words, "-m", "nonesuch", cwd=tmp_path).fails("no model 'nonesuch'", "minilm")


def test_half_a_model(filter, tmp_path):
    name, words, _ = filter
    command(name, *words, "-m", str(tmp_path), stdin=b"a\n").fails("config.json is missing")


def test_nul_bytes_and_empty_lines_are_text(filter):
    name, words, _ = filter
    assert command(name, *words, stdin=b"a\0b\n\n\n").ok().out.count(b"\n") == 3


def test_debug_shows_where(filter):
    name, words, _ = filter
    assert b"Traceback" in command(name, *words, "nowhere", env={"TOAST_DEBUG": 1}).err
