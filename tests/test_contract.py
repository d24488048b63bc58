"""The contract, one situation for every command: streams, statuses, bad neighbours.

A new command joins by a line in COMMANDS and, if it takes files, one in FILES.
"""

import os
import pty
import signal
import time

import pytest
from command import command, shell, start

QWEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "qwen3-causal")

# name -> words that make it work on lines from standard input, with the tiny model
COMMANDS = {
    "embed": lambda model: ["-m", model, "--json"],
    "rerank": lambda model: ["-m", model, "a cat"],
    "classify": lambda model: ["-m", model, "-l", "cat,dog"],
    "index": lambda model: ["-m", model],
    "search": lambda model: ["-m", model, "a cat"],
    "toast": lambda model: ["-m", QWEN, "-n", "4", "say it"],
    "tokenize": lambda model: ["-m", QWEN],
}
# what stands before the name of a file
FILES = {"embed": [], "rerank": [], "classify": [], "index": [], "search": [], "toast": ["-f"], "tokenize": []}
RECORDS = ("embed", "rerank", "classify")  # a record in, a record out
# their status when there is nothing to read; the others': 0
NOTHING = {"rerank": 1, "classify": 1, "search": 1, "index": 1}
# what they say when no input is offered: they do without, if there is something else to do
WITHOUT = {"search": "nothing to search", "toast": ""}


@pytest.fixture(params=sorted(COMMANDS))
def filter(request, model):
    """(name, its words as a list, the same quoted for a shell)."""
    return named(request.param, COMMANDS[request.param](model))


@pytest.fixture(params=sorted(FILES))
def reader(request, model):
    """The same of a command that takes files, ready for the name of one."""
    return named(request.param, COMMANDS[request.param](model) + FILES[request.param])


