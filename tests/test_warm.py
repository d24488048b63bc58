"""The warm process: who starts it, when it ends, and that it is never in the way of a command."""

import contextlib
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import threading
import time

import pytest
from command import command, environment
from warm import CLIENTS, Warm, words_of

from toast import __version__
from toast.warm import place, protocol
from toast.warm.protocol import Malformed, Request

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
BERT, QWEN = os.path.join(ORACLES, "bert-embed-mean"), os.path.join(ORACLES, "qwen3-causal")
EMBED = ["embed", "-m", BERT, "--json"]
GREETING = b"toast %d %s\n" % (protocol.VERSION, __version__.encode())
ENDED = b"embed: the warm process ended before the answer did (run it again, or with -p here)\n"


@pytest.fixture(scope="module")
def shared():
    found = Warm().start()
    yield found
    found.end()


@pytest.fixture
def own():
    """A place for a warm process, without one."""
    found = Warm()
    yield found
    command("toasted", "stop", "-q", env=found.env)
    found.end()


@pytest.fixture(scope="module")
def line():
    """What EMBED writes of `a cat`."""
    return command(*EMBED, stdin=b"a cat\n").ok().out


def served(warm):
    return sum(warm.status()["served"].values())


# ---------------------------------------------------------------- who starts it, and when it ends


@pytest.mark.parametrize("client", CLIENTS)
def test_insisting_starts_one(own, client, line):
    assert own.run(client, *EMBED, "-p", "toasted", stdin=b"a cat\n").ok().out == line
    assert own.status()["served"] == {"embed": 1}
    assert own.run(client, *EMBED, stdin=b"a cat\n").ok().out == line
    assert own.status()["served"] == {"embed": 2}
    assert own.run(client, *EMBED, "-p", "here", stdin=b"a cat\n").ok().out == line
    assert own.run(client, *EMBED, stdin=b"a cat\n", env={"TOAST_WARM": "off"}).ok().out == line
    assert own.status()["served"] == {"embed": 2}
    command("toasted", "stop", env=own.env).ok()
    assert own.status() is None


@pytest.mark.parametrize("client", CLIENTS)
def test_one_is_left_for_the_next_time(own, client, line):
    assert own.run(client, *EMBED, "--warm", "9m", stdin=b"a cat\n").ok().out == line
    own.wait(own.status)
    assert own.run(client, *EMBED, stdin=b"a cat\n", env={"TOAST_WARM": "9m"}).ok().out == line
    assert own.status()["served"] == {"embed": 1}


def test_one_that_is_being_started_is_found(own):
    """It is there before it listens."""
    for word in ("status", "stop"):
        own.run(CLIENTS[0], *EMBED, "--warm", "9m", stdin=b"a cat\n").ok()
        command("toasted", word, env=own.env).ok()
        if word == "status":
            command("toasted", "stop", env=own.env).ok()
            assert own.status() is None
    began = time.monotonic()
    assert command("toasted", "stop", env=own.env).ok(quiet=False).err == b"toasted: there is no warm process\n"
    assert time.monotonic() - began < 2 and own.status() is None


@pytest.mark.parametrize("client", CLIENTS)
def test_nobody_asked_for_one(own, client):
    own.run(client, *EMBED, stdin=b"a cat\n").ok()
    assert os.listdir(own.folder) == []


def test_nothing_waits_for_what_is_left(own):
    """Neither the reader of the output nor that of another descriptor, which the shell has opened."""
    script = f"x=$(embed -m {BERT} --json --warm 9m 3>&1 <<< 'a cat'); echo ${{#x}}"
    began = time.monotonic()
    subprocess.run(["bash", "-c", script], env=environment(own.env), check=True, timeout=20)
    assert time.monotonic() - began < 10
    pid = own.wait(own.status)["pid"]
    if os.path.isdir(f"/proc/{pid}/fd"):
        targets = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert not [to for to in targets.values() if to.startswith("pipe:")], targets
        assert {targets[fd] for fd in "012"} == {"/dev/null"}
        assert os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/cwd") == "/"


