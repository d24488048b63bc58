"""The real `toast` and `tokenize` on the tiny reference models: streams, forms, statuses."""

import json
import os
import shutil
import signal
import subprocess

import pytest
from command import command, shell, start
from gguf_file import gguf

from toast import answer
from toast.answer import Request
from toast.command import Call
from toast.generation.engine import Engine
from toast.generation.prefix_cache import PrefixCache

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
LLAMA, QWEN, LLAMA3 = (os.path.join(ORACLES, n) for n in ("llama-causal", "qwen3-causal", "llama3-rope-causal"))


def toast(*words, model=QWEN, **options):
    return command("toast", "-m", model, *words, **options)


def chats(folder):
    """The reference runs that are single questions: (text, greedy ids, greedy text)."""
    with open(os.path.join(folder, "oracle.json"), encoding="utf-8") as file:
        facts = json.load(file)
    for chat in facts["chats"]:
        roles = [m["role"] for m in chat["messages"]]
        runs = [run for run in facts["runs"] if run["ids"] == chat["ids"]]
        if roles == ["user"] and runs:
            yield chat["messages"][0]["content"], runs[0]


@pytest.mark.parametrize("folder", [LLAMA, QWEN, LLAMA3])
def test_reference_answers(folder):
    for text, run in chats(folder):
        ran = toast("-n", "24", "--json", text, model=folder).ok()
        answer = json.loads(ran.out)
        assert answer["prompt_tokens"] == len(run["ids"])
        assert answer["tokens"] <= 24 and answer["finish_reason"] in ("stop", "length")


def test_what_is_read():
    """Standard input, a blank line, the instruction; a file, a pipe and an argument say the same."""
    both = toast("-n", "8", "cat\n\nexplain").ok().out
    assert toast("-n", "8", "explain", stdin=b"cat\n").ok().out == both
    assert toast("-n", "8", stdin=b"cat\n\nexplain\n").ok().out == both
    assert shell(f"toast -m {QWEN} -n 8 explain <<< cat").ok().out == both
    assert toast("-n", "8", "--no-input", "explain", stdin=b"cat\n").ok().out != both


def test_one_newline_at_the_end():
    out = toast("-n", "20", "hi").ok().out
    assert out.endswith(b"\n") and not out.endswith(b"\n\n")


def test_same_seed_same_bytes():
    words = ("-n", "12", "-t", "1.5", "--top-p", "0.9", "--top-k", "50", "--min-p", "0.01", "hi")
    assert toast(*words).out == toast(*words, "--seed", "0").out != toast(*words, "--seed", "1").out


def test_json_and_logprobs():
    answer = json.loads(toast("-t", "0", "-n", "5", "--logprobs", "3", "hi").ok().out)
    assert set(answer) == {"text", "finish_reason", "prompt_tokens", "tokens", "logprob", "logprobs"}
    assert answer["finish_reason"] == "length" and answer["tokens"] == len(answer["logprobs"]) == 5
    assert answer["logprob"] == pytest.approx(sum(t["logprob"] for t in answer["logprobs"]))
    for token in answer["logprobs"]:
        assert len(token["top"]) == 3 and token["top"][0]["logprob"] == token["logprob"] < 0
    assert toast("-t", "0", "-n", "5", "hi").out.decode() == answer["text"] + "\n"


def test_stop_and_prefill():
    whole = toast("-n", "20", "hi").out.decode()
    cut = whole[4:6]
    assert toast("-n", "20", "--stop", cut, "hi").ok().out.decode() == whole[: whole.index(cut)] + "\n"
    assert toast("-n", "3", "--prefill", "So: ", "hi").ok().out.startswith(b"So: ")


def test_files_and_system(tmp_path):
    (tmp_path / "a.txt").write_text("A\n")
    (tmp_path / "s").write_text("Be red.\n")
    named = toast("-n", "6", "-f", "a.txt", "differs?", cwd=tmp_path).ok().out
    assert named == toast("-n", "6", "==> a.txt <==\nA\n\ndiffers?").out
    said = toast("-n", "6", "-s", "@s", "hi", cwd=tmp_path).ok().out
    assert said == toast("-n", "6", "-s", "Be red.", "hi").out != toast("-n", "6", "hi").out
    toast("-f", "none", "hi").fails("cannot open none")