# options that make another command of it: what they read and write keeps the contract as well
WAYS = {
    "classify --multi --none": ["-l", "cat,dog", "--multi", "--none", "other"],
    "classify --next": ["-l", "cat,dog", "--next", "2"],
    "classify --group": ["--group", "2"],
    "classify --long": ["-l", "cat,dog", "--long", "mean"],
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_a_command(way, model, tmp_path):
    words = ["-m", model, *WAYS[way]]
    line = " ".join(["classify", *(f"'{word}'" for word in words)])
    runs = {command("classify", *words, stdin=b"a cat\na dog\n").ok().out for _ in range(2)}
    assert len(runs) == 1 and runs.pop().endswith(b"\n")
    assert command("classify", *words, stdin=b"").status == 1
    command("classify", *words, "nowhere.txt", cwd=tmp_path).fails("nowhere.txt", "No such file")
    shell(f"printf 'a\nb\n' | {line} > /dev/full").fails("cannot write standard output", "No space left")
    assert shell(f"printf 'a\nb\n' | {line} --nonesuch 2>&-").status == 2
    assert command("classify", *words, stdin=b"a \xff cat\nb\n").status == 0


def named(name, words):
    return name, words, " ".join(f"'{w}'" for w in words)


def test_reads_stdin_writes_stdout(filter):
    name, words, _ = filter
    out = command(name, *words, stdin=b"a cat\na dog\n").ok().out
    assert out.startswith(b"SQLite") if name == "index" else out.endswith(b"\n")


def test_empty_input(filter):
    name, words, _ = filter
    ran = command(name, *words, stdin=b"")
    told = {
        "index": b"index: nothing to search: no text was found\n",
        "toast": b"toast: standard input is empty: the instruction alone is answered (--no-input says so)\n",
    }.get(name, b"")
    assert ran.status == NOTHING.get(name, 0) and ran.err == told, ran


def test_ctrl_c(filter):
    """While it waits for more input, a command dies of it without a word."""
    name, words, _ = filter
    process = start(name, *words)
    process.stdin.write(b"a cat\n")
    process.stdin.flush()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    assert process.stderr.read() == b""


def test_same_input_same_bytes(filter):
    name, words, _ = filter
    runs = {command(name, *words, stdin=b"a cat\na dog\n").ok().out for _ in range(3)}
    assert len(runs) == 1


def test_missing_file(reader, tmp_path):
    name, words, _ = reader
    command(name, *words, "nowhere.txt", cwd=tmp_path).fails("nowhere.txt", "No such file")


def test_directory(reader, tmp_path):
    name, words, _ = reader
    ran = command(name, *words, ".", cwd=tmp_path)
    if name in ("index", "search"):  # they walk it
        assert ran.status == NOTHING.get(name, 0), ran
    else:
        ran.fails("Is a directory")


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_unreadable_file(reader, tmp_path):
    name, words, _ = reader
    (tmp_path / "x").write_text("a")
    (tmp_path / "x").chmod(0)
    command(name, *words, "x", cwd=tmp_path).fails("x", "Permission denied")


def test_path_with_a_newline(reader, tmp_path):
    name, words, _ = reader
    (tmp_path / "a\nb").write_text("a cat\n")
    command(name, *words, "a\nb", cwd=tmp_path).ok()
    command(name, *words, "c\nd", cwd=tmp_path).fails("c d: No such file")


@pytest.mark.parametrize("name", RECORDS)
def test_file_instead_of_stdin(name, model, tmp_path):
    words = COMMANDS[name](model)
    (tmp_path / "x").write_text("a cat\n")
    from_file = command(name, *words, "x", cwd=tmp_path).ok().out
    assert from_file == command(name, *words, stdin=b"a cat\n").ok().out
    assert from_file == command(name, *words, "-", stdin=b"a cat\n").ok().out


def test_reader_goes_away(filter):
    name, _, line = filter
    lines = 20 if name == "toast" else 12000  # 72,000 bytes: a pipe holds 65,536; toast's context is small
    script = f"yes 'a cat' | head -{lines} | {name} {line} | head -c1 >/dev/null; echo ${{PIPESTATUS[2]}}"
    result = shell(script).ok()
    assert result.out == b"0\n", result


def test_full_disk(filter):
    name, _, line = filter
    shell(f"echo a | {name} {line} > /dev/full").fails("cannot write standard output", "No space left")


def test_closed_stdout(filter):
    name, _, line = filter
    shell(f"echo a | {name} {line} >&-").fails("cannot write standard output", "Bad file descriptor")


def test_closed_stdin(filter, tmp_path):
    name, _, line = filter
    ran = shell(f"{name} {line} <&-", cwd=tmp_path)
    said = WITHOUT.get(name, "cannot read standard input: Bad file descriptor")
    ran.fails(said) if said else ran.ok()


def test_closed_stderr(filter):
    name, _, line = filter
    assert shell(f"{name} {line} --nonesuch 2>&-").status == 2
    assert shell(f"echo a | {name} {line} 2>&-").status == 0


def test_cron(filter, tmp_path):
    """No HOME, no terminal, almost no environment."""
    name, _, line = filter
    result = shell(f'echo a | env -i PATH="$PATH" TOAST_HOME={tmp_path} {name} {line}')
    assert result.ok().out


def test_terminal_as_input_is_not_waited_for(filter, tmp_path):
    name, words, _ = filter
    leader, terminal = pty.openpty()
    try:
        ran = command(name, *words, stdin=terminal, timeout=20, cwd=tmp_path)
    finally:
        os.close(leader), os.close(terminal)
    said = WITHOUT.get(name, "standard input is a terminal")
    ran.fails(said) if said else ran.ok()


def test_no_input_in_a_while_read_loop(filter, tmp_path):
    name, _, line = filter
    (tmp_path / "x").write_text("a\n")
    script = f"printf '1\\n2\\n3\\n' | while read n; do {name} {line} --no-input >/dev/null; echo $n; done"
    assert shell(script, cwd=tmp_path).ok(quiet=name not in ("index", "search")).out == b"1\n2\n3\n"


def test_eight_at_once(filter, tmp_path):
    name, words, line = filter
    one = command(name, *words, stdin=b"a cat\n").ok().out
    shell(f'seq 8 | xargs -P8 -I{{}} sh -c "echo a cat | {name} {line} > {{}}"', cwd=tmp_path).ok()
    assert [(tmp_path / str(i)).read_bytes() for i in range(1, 9)] == [one] * 8


def test_invalid_utf8_in_input(filter):
    name, words, _ = filter
    result = command(name, *words, stdin=b"a \xff cat\n").ok(quiet=False)
    held = "1 record held" if name not in ("toast", "tokenize") else "standard input held 1 sequence of"
    assert result.err == f"{name}: {held} invalid UTF-8, read as U+FFFD\n".encode()
    out = b"" if name == "search" else result.out  # its -q answers by the status alone
    assert command(name, *words, "-q", stdin=b"a \xff cat\n").ok().out == out


def test_invalid_utf8_in_an_argument(reader):
    name, words, _ = reader
    command(name, *words, b"\xff.txt").fails("\ufffd.txt", "No such file")


def test_unknown_option(filter):
    name, words, _ = filter
    command(name, *words, "--frobnicate").fails(f"{name}: no such option: --frobnicate", f"(try: {name} --help)")


def test_unknown_model(filter, tmp_path):
    name, words, _ = filter
    embedders, chat = "minilm (English)", "smollm2 (English)"
    known = {
        "toast": f"give a folder, a .gguf file or {chat}",
        **dict.fromkeys(("tokenize", "classify"), f"{embedders}, e5 (100 languages) or {chat}"),
    }.get(name, f"give a folder, {embedders} or e5 (100 languages))")
    command(name, *words, "-m", "nonesuch", cwd=tmp_path).fails("no model 'nonesuch' here", known)
    hub = command(name, *words, "-m", "owner/Model-0.6B", cwd=tmp_path).fails("run: model pull owner/Model-0.6B;")
    assert known.encode() in hub.err
    for path in ("./m", "/m/n", "a/b/c", "a/b.gguf", "~/m"):
        assert b"model pull" not in command(name, *words, "-m", path, cwd=tmp_path).fails("no model").err


def test_half_a_model(filter, tmp_path):
    name, words, _ = filter
    missing = "no tokenizer.json" if name == "tokenize" else "config.json is missing"
    command(name, *words, "-m", str(tmp_path), stdin=b"a\n").fails(missing)


@pytest.mark.parametrize("name", ["embed", "rerank", "classify", "toast"])
def test_a_blank_record_has_an_answer_as_any_other(name, model):
    more = {"embed": ["--json"], "rerank": ["cat"], "classify": ["-l", "cat,dog"]}
    words = ["-m", model, *more[name]] if name in more else [*COMMANDS[name](model), "--each", "--choice", "yes,no"]
    lines = command(name, *words, stdin=b"a cat\n\n \t\nthe dog\n").ok().out.split(b"\n")
    assert len(lines) == 5 and lines[4] == b""
    if name == "toast":
        assert lines[1:3] == [b"", b""] and {lines[0], lines[3]} <= {b"yes", b"no"}
    if name == "classify":
        assert [line.split(b"\t")[0] for line in lines[1:3]] == [b"", b""]


def test_nul_bytes_and_empty_lines_are_text(filter):
    name, words, _ = filter
    out = command(name, *words, stdin=b"a\0b\n\n\n").ok().out
    assert out.count(b"\n") == 3 or name not in RECORDS


def test_debug_shows_where(filter):
    name, words, _ = filter
    assert b"Traceback" in command(name, *words, "-m", "nonesuch", stdin=b"a\n", env={"TOAST_DEBUG": 1}).err
