"""What a process that stays keeps: bounded, by use, and of a file only as long as that is the same."""

import os

import pytest

from toast import kept
from toast.kept import Memory

OLD = 1_500_000_000 * 10**9


@pytest.fixture
def memory(monkeypatch):
    found = Memory(1000)
    monkeypatch.setattr(kept, "memory", found)
    return found


def test_what_was_used_longest_ago_goes_first():
    memory = Memory(100)
    for key in "abcd":
        memory.keep(key, key, 25)
    assert memory.find("a") == "a"
    memory.keep("e", "e", 30)
    assert [memory.find(key) for key in "abcde"] == ["a", None, None, "d", "e"] and memory.size == 80
    memory.keep("a", "A", 50)
    assert memory.find("a") == "A" and memory.size <= 100
    memory.keep("large", 1, 101)
    assert memory.find("large") is None and memory.find("a") == "A"
    assert memory.clear() and not memory.clear() and memory.size == 0


def identity(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return kept.identity(fd)
    finally:
        os.close(fd)


def made(file, log):
    return kept.of(file, "what", lambda: log.append(file) or len(log), size=lambda _: 10)


def test_of_a_file_it_is_made_once(memory, tmp_path, monkeypatch):
    path, log = tmp_path / "x", []
    path.write_bytes(b"one")
    assert identity(path) is None  # the next one to be written may have the same time
    monkeypatch.setattr(kept, "time_ns", lambda: os.stat(path).st_ctime_ns + kept.SETTLED)
    first = identity(path)
    assert [made(first, log) for _ in range(3)] == [1, 1, 1]
    path.write_bytes(b"two")
    os.utime(path, ns=(OLD, OLD))
    monkeypatch.setattr(kept, "time_ns", lambda: os.stat(path).st_ctime_ns + kept.SETTLED)
    assert identity(path) != first and made(identity(path), log) == 2
    assert [made(None, log) for _ in range(2)] == [3, 4]


def test_a_process_that_does_not_stay_keeps_nothing(tmp_path):
    assert kept.memory is None and identity(os.path.dirname(__file__)) is None
    log = []
    assert [made("file", log) for _ in range(2)] == [1, 2]