def test_code_block():
    answered = "Sure\n```py\nx = 1\n```\nmore"
    ran = toast("-n", "1", "-x", "--prefill", answered, "hi")
    assert ran.status == 0 and ran.out == b"x = 1\n", ran
    ran = toast("-n", "2", "-x", "hi")
    assert ran.status == 1 and ran.out == b"" and b"no code block" in ran.err, ran
    ran = toast("-n", "2", "-x", "--json", "hi")
    told = json.loads(ran.fails("no code block", status=1).out)
    assert told["text"] == "" and told["tokens"] == 2 and told["finish_reason"] == "length"


def test_a_prefill_is_the_answer():
    """Also one that looks like reasoning: it is text."""
    ran = toast("-n", "1", "--prefill", "<think>hm</think>\n\nYes", "hi").ok()
    assert ran.out.startswith(b"<think>hm</think>\n\nYes")


def test_limits_and_statuses(tmp_path):
    assert toast("-n", "2", "--strict", "hi").status == 3
    assert toast("-n", "2", "hi").status == 0
    long = ("cat " * 2000).encode()
    toast("explain", stdin=long).fails("the prompt is ", " tokens", "--long truncate")
    toast("--each", "explain", stdin=long).fails("--long truncate cuts record 1")
    ran = toast("--long", "truncate", "-n", "2", "explain", stdin=long)
    assert ran.status == 0 and b"from the middle of standard input" in ran.err, ran
    assert toast("--long", "truncate", "--strict", "-n", "2", "explain", stdin=long).status == 3


def test_wrong_use():
    toast().fails("nothing to answer")
    toast("", stdin=b"").fails("nothing to answer")
    assert shell(f"toast -m {QWEN} < /dev/null").status == 2
    toast("-n", "0", "hi").fails()
    toast("--top-p", "2", "hi").fails()
    toast("--stop", "", "hi").fails("--stop needs a text")
    toast("--session", "", "hi").fails("--session '' is not a plain name")
    for kind in ("--regex", "--choice", "--schema", "--grammar"):
        toast(kind, "", "hi").fails(f"{kind} is empty")
    toast("hi", model="/no/such/model").fails("no model")
    for words in (("--jsonl",), ("--field", "t"), ("-0",)):
        toast(*words, "hi").fails(f"{words[0]} needs --each")
    toast("--forget", "hi").fails("--forget needs --session")
    toast("-p", "nonesuch", "hi").fails("-p must be toasted or here, not 'nonesuch'")
    toast("-f", "-", "hi").fails("- names no file here")
    toast("-t", "inf", "hi").fails("--temperature must be a finite number")
    toast("--seed", str(1 << 64), "hi").fails("--seed must be from 0 to")
    toast("-5", "hi").fails("no such option: -5", "after --")
    toast("cat " * 2000).fails("shorten the instruction")
    toast("--long", "truncate", "cat " * 2000).fails("shorten the instruction")


def test_extreme_values():
    greedy = toast("-n", "5", "-t", "0", "hi").ok().out
    assert toast("-n", "5", "-t", "1e-40", "hi").ok().out == greedy
    assert len(json.loads(toast("-n", "1", "--logprobs", "99999999", "hi").ok().out)["logprobs"][0]["top"]) > 500
    for number in ("²", "\u0662", "9" * 5000):
        toast("-n", "1", "hi", env={"TOAST_PREFIX_MB": number}).fails(f"TOAST_PREFIX_MB={number} is not a number")
        toast("-n", "1", "--think", number, "hi").fails("--think must be on, off or a number of tokens")
        toast("-n", "1", "hi", env={"TOAST_THREADS": number}).ok()  # as if it were not there
        toast("-n", number, "hi").fails("whole number") if number != "\u0662" else None
    toast("-n", "1", "-q", "-v", "hi").ok()