def test_it_leaves_when_nobody_needs_it(own):
    own.run(CLIENTS[0], *EMBED, "--warm", "1s", stdin=b"a cat\n").ok()
    own.wait(own.status)
    own.wait(lambda: own.status() is None, 10)


def test_a_second_one_ends(shared):
    ran = command("toasted", "run", env=shared.env, timeout=20)
    assert ran.status == 0 and ran.err == b"toasted: there is a warm process already\n"


def test_a_killed_one_is_replaced(own, line):
    own.start()
    own.kill()
    assert own.status() is None
    assert own.run(CLIENTS[0], *EMBED, stdin=b"a cat\n").ok().out == line
    own.start()
    assert own.run(CLIENTS[0], *EMBED, stdin=b"a cat\n").ok().out == line
    assert served(own) == 1


def test_without_one(own):
    assert command("toasted", "stop", env=own.env).err == b"toasted: there is no warm process\n"
    assert command("toasted", "status", env=own.env).status == 1


@pytest.mark.parametrize("text", ["10", "x", "10d", "-1m", "\u00b2m", "\u0661m", "9" * 5000 + "m"])
def test_times(own, text):
    if text == "10":
        assert protocol.lasting(text) == 10 and protocol.lasting("2h") == 7200 and protocol.lasting("off") == 0
    else:
        for client in CLIENTS:
            own.run(client, *EMBED, env={"TOAST_WARM": text}).fails("a time such as 10m")


def test_little_memory_lets_models_go(own):
    own.env["TOAST_WARM_MB"] = "1"
    own.start()
    own.run(CLIENTS[0], *EMBED, "-p", "toasted", stdin=b"a cat\n").ok()
    own.wait(lambda: not (own.status() or {}).get("models"), 10)
    own.process.communicate(timeout=20)  # more than that it cannot do but go
    own.process = None


# ---------------------------------------------------------------- what runs here after all


@pytest.mark.parametrize("client", CLIENTS)
def test_what_differs_runs_here(shared, client, line, tmp_path):
    before = served(shared)
    for env in ({"TOAST_KERNELS": "off"}, {"TOAST_THREADS": "1"}, {"LC_ALL": "de_DE.ISO-8859-1"}, {"PYTHONPATH": "/x"}):
        assert shared.run(client, *EMBED, stdin=b"a cat\n", env=env).status == 0
    with_umask = {"preexec_fn": lambda: os.umask(0o077)}
    shared.run(client, "index", "-m", BERT, "-o", "x.db", stdin=b"a\n", cwd=tmp_path, **with_umask).ok()
    assert os.stat(tmp_path / "x.db").st_mode & 0o777 == 0o600
    limited = f"ulimit -f 100000; {' '.join(words_of(client, 'embed')[:1])} -m {BERT} --json"
    if client == "launcher":
        ran = subprocess.run(
            ["bash", "-c", limited], input=b"a cat\n", capture_output=True, env=environment(shared.env)
        )
        assert ran.stdout == line
    assert served(shared) == before


@pytest.mark.parametrize("client", CLIENTS)
def test_what_only_this_process_has_runs_here(shared, client, line, tmp_path):
    before = served(shared)
    os.mkfifo(tmp_path / "fifo")
    writer = subprocess.Popen(["bash", "-c", f"echo a cat > {tmp_path}/fifo"])
    assert shared.run(client, *EMBED, str(tmp_path / "fifo")).ok().out == line
    writer.wait()
    assert shared.run(client, *EMBED, "/dev/stdin", stdin=b"a cat\n").ok().out == line
    assert served(shared) == before


