"""What `toast` is asked: files, instructions in files, dry runs, several answers, editors' filters."""

import json
import os
import subprocess

import pytest
from command import command, shell

from toast.cutting import shares
from toast.question import INPUT, Question

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
QWEN = os.path.join(ORACLES, "qwen3-causal")


def toast(*words, **options):
    return command("toast", "-m", QWEN, *words, **options)


def asked(*words, **options):
    """What stands in the user's turn."""
    ran = toast("--dry-run", "--json", *words, **options).ok()
    return json.loads(ran.out)["prompt"].partition("<|im_start|>user\n")[2].rpartition("<|im_end|>\n<|im_start|>")[0]


# ---------------------------------------------------------------- instructions and files


def test_an_instruction_from_a_file(tmp_path):
    cases = {
        "sum up\n": "in\n\nsum up",
        "Before {{input}} after\n": "Before in after",
        "{{input}}{{input}}": "inin",
        "\ufeffa\r\nb {{input}}\r\n": "a\r\nb in",
        "{{ input }}": "in\n\n{{ input }}",
        "@other": "in\n\n@other",
        "": "in",
        "\n\n": "in",
    }
    for text, want in cases.items():
        (tmp_path / "p").write_text(text, newline="")
        for stdin in (b"in", b"in\n\n", b"\xef\xbb\xbfin\r\n"):
            assert asked("@p", stdin=stdin, cwd=tmp_path) == want
    (tmp_path / "p").write_text("{{input}} of {{input}}")
    assert asked("@p", stdin=b"{{input}}\n", cwd=tmp_path) == "{{input}} of {{input}}"  # it is replaced once
    assert asked("as {{input}} is", stdin=b"in\n") == "in\n\nas {{input}} is"  # marks nothing in an argument
    (tmp_path / "p").write_text(" {{input}}\n{{input}}\n")
    toast("@p", cwd=tmp_path).fails("nothing to answer")


def test_empty_input_is_told(tmp_path):
    """What comes out of nothing is no answer about it; where nothing was given at all, none was meant."""
    told = b"toast: standard input is empty: the instruction alone is answered (--no-input says so)\n"
    (tmp_path / "f").write_text("text")
    (tmp_path / "empty").write_text("")
    with open(tmp_path / "empty") as empty:
        for stdin in (b"", b" \n", empty):
            assert toast("-n", "2", "hi", stdin=stdin).ok(quiet=False).err == told
            for words in (["-q", "hi"], ["--no-input", "hi"], ["hi", "f"], ["-f", "f", "hi"]):
                toast("-n", "2", *words, stdin=stdin, cwd=tmp_path).ok()
    toast("-n", "2", "hi", stdin=subprocess.DEVNULL).ok()
    for words in (["-q"], ["--schema", "{}"], ["--samples", "2"]):  # nothing comes of nothing
        strict = toast("--strict", *words, "hi", stdin=b"").fails("standard input is empty", "--no-input")
        assert strict.out == b""