def test_arguments_that_are_not_utf8():
    for words in (("--prefill", b"a\xff"), ("--stop", b"a\xff"), ("--regex", b"a\xff?"), ("--choice", b"a\xff,b")):
        toast("-n", "20", *words, "hi").ok()


@pytest.mark.parametrize(
    "name, change, said",
    [
        ("config.json", {"max_position_embeddings": "512"}, "max_position_embeddings is 512 in its config.json"),
        ("config.json", {"eos_token_id": "x"}, "eos_token_id is ['x'], not numbers"),
        ("config.json", {"hidden_size": "64"}, "hidden_size is 64 in its config.json"),
        ("generation_config.json", {"do_sample": True, "temperature": "hot"}, "temperature in generation_config.json"),
        ("generation_config.json", [1], "generation_config.json: not an object"),
        ("tokenizer_config.json", {"chat_template": 7}, "its chat template is no text"),
        ("tokenizer_config.json", {"chat_template": [{"name": "default"}]}, "no 'template'"),
        ("tokenizer_config.json", {"chat_template": "{% if %}"}, "the model's chat template is broken"),
        ("tokenizer_config.json", {"chat_template": "{{ 'x' | nonesuch }}"}, "the model's chat template is broken"),
        ("tokenizer_config.json", {"chat_template": "{{ 1 // 0 }}"}, "the model's chat template fails"),
        ("tokenizer_config.json", [1], "tokenizer_config.json: not an object"),
    ],
)
def test_a_broken_model_folder_is_told_of(tmp_path, name, change, said):
    shutil.copytree(QWEN, tmp_path / "model")
    path = tmp_path / "model" / name
    before = json.loads(path.read_text()) if path.exists() else {}
    (tmp_path / "model" / "chat_template.jinja").unlink(missing_ok=True)
    if name != "config.json":
        (tmp_path / "model" / "generation_config.json").unlink(missing_ok=True)
    else:
        (tmp_path / "model" / "generation_config.json").write_text("{}")
    path.write_text(json.dumps(before | change if isinstance(change, dict) else change))
    ran = toast("-n", "1", "hi", model=str(tmp_path / "model")).fails(said)
    assert b"unexpected" not in ran.err


def test_binary_and_endless_input(tmp_path):
    toast("what is it", stdin=bytes(range(256))).fails("standard input is no text")
    ran = toast("-n", "2", "what is it", stdin=bytes(range(1, 256)))
    assert ran.status == 0 and b"invalid UTF-8" in ran.err, ran
    toast("explain", stdin=b"x" * 10_000_000).fails("at least", "tokens")
    ran = toast("--long", "truncate", "-n", "2", "explain", stdin=b"a cat\n" * 1_000_000, timeout=20)
    assert ran.status == 0 and b" of 6000000 characters from the middle of standard input" in ran.err, ran
    ran = shell(f"yes | toast -m {QWEN} explain")
    assert ran.status == 2 and b"at least" in ran.err and ran.out == b"", ran


def test_a_reader_that_leaves():
    ran = shell(f"toast -m {QWEN} -n 200 hi | head -c1; echo ${{PIPESTATUS[0]}}")
    assert ran.out[1:].endswith(b"0\n") and not ran.err, ran


def test_loops_and_parallel_runs(tmp_path):
    (tmp_path / "list").write_text("a\nb\nc\n")
    line = f'while read f; do toast -m {QWEN} -n 2 --no-input "$f"; done < list'
    ran = shell(line, cwd=tmp_path).ok()
    assert ran.out.count(b"\n") >= 3
    one = toast("-n", "4", "--no-input", "hi").out
    shell(f"seq 8 | xargs -P8 -I_ sh -c 'toast -m {QWEN} -n 4 --no-input hi > out_'", cwd=tmp_path).ok()
    assert [(tmp_path / f"out{i}").read_bytes() for i in range(1, 9)] == [one] * 8