@pytest.mark.parametrize("client", CLIENTS)
def test_a_terminal_is_read_here(shared, client, line):
    """And when nobody would read it, it is no hindrance."""
    ours, theirs = pty.openpty()
    before = served(shared)
    process = shared.popen(client, *EMBED, "-", stdin=theirs)
    os.write(ours, b"a cat\n\x04")
    assert process.communicate(timeout=20)[0] == line and served(shared) == before
    shared.run(client, "toast", "-m", QWEN, "-n", "3", "hi", stdin=theirs).ok()
    assert served(shared) == before + 1
    os.close(ours), os.close(theirs)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_working_directory_that_is_gone(shared, client, line, tmp_path):
    script = f'mkdir d; cd d; rmdir ../d; exec "$@" -m {BERT} --json'
    for words in (words_of(client, "embed"), [*words_of(client, "embed"), "-p", "here"]):
        ran = subprocess.run(["bash", "-c", script, "bash", *words], input=b"a cat\n", capture_output=True,
                             cwd=tmp_path, env=environment(shared.env))  # fmt: skip
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, line, b"")


# ---------------------------------------------------------------- a process that does not do what it should


class Fake:
    """Something that listens where the warm process would: greets, says these bytes to each request, then closes."""

    def __init__(self, warm, answer, *, greeting=GREETING, reads=False, beats=False):
        os.mkdir(os.path.join(warm.folder, "toast"), 0o700)
        path = place.socket({"XDG_RUNTIME_DIR": warm.folder})
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        self.greeting, self.answer, self.reads, self.beats = greeting, answer, reads, beats
        self.asked = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            connection.sendall(self.greeting)
            try:
                data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 4)
            except ConnectionResetError:  # the greeting was not to its liking
                continue
            if self.reads and fds:
                os.read(fds[0], 100)
            if data:
                connection.sendall(self.answer)
            self.asked.set()
            try:
                while self.beats:
                    time.sleep(0.2)
                    connection.sendall(b".\n")
            except OSError:
                pass
            for fd in fds:
                os.close(fd)
            connection.close()


BEFORE = {  # name -> (greeting, what follows the request)
    "nothing": (GREETING, b""), "no greeting": (b"", b"done 0\n"),
    "a forged greeting": (b"done 0\nbegun\n", b"done 0\n"),
    "another version": (b"toast 1 0.0.0\n", b"begun\ndone 0\n"), "another protocol": (b"toast 9 0.1.0\n", b"begun\n"),
    "a refusal": (GREETING, b"here no\n"), "half a line": (GREETING, b"begu"), "noise": (b"\xff\0" * 9000, b""),
    "a long line": (GREETING, b"x" * 9000 + b"\n"), "a beat": (GREETING, b".\n"),
}  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("greeting, said", BEFORE.values(), ids=BEFORE.keys())
def test_before_its_first_read_it_may_end(own, client, greeting, said, line):
    Fake(own, said, greeting=greeting)
    assert own.run(client, *EMBED, stdin=b"a cat\n").ok().out == line


@pytest.mark.parametrize("client", CLIENTS)
def test_after_its_first_read_it_may_not(own, client):
    Fake(own, b"begun\n.\n", reads=True)
    ran = own.run(client, *EMBED, stdin=b"a cat\n")
    assert (ran.status, ran.out, ran.err) == (2, b"", ENDED)


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_silence_is_death(own, client, line):
    own.start()
    waiting = own.popen(client, *EMBED)  # it has begun, and waits for its input
    own.wait(lambda: served(own))
    time.sleep(0.3)
    own.process.send_signal(signal.SIGSTOP)
    later = own.popen(client, *EMBED)
    assert later.communicate(b"a cat\n", timeout=40)[0] == line
    assert waiting.wait(40) == 2
    own.process.send_signal(signal.SIGCONT)  # until then it has the streams open, too
    assert waiting.stderr.read() == ENDED
    own.wait(lambda: own.status()["running"] == 0)
    assert own.run(client, *EMBED, stdin=b"a cat\n").ok().out == line


# ---------------------------------------------------------------- one of several


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_one_job(shared, client, number, line):
    victim, other = (shared.popen(client, *EMBED) for _ in range(2))
    shared.wait(lambda: shared.status()["running"] == 2)
    victim.send_signal(number)
    assert victim.wait(10) == -number and victim.stdout.read() == victim.stderr.read() == b""
    shared.wait(lambda: shared.status()["running"] == 1)
    assert other.communicate(b"a cat\n", timeout=20)[0] == line and other.returncode == 0


