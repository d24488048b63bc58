"""Help: all that is declared stands in it, as wide as the terminal, at once; and the parser knows it."""

import os
import pty
import re
import subprocess
import sys

import pytest
from command import BIN, command, environment
from declarations import ALL, COMMANDS, ROOT, SCRIPTS

from toast import help, options, usage
from toast.options import HELP, VERSION, Operand

COMMON = {"quiet", "verbose", "no_input", "strict"}


def text(name, columns=80):
    return "\n".join(help.lines(help.Page(ALL[name]), columns)) + "\n"


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("columns", [40, 72, 80, 100])
def test_all_that_is_declared_stands_in_the_help(name, columns):
    told = text(name, columns)

    def has(term):
        return re.search(rf"^  {re.escape(term)}(  |$)", told, re.MULTILINE)

    for p in (*ALL[name].parameters, HELP, VERSION):
        assert has(help.term(p)) and flat(help.meaning(p)) in flat(told), (p.name, told)
        assert p.help.endswith("."), p.help
        assert p.type is bool or isinstance(p, Operand) or help.value(p), p.name
        assert not p.env or has(p.env)
    assert all(has(part) for part in ALL[name].commands) and all(has(number) for number in "023")
    fixed = {line.strip() for example in help.Page(ALL[name]).examples for line in example.split("\n")}
    fixed |= {help.term(p).strip() for p in ALL[name].parameters}
    assert not [line for line in told.split("\n") if len(line) > columns and line.strip() not in fixed]


@pytest.mark.parametrize("name", ALL)
def test_the_parser_knows_all_that_is_declared(name):
    operands = ["x" for p in ALL[name].parameters if isinstance(p, Operand) and p.default is ...]
    for p in ALL[name].parameters:
        for flag in p.flags:
            if p.type is bool:
                assert options.parse(ALL[name].parameters, [flag, *operands])[p.name] is True
                continue
            word = p.choices[0] if p.choices else "2" if p.min == 2 else "1"
            for words in ([flag, word], [f"{flag}={word}"] if len(flag) > 2 else [flag + word]):
                value = options.parse(ALL[name].parameters, [*words, *operands])[p.name]
                assert value == ([p.convert(word)] if p.many else p.convert(word))


@pytest.mark.parametrize("name", ALL)
def test_help_is_plain(name):
    """Nothing of how it is made, ASCII, no line over 80 columns, none that ends in a blank."""
    told = text(name)
    assert not re.search(r"\[\[|\]\]|<(?!TAB>|=|,| )|list\[|\bNone\b(?! is here)|Typer", told), told
    assert told.isascii() and not [line for line in told.split("\n") if len(line) > 80 or line != line.rstrip()]


def test_flags_are_declared_once_and_well():
    for name, one in ALL.items():
        flags = [flag for p in (*one.parameters, HELP, VERSION) for flag in p.flags]
        assert len(flags) == len(set(flags)), name
        assert not [flag for flag in flags if not re.fullmatch(r"-[A-Za-z0-9]|--[a-z]+(-[a-z]+)*", flag)], name
        groups = [p.group for p in one.parameters if p.group]
        assert one.commands or {p.name for p in one.parameters} >= COMMON and "Every command" in groups


def test_options_of_others_lead_to_ours():
    """An answer that begins with - names an option of the command; no key of the table is one of its own."""
    from toast import spellings

    for name, table in spellings.OPTIONS.items():
        known = {flag for p in (*ALL[name].parameters, HELP) for flag in p.flags} if name != "*" else set()
        for words, answer in table.items():
            assert not known & set(words.split()), (name, words)
            if name != "*" and answer.startswith("-"):
                told = usage.instead(ALL[name], words.split()[0], list(known))
                assert told.startswith(f"did you mean {answer.partition(';')[0]}?"), (name, answer, told)
    names = {part for group in ("model", "toasted") for part in COMMANDS[group].commands}
    assert set(spellings.COMMANDS) <= names
    for told in filter(None, map(str.split, spellings.VERBS.values())):
        assert told[0] in ALL and (told[0] not in ("model", "toasted") or told[1] in names) or told[0] == "nothing", (
            told
        )


def test_distances():
    known = [("json", "josn", 1), ("limit", "limt", 1), ("", "ab", 2), ("abc", "abc", 0), ("ca", "abc", 3)]
    assert [usage.distance(a, b) for a, b, _ in known] == [n for *_, n in known]


# ---------------------------------------------------------------- the installed commands


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_and_version(name):
    """By every name, on standard output, without a word of Python's."""
    ours = SCRIPTS[name].partition(":")[2]
    out = command(name, "--help", env={"COLUMNS": "80"}).ok().out.decode()
    assert out == command(name, "-h", env={"COLUMNS": "80"}).ok().out.decode() == text(ours)
    assert command(name, "--version").ok().out.startswith(f"{ours} (toast ".encode())
    assert command(name, "--nonesuch", "--help").status == 2


@pytest.mark.parametrize("columns, widest", [("80", 80), ("50", 50), ("7", 40), ("300", 100), ("", 80), ("x", 80)])
def test_width(columns, widest):
    out = command("model", "--help", env={"COLUMNS": columns}).ok().out.decode()
    longest = max(map(len, out.split("\n")))
    assert widest - 12 < longest <= widest


def test_the_width_of_the_terminal():
    leader, follower = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 64, 0, 0))
    words = [os.path.join(BIN, "model"), "--help"]
    subprocess.run(words, stdout=follower, stdin=follower, env=environment({"COLUMNS": None}), check=True)
    os.close(follower)
    longest = max(map(len, os.read(leader, 1 << 16).decode().split("\r\n")))
    os.close(leader)
    assert 52 < longest <= 64


def test_flags_of_all_before_a_group_s_command(tmp_path):
    env = {"TOAST_HOME": tmp_path}
    assert command("model", "-q", "--strict", "ls", "--json", env=env).status == 1
    command("model", "-v", "pull", env=env).fails("NAME is missing")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["--nonesuch"]])
def test_help_loads_nothing(words):
    """Neither any package nor what is heavier in the standard library; without site-packages it runs, too."""
    code = (
        "import os, sys\n"
        "def end(status, leave=os._exit): os.write(2, ('|' + ' '.join(sys.modules)).encode()); leave(status)\n"
        "os._exit = end\nfrom embed.cli import search; search()"
    )
    words, env = [sys.executable, "-S", "-P", "-c", code, *words], environment({"PYTHONPATH": ROOT})
    ran = subprocess.run(words, capture_output=True, env=env)
    loaded = set(ran.stderr.decode().rpartition("|")[2].split())
    assert "toast.options" in loaded
    assert not loaded & {
        "re",
        "textwrap",
        "argparse",
        "difflib",
        "inspect",
        "shutil",
        "typing",
        "json",
        "typer",
        "click",
    }