def test_lines_of_parallel_runs_do_not_mix():
    """Fifty answers of three long lines, four at a time, into one pipe: whole lines, in each answer's order."""
    body = "is a number " * 60
    answer = f"first: {{}} {body}.\nsecond: {{}} {body}.\nthird: {{}} {body}"
    line = f"seq 50 | xargs -P4 -I{{}} toast -m {QWEN} -n 1 --no-input --prefill '{answer}' hi | cat"
    found = [line.split(maxsplit=2) for line in shell(line).ok().out.decode().split("\n")]
    lines = [(number, place) for place, number, rest in (words for words in found if len(words) == 3)
             if rest.startswith(body[:-1]) and rest.count("is a number") == 60]  # fmt: skip
    for number in range(1, 51):
        assert [place for n, place in lines if n == str(number)] == ["first:", "second:", "third:"]
    assert len(lines) == 150


def test_interrupted_in_the_middle():
    running = start("toast", "-v", "-m", QWEN, "-n", "100000", "--no-loop-stop", "hi")
    running.stdin.close()
    while b"in the prompt" not in running.stderr.readline():
        pass
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == -signal.SIGINT
    assert b"Traceback" not in running.stderr.read()


# ---------------------------------------------------------------- tokenize


def tokenize(*words, **options):
    return command("tokenize", "-m", LLAMA3, *words, **options)


TEXT = "def f(x):\n    return 'é東京'  # 123\n"


def test_tokenize():
    lines = [json.loads(line) for line in tokenize(stdin=TEXT.encode()).ok().out.splitlines()]
    assert all(TEXT[t["start"] : t["stop"]] == t["text"] for t in lines)
    ids = tokenize("--ids", stdin=TEXT.encode()).ok().out
    assert ids == "".join(f"{t['id']}\n" for t in lines).encode()
    assert tokenize("--decode", stdin=ids).ok().out.decode() == TEXT
    assert tokenize("--count", stdin=TEXT.encode()).ok().out == f"{len(lines)}\n".encode()


def test_tokenize_counts_each_file(tmp_path):
    """As wc: a number alone of one text, a line for each of several and their sum."""
    (tmp_path / "a").write_text("a cat")
    (tmp_path / "b").write_bytes(b"the dog sat \xff")
    one, two = (int(tokenize("--count", "-q", name, cwd=tmp_path).ok().out) for name in ("a", "b"))
    ran = tokenize("--count", "a", "b", "a", cwd=tmp_path)
    assert ran.out == f"{one}\ta\n{two}\tb\n{one}\ta\n{2 * one + two}\ttotal\n".encode() and ran.status == 0
    assert ran.err == b"tokenize: b held 1 sequence of invalid UTF-8, read as U+FFFD\n"
    assert tokenize("--count", "a", "none", cwd=tmp_path).fails("none").out == b""


def test_tokenize_cuts_and_splits():
    ran = tokenize("--max", "5", stdin=TEXT.encode())
    assert (
        ran.status == 0
        and TEXT.startswith(ran.out.decode())
        and ran.err.startswith(b"tokenize: cut to 5 tokens: the first ")
    ), ran
    assert ran.err.endswith(f" of {len(TEXT)} characters fit\n".encode())
    assert tokenize("--max", "5", "--strict", stdin=TEXT.encode()).status == 3
    assert tokenize("--max", "500", "--strict", stdin=TEXT.encode()).ok().out.decode() == TEXT
    pieces = tokenize("--split", "6", "-0", stdin=TEXT.encode()).ok().out.split(b"\0")
    assert b"".join(pieces).decode() == TEXT and len(pieces) > 3
    objects = [json.loads(line) for line in tokenize("--split", "6", stdin=TEXT.encode()).ok().out.splitlines()]
    assert [o["text"].encode() for o in objects] == pieces[:-1] and max(o["tokens"] for o in objects) <= 6


def test_tokenize_reads_no_more_than_it_needs():
    ran = shell(f"yes 'a cat' | tokenize -m {LLAMA3} --max 5")
    assert ran.status == 0 and b"a cat\na cat\n".startswith(ran.out) and ran.out, ran
    assert ran.err == b"tokenize: cut to 5 tokens: the first %d characters fit\n" % len(ran.out)


