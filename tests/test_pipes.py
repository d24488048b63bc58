"""Records and streams, below the commands."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toast import pipes
from toast.command import Call
from toast.errors import BadInput


def call_on(data: bytes, tmp_path=None, **streams):
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        pipes.write_all(writer, data)
        os._exit(0)
    os.close(writer)
    return Call("test", {"TMPDIR": str(tmp_path or "/tmp")}, os.open("/", os.O_RDONLY), stdin=reader, **streams)


def test_json_lines_are_json():
    """Half a surrogate pair has no UTF-8; NaN is not JSON, whatever Python's reader takes."""
    assert pipes.json_line({"a": "é\ud800"}) == '{"a": "é\\ud800"}\n'.encode()
    with pytest.raises(BadInput, match="line 1: not a JSON object"):
        list(pipes.Records(call_on(b'{"text": "a", "n": NaN}\n'), jsonl=True))


def test_without_a_working_directory(tmp_path):
    """Only relative paths are in want of it."""
    call = Call("test", {}, None)
    (tmp_path / "x").write_text("a")
    os.close(call.open(str(tmp_path / "x")))
    assert call.path(str(tmp_path)) == str(tmp_path)
    with pytest.raises(BadInput, match="cannot open the working directory"):
        call.path("x")


@given(st.lists(st.binary(max_size=9), max_size=9), st.integers(1, 7))
def test_split_gives_what_bytes_split_gives(parts, size):
    data = b"\n".join(parts)
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [raw for raws in pipes.split(chunks, b"\n") for raw in raws] == expected


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
    ],
)
def test_records(data, texts, options):
    records = list(pipes.Records(call_on(data), **options))
    assert [r.text for r in records] == texts
    if "jsonl" not in options and "field" not in options:
        separator = b"\0" if options.get("nul") else b"\n"
        assert b"".join(r.raw + separator for r in records).rstrip(separator) == data.rstrip(separator)


@pytest.mark.parametrize(
    "data, said",
    [
        (b"plain\n", "line 1: not a JSON object"),
        (b'{"text": "a"}\n[1]\n', "line 2: not a JSON object"),
        (b'{"id": 3, "body": "b"}\n', "no field 'text' (--field NAME; it has id, body)"),
        (b"[" * 100000, "not a JSON object"),
    ],
)
def test_bad_json_records(data, said):
    with pytest.raises(BadInput) as error:
        list(pipes.Records(call_on(data), jsonl=True))
    assert said in str(error.value)


def test_a_slow_writer_is_answered_as_it_writes():
    reader, writer = os.pipe()
    windows = pipes.Records(Call("test", {}, -1, stdin=reader)).windows()
    os.write(writer, b"a\nb\nc")
    assert [r.text for r in next(windows)] == ["a", "b"]
    os.write(writer, b"d\n")
    assert [r.text for r in next(windows)] == ["cd"]


@pytest.mark.parametrize("limit", [0, 10, 1 << 30])
def test_spool_gives_back_what_it_took(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(pipes, "IN_MEMORY", limit)
    spool = pipes.Spool(call_on(b"", tmp_path))
    texts = [str(i) * (i % 7) for i in range(10000)]
    spool.extend(texts[:5000])
    spool.extend(texts[5000:])
    assert spool.count == 10000
    windows = list(spool.windows())
    assert [t for w in windows for t in w] == texts and max(map(len, windows)) == pipes.WINDOW
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("known", [True, False])
def test_npy_is_what_numpy_reads(tmp_path, known):
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    fd = os.open(tmp_path / "x.npy", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"before")
    npy = pipes.Npy(Call("test", {}, -1, stdout=fd), "<f4", 3, 5 if known else None)
    npy.write(rows[:2])
    npy.write(rows[2:])
    npy.close()
    with open(tmp_path / "x.npy", "rb") as file:
        assert file.read(6) == b"before"
        assert (np.load(file) == rows).all()


def test_unfinished_npy_is_no_npy(tmp_path):
    fd = os.open(tmp_path / "x.npy", os.O_RDWR | os.O_CREAT)
    pipes.Npy(Call("test", {}, -1, stdout=fd), "<f4", 3).write(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError):
        np.load(tmp_path / "x.npy")


def test_nonblocking_output_is_written_whole():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = os.urandom(1 << 20)
    pid = os.fork()
    if not pid:
        pipes.write_all(writer, data)
        os._exit(0)
    os.close(writer)
    got = b"".join(iter(lambda: os.read(reader, 1 << 16), b""))
    assert got == data
