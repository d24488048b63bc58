"""`search`: where texts come from, what is found, how it is written, and hostile files."""

import json
import math
import os
import pty
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest
from command import command, shell, start

from embed import checksum, schema
from toast.command import Call
from toast.errors import BadInput

TEXT = {
    "cat.md": "# Cat\n\nthe cat sat on the mat\n\n# Dog\n\nthe dog ran to the red bird\n",
    "sky.txt": "the sky is blue\nred\n\na slow filter\n",
    "deep/pipe.txt": "a fast pipe and a model\n",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, model):
    """A folder of texts with its index, x.db."""
    folder = tmp_path_factory.mktemp("search")
    for name, text in TEXT.items():
        path = folder / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command("index", "-m", model, "docs", "-o", "x.db", "--chunk", "paragraphs", cwd=folder).ok()
    return folder


def search(folder, *args, **options):
    return command("search", *args, cwd=folder, **options)


def lines(result):
    return result.ok().out.decode().splitlines()


def hits(result):
    return [json.loads(line) for line in result.ok().out.splitlines()]


def best(folder, *args, **options):
    return hits(search(folder, "--json", *args, **options))[0]


# ---------------------------------------------------------------- where texts come from


def test_every_way_to_name_an_index_finds_the_same(made):
    words = ["--mode", "lexical", "the dog ran"]
    found = lines(search(made, *words, "-i", "x.db"))
    assert found[0] == "docs/cat.md:7:the dog ran to the red bird"
    assert lines(search(made, *words, "x.db")) == found
    assert lines(shell("search --mode lexical 'the dog ran' < x.db", cwd=made)) == found
    assert lines(shell("cat x.db | search --mode lexical 'the dog ran'", cwd=made)) == found
    assert lines(shell("exec 3< x.db; search --mode lexical 'the dog ran' <&3", cwd=made)) == found


def test_the_nearest_index_upwards(made):
    shutil.copy(made / "x.db", made / ".index.db")
    try:
        found = search(made / "docs/deep", "--mode", "lexical", "ran", stdin=subprocess.DEVNULL)
        assert lines(found) == ["../cat.md:7:the dog ran to the red bird"]  # from here
        found = search(made, "--no-input", "--mode", "lexical", "ran", stdin=b"the cat")
        assert lines(found) == ["docs/cat.md:7:the dog ran to the red bird"]
    finally:
        os.unlink(made / ".index.db")
    search(made, "dog", stdin=subprocess.DEVNULL).fails(".index.db")