def test_tokenize_splits_inside_of_a_token():
    """Where no token's end fits, a character's may."""
    pieces = tokenize("--split", "2", "-0", stdin="a é".encode()).ok().out.split(b"\0")
    assert b"".join(pieces).decode() == "a é"


def test_tokenize_keeps_a_byte_order_mark():
    source = "\ufeffa cat".encode()
    assert tokenize("--max", "500", stdin=source).ok().out == source
    lines = [json.loads(line) for line in tokenize(stdin=source).ok().out.splitlines()]
    assert lines[-1]["stop"] == 6


def test_tokenize_by_a_gguf_without_weights(tmp_path):
    words = {"general.architecture": "rwkv6", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
             "tokenizer.ggml.tokens": ["a", "b", "ab"], "tokenizer.ggml.merges": ["a b"]}  # fmt: skip
    (tmp_path / "m.gguf").write_bytes(gguf(words))
    ran = command(
        "tokenize", "-m", "m.gguf", "--ids", stdin=b"abaab", cwd=tmp_path, env={"TOAST_HOME": tmp_path / "home"}
    )
    assert ran.ok().out == b"2\n0\n2\n"
    made = os.listdir(tmp_path / "home" / "gguf")
    assert sorted(os.listdir(tmp_path / "home" / "gguf" / made[0])) == [
        "origin.json", "tokenizer.json", "tokenizer_config.json"]  # fmt: skip


def test_tokenize_wrong_use():
    tokenize("--ids", "-0", stdin=b"x").fails("-0 needs --split")
    tokenize("--max", "5", "--special", stdin=b"x").fails("--special needs --ids")
    tokenize("--decode", stdin=b"not ids").fails("not token ids")
    tokenize("--decode", stdin=b"-1").fails("not token ids")
    tokenize("--decode", stdin=b"5 999999").fails("no token has the id 999999")
    tokenize("--ids", "--count", stdin=b"x").fails("exclude each other")
    tokenize("--max", "0", stdin=b"x").fails("--max")


def test_tokenize_loads_no_weights():
    code = (
        "import sys; sys.argv = ['tokenize', '-m', sys.argv[1], '--count'];"
        "import os; "
        "os._exit = lambda s: (print([m for m in sys.modules if m.startswith(('mlx', 'numpy'))]), sys.exit(s));"
        "from toast.cli import tokenize; tokenize()"
    )
    import sys

    ran = subprocess.run([sys.executable, "-c", code, LLAMA3], input=b"a b", capture_output=True)
    assert ran.stdout.split(b"\n")[1] == b"[]", ran


# ---------------------------------------------------------------- many records

RECORDS = ["cat", "the dog sat on the mat", "é東京", "", "sky " * 30, "a b", "hello"] * 3


def test_each_is_one_by_one():
    words = ("-t", "0", "-n", "9", "say it")
    ran = toast("--each", *words, stdin="\n".join(RECORDS).encode() + b"\n").ok()
    lines = ran.out.decode().split("\n")
    assert len(lines) == len(RECORDS) + 1
    for text in set(RECORDS):
        alone = " ".join(toast(*words, stdin=text.encode()).out.decode().split("\n")).strip() if text.strip() else ""
        assert {lines[i] for i, t in enumerate(RECORDS) if t == text} == {alone}


def test_each_of_other_forms():
    raw = toast("--each", "-n", "4", "-0", stdin=b"one\ntwo\0three\0").ok().out
    assert raw.count(b"\0") == 2 and raw.endswith(b"\0")
    source = b'{"t": "one", "id": 7}\n{"t": "two", "id": 8}\n'
    found = [
        json.loads(line)
        for line in toast("--each", "--field", "t", "--json", "-n", "3", stdin=source).ok().out.splitlines()
    ]
    assert [(o["id"], o["t"], o["index"], o["tokens"] <= 3) for o in found] == [
        (7, "one", 0, True),
        (8, "two", 1, True),
    ]
    assert toast("--each", "-n", "3", stdin=b"").ok().out == b""