@pytest.mark.parametrize("client", CLIENTS)
def test_a_signal_ends_a_job_at_work(shared, client):
    """While it computes, not while it waits."""
    victim = shared.popen(client, "toast", "-m", QWEN, "--no-loop-stop", "-t", "2", "say it")
    victim.stdin.close()
    victim.stdout.readline()
    began = time.monotonic()
    victim.send_signal(signal.SIGINT)
    assert victim.wait(10) == -signal.SIGINT
    shared.wait(lambda: shared.status()["running"] == 0)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("client", CLIENTS)
def test_a_reader_that_leaves(shared, client):
    words = " ".join(f"'{word}'" for word in words_of(client, "embed"))
    script = f"yes 'a cat' | head -20000 | {words} -m {BERT} --json | head -c1; echo ${{PIPESTATUS[2]}}"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, env=environment(shared.env), timeout=60)
    assert ran.stdout == b"{0\n" and not ran.stderr
    shared.wait(lambda: shared.status()["running"] == 0)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_slow_reader_stops_nobody(shared, client, line):
    slow = shared.popen(client, *EMBED)
    feeder = threading.Thread(target=lambda: slow.communicate(b"a cat\n" * 3000, timeout=60))
    slow.stdin.write(b"a cat\n" * 1000)
    slow.stdin.flush()
    time.sleep(0.5)  # its output fills the pipe
    for _ in range(3):
        assert shared.run(client, *EMBED, stdin=b"a cat\n").ok().out == line
    feeder.start()
    feeder.join()
    assert slow.returncode == 0


@pytest.mark.parametrize("client", CLIENTS)
def test_ten_at_once(shared, client, line):
    running = [shared.popen(client, *EMBED) for _ in range(10)]
    answers = []
    threads = [
        threading.Thread(target=lambda p=p: answers.append(p.communicate(b"a cat\n", timeout=60)[0])) for p in running
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [line] * 10


def test_descriptors_and_threads_stay_few(shared):
    def here():
        """The fewest of ten looks: a call that just ended may still be closing what it had."""
        looks = []
        for _ in range(10):
            pid = shared.status()["pid"]
            looks.append((len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))))
            time.sleep(0.05)
        return min(descriptors for descriptors, _ in looks), min(threads for _, threads in looks)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc")
    calls = [
        (EMBED, b"a\n"), (["search", "-m", BERT, "a"], b"a cat\n"), (["index", "-m", BERT], b"a\n"),
        (["toast", "-m", QWEN, "-n", "2", "-f", "/nonesuch", "hi"], b""), (["embed", "-m", "nonesuch"], b"a"),
        (["toast", "-m", QWEN, "-n", "2", "hi"], b"a"), (["classify", "-m", BERT, "-l", "a,b"], b"a\n"),
    ]  # fmt: skip
    found = []
    for _ in range(2):
        for words, stdin in 4 * calls:
            shared.run(CLIENTS[0], *words, stdin=stdin)
        found.append(here())
    assert found[1] == found[0]


@pytest.mark.model
def test_answers_of_many_calls_are_each_as_alone(shared):
    """The default model, whose layers take the rows of many texts: plain, drawn, constrained, drafted, told."""
    kinds = [
        ["-n", "24", "name a colour"], ["-n", "24", "-t", "1", "--seed", "5", "tell a story"],
        ["-n", "24", "--choice", "red,green,blue", "pick one"], ["-n", "24", "--logprobs", "2", "say hello"],
        ["-n", "40", "say the same again: one two three four one two three four one two"],
        ["-n", "24", "--schema", '{"type": "array", "items": {"type": "integer"}, "maxItems": 3}', "a"],
    ]  # fmt: skip
    calls = [[*words[:-1], f"{words[-1]} {n}", "--no-input"] for n in range(2) for words in kinds]
    want = [command("toast", *words, "-p", "here") for words in calls]
    for _ in range(2):
        running = [shared.popen(CLIENTS[0], "toast", *words) for words in calls]
        found = [(process.communicate()[0], process.returncode) for process in running]
        assert found == [(ran.out, ran.status) for ran in want]


