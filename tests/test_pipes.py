"""Records and streams, below the commands."""

import os

import numpy as np
import pytest

from toast import pipes, spool
from toast.command import Call
from toast.errors import BadInput
from toast.npy import Npy


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
    """Half a surrogate pair has no UTF-8."""
    assert pipes.json_line({"a": "é\ud800"}) == '{"a": "é\\ud800"}\n'.encode()


def test_without_a_working_directory(tmp_path):
    """Only relative paths are in want of it."""
    call = Call("test", {}, None)
    (tmp_path / "x").write_text("a")
    os.close(call.open(str(tmp_path / "x")))
    assert call.path(str(tmp_path)) == str(tmp_path)
    with pytest.raises(BadInput, match="cannot open the working directory"):
        call.path("x")


@pytest.mark.parametrize("limit", [0, 10, 1 << 30])
def test_spool_gives_back_what_it_took(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(spool, "IN_MEMORY", limit)
    held = spool.Spool(call_on(b"", tmp_path))
    texts = [str(i) * (i % 7) for i in range(10000)]
    held.extend(texts[:5000])
    held.extend(texts[5000:])
    assert held.count == 10000
    windows = list(held.windows())
    assert [t for w in windows for t in w] == texts and max(map(len, windows)) == pipes.WINDOW
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("known", [True, False])
def test_npy_is_what_numpy_reads(tmp_path, known):
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    fd = os.open(tmp_path / "x.npy", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"before")
    npy = Npy(Call("test", {}, -1, stdout=fd), "<f4", columns=3, rows=5 if known else None)
    npy.write(rows[:2])
    npy.write(rows[2:])
    npy.close()
    with open(tmp_path / "x.npy", "rb") as file:
        assert file.read(6) == b"before"
        assert (np.load(file) == rows).all()


def test_unfinished_npy_is_no_npy(tmp_path):
    fd = os.open(tmp_path / "x.npy", os.O_RDWR | os.O_CREAT)
    Npy(Call("test", {}, -1, stdout=fd), "<f4", columns=3).write(np.zeros((2, 3), np.float32))
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