def test_each_goes_on_after_a_failure():
    ran = toast("--each", "-n", "3", stdin=b"one\n" + b"cat " * 2000 + b"\n\nthree\n")
    lines = ran.out.split(b"\n")
    assert ran.status == 2 and len(lines) == 5 and lines[0] and not lines[1] and not lines[2] and lines[3], ran
    assert b"record 2: the prompt is" in ran.err and ran.err.count(b"\n") == 1  # nothing is no failure
    ran = toast("--each", "-n", "3", "--json", stdin=b"cat " * 2000 + b"\nok\n")
    objects = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.status == 2 and set(objects[0]) == {"index", "error"} and objects[1]["text"]


@pytest.mark.parametrize("more", [["--json"], ["--logprobs", "2"]])
def test_an_empty_record_has_the_keys_of_any_other(more):
    ran = toast("--each", "-n", "3", *more, stdin=b"cat\n\n  \n").ok()
    said, *empty = map(json.loads, ran.out.splitlines())
    assert [set(found) for found in empty] == [set(said)] * 2
    nothing = {"text": "", "finish_reason": "stop", "prompt_tokens": 0, "tokens": 0, "logprob": 0.0}
    assert all(nothing.items() <= found.items() and found.get("logprobs", []) == [] for found in empty)


def test_each_goes_on_after_a_record_that_is_none():
    good = b'{"text": "one"}\n'
    bad = [b"bad", b'{"t": 1}', b'{"text": 5}', b'{"text": "x", "n": NaN}']
    source = good + b"\n".join(bad) + b"\n" + good
    ran = toast("--each", "--jsonl", "-n", "3", stdin=source)
    lines = ran.out.split(b"\n")
    assert ran.status == 2 and lines[0] and lines[1:5] == [b""] * 4 and lines[5] == lines[0] and len(lines) == 7, ran
    told = ran.err.decode().splitlines()
    assert [line.split(": ")[1] for line in told] == [f"record {n}" for n in range(2, 6)]
    ran = toast("--each", "--jsonl", "--json", "-n", "3", stdin=source)
    objects = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.status == 2 and [o["index"] for o in objects] == list(range(6))
    assert ["error" in o for o in objects] == [False, True, True, True, True, False]


def test_a_record_keeps_its_text_beside_the_answer():
    """The answer is `text`; what had that name is `input`, or has the next name that is free."""
    source = b'{"text": "one", "id": 7}\n{"text": "two", "input": 3}\n{"text": " "}\n{"text": 5}\n'
    ran = toast("--each", "--jsonl", "--json", "-n", "3", stdin=source)
    one, two, empty, bad = map(json.loads, ran.out.splitlines())
    assert one["input"] == "one" and one["id"] == 7 and one["text"] not in ("", "one")
    assert two["input"] == 3 and two["input2"] == "two" and two["text"] not in ("", "two")
    assert empty["input"] == " " and empty["text"] == "" and ran.status == 2 and "error" in bad


def test_a_chain_of_commands_loses_no_answer():
    found = {"text": "one"}
    for names in (["input"], ["input", "input2"], ["input", "input2", "input3"]):
        kept = [found["text"]] if len(names) == 1 else [*(found[name] for name in names[:-1]), found["text"]]
        ran = toast("--each", "--jsonl", "--json", "-n", "3", stdin=json.dumps(found).encode()).ok()
        found = json.loads(ran.out)
        assert [found[name] for name in names] == kept and found["text"]


def test_a_record_that_fails_stays_as_it_was():
    ran = toast("--each", "--jsonl", "--json", "-n", "3", stdin=json.dumps({"text": "cat " * 2000}).encode())
    found = json.loads(ran.out)
    assert found["text"] == "cat " * 2000 and "error" in found and "input" not in found
    ran = toast("--each", "--field", "body", "--json", "-n", "3", stdin=b'{"body": "one", "id": 1}').ok()
    assert json.loads(ran.out).keys() >= {"body", "id", "text"} and b"input" not in ran.out


