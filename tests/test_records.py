"""What is a record, and what is told of one that is none."""

import os
import shlex
import threading
import time

import pytest
from command import command, shell
from hypothesis import given
from hypothesis import strategies as st
from test_pipes import call_on

from toast import pipes, records
from toast.command import Call
from toast.errors import BadInput


@given(st.lists(st.binary(max_size=9), max_size=9), st.integers(1, 7))
def test_split_gives_what_bytes_split_gives(parts, size):
    data = b"\n".join(parts)
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [raw for raws in records.split(chunks, b"\n") for raw in raws] == expected


@pytest.mark.parametrize(
    "data, texts, options",
    [
        (b"", [], {}),
        (b"\n", [""], {}),
        (b"a\n\nb", ["a", "", "b"], {}),
        (b"a\r\nb\r\n", ["a", "b"], {}),
        (b"\xef\xbb\xbfa\n", ["a"], {}),
        (b"a\nb\0c\r\0", ["a\nb", "c\r"], {"nul": True}),
        (b"a\xffb\n", ["a\ufffdb"], {}),
        (b"a\0b\n", ["a\0b"], {}),
        (b'{"text": "x"}\n\n{"text": "y"}\n', ["x", "y"], {"jsonl": True}),
        (b'{"body": "\\ud800"}', ["?"], {"field": "body"}),
        (b'{"a": {"b": "in", "c": {"d": "deep"}}}', ["in"], {"field": "a.b"}),
        (b'{"a": {"b": "in", "c": {"d": "deep"}}}', ["deep"], {"field": "a.c.d"}),
        (b'{"a": {"b": "in"}, "a.b": "its own"}', ["its own"], {"field": "a.b"}),
    ],
)
def test_records(data, texts, options):
    found = list(records.Records(call_on(data), **options))
    assert [r.text for r in found] == texts
    if "jsonl" not in options and "field" not in options:
        separator = b"\0" if options.get("nul") else b"\n"
        assert b"".join(r.raw + separator for r in found).rstrip(separator) == data.rstrip(separator)


@pytest.mark.parametrize(
    "data, said",
    [
        (b"plain\n", "line 1: not a JSON object"),
        (b'{"text": "a"}\n[1]\n', "line 2: not a JSON object"),
        (b'{"id": 3, "body": "b"}\n', "no field 'text' (--field NAME; it has id, body)"),
        (b"[" * 100000, "not a JSON object"),
        (b'{"text": "a", "n": NaN}', "line 1: NaN is not JSON"),
        (b'{"text": "a", "n": -1e400}', "line 1: -1e400 is too large a number"),
    ],
)
def test_bad_json_records(data, said):
    with pytest.raises(BadInput) as error:
        list(records.Records(call_on(data), jsonl=True))
    assert said in str(error.value)


@pytest.mark.parametrize("data", [b'{"a": {}}', b'{"a": "b"}', b'{"a": [{"b": "x"}]}', b'{"b": "x"}'])
def test_a_field_that_is_in_nothing(data):
    with pytest.raises(BadInput, match=r"line 1: no field 'a\.b'"):
        list(records.Records(call_on(data), field="a.b"))


def test_bad_json_between_nuls():
    with pytest.raises(BadInput, match="record 2: not a JSON object .*ends in NUL"):
        list(records.Records(call_on(b'{"text": "a"}\0b\0'), nul=True, jsonl=True))


def test_records_before_a_bad_one_are_given():
    seen = []
    with pytest.raises(BadInput, match="line 3"):
        for record in records.Records(call_on(b'{"text": "a"}\n{"text": "b"}\nbad\n{"text": "c"}\n'), jsonl=True):
            seen.append(record.text)
    assert seen == ["a", "b"]


def test_a_byte_order_mark_before_json():
    (record,) = records.Records(call_on(b'\xef\xbb\xbf{"text": "a"}\n'), jsonl=True)
    assert record.text == "a" and record.raw.startswith(b"\xef\xbb\xbf")


def test_a_slow_writer_is_answered_as_it_writes():
    reader, writer = os.pipe()
    windows = records.Records(Call("test", {}, -1, stdin=reader)).windows()
    os.write(writer, b"a\nb\nc")
    assert [r.text for r in next(windows)] == ["a", "b"]
    os.write(writer, b"d\n")
    assert [r.text for r in next(windows)] == ["cd"]


def test_a_fifo_is_opened_once(tmp_path):
    """A writer that has written and closed leaves nothing to who opens it a second time."""
    os.mkfifo(tmp_path / "fifo")
    writer = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=(b"cat\ndog\n",))
    writer.start()
    found = records.Records(Call("test", {}, os.open(tmp_path, os.O_RDONLY)), ["fifo"])
    time.sleep(0.1)
    assert [record.text for record in found] == ["cat", "dog"]
    writer.join()