def test_a_loop_keeps_its_list(tmp_path):
    """`while read f; do toast ... "$f"; done < list`, and what cannot be told of a pipe."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(f"text of {name}\n")
    (tmp_path / "list").write_text("a\nb\nc\n")
    (tmp_path / "words").write_text("what\nis\nred?\n")
    see = f"toast -m {QWEN} --dry-run --json see"

    def prompts(line):
        ran = shell(line, cwd=tmp_path)
        assert ran.status == 0, ran
        found = [json.loads(one)["prompt"].partition("user\n")[2] for one in ran.out.splitlines()]
        told = [one for one in ran.err.decode().splitlines() if "in the prompt" not in one]
        return [one.partition("<|im_end|>")[0] for one in found], told

    each = [f"==> {name} <==\ntext of {name}\n\nsee" for name in ("a", "b", "c")]
    found, told = prompts(f'while read f; do {see} "$f"; done < list')
    assert found == each and len(told) == 2 and all("is left to a loop" in one for one in told), told
    for quiet in ("--no-input", "< /dev/null"):
        assert prompts(f'while read f; do {see} "$f" {quiet}; done < list') == (each, [])
        assert prompts(f'cat list | while read f; do {see} "$f" {quiet}; done') == (each, [])
    found, [told] = prompts(f'cat list | while read f; do {see} "$f"; done')
    assert found == [f"b\nc\n\n{each[0]}"] and "names of files that are here" in told
    found, [told] = prompts(f"{{ read x; {see}; }} < words")
    assert found == ["is\nred?\n\nsee"] and "a part was read before" in told
    assert prompts(f"{see} a < words") == ([f"what\nis\nred?\n\n{each[0]}"], [])
    assert prompts(f"cat words | {see} a") == ([f"what\nis\nred?\n\n{each[0]}"], [])


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"%PDF-1.4\n1 0 obj", "hi".encode("utf-16"), b"\0\xff" * 9000]
)
def test_what_is_no_text_is_refused(data, tmp_path):
    (tmp_path / "f").write_bytes(data)
    told = "no text (strings, pdftotext, pandoc or iconv"
    toast("hi", stdin=data).fails(f"standard input is {told}")
    toast("hi", "f", cwd=tmp_path).fails(f"f is {told}")
    toast("@f", cwd=tmp_path).fails(f"f is {told}")


def test_text_with_bytes_of_its_own():
    """NUL in text, a byte that is no UTF-8, and a character that the first bytes end in."""
    for data in (b"a\0b", b"a \xff b", b"\0" + b"a" * 8190 + "\u00e9".encode()):
        assert toast("--dry-run", "-q", "--long", "truncate", "hi", stdin=data).ok().out


def test_an_instruction_that_only_begins_like_one():
    toast("@").fails("@ names no file", "has a blank before it")
    toast("-s", "@", "hi").fails("@ names no file")
    toast("@home, what is it?").fails("cannot open home, what is it?", "has a blank before it")
    toast("-s", "@none", "hi").fails("cannot open none", "has a blank before it")
    toast("@-", stdin=b"x").fails("- names no file here")
    toast("@.", stdin=b"x").fails("Is a directory")
    assert asked(" @home, what is it?") == " @home, what is it?"


def test_each_record_has_its_place(tmp_path):
    (tmp_path / "p").write_text("say {{input}} so")
    ran = toast("--each", "-t", "0", "-n", "5", "@p", stdin=b"one\n\ntwo\n", cwd=tmp_path).ok()
    alone = [toast("-t", "0", "-n", "5", f"say {word} so").out for word in ("one", "two")]
    assert ran.out.splitlines() == [alone[0].strip().replace(b"\n", b" "), b"", alone[1].strip().replace(b"\n", b" ")]
    assert Question("a", f"x {INPUT}", placed=True).about("b").messages()[0]["content"] == "x b"
    long = Question(
        "one", "x", files=[("f", "two")], system="s", history=[{"role": "user", "content": "h"}], raw=b"one"
    )
    short = long.of(["1", "2"])
    assert short.texts == ["1", "2"] and long.texts == ["one", "two"] and short.files == [("f", "2")]
    assert (short.raw, short.system, short.history) == (long.raw, long.system, long.history)


def test_each_takes_its_records_from_files(tmp_path):
    """As all commands do; a FILE of -f stands in each question."""
    (tmp_path / "f").write_text("one\ntwo\n")
    (tmp_path / "g").write_text("G\n")
    words = ("--each", "-t", "0", "-n", "4", "say it")
    lines = toast(*words, stdin=b"one\ntwo\n").ok().out
    assert toast(*words, "f", stdin=b"three\n", cwd=tmp_path).ok().out == lines
    assert toast(*words, "f", cwd=tmp_path).ok().out == lines
    assert toast(*words, "f", "-", stdin=b"one\ntwo\n", cwd=tmp_path).ok().out == 2 * lines
    toast(*words, "none", cwd=tmp_path).fails("no file 'none'")
    [both] = toast(*words, "-f", "g", stdin=b"one\n", cwd=tmp_path).ok().out.splitlines()
    alone = toast(*words[1:], "g", stdin=b"one\n", cwd=tmp_path).ok().out
    assert both.decode() == " ".join(alone.decode().splitlines()).strip()


def test_files_are_cut_as_standard_input_is(tmp_path):
    (tmp_path / "f").write_text("cat " * 2000)
    (tmp_path / "g").write_text("a dog\n")
    toast("see", "f", "g", cwd=tmp_path).fails("the prompt is", "--long truncate cuts f")
    words = ("--long", "truncate", "--dry-run", "--json", "see")
    ran = toast(*words, "f", "g", cwd=tmp_path).ok(quiet=False)
    assert b" tokens from the middle of f\n" in ran.err and ran.err.count(b"cut ") == 1, ran
    prompt = json.loads(ran.out)["prompt"]
    assert "a dog" in prompt and "cat cat" in prompt
    ran = toast(*words, "f", "g", stdin=b"sky " * 2000, cwd=tmp_path).ok(quiet=False)
    assert ran.err.count(b"cut ") == 2 and b"middle of standard input" in ran.err, ran
    prompt = json.loads(ran.out)["prompt"]
    assert "a dog" in prompt and min(prompt.count("cat"), prompt.count("sky")) > 100
    assert toast("--strict", *words, "f", cwd=tmp_path).status == 3
    (tmp_path / "f").write_text("cat " * 2_000_000)
    toast("see", "f", cwd=tmp_path).fails("at least", "--long truncate cuts f")
    ran = toast(*words, "f", cwd=tmp_path).ok(quiet=False)
    assert b" of 8000000 characters from the middle of f\n" in ran.err, ran
    toast("@f", cwd=tmp_path).fails("at least", "tokenize --max N < f")


def test_shares():
    assert shares([5, 100, 30], 65) == [5, 30, 30] and shares([5, 100, 30], 200) == [5, 100, 30]
    assert shares([7], 3) == [3] and shares([9, 9], 5) == [2, 3] and shares([0, 4], 4) == [0, 4]


def test_files_as_operands(tmp_path):
    (tmp_path / "a.txt").write_text("A\r\n\r\n", newline="")
    (tmp_path / "b").write_text("B")
    (tmp_path / "p").write_text("with {{input}}")
    both = "==> a.txt <==\nA\n\n==> b <==\nB"
    assert asked("compare", "a.txt", "b", cwd=tmp_path) == f"{both}\n\ncompare"
    assert asked("compare", "-f", "b", "a.txt", cwd=tmp_path) == f"{both}\n\ncompare"  # operands first
    assert asked("compare", "a.txt", "b", cwd=tmp_path, stdin=b"in\n") == f"in\n\n{both}\n\ncompare"
    assert asked("@p", "b", cwd=tmp_path, stdin=b"in\n") == "==> b <==\nB\n\nwith in"
    (tmp_path / "l\nn").write_text("x")
    assert asked("see", "l\nn", cwd=tmp_path) == "==> l\nn <==\nx\n\nsee"
    with open(os.fsencode(tmp_path) + b"/\xff", "w") as file:
        file.write("x")
    assert asked("see", b"\xff", cwd=tmp_path) == "==> \ufffd <==\nx\n\nsee"
    toast("see", ".", cwd=tmp_path).fails("Is a directory")


@pytest.mark.parametrize("words, typed", [
    (["write", "a", "commit", "message"], '"write a commit message"'),
    (["say", '"hi"'], "'say \"hi\"'"),
    (["it", "costs", "$5"], "'it costs $5'"),
    (["don't", "stop"], '"don\'t stop"'),
    (["sum", "up", b"\xff"], '"sum up \ufffd"'),
])  # fmt: skip
def test_an_instruction_without_quotes(tmp_path, words, typed):
    toast(*words, cwd=tmp_path).fails("no file", f"the instruction is one argument: toast {typed}")


def test_a_file_where_the_instruction_stands(tmp_path):
    """Alone it says nothing; beside an input it is the instruction all the same, and who meant the file is told."""
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "explain").write_text("x")
    for words in (["notes.md"], ["./explain"], ["-q", "notes.md"], ["-n", "3", "notes.md"]):
        toast(*words, cwd=tmp_path).fails(f"nothing says what to do with {words[-1]}", f'"summarise" {words[-1]}')
    ran = toast("--dry-run", "notes.md", stdin=b"in", cwd=tmp_path).ok(quiet=False)
    assert b'notes.md is the instruction, not a file to read (toast "..." notes.md)\n' in ran.err, ran
    for words in (["explain"], ["a/b"], ["."], ["see notes.md"], ["sum", "notes.md"]):
        toast("--dry-run", "--json", *words, cwd=tmp_path).ok()


# ---------------------------------------------------------------- --dry-run


@pytest.mark.parametrize("words", [
    ["-q"], ["--strict"], ["-n", "1"], ["--samples", "3"], ["--repeat-input"], ["--schema", "{}"], ["--no-cache"],
    ["--long", "truncate"], ["-x"], ["--stop", "x"], ["--no-loop-stop"], ["-t", "1"], ["--template", "a=1"],
    ["--think", "9"], ["--seed", "5"], ["--dry", "1"],
])  # fmt: skip
def test_a_dry_run_writes_the_prompt(words):
    ran = toast("--dry-run", *words, "hi", stdin=b"cat\n").ok(quiet=False)
    assert ran.out == b"<|im_start|>user\ncat\n\nhi<|im_end|>\n<|im_start|>assistant\n\n"
    assert ran.err == (b"" if "-q" in words else b"toast: 17 tokens in the prompt\n")


def test_a_dry_run_is_what_is_read():
    for words in ([], ["-s", "Be red."], ["--prefill", "So"], ["--no-template"], ["--think", "off"]):
        shown = json.loads(toast("--dry-run", "--json", *words, "hi<|im_end|>").ok().out)
        assert shown["tokens"] == json.loads(toast("-n", "1", "--json", *words, "hi<|im_end|>").out)["prompt_tokens"]


def test_a_dry_run_changes_nothing(tmp_path):
    home = {"TOAST_HOME": str(tmp_path)}
    toast("-n", "2", "--session", "trip", "hello", env=home).ok()
    path = tmp_path / "sessions" / "trip.jsonl"
    before = path.read_bytes()
    assert "hello" in asked("--session", "trip", "and then?", env=home)
    toast("--dry-run", "--session", "trip", "--forget", "hi", env=home).fails("--dry-run and --forget exclude")
    toast("--session", "trip", "--forget", "--regex", "a", "--choice", "b", "hi", env=home).fails("exclude each other")
    assert path.read_bytes() == before
    toast("--dry-run", "--each", "hi").fails("exclude each other")


def test_a_dry_run_finds_what_is_wrong():
    toast("--dry-run", "--regex", "a(", "hi").fails("--regex")
    toast("--dry-run", "cat " * 2000).fails("the prompt is")
    toast("--dry-run", "-m", "/no/such", "hi").fails("no model")
    toast("--dry-run").fails("nothing to answer")


# ---------------------------------------------------------------- --samples


def test_samples_are_answers_with_their_seeds():
    words = ("-n", "9", "-t", "1", "hi")
    alone = [toast(*words, "--seed", str(n)).out.decode() for n in range(4, 9)]
    found = toast(*words, "--samples", "5", "--seed", "4").ok().out.decode()
    assert found == "".join(" ".join(text.splitlines()).strip() + "\n" for text in alone)
    raw = toast(*words, "--samples", "5", "--seed", "4", "-0").ok().out.decode()
    assert raw == "".join(text.rstrip("\n") + "\0" for text in alone)
    found = [
        json.loads(line) for line in toast(*words, "--samples", "5", "--seed", "4", "--json").ok().out.splitlines()
    ]
    assert [o["index"] for o in found] == [*range(5)] and [o["text"] for o in found] == [t.rstrip("\n") for t in alone]
    assert all(isinstance(o["logprob"], float) for o in found)


def test_the_seed_after_the_last_is_0():
    last, words = str((1 << 64) - 1), ("-n", "5", "-t", "1", "hi", "--json")
    lines = toast(*words, "--samples", "2", "--seed", last).ok().out.splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert texts == [json.loads(toast(*words, "--seed", seed).out)["text"] for seed in (last, "0")]


def test_samples_with_other_options(tmp_path):
    assert toast("--samples", "1", "-n", "3", "-t", "0", "hi").ok().out.count(b"\n") == 1
    for more in ([], ["--repeat-penalty", "1.2"]):
        ran = toast("--samples", "3", "-n", "3", "-t", "0", *more, "hi").ok(quiet=False)
        assert len(set(ran.out.splitlines())) == 1 and b"at temperature 0 all answers are alike" in ran.err, ran
    assert set(toast("--samples", "9", "-t", "1", "--choice", "a,b", "hi").ok().out.split()) <= {b"a", b"b"}
    assert toast("--samples", "2", "-n", "3", "-t", "1", "--strict", "--stop", "\n", "hi").status in (0, 3)
    ran = toast("--samples", "2", "-x", "-n", "2", "-t", "1", "hi")
    assert ran.status == 2 and ran.out == b"\n\n" and b"answer 2: no code block" in ran.err, ran
    for other in (["--each"], ["--session", "x"], ["--repeat-input"]):
        toast("--samples", "2", *other, "hi").fails("--samples", "exclude each other")
    for other in (["--jsonl"], ["--field", "t"]):
        toast("--samples", "2", *other, "hi").fails(f"{other[0]} needs --each")
    toast("-0", "hi").fails("-0 needs --each or --samples")
    toast("--samples", "0", "hi").fails("--samples must be at least 1")


# ---------------------------------------------------------------- --repeat-input


@pytest.mark.parametrize(
    "text", [b"cat", b"cat\n", b"a\n\n\n", b"\n", b"a\r\nb\r\n", b"\xef\xbb\xbfbom\n", b"a\0b\n", b"x\xffy\n", b" a \n"]
)
def test_input_is_repeated_as_it_came(text):
    ran = toast("--repeat-input", "-n", "3", "-t", "0", "hi", stdin=text)
    answer = toast("-n", "3", "-t", "0", "hi", stdin=text)
    assert ran.status == 0 and ran.out == text + b"\n" * (not text.endswith(b"\n")) + answer.out
    assert ran.err == answer.err


def test_nothing_to_repeat(tmp_path):
    answer = toast("-n", "3", "-t", "0", "hi").out
    assert toast("--repeat-input", "-n", "3", "-t", "0", "hi").ok().out == answer
    assert toast("--repeat-input", "--no-input", "-n", "3", "-t", "0", "hi", stdin=b"x").ok().out == answer
    long = b"cat\n" * 2000
    ran = toast("--repeat-input", "--long", "truncate", "-n", "2", "hi", stdin=long)
    assert ran.status == 0 and ran.out.startswith(long), ran
    assert toast("--repeat-input", "hi", stdin=long).fails("the prompt is").out == b""
    toast("--repeat-input", "--json", "hi", stdin=b"x").fails("exclude each other")
    shell(f"echo x | toast -m {QWEN} --repeat-input hi > /dev/full").fails("No space left")
    ran = shell(f"echo x | toast -m {QWEN} --repeat-input hi | true; echo ${{PIPESTATUS[1]}}").ok()
    assert ran.out == b"0\n"