def test_answers_that_a_limit_ends_are_told_unless_it_was_asked_for():
    """A limit that was typed is a wish, as of head -n; the end of the context is not."""
    long = ("a cat " * 240).encode()  # leaves no room for 100 tokens
    for words in ([], ["--each"]):
        at = [*words, "--no-loop-stop", "-n"]
        assert toast(*at, "2", stdin=b"hi").ok().out
        ran = toast(*at, "2", "--strict", stdin=b"hi")
        assert ran.status == 3 and b"stopped at" in ran.err, ran
        ran = toast(*at, "4000", stdin=long)
        assert ran.status == 0 and b"stopped at" in ran.err, ran


def test_each_answers_as_records_come():
    """Also while it waits in the middle of a line, or has begun an answer that takes long."""
    running = start("toast", "-m", QWEN, "--each", "--json", "-n", "4", "say it")
    for i, record in enumerate([b"one\n", b"two\nthr", b"ee\n"]):
        running.stdin.write(record)
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["index"] == i
    assert running.communicate(timeout=20) == (b"", b"")


def test_each_without_a_code_block():
    ran = toast("--each", "-x", "-n", "2", stdin=b"one\ntwo\n")
    assert ran.status == 2 and ran.out == b"\n\n" and b"record 2: no code block" in ran.err, ran


def test_each_line_is_one_line():
    """For every reader: whatever str.splitlines takes as the end of a line becomes a space."""
    answered = "a\rb\vc\fd\u2028e\u2029f\x85g\r\nh\n\ni"
    ran = toast("--each", "-n", "1", "--prefill", answered, stdin=b"one\n").ok()
    assert ran.out.decode().startswith("a b c d e f g h  i") and len(ran.out.decode().splitlines()) == 1


def test_each_names_the_record():
    long = b"cat " * 2000
    ran = toast("--each", "--long", "truncate", "-n", "2", stdin=b"one\n" + long + b"\n")
    assert ran.status == 0 and ran.err.endswith(b" tokens from the middle of record 2\n"), ran


# ---------------------------------------------------------------- what later processes find


def test_a_session_goes_on(tmp_path):
    home = {"TOAST_HOME": str(tmp_path)}
    words = ("-t", "0", "-n", "6", "--session", "trip")
    first = toast(*words, "-s", "Be red.", "hello", env=home).ok().out.decode()
    toast(*words, "and then?", env=home).ok()
    path = tmp_path / "sessions" / "trip.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [m["role"] for m in lines] == ["system", "user", "assistant", "user", "assistant"]
    assert lines[1]["content"] == "hello" and lines[2]["content"] + "\n" == first
    path.write_text("".join(path.read_text().splitlines(True)[:3]))
    again = toast(*words, "and then?", env=home).ok().out.decode()
    assert again == lines[4]["content"] + "\n"
    path.write_text(path.read_text() + "not json\n")
    toast(*words, "x", env=home).fails("trip.jsonl, line 6: every line must be", "--forget")
    toast("--session", "trip", "--forget", env=home).ok()
    assert not path.exists()
    toast("--session", "trip", "--forget", env=home).ok()
    toast("--session", "../x", "hi", env=home).fails("not a plain name")


def test_a_session_that_was_edited(tmp_path):
    """Without a last line break: the next message begins on a line of its own."""
    home, path = {"TOAST_HOME": str(tmp_path)}, tmp_path / "sessions" / "trip.jsonl"
    path.parent.mkdir()
    path.write_text('{"role": "user", "content": "hi"}\n{"role": "assistant", "content": "yes"}')
    for count in (4, 6):
        toast("-n", "2", "--session", "trip", "and then?", env=home).ok()
        assert len([json.loads(line) for line in path.read_text().splitlines()]) == count