def test_an_index_that_lost_its_name(made, tmp_path):
    shutil.copy(made / "x.db", tmp_path / "gone.db")
    for change in ("rm gone.db", "cp gone.db new.db; mv new.db gone.db"):
        shutil.copy(made / "x.db", tmp_path / "gone.db")
        found = shell(f"exec 3< gone.db; {change}; search --mode lexical ran <&3", cwd=tmp_path)
        assert lines(found) == ["docs/cat.md:7:the dog ran to the red bird"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_a_signal_leaves_no_spool(made, tmp_path, number):
    run = start("search", "ran", cwd=made, env={"TMPDIR": str(tmp_path)})
    run.stdin.write((made / "x.db").read_bytes()[:60_000])
    run.stdin.flush()
    time.sleep(0.5)
    run.send_signal(number)
    assert run.wait(20) == -number and os.listdir(tmp_path) == []


def test_text_without_an_index(made, model, tmp_path):
    env = {"EMBED_MODEL": model, "TMPDIR": str(tmp_path)}
    for mode in ("lexical", "hybrid"):
        found = search(made, "--mode", mode, "-k", "1", "slow filter", stdin=b"the cat\na slow filter\n", env=env)
        assert lines(found) == ["-:2:a slow filter"]
    found = search(made, "--mode", "lexical", "slow filter", "docs/sky.txt", "docs/cat.md", env=env)
    assert lines(found) == ["docs/sky.txt:4:a slow filter"]
    with open(made / "docs/sky.txt") as file:
        assert lines(search(made, "--mode", "lexical", "slow filter", stdin=file, env=env)) == ["-:4:a slow filter"]
    assert os.listdir(tmp_path) == []


def test_pipes_that_are_named(made, model):
    env = {"EMBED_MODEL": model}
    words = ["search --mode lexical ran <(cat x.db)", "search --mode lexical -i <(sleep 0.3; cat x.db) ran"]
    for line in words:
        assert lines(shell(line, cwd=made, env=env)) == ["docs/cat.md:7:the dog ran to the red bird"]
    os.mkfifo(made / "pipe")
    line = "(sleep 0.2; echo a cat; sleep 0.2; echo a dog) > pipe & search --mode lexical dog ./pipe"
    assert lines(shell(line, cwd=made, env=env)) == ["pipe:2:a dog"]
    os.unlink(made / "pipe")
    line = 'search --jsonl --mode lexical dog <(echo \'{"text": "a dog"}\')'
    assert lines(shell(line, cwd=made, env=env))[0].endswith(":1:a dog")


def test_indexes_and_texts_together(made, model):
    env = {"EMBED_MODEL": model}
    found = lines(search(made, "--mode", "lexical", "ran", "x.db", "docs/cat.md", env=env))
    assert sorted(found) == ["docs/cat.md:7:the dog ran to the red bird"] * 2


def test_records_come_once_with_their_fields(tmp_path, model):
    records = [{"id": i, "text": f"the cat {i} sat on a mat. " * 6, "kind": "ab"[i % 2], "ok": i > 2} for i in range(6)]
    data = "".join(json.dumps(r) + "\n" for r in records).encode()
    command("index", "-m", model, "--jsonl", "--id", "id", "-o", "x.db", stdin=data, cwd=tmp_path).ok()
    for mode in ("hybrid", "vector", "lexical"):
        found = hits(search(tmp_path, "the cat", "--json", "-k", "50", "--mode", mode, "-i", "x.db"))
        assert sorted(hit["id"] for hit in found) == list(range(6))
        assert all(hit["kind"] == "ab"[hit["id"] % 2] and hit["path"] == "-" for hit in found)
        assert [hit["start_line"] == hit["end_line"] == hit["id"] + 1 for hit in found]
        scores = [hit["score"] for hit in found]
        assert scores == sorted(scores, reverse=True)
        found = hits(
            search(tmp_path, "cat", "--json", "--where", "kind=b", "--where", "ok=true", "--mode", mode, "-i", "x.db")
        )
        assert sorted(hit["id"] for hit in found) == [3, 5]
    assert lines(search(tmp_path, "5", "--mode", "lexical", "-i", "x.db"))[0].startswith("5:6:the cat 5")


# ---------------------------------------------------------------- what is found


def test_a_text_finds_itself(made, model):
    """The query's prompt is "red ": the passage that says it has the same vector, and score 1."""
    found = hits(
        search(made, "--json", "--mode", "vector", "the sky", stdin=b"blue\nred the sky\n", env={"EMBED_MODEL": model})
    )
    assert found[0]["text"] == "red the sky" and found[0]["score"] == pytest.approx(1, abs=0.01)


def test_exact_vectors_give_exact_cosines(made, model):
    command("index", "-m", model, "--exact", "docs", "-o", "exact.db", cwd=made).ok()
    found = hits(search(made, "the dog", "--mode", "vector", "--json", "-i", "exact.db"))
    texts = "".join(json.dumps(hit) + "\n" for hit in found).encode()
    rows = hits(command("embed", "-m", model, "--jsonl", "--json", stdin=texts))
    [query] = hits(command("embed", "-m", model, "--as", "query", "--json", stdin=b"the dog"))
    for hit, row in zip(found, rows):
        cosine = sum(a * b for a, b in zip(row["embedding"], query["embedding"]))
        assert hit["score"] == pytest.approx(cosine, abs=1e-6)


def test_version_1_stays_readable():
    """A file that is kept: made by the first version, it must open for ever."""
    kept = os.path.join(os.path.dirname(__file__), "fixtures")
    found = hits(search(kept, "--mode", "lexical", "dog", "--json", "-i", "index-v1.db"))
    assert [(hit["path"], hit["start_line"]) for hit in found] == [("docs/cat.md", 5), ("docs/cat.md", 7)]


def test_filters_apply_before_the_best_are_taken(made):
    for mode in ("hybrid", "vector", "lexical"):
        found = hits(
            search(made, "the red dog", "-k", "1", "--json", "--path", "sky.txt", "--mode", mode, "-i", "x.db")
        )
        assert [hit["path"] for hit in found] == ["docs/sky.txt"]
    assert hits(search(made, "a", "--json", "--path", "docs/deep/*", "-i", "x.db"))[0]["path"] == "docs/deep/pipe.txt"
    assert search(made, "dog", "--path", "*.c", "-i", "x.db").status == 1


def test_verbose_tells_what_is_searched_and_what_a_hit_must_have(made, model):
    def told(*words):
        found = search(made, "-v", *words, "x.db")
        quiet = search(made, *words, "x.db")
        assert (found.status, found.out, quiet.err) == (quiet.status, quiet.out, b"")
        return found.err.decode().splitlines()

    of = "search: 7 chunks of 3 documents in x.db"
    what, how = told("the red dog")
    assert what == f"{of}; hybrid by {model}"
    assert re.fullmatch(r"search: [1-9]\d* hits?; the best hit has \d\.\d\d, the floor is \d\.\d\d", how)
    assert told("the cat")[1].endswith(" hits; the words decide, not the floor")
    (made / "asked").write_text("the cat\nthe red dog\n")
    _, one, two = told("--queries", "asked", "-i")
    assert one.startswith('search: "the cat": ') and re.match(r'search: "the red dog": .* the floor is ', two)
    what, how = told("--mode", "lexical", "the cat")
    assert what == f"{of}; lexical" and how.endswith("hits; no floor")
    assert told("--mode", "vector", "--threshold", "1", "cat")[1] == "search: 0 hits; the threshold is 1"
    assert told("--path", "sky.txt", "--mode", "lexical", "zebra") == [
        f"{of}, 2 of them after --path and --where; lexical", "search: 0 hits; no floor",
    ]  # fmt: skip


def test_statuses(made, model):
    assert search(made, "--mode", "lexical", "dog", "-i", "x.db").status == 0
    found = search(made, "--mode", "lexical", "nothinglikeit", "-i", "x.db")
    assert (found.status, found.out, found.err) == (1, b"", b"")
    assert search(made, "--threshold", "1", "dog", "-i", "x.db").status == 1
    search(made, "dog", "-i", "none.db").fails("none.db")
    search(made, "dog", "-i", "docs/cat.md").fails("not an index")
    (made / "empty.db").write_bytes(b"")
    search(made, "dog", "-i", "empty.db").fails("not an index")
    search(made, "dog", "empty.db").fails("empty.db: not an index")
    (made / "empty.txt").write_bytes(b"")
    for line, told in (("dog < empty.db", b"search: standard input is an empty file, and no index\n"),
                       ("-q dog < empty.db", b""), ("dog empty.txt", b""), ("dog - < /dev/null", None)):  # fmt: skip
        found = shell(f"search -m {model} {line}", cwd=made)
        assert told is None or (found.status, found.out, found.err) == (1, b"", told), found
    search(made, "dog", "none.txt").fails("none.txt")
    search(made, "", "-i", "x.db").fails("nothing to look for")
    search(made, "dog", "--where", "x", "-i", "x.db").fails("FIELD=VALUE")


@pytest.mark.parametrize(
    "query", ["...", '" OR NEAR *', "dog AND (", "^dog : -", "'", "\u72d7", "\0", "a\nb", "\udcff", "dog*"]
)
def test_any_query_is_text(made, query):
    if "\0" in query:
        query = query.replace("\0", "\x01")
    for mode in ("hybrid", "lexical"):
        assert search(made, "--mode", mode, "--", query, "-i", "x.db").status in (0, 1, 2)
        found = search(made, "--mode", mode, "-i", "x.db", "--", query)
        strange = mode == "hybrid" and query == "\u72d7"  # a script that the model has no words of
        assert found.status in (0, 1) and bool(found.err) == strange, found


def test_a_query_without_words_is_left_to_the_vectors(made):
    found = search(made, "--mode", "lexical", "???", "-i", "x.db")
    assert (found.status, found.out, found.err) == (1, b"", b"")
    near = hits(search(made, "--mode", "vector", "--json", "???", "-i", "x.db"))
    both = hits(search(made, "--json", "--threshold", "0", "???", "-i", "x.db"))
    assert [hit["text"] for hit in both] == [hit["text"] for hit in near] and len(near) > 3


@pytest.mark.parametrize("query", ["\u3002", "\U0001f980", "\u72d7"])
def test_a_query_that_nothing_can_read_finds_nothing(made, query):
    """Neither the index's words nor the model's: every chunk would be as good as any other."""
    found = search(made, query, "-i", "x.db")
    assert (found.status, found.out) == (1, b"")


def test_a_query_of_a_megabyte(made):
    (made / "long.txt").write_text("the dog ran. " * 80_000)
    found = search(made, "-k", "1", "--queries", "long.txt", "-i", "x.db")
    assert found.out == b"0:docs/cat.md:7:the dog ran to the red bird\n" and b"cut" in found.err


def test_scripts_without_spaces(tmp_path, model):
    texts = (
        "\u732b\u5750\u5728\u57ab\u5b50\u4e0a\n\u5929\u7a7a\u662f\u84dd\u8272\u7684\n"
        "\u0e41\u0e21\u0e27\u0e19\u0e31\u0e48\u0e07\n"
    )
    command("index", "-q", "-m", model, "-o", "x.db", stdin=texts.encode(), cwd=tmp_path).ok()
    for query, line in (("\u5929\u7a7a", 2), ("\u84dd\u8272", 2), ("\u57ab\u5b50", 1), ("\u0e41\u0e21\u0e27", 3)):
        for mode in ("lexical", "hybrid"):
            found = search(tmp_path, "--json", "--mode", mode, query, "-i", "x.db")  # it is told that the model cannot
            assert json.loads(found.out.splitlines()[0])["start_line"] == line


def test_a_query_that_is_a_file_is_quoted(tmp_path):
    (tmp_path / "my notes.txt").write_text("a cat\n")
    search(tmp_path, "my notes.txt", stdin=subprocess.DEVNULL).fails('(search "..." "my notes.txt")')


def test_many_queries(made):
    (made / "queries").write_text('the dog\n{"text": "slow filter"}\nnothinglikeit\n')
    found = hits(search(made, "--queries", "queries", "--json", "--mode", "lexical", "-k", "1", "-i", "x.db"))
    assert [(hit["query"], hit["path"]) for hit in found] == [(0, "docs/cat.md"), (1, "docs/sky.txt")]
    together = hits(search(made, "--queries", "queries", "--json", "-i", "x.db"))
    for number, query in enumerate(("the dog", "slow filter", "nothinglikeit")):
        alone = hits(search(made, query, "--json", "-i", "x.db"))
        assert [hit for hit in together if hit["query"] == number] == [{**hit, "query": number} for hit in alone]


def test_rerank_adds_its_logit_to_the_fused_score(made, model):
    fused = {hit["text"]: hit["score"] for hit in hits(search(made, "the dog", "--json", "-i", "x.db"))}
    records = "".join(json.dumps({"text": text}) + "\n" for text in fused).encode()
    logits = hits(command("rerank", "-m", model, "--jsonl", "--json", "--raw-scores", "the dog", stdin=records))
    sums = {hit["text"]: hit["score"] + 10 * (fused[hit["text"]] - 0.5) for hit in logits}
    found = hits(search(made, "the dog", "--rerank", "--rerank-model", model, "--json", "-i", "x.db"))
    assert [hit["text"] for hit in found] == sorted(sums, key=lambda text: -sums[text])
    assert [hit["score"] for hit in found] == pytest.approx([1 / (1 + math.exp(-sums[hit["text"]])) for hit in found])


def test_rerank_outside_hybrid_is_the_reranker_alone(made, model):
    for mode in ("lexical", "vector"):
        found = hits(
            search(made, "the dog", "--mode", mode, "--rerank", "--rerank-model", model, "--json", "-i", "x.db")
        )
        records = "".join(json.dumps(hit) + "\n" for hit in found).encode()
        alone = hits(command("rerank", "-m", model, "--jsonl", "--json", "the dog", stdin=records))
        assert [(hit["text"], hit["score"]) for hit in found] == [
            (hit["text"], pytest.approx(hit["score"])) for hit in alone
        ]


def test_rerank_by_late_interaction_scores_from_0_to_1(made):
    late = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "tiny-colbert-pylate")
    scores = [
        hit["score"]
        for hit in hits(search(made, "the dog", "--rerank", "--rerank-model", late, "--json", "-i", "x.db"))
    ]
    assert all(0 <= score <= 1 for score in scores) and len(set(scores)) == len(scores)