# ---------------------------------------------------------------- strangers and mistakes


def connection(warm):
    found = socket.socket(socket.AF_UNIX)
    found.connect(place.socket({"XDG_RUNTIME_DIR": warm.folder}))
    found.settimeout(10)
    return found


def answer(warm, data, fds=(), *, shut=True):
    with connection(warm) as talk:
        try:
            socket.send_fds(talk, [data], fds)
            if shut:
                talk.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        said = b""
        try:
            while part := talk.recv(4096):
                said += part
        except ConnectionResetError:
            pass
        return said


def request(*words, command="embed", **facts):
    facts = {"umask": protocol.umask(), "limits": protocol.limits(), "namespace": protocol.namespace(), **facts}
    return Request(command, list(words), environment(), **facts).pack()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n", b"hello\n", b"\0" * 100, b"toast 1 99999999\n", b"toast 1 -5\n", b"toast 2 5\nabcde",
        b"toast 1 3\nabc", b"toast 1 5", b"", b"toast 1 999999999999\n", b"toast 1 4\n\0\0\0\0", request() + b"x",
    ],
)  # fmt: skip
def test_abuse_is_refused_in_a_line(shared, data):
    said = answer(shared, data)
    assert re.fullmatch(re.escape(GREETING) + rb"here [ -~]+\n", said), said