def test_a_session_keeps_what_was_read(tmp_path):
    """What --long truncate has cut is not in the way of the next question."""
    home, path = {"TOAST_HOME": str(tmp_path)}, tmp_path / "sessions" / "trip.jsonl"
    words = ("-n", "2", "--session", "trip")
    (tmp_path / "f").write_text("dog " * 3000)
    ran = toast(*words, "--long", "truncate", "why", "f", stdin=b"cat " * 2000, env=home, cwd=tmp_path)
    assert ran.status == 0 and ran.err.count(b"from the middle of") == 2, ran
    asked = json.loads(path.read_text().splitlines()[0])["content"]
    assert asked.startswith("cat ") and "==> f <==" in asked and asked.endswith("why") and len(asked) < 8000
    toast(*words, "and then?", env=home).ok()


def test_a_session_has_one_system_prompt(tmp_path):
    home, path = {"TOAST_HOME": str(tmp_path)}, tmp_path / "sessions" / "trip.jsonl"
    words = ("-n", "2", "--session", "trip")
    for _ in range(2):
        toast(*words, "-s", "Be red.", "hi", env=home).ok()
    toast(*words, "-s", "Be blue.", "hi", env=home).fails("another system prompt", "toast --session trip --forget")
    toast(*words, "-s", "Be blue.", "--forget", "hi", env=home).ok()
    assert [json.loads(line)["content"] for line in path.read_text().splitlines()][:2] == ["Be blue.", "hi"]
    toast(*words, "cat " * 2000, env=home).fails("the prompt is", "--forget begins anew")


@pytest.mark.parametrize("reader", ["stays", "leaves"])
def test_the_prompt_is_kept_after_the_answer(tmp_path, monkeypatch, reader):
    """Nothing waits for the disk; and a reader that leaves does not cost what was read of the prompt."""
    kept, (reading, writing) = [], os.pipe()
    monkeypatch.setattr(answer, "WORTH_KEEPING", -1)
    monkeypatch.setattr(PrefixCache, "keep", lambda *_, **__: kept.append(reader == "leaves" or os.read(reading, 1000)))
    request = Request(Engine(call := caller(tmp_path, writing), QWEN), instruction="hi", limit=3)
    if reader == "leaves":
        os.close(reading)
        with pytest.raises(BrokenPipeError):
            answer.toast(call, request)
    else:
        answer.toast(call, request)
    assert len(kept) == 1 and (kept == [True] or kept[0].endswith(b"\n"))


def caller(home, stdout):
    call = Call("toast", {"TOAST_HOME": str(home)}, os.open(".", os.O_RDONLY), stdout=stdout).but(no_input=True)
    return call


def test_a_session_keeps_what_was_said(tmp_path):
    """Also what is not a code block, or came after the reader had left."""
    home, path = {"TOAST_HOME": str(tmp_path)}, tmp_path / "sessions" / "trip.jsonl"

    def last():
        asked, said = [json.loads(line)["content"] for line in path.read_text().splitlines()[-2:]]
        return asked, said

    words = ("-n", "2", "-x", "--session", "trip", "--prefill")
    assert toast(*words, "Sure\n```\nx\n```\n", "code", env=home).ok().out == b"x\n"
    assert last()[0] == "code" and last()[1].startswith("Sure\n```\nx\n```\n")
    assert toast(*words, "Never", "code?", env=home).status == 1
    assert last()[0] == "code?" and last()[1].startswith("Never")
    for form in ("", "--json"):
        line = f"toast -m {QWEN} {form} -n 100 --session trip 'hi{form}' | true; echo ${{PIPESTATUS[0]}}"
        assert shell(line, env=home).ok().out == b"0\n"
        assert last()[0] == f"hi{form}" and last()[1]
    before = path.read_text()
    shell(f"toast -m {QWEN} -n 2 --session trip hi > /dev/full", env=home).fails("No space left")
    assert path.read_text() == before


def test_prefix_cache_is_bounded_by_the_environment(tmp_path):
    home = {"TOAST_HOME": str(tmp_path), "TOAST_PREFIX_MB": "many"}
    toast("-n", "1", "hi", env=home).fails("TOAST_PREFIX_MB=many")
    toast("-n", "1", "hi", env=home | {"TOAST_PREFIX_MB": "0"}).ok()
    toast("-n", "1", "--no-cache", "hi", env=home).ok()
