"""Files are put in place whole; what lies beside them is touched only if it is a dead writer's."""

import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from toast import files


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.db")


def left(path):
    """The names beside a file."""
    return sorted(set(os.listdir(os.path.dirname(path))) - {os.path.basename(path)})


def content(path):
    with open(path, "rb") as file:
        return file.read()


def test_a_file_is_made_of_its_parts(path):
    files.replace(path, [b"ab", memoryview(b"cd"), b"", memoryview(bytes(6)).cast("B", [2, 3])])
    assert content(path) == b"abcd" + bytes(6) and not left(path)


def test_an_error_leaves_the_old_file_and_nothing_else(path):
    def parts():
        yield b"half"
        raise KeyboardInterrupt

    files.replace(path, [b"old"])
    with pytest.raises(KeyboardInterrupt):
        files.replace(path, parts())
    assert content(path) == b"old" and not left(path)


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.replace(str(tmp_path / "none" / "x"), [b"new"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace(str(tmp_path / "folder"), [b"new"])
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("old, mode, expected", [(None, None, 0o644), (None, 0o600, 0o600), (0o666, None, 0o666),
                                                 (0o440, 0o600, 0o440)])  # fmt: skip
def test_permissions_are_kept(path, old, mode, expected):
    before = os.umask(0o022)
    try:
        if old is not None:
            files.replace(path, [b"old"])
            os.chmod(path, old)
        files.replace(path, [b"new"], mode=mode)
    finally:
        os.umask(before)
    assert os.stat(path).st_mode & 0o777 == expected and content(path) == b"new"


def test_long_and_odd_names(tmp_path):
    for name in ("é" * 127, "x" * 255, b"\xff\n".decode("utf-8", "surrogateescape")):
        files.replace(str(tmp_path / name), [b"1"])
        files.replace(str(tmp_path / name), [b"2"])
        assert content(tmp_path / name) == b"2"
    assert len(os.listdir(tmp_path)) == 3


# ---- beside


def first(path):
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.toast-1")


def test_what_a_killed_writer_left_goes(path):
    code = f"""
import os, sys, time
from toast import files
def parts():
    yield b"half"
    print(flush=True)
    time.sleep(60)
files.replace({path!r}, parts())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        assert left(path) == [os.path.basename(first(path))]
        files.replace(path, [b"another's"])  # a living writer keeps its own
        assert left(path) == [os.path.basename(first(path))]
        writer.send_signal(signal.SIGKILL)
    files.replace(path, [b"new"])
    assert content(path) == b"new" and not left(path)


def test_a_link_is_not_followed(path, tmp_path):
    (tmp_path / "precious").write_text("precious")
    os.symlink("precious", first(path))
    files.replace(path, [b"new"])
    assert os.path.islink(first(path)) and (tmp_path / "precious").read_text() == "precious"
    assert content(path) == b"new"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_stays(path, make):
    make(first(path))
    files.replace(path, [b"new"])
    assert left(path) == [os.path.basename(first(path))] and content(path) == b"new"


def test_what_is_locked_stays(path):
    with open(first(path), "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        files.replace(path, [b"new"])
    assert left(path) == [os.path.basename(first(path))] and content(path) == b"new"


def test_a_link_at_the_target_is_replaced_itself(path, tmp_path):
    (tmp_path / "precious").write_text("precious")
    os.symlink("precious", path)
    files.replace(path, [b"new"])
    assert not os.path.islink(path) and (tmp_path / "precious").read_text() == "precious"


def test_writers_at_once(path):
    """Each writes all of its own; the file is always one of them."""
    seen, bodies = [], [bytes([65 + i]) * 100_000 for i in range(8)]

    def write(body):
        for _ in range(20):
            files.replace(path, [body[:50_000], body[50_000:]])
            seen.append(content(path))

    threads = [threading.Thread(target=write, args=[body]) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 160 and set(seen) <= set(bodies) and not left(path)