def test_an_exact_match_comes_first_whatever_lies_beside_it(made, model, tmp_path):
    (tmp_path / "small.txt").write_text("red zebra quagga\n")
    words = ["zebra quagga", "-k", "1", "--json", "-i", "x.db", str(tmp_path / "small.txt")]
    assert best(made, *words)["path"] == str(tmp_path / "small.txt")
    [hit] = hits(
        search(made, "red the cat", "--threshold", "0.3", "--json", stdin=b"red the cat\n", env={"EMBED_MODEL": model})
    )
    assert hit["text"] == "red the cat"


def test_texts_beside_an_index_take_its_model(made, model):
    found = hits(search(made, "slow filter", "--json", "x.db", "docs/sky.txt", env={"EMBED_MODEL": "none/such"}))
    assert {hit["path"] for hit in found} >= {"docs/sky.txt", "docs/cat.md"}


def test_queries_that_are_not_there(made):
    result = search(made, "--queries", "/dev/null", "-i", "x.db")
    assert (result.status, result.out, result.err) == (1, b"", b"")
    found = hits(search(made, "--queries", "-", "--json", "-k", "1", "-i", "x.db", stdin=b"the dog\n\n \nsky\n"))
    assert [hit["query"] for hit in found] == [0, 3]
    search(made, "--queries", "-", stdin=b"the dog\n").fails(".index.db")
    search(made, "--queries", "", "-i", "x.db").fails("cannot open")