def test_descriptors_that_are_no_streams(shared, tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for fds in ([], [folder], [folder] * 2):
            assert b"here a request has three descriptors" in answer(shared, request("-m", BERT), fds)
        assert b"here a request has up to four" in answer(shared, request("-m", BERT), [folder] * 9)
        assert answer(shared, request("-m", BERT), [folder] * 4, shut=False) == GREETING + b"begun\ndone 2\n"
    finally:
        os.close(folder)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_who_say_nothing(shared, line, count):
    """They are told and let go; whoever comes meanwhile runs here at worst."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 100:
        pytest.skip("too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 100), hard))
    idle = [connection(shared) for _ in range(count)]
    assert shared.run(CLIENTS[0], *EMBED, stdin=b"a cat\n").ok().out == line
    for one in idle:
        said = b""
        while part := one.recv(4096):
            said += part
        assert said.startswith(GREETING + b"here "), said
        one.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    before = served(shared)
    assert shared.run(CLIENTS[0], *EMBED, stdin=b"a cat\n").ok().out == line
    assert served(shared) == before + 1


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "< .", "> /dev/full", "<&- >&- 2>&-"])
def test_streams_that_are_none(shared, client, streams):
    if (client, streams) == ("python", "< ."):
        pytest.skip("Python refuses to start on it")
    found = []
    for place_ in ([], ["-p", "here"]):
        script = f'cd /tmp; "$@" -m {BERT} --json {streams}'
        words = ["bash", "-c", script, "bash", *words_of(client, "embed"), *place_]
        ran = subprocess.run(words, input=b"a cat\n", capture_output=True, env=environment(shared.env), timeout=60)
        found.append((ran.returncode, ran.stdout, ran.stderr))
    assert found[0] == found[1]


@pytest.mark.parametrize("client", CLIENTS)
def test_long_arguments(shared, client):
    words = ["rerank", "-m", BERT, "cat " * 25_000, *["/nonesuch" * 10] * 5_000]
    found = [shared.run(client, *words, *where, stdin=b"a cat\n") for where in ([], ["-p", "here"])]
    assert (found[0].status, found[0].out, found[0].err) == (found[1].status, found[1].out, found[1].err)


NOBODY = 65534


def as_nobody(work):
    """Whether work() comes to an end for another user, in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_cannot_get_in(own, line):
    own.start()
    path = place.socket({"XDG_RUNTIME_DIR": own.folder})
    folder = os.path.dirname(path)
    os.chmod(own.folder, 0o755)

    def connects():
        socket.socket(socket.AF_UNIX).connect(path)

    def is_greeted():
        with connection(own) as talk:
            assert talk.recv(100)

    def plants():
        socket.socket(socket.AF_UNIX).bind(path + "0")

    assert not any(map(as_nobody, (connects, plants, lambda: os.unlink(path), lambda: os.rename(folder, folder + "0"))))
    os.chmod(folder, 0o755)
    os.chmod(path, 0o777)
    assert as_nobody(connects) and not as_nobody(is_greeted) and not as_nobody(plants)
    os.chmod(folder, 0o700)
    assert own.run(CLIENTS[0], *EMBED, stdin=b"a cat\n").ok().out == line and served(own) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_what_another_user_has_planted_is_not_trusted(own, line):
    """His folder, or his process behind a socket in ours."""
    folder = os.path.join(own.folder, "toast")
    os.mkdir(folder, 0o700)
    os.chown(folder, NOBODY, NOBODY)
    assert not place.is_private(folder)
    for client in CLIENTS:
        assert own.run(client, *EMBED, stdin=b"a cat\n").ok().out == line
    os.chown(folder, 0, 0)
    os.chmod(own.folder, 0o755)
    os.chmod(folder, 0o777)
    path = place.socket({"XDG_RUNTIME_DIR": own.folder})
    ready, pid = os.pipe(), os.fork()
    if pid == 0:
        os.setuid(NOBODY)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(8)
        os.write(ready[1], b"!")
        while True:
            with contextlib.suppress(OSError):  # who is not trusted is not listened to
                listener.accept()[0].sendall(GREETING + b"begun\ndone 0\n")
    assert os.read(ready[0], 1) == b"!"
    os.chmod(folder, 0o700)
    for client in CLIENTS:
        assert own.run(client, *EMBED, stdin=b"a cat\n").ok().out == line
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("spoilt", ["open", "link", "file"])
def test_a_folder_of_others_is_not_trusted(own, client, spoilt, line, tmp_path):
    own.start()
    folder = os.path.join(own.folder, "toast")
    if spoilt == "open":
        os.chmod(folder, 0o755)
    else:
        os.rename(folder, own.folder + "/moved")
        os.symlink(own.folder + "/moved", folder) if spoilt == "link" else open(folder, "w").close()
    assert own.run(client, *EMBED, stdin=b"a cat\n").ok().out == line
    assert own.status() is None
    ran = command("toasted", "run", env=own.env, timeout=20)
    assert ran.status == 2 and ran.err.count(b"\n") == 1


def test_a_path_that_no_socket_can_have(own, line, tmp_path):
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    folder.mkdir(parents=True, mode=0o700)
    own.env["XDG_RUNTIME_DIR"] = str(folder)
    for client in CLIENTS:
        assert own.run(client, *EMBED, stdin=b"a cat\n").ok().out == line
        own.run(client, *EMBED, "-p", "toasted", stdin=b"a cat\n").fails("is too long for a socket")


def test_what_a_request_is():
    asked = Request(
        "embed", ["-m", "é\udcff", ""], {"A": "b=c", "": ""}, version="1", umask=0o27, limits="1", namespace="2"
    )
    data = asked.pack()
    start, size = protocol.length(data)
    assert protocol.unpack(data[start : start + size]).__dict__ == asked.__dict__
    assert protocol.length(b"toas") is None and protocol.length(b"toast 1 12") is None
    for wrong in (b"x", b"toast 1 x\n", b"toast 1 999999999"):
        with pytest.raises(Malformed):
            protocol.length(wrong)
    for wrong in (
        b"",
        b"a\0b\0",
        b"v\0c\0xx\0\0\0" + b"0\0",
        b"v\0c\x0022\0\0\0" + b"5\0",
        b"v\0c\x0022\0\0\0" + b"-1\0",
    ):
        with pytest.raises(Malformed):
            protocol.unpack(wrong)


# ---------------------------------------------------------------- killed at any moment

KILLS = int(os.environ.get("TOAST_KILLS", 3))


@pytest.mark.parametrize("client", CLIENTS)
def test_killed_at_random_moments(own, client, line):
    """Every caller gets the right answer or a clear status 2; nobody waits, nothing comes twice."""
    ends = set()
    for kill in range(KILLS):
        own.start()
        own.run(client, *EMBED, stdin=b"a cat\n")
        callers = [own.popen(client, *EMBED) for _ in range(4)]
        time.sleep(0.15 * kill / max(1, KILLS - 1))
        own.kill()
        for caller in callers:
            out, err = caller.communicate(b"a cat\n", timeout=30)
            ends.add((caller.returncode, out, err))
    assert ends <= {(0, line, b""), (2, b"", ENDED)}, ends


# ---------------------------------------------------------------- what does not answer, and what takes long


def test_stop_lets_jobs_finish(own):
    own.start()
    job = own.popen(CLIENTS[0], *EMBED)
    job.stdin.write(b"a cat\n")
    job.stdin.flush()
    job.stdout.readline()
    stop = own.popen(CLIENTS[0], "toasted", "stop")
    time.sleep(6)  # longer than a signal would give them
    assert job.poll() is None
    out, err = job.communicate(b"a dog\n")
    assert (job.returncode, len(out.splitlines()), err) == (0, 1, b"")
    assert stop.wait(30) == 0 and own.status() is None


@pytest.mark.parametrize("client", CLIENTS)
def test_a_job_that_does_not_listen_holds_nobody(own, client):
    """The other side beats, and says nothing of an end."""
    fake = Fake(own, b"begun\n", beats=True)
    asked = own.popen(client, *EMBED)
    own.wait(fake.asked.is_set)
    began = time.monotonic()
    asked.send_signal(signal.SIGTERM)
    assert asked.wait(20) == -signal.SIGTERM and time.monotonic() - began < 6


@pytest.mark.parametrize("words", [["-p", "here"], ["-phere"], ["-qp", "here"], ["-qphere"]])
@pytest.mark.parametrize("client", CLIENTS)
def test_here_is_here(shared, client, words):
    before = shared.status()
    shared.run(client, *EMBED, *words, stdin=b"a cat\n").ok()
    after = shared.status()
    assert (after["served"], after["refused"]) == (before["served"], before["refused"])


def test_a_folder_that_is_open_is_told_at_once(own):
    os.mkdir(f"{own.folder}/toast")
    os.chmod(f"{own.folder}/toast", 0o755)
    began = time.monotonic()
    told = f"{own.folder}/toast is not a folder that only you may enter (chmod 700 {own.folder}/toast, or -p here)"
    own.run(CLIENTS[0], *EMBED, "-p", "toasted", stdin=b"a\n").fails(told)
    own.run(CLIENTS[0], "toasted", "run").fails(told)
    ran = own.run(CLIENTS[0], *EMBED, "--warm", "1m", stdin=b"a\n").ok(quiet=False)
    assert told.encode() in ran.err and time.monotonic() - began < 15


def test_one_that_is_stopped_is_told(own):
    own.start()
    own.process.send_signal(signal.SIGSTOP)
    try:
        for word in ("status", "stop"):
            ran = own.run(CLIENTS[0], "toasted", word)
            ran.fails("the warm process does not answer", f"kill -9 {own.process.pid} ends it")
    finally:
        own.process.send_signal(signal.SIGCONT)


def test_few_descriptors_leave_jobs_to_their_callers(own):
    """`ulimit -n`: what it has no descriptors for runs where it came from."""
    command = f"ulimit -n 96; exec {words_of(CLIENTS[0], 'toasted')[0]} run"
    own.process = subprocess.Popen(["bash", "-c", command], stderr=subprocess.PIPE, env=environment(own.env))
    own.wait(own.status)
    running = [own.popen(CLIENTS[0], *EMBED) for _ in range(12)]
    for job in running:
        job.stdin.write(b"a cat\n")
        job.stdin.flush()
        job.stdout.readline()
    for job in running:
        assert job.communicate()[1] == b"" and job.returncode == 0
    assert own.status()["refused"] >= 1
