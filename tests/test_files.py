"""Files are put in place whole; what lies beside them is touched only if it is a dead writer's."""

import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from toast import files
from toast.command import Call
from toast.errors import BadInput
from toast.locks import lock


@pytest.fixture(params=["unnamed", "named"])
def path(tmp_path, request, monkeypatch):
    """A file to be, on systems with and without files that have no name."""
    if request.param == "named":
        monkeypatch.setattr(files, "UNNAMED", 0)
    elif not files.UNNAMED:
        pytest.skip("no unnamed files here")
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


@pytest.mark.parametrize("unnamed", [0, files.UNNAMED])
def test_what_a_killed_writer_left_goes(tmp_path, unnamed):
    path = str(tmp_path / "x.db")
    beside = [] if unnamed else [os.path.basename(first(path))]
    code = f"""
import os, sys, time
from toast import files
from toast.command import Call
from toast.errors import BadInput
files.UNNAMED = {unnamed}
def parts():
    yield b"half"
    print(flush=True)
    time.sleep(60)
files.replace({path!r}, parts())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        assert left(path) == beside
        files.replace(path, [b"another's"])  # a living writer keeps its own
        assert left(path) == beside
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


def test_leftovers_go_and_nothing_else(path):
    names = list(files.names(path))
    for name in names[:3]:
        files.write(os.open(name, os.O_WRONLY | os.O_CREAT), b"left")
    os.mkfifo(names[3])
    files.tidy(path)
    assert left(path) == [os.path.basename(names[3])]


# ---- drafts, private files


def test_a_draft_takes_no_name_that_is_taken(path):
    for taken in (None, b"precious"):
        if taken:
            files.replace(path, [taken])
        with files.Draft(path) as draft:
            files.write(draft.fd, b"new")
            if taken:
                with pytest.raises(FileExistsError):
                    draft.add()
            else:
                draft.add()
        assert content(path) == (taken or b"new") and not left(path)
        os.unlink(path)


def test_a_draft_that_is_not_placed_is_gone(path):
    with files.Draft(path) as draft:
        files.write(draft.fd, b"new")
    assert not left(path) and not os.path.exists(path)
    with files.Draft(path, named=True) as draft:
        assert left(path) == [os.path.basename(first(path))]
        fd = draft.release()
    assert not left(path) and os.write(fd, b"still open") == 10


@pytest.mark.parametrize("deleted", [False, True])
def test_a_private_file_has_a_name_for_a_moment(path, tmp_path, deleted):
    call = Call("test", {"TMPDIR": str(tmp_path)}, None)
    fd = files.spool(call, [b"ab", b"cd"])
    if deleted:
        files.replace(path, [b"abcd"])
        fd = os.open(path, os.O_RDONLY)
        os.unlink(path)
    assert os.listdir(tmp_path) == []
    with files.named(call, fd) as name:
        assert content(name) == b"abcd" and len(os.listdir(tmp_path)) == 1 and os.stat(name).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [] and os.read(fd, 9) == b"abcd"


def test_a_folder_without_room_is_told(path):
    call = Call("test", {"TMPDIR": path}, None)
    with pytest.raises(BadInput, match="cannot write in .*TMPDIR=FOLDER"):
        files.private_file(call)


# ---- what is found


def test_only_a_file_of_ours_is_opened(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        files.open_own(path)
    (tmp_path / "precious").write_text("precious")
    makers = (lambda: os.symlink("precious", path), lambda: os.mkfifo(path), lambda: os.mkdir(path))
    for make in makers:
        make()
        with pytest.raises(FileExistsError):
            files.open_own(path)
        (os.rmdir if os.path.isdir(path) else os.unlink)(path)
    if os.geteuid() == 0:
        files.replace(path, [b"x"])
        os.chown(path, 1, 1)
        with pytest.raises(FileExistsError):
            files.open_own(path)


def test_only_files_are_read(path, tmp_path):
    os.mkfifo(path)
    for name, reason in (
        (path, "not a regular file"),
        (str(tmp_path), "Is a directory"),
        ("/dev/zero", "not a regular"),
    ):
        with pytest.raises(OSError, match=reason):
            files.read(name)


def test_a_lock_is_held_by_one(path):
    files.replace(path, [b"x"])
    held, other = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    assert lock(held) is True and lock(other) is False
    waits = []
    threading.Timer(0.1, os.close, [held]).start()
    assert lock(other, lambda: waits.append(1)) is True and waits == []  # so short a wait is not told
    threading.Timer(1.5, os.close, [other]).start()
    third = os.open(path, os.O_RDWR)
    assert lock(third, lambda: waits.append(1)) is True and waits == [1]
    os.close(third)