def test_standard_input_by_name(made):
    for words in (["dog", "-"], ["-i", "-", "dog"]):
        with open(made / "x.db") as file:
            assert "docs/cat.md:7:the dog ran to the red bird" in lines(
                search(made, "--mode", "lexical", *words, stdin=file)
            )
    search(made, "dog", "-", "x.db").fails("- goes alone")
    search(made, "--no-input", "dog", "-").fails("standard input")
    search(made, "--queries", "-", "-").fails("--queries - and - both want standard input")


def test_a_threshold_that_no_score_reaches_is_refused(made, model):
    for words, scores in (
        ([], "scores are from 0 to 1"), (["--mode", "vector"], "cosines are from -1 to 1"),
        (["--mode", "lexical", "--rerank"], "scores are from 0 to 1"),
    ):  # fmt: skip
        search(made, "cat", *words, "--threshold", "30", "x.db").fails("--threshold 30 is over every score", scores)
    assert search(made, "cat", "--mode", "lexical", "--threshold", "30", "x.db").status == 1


def test_copies_elsewhere_are_counted(model, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the cat sat\n")
    ran = command("search", "-v", "-m", model, "the cat", "a.txt", "b.txt", cwd=tmp_path)
    assert ran.out == b"a.txt:1:the cat sat\n" and b"1 hit, 1 copy elsewhere (-l, --json tell where); " in ran.err
    ran = command("search", "-v", "-l", "-m", model, "the cat", "a.txt", "b.txt", cwd=tmp_path)
    assert ran.out == b"a.txt\nb.txt\n" and b"elsewhere" not in ran.err


def test_forms_that_exclude_each_other(made):
    for flag in (["-l"], ["-c"], ["-A", "1"], ["-A", "0"], ["-C", "1"]):
        search(made, "dog", "--json", *flag, "-i", "x.db").fails("--json", flag[0])
    search(made, "dog", "--threshold", "nan", "-i", "x.db").fails("--threshold")


def test_a_field_with_a_quote(tmp_path, model):
    records = b'{"text": "cat", "a\\"b": "q"}\n{"text": "dog", "a\\"b": 1}\n'
    command("index", "--jsonl", "-m", model, "-o", "x.db", stdin=records, cwd=tmp_path).ok()
    for value, text in (("q", "cat"), ("1", "dog")):
        assert best(tmp_path, "--where", f'a"b={value}', text, "-i", "x.db")["text"] == text


# ---------------------------------------------------------------- how it is written


def test_forms(made):
    def lexical(*args):
        return search(made, "--mode", "lexical", "-i", "x.db", "red bird", *args)

    assert lines(lexical()) == ["docs/cat.md:7:the dog ran to the red bird", "docs/sky.txt:2:red"]
    assert lines(lexical("-l")) == ["docs/cat.md", "docs/sky.txt"]
    assert lines(lexical("-c")) == ["docs/cat.md:1", "docs/sky.txt:1"]
    assert lexical("-l", "-0").out == b"docs/cat.md\0docs/sky.txt\0"
    score, line = lines(lexical("--scores", "-k", "1"))[0].split("\t")
    assert float(score) > 0 and line.startswith("docs/cat.md:7:")
    assert "lexical" in lines(lexical("--explain"))[0]
    assert lines(lexical("-k", "1", "-B", "2", "-A", "1")) == [
        "docs/cat.md-5-# Dog",
        "docs/cat.md-6-",
        "docs/cat.md:7:the dog ran to the red bird",
    ]
    hit = hits(lexical("--json", "-k", "1"))[0]
    assert {key: hit[key] for key in ("path", "start_line", "end_line", "text")} == {
        "path": "docs/cat.md", "start_line": 7, "end_line": 7, "text": "the dog ran to the red bird",
    }  # fmt: skip


def test_context_has_the_blank_lines_between_chunks(made):
    found = lines(search(made, "--mode", "lexical", "dog ran", "-k", "1", "-B", "9" * 20, "-i", "x.db"))
    assert found == ["docs/cat.md-1-# Cat", "docs/cat.md-2-", "docs/cat.md-3-the cat sat on the mat", "docs/cat.md-4-",
                     "docs/cat.md-5-# Dog", "docs/cat.md-6-", "docs/cat.md:7:the dog ran to the red bird"]  # fmt: skip


def test_a_terminal_is_not_steered(tmp_path):
    (tmp_path / "a\x1b[2J").write_text("dog \x1b[31m red\n")
    for env in ({"NO_COLOR": "1"}, {"TERM": "xterm", "NO_COLOR": None}):
        ours, theirs = pty.openpty()
        run = start("search", "--mode", "lexical", "dog", "a\x1b[2J", stdout=theirs, cwd=tmp_path, env=env)
        run.wait()
        seen = os.read(ours, 4096)
        os.close(ours), os.close(theirs)
        assert b"[2J" in seen and b"\x1b[2J" not in seen and b"\x1b[31m" not in seen
        assert (b"\x1b" in seen) == ("TERM" in env)


def test_context_of_a_record_is_the_records_beside_it(tmp_path, model):
    text = b"the cat\n\nthe dog ran\nthe sky\nred\n"
    expected = ["--2-", "-:3:the dog ran", "--4-the sky"]
    words = ["--mode", "lexical", "dog", "-C", "1"]
    assert lines(search(tmp_path, *words, stdin=text)) == expected
    command("index", "-m", model, "-o", "x.db", stdin=text, cwd=tmp_path).ok()
    command("index", "-m", model, "-u", "x.db", stdin=b"a mat\na bird\nfast\nslow\n", cwd=tmp_path).ok()
    assert lines(search(tmp_path, *words, "-i", "x.db")) == expected
    assert lines(search(tmp_path, "--mode", "lexical", "bird", "-A", "9" * 18, "-i", "x.db"))[:2] == [
        "-:2:a bird",
        "--3-fast",
    ]
    records = b'{"id": "a", "text": "the cat"}\n{"id": "b", "text": "the dog ran"}\n'
    command("index", "--jsonl", "--id", "id", "-m", model, "-o", "x.db", stdin=records, cwd=tmp_path).ok()
    assert lines(search(tmp_path, *words, "-i", "x.db")) == ["a-1-the cat", "b:2:the dog ran"]


def test_a_reader_that_leaves(made):
    run = start("search", "the", "-i", str(made / "x.db"))
    run.stdout.close()
    assert run.wait() == 0 and run.stderr.read() == b""


def test_a_search_starts_light(made):
    ran = command("search", "the dog", "-i", "x.db", cwd=made, env={"PYTHONPROFILEIMPORTTIME": 1}).ok(quiet=False)
    loaded = {line.rsplit(b"|")[-1].strip() for line in ran.err.splitlines()}
    heavy = {
        b"numpy",
        b"typer",
        b"tqdm",
        b"mlx.nn",
        b"inspect",
        b"tempfile",
        b"subprocess",
        b"sqlite3",
        b"datetime",
        b"tokenizers",
    }
    assert b"mlx.core" in loaded and not heavy & loaded


# ---------------------------------------------------------------- damaged files


@pytest.fixture
def whole(made, tmp_path):
    """A copy of the index to damage, its bytes, and how many of them are the database."""
    path = shutil.copy(made / "x.db", tmp_path / "x.db")
    data = (tmp_path / "x.db").read_bytes()
    return path, data, int.from_bytes(data[16:18], "big") * int.from_bytes(data[28:32], "big")


def refusal(path):
    """What opening an index says, in process; None when it opens."""
    call = Call("search", {}, os.open(".", os.O_RDONLY))
    fd = os.open(path, os.O_RDONLY)
    try:
        schema.open_fd(call, fd, "x.db").close()
        return None
    except BadInput as error:
        return str(error)
    finally:
        os.close(fd)
        os.close(call.cwd)


@pytest.mark.parametrize("small", [0, checksum.SMALL])
def test_any_flipped_byte_is_found(whole, monkeypatch, small):
    path, data, size = whole
    monkeypatch.setattr(checksum, "SMALL", small)
    assert len(data) == size + 9 + 4 * -(-size // checksum.BLOCK_SIZE) + 4 and refusal(path) is None
    ends = [(at, 1 << bit) for at in (*range(100), *range(size, len(data))) for bit in range(8)]
    with open(path, "r+b", buffering=0) as file:
        for at, flip in [*ends, *((at, 1 + at % 255) for at in range(100, size, 97))]:
            os.pwrite(file.fileno(), bytes([data[at] ^ flip]), at)
            assert refusal(path), at
            os.pwrite(file.fileno(), data[at : at + 1], at)
    assert refusal(path) is None


def test_any_cut_and_any_more_is_found(whole):
    path, data, size = whole
    trailer = data[size:]
    cuts = {1, 16, 99, 100, 4096, size // 2, size - 16384, size - 1, size + 1, size + 9, len(data) - 4, len(data) - 1}
    for bad in [
        *(data[:at] for at in cuts),
        data + b"\0",
        data + trailer,
        data[:size] + bytes(len(trailer)),
        data[:size] + bytes(16384),
    ]:
        with open(path, "wb") as file:
            file.write(bad)
        assert refusal(path), len(bad)
    with open(path, "wb") as file:
        file.write(data[:size])  # as older ones are
    assert refusal(path) is None


def test_the_block_is_named(whole):
    path, data, size = whole
    with open(path, "r+b") as file:
        file.seek(5000)
        file.write(bytes([data[5000] ^ 4]))
    assert refusal(path) == "x.db is damaged: block 1 of 1 has changed (build it again: index FILES -o x.db)"


def test_damage_is_one_line_however_the_index_is_named(whole, tmp_path):
    path, data, size = whole
    words = "search --mode lexical dog"
    for at in (3, 16, 31, 63, 70, 5000, size - 1, size + 2, len(data) - 1):
        with open(path, "wb") as file:
            file.write(data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :])
        for line in (f"{words} -i x.db", f"{words} x.db", f"{words} < x.db", f"cat x.db | {words}"):
            assert shell(line, cwd=tmp_path).fails().out == b"", (line, at)


def test_what_another_program_changed_is_refused_until_it_is_cut_off(whole, tmp_path):
    path, data, size = whole
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    assert open(path, "rb").read() == data
    db = sqlite3.connect(path)
    db.execute("INSERT INTO meta VALUES ('mine', 7)")
    db.commit()
    db.close()
    search(tmp_path, "dog", "-i", "x.db").fails("x.db is damaged", "has changed")
    os.truncate(path, size)
    assert search(tmp_path, "dog", "--mode", "lexical", "-i", "x.db").ok().out


# ---------------------------------------------------------------- hostile files


def outcomes(result):
    """What somebody has made of an index gives an answer or one line: nothing else."""
    assert result.status in (0, 1, 2), result
    assert b"Traceback" not in result.err and b"unexpected" not in result.err, result
    if result.status == 2:
        result.fails()
    return result.status


def test_no_damage_crashes(whole, tmp_path):
    """Without its checksums, so that the damage is not found at once."""
    _, sealed, size = whole
    rng, seen = random.Random(5), set()
    for trial in range(60):
        data = bytearray(sealed[:size])
        if trial % 3 == 0:
            del data[rng.randrange(1, len(data)) :]
        else:
            for _ in range(1 if trial % 3 == 1 else 400):
                data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "bad.db").write_bytes(data)
        seen.add(outcomes(search(tmp_path, "the dog", "--json", "-i", "bad.db")))
    assert 2 in seen


@pytest.mark.parametrize(
    "change",
    [
        "CREATE VIEW v AS SELECT 1", "CREATE TRIGGER t AFTER INSERT ON chunks BEGIN SELECT 1; END",
        "DROP TABLE segments", "DROP TABLE words", "UPDATE segments SET codes = x'00'",
        "UPDATE segments SET ids = zeroblob(length(ids))", "UPDATE segments SET scales = randomblob(length(scales))",
        "UPDATE meta SET value = -1 WHERE key = 'dims'", "UPDATE meta SET value = 1e300 WHERE key = 'dims'",
        "DELETE FROM meta", "DELETE FROM chunks", "DELETE FROM documents", "UPDATE chunks SET text = x'ff00'",
        "UPDATE chunks SET start_line = 'x'", "UPDATE documents SET path = 7", "UPDATE documents SET data = '[['",
        "PRAGMA user_version = 2", "PRAGMA application_id = 7", "UPDATE segments SET codes = 'text'",
        "UPDATE meta SET value = 'no such model' WHERE key = 'model'", "UPDATE meta SET value = 7 WHERE key = 'digest'",
    ],
)  # fmt: skip
def test_no_hostile_content_crashes(made, tmp_path, change):
    shutil.copy(made / "x.db", tmp_path / "bad.db")
    with sqlite3.connect(tmp_path / "bad.db") as db:
        db.execute(change)
    db.close()
    with open(tmp_path / "bad.db", "r+b") as file:
        checksum.cut(file.fileno())
    for form in ("--json", "--scores", "-C3"):
        outcomes(search(tmp_path, "the dog", form, "-i", "bad.db"))


@pytest.mark.parametrize("change", ["text = x'ff00'", "start_line = 1 << 50", "start_line = 'x'", "start_line = -1"])
def test_hostile_lines_beside_a_hit(made, tmp_path, change):
    shutil.copy(made / "x.db", tmp_path / "bad.db")
    with sqlite3.connect(tmp_path / "bad.db") as db:
        assert db.execute(f"UPDATE chunks SET {change} WHERE text LIKE '%cat sat%'").rowcount
    db.close()
    with open(tmp_path / "bad.db", "r+b") as file:
        checksum.cut(file.fileno())
    search(tmp_path, "--mode", "lexical", "dog", "-C", "9" * 18, "-i", "bad.db").fails("bad.db is damaged")


def test_somebody_elses_database(tmp_path):
    db = sqlite3.connect(tmp_path / "other.db")
    db.execute("CREATE TABLE t (x)")
    db.close()
    search(tmp_path, "dog", "-i", "other.db").fails("not an index")
    search(tmp_path, "dog", "other.db").fails("not an index")


def test_the_model_must_be_the_same(made, tmp_path_factory):
    import tiny

    other = tiny.bert(tmp_path_factory.mktemp("other") / "model", seed=8)
    search(made, "dog", "-m", other, "-i", "x.db").fails("another model", "index")
    search(made, "dog", "-m", "none/such", "-i", "x.db").fails("none/such")
    assert search(made, "dog", "-m", other, "--mode", "lexical", "-i", "x.db").status == 0


def test_the_nearest_index_is_searched_where_standard_input_is_an_empty_pipe(model, tmp_path):
    """As under cron, over ssh and in CI."""
    (tmp_path / "a.txt").write_text("a zebra\n")
    command("index", "-m", model, "-o", ".index.db", "a.txt", cwd=tmp_path).ok()
    assert b"a zebra" in shell(": | search zebra", cwd=tmp_path).ok().out
    assert shell(f": | search -m {model} zebra -", cwd=tmp_path).status == 1


def test_a_single_word_is_found_where_it_stands(model, tmp_path):
    (tmp_path / "a.txt").write_text("zebra\n")
    for name in "bcd":
        (tmp_path / f"{name}.txt").write_text(f"the cat sat on the mat {name}\n" * 3)
    found = command("search", "-m", model, "zebra", ".", cwd=tmp_path).ok().out.splitlines()
    assert found[0] == b"a.txt:1:zebra"


def test_what_scores_nothing_is_no_hit(model, tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(f"the dog ran to house {i}\n" if i else "a zebra\n")
    rows, all = (
        hits(command("search", "-m", model, "-k", "50", "--json", *more, "zebra", ".", cwd=tmp_path))
        for more in ([], ["--threshold", "0"])
    )
    assert len(all) == 40 > len(rows) > 0 and all[: len(rows)] == rows and min(row["score"] for row in rows) > 0


def test_names_of_files_as_text_are_told(made):
    """As find prints them: what was meant is what the files say."""
    told = command("search", "--mode", "lexical", "cat", cwd=made, stdin=b"docs/cat.md\nx.db\n").err
    assert b"names of files" in told and b"xargs" in told
    for text in (b"docs/cat.md\na cat\n", b"a cat\n"):
        assert b"names of files" not in command("search", "--mode", "lexical", "cat", cwd=made, stdin=text).err
