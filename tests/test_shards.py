"""A shard says which it is, may be empty, and may have a bad record: --source, --start, --empty-ok, --on-error warn."""

import json

import pytest
from command import command

SHARD = b'{"id": 7, "text": "the cat"}\n{"id": 8, "text": "a dog"}\n'
FORMS = {
    "classify": ["classify", "-l", "cats,dogs"],
    "rerank": ["rerank", "cats"],
    "index": ["index", "-q"],
}


def objects(ran):
    return [json.loads(line) for line in ran.ok().out.splitlines()]


@pytest.mark.parametrize("words", [["embed"], ["classify", "-l", "cats,dogs"]], ids=lambda words: words[0])
def test_source_is_a_field_of_each_answer(model, words):
    found = objects(command(*words, "-m", model, "--json", "--jsonl", "--source", "part-3", stdin=SHARD))
    assert [(one["source"], one["id"]) for one in found] == [("part-3", 7), ("part-3", 8)]
    command(*words, "-m", model, "--source", "part-3", stdin=SHARD).fails("--source needs --json")


def test_start_is_the_number_of_the_first_record(model):
    found = objects(command("embed", "-m", model, "--json", "--start", "1000", stdin=b"a\nb\n"))
    assert [one["index"] for one in found] == [1000, 1001]
    command("embed", "-m", model, "--start", "5", stdin=b"a\n").fails("--start needs --json")
    command("index", "-m", model, "--start", str(1 << 60), stdin=b"a\n").fails("--start must be from 0 to")


def test_an_index_of_a_shard_tells_where_its_records_are(model, tmp_path):
    path = str(tmp_path / "x.db")
    words = ["index", "-q", "-m", model, "--source", "part-3", "--start", "1000", "-o", path]
    command(*words, stdin=b"the cat\na dog\n").ok()
    assert command("search", "dog", "-k", "1", path).ok().out == b"part-3:1001:a dog\n"
    (tmp_path / "a.txt").write_text("a cat")
    command(*words[:-4], tmp_path / "a.txt").fails("PATH and --source exclude each other")
    command("index", "-q", "-m", model, "--start", "3", tmp_path / "a.txt").fails("--start needs records")


@pytest.mark.parametrize("name", FORMS)
def test_no_records_are_no_failure(model, name):
    words = [*FORMS[name], "-m", model]
    assert command(*words, stdin=b"").status == 1
    command(*words, "--empty-ok", stdin=b"").ok()


@pytest.mark.parametrize("words", [["classify", "-l", "cats,dogs"], ["rerank", "cats"]], ids=lambda words: words[0])
def test_records_that_come_to_nothing_are_not_empty(model, words):
    ran = command(*words, "-m", model, "--threshold", "1", "--empty-ok", stdin=b"a\nb\n")
    assert ran.status == 1


@pytest.mark.parametrize(
    "words", [["embed", "--json"], ["classify", "-l", "cats,dogs"], ["rerank", "cats"], ["index"]], ids=lambda w: w[0]
)
def test_a_bad_record_that_is_told_and_no_more(model, words):
    words = [*words, "-m", model, "--jsonl"]
    told = command(*words, "--on-error", "warn", stdin=SHARD + b"bad\n")
    skipped = command(*words, "--on-error", "skip", stdin=SHARD + b"bad\n")
    assert (told.status, skipped.status) == (0, 2)
    assert told.err == skipped.err and b"line 3: not a JSON object" in told.err
    if words[0] != "index":  # its file's bytes hold the time
        assert told.out == skipped.out == command(*words, stdin=SHARD).ok().out