# ---------------------------------------------------------------- what is told of standard input, by every command


def readers(model):
    """Each command as it reads records or text from standard input."""
    llama = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "llama-causal")
    return {
        "embed": ["--json", "-m", model], "index": ["-m", model, "-o", "made.db"], "search": ["-m", model, "cat"],
        "rerank": ["-m", model, "cat"], "classify": ["-m", model, "-l", "cat,dog"], "tokenize": ["-m", llama],
        "toast": ["-m", llama, "-n", "1", "--each", "say"],
    }  # fmt: skip


def test_a_loop_that_is_read_is_told(tmp_path, model):
    """`while read x; do COMMAND; done < list`: the command takes the rest of the list."""
    (tmp_path / "list").write_text("cat\na cat\nthe cat\n")
    for name, words in readers(model).items():
        line = shlex.join([name, *map(str, words)])
        told = f"{name}: of standard input a part was read before".encode()
        found = shell(f"while read x; do {line}; done < list", cwd=tmp_path)
        assert found.err.startswith(told) and found.err.count(b"\n") == 1, found
        quiet = [f"while read x; do {line} -q; done < list", f"{line} < list", f"cat list | {line}"]
        if name != "toast":
            assert b"; - says that it is meant)" in found.err
            quiet.append(f"while read x; do {line} -; done < list")
        for told in quiet:
            assert shell(told, cwd=tmp_path).ok().err == b"", told
        if name not in ("index", "toast"):  # FILEs are read, and the list is left
            found = shell(f"while read x; do {line} list > out; echo $?; done < list", cwd=tmp_path).ok()
            assert found.out == b"0\n" * 3


def test_objects_that_are_read_as_lines_are_told(tmp_path, model):
    objects = b'{"body": "a cat", "id": 1}\n{"id": 2}\n'
    (tmp_path / "x.jsonl").write_bytes(objects)
    lines = [b"{braces} of a text\n", b'{"a": 1}\nno object\n', b"[1]\n", b'{"a": NaN\n', b'\n{"a": 1}\n']
    for name, words in readers(model).items():
        if name == "tokenize":
            continue
        found = command(name, *words, stdin=objects, cwd=tmp_path)
        assert found.status == 0 and found.err.count(b"\n") == 1, found
        assert b"standard input holds JSON" in found.err and b"--field NAME; the first has body, id" in found.err
        command(name, *words, "-q", stdin=objects, cwd=tmp_path).ok()
        if name != "toast":
            assert b"; - says that lines are meant)" in found.err
            assert command(name, *words, "-", stdin=objects, cwd=tmp_path).ok().err == b""
        for text in lines:
            assert command(name, *words, stdin=text, cwd=tmp_path).err == b"", (name, text)
    for name in ("embed", "rerank", "classify"):
        found = command(name, *readers(model)[name], "x.jsonl", "x.jsonl", cwd=tmp_path)
        assert found.err.startswith(f"{name}: x.jsonl holds JSON objects".encode()) and found.err.count(b"\n") == 1
    (tmp_path / "plain").write_text("a cat\n")
    (tmp_path / "empty").touch()
    found = command("embed", *readers(model)["embed"], "empty", "plain", "x.jsonl", cwd=tmp_path)
    assert found.err.startswith(b"embed: x.jsonl holds JSON objects") and found.err.count(b"\n") == 1
    queries = tmp_path / "queries"
    queries.write_bytes(b'{"text": "cat"}\n')
    command("search", "-m", model, "--queries", "queries", stdin=b"a cat\n", cwd=tmp_path).ok()


@pytest.mark.parametrize(
    "lines, told",
    [([b'{"a": 1}'], 1), ([b'{"a": 1}'] * 30, 1), ([b'{"a": 1}'] * 7 + [b"no"], 0), ([b'{"a": 1}'] * 8 + [b"no"], 1),
     ([b'{"a": 1}', b"no"], 0), ([b'\xef\xbb\xbf{"a": 1}'], 1), ([b'{"a": 1}', b'\xef\xbb\xbf{"a": 1}'], 0)],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 9, 1 << 16])
def test_how_a_pipe_is_cut_does_not_matter_to_what_is_told(monkeypatch, lines, told, size):
    data, said = b"\n".join(lines), []
    monkeypatch.setattr(
        pipes, "read_chunks", lambda *_, **__: (data[at : at + size] for at in range(0, len(data), size))
    )
    monkeypatch.setattr(Call, "warn", lambda _, text: said.append(text))
    assert len(list(records.Records(call_on(b""), jsonl=False))) == len(lines) and len(said) == told
