"""Many calls, some of them killed: every other one is right, and the warm process does not grow.

TOAST_SOAK=5000 for the long one."""

import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from command import command, environment
from warm import CLIENTS, Warm, words_of

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
BERT, QWEN = os.path.join(ORACLES, "bert-embed-mean"), os.path.join(ORACLES, "qwen3-causal")
CALLS = int(os.environ.get("TOAST_SOAK", 1000))
KINDS = [
    (["embed", "-m", BERT, "--json"], b"a cat\na dog\n"), (["rerank", "-m", BERT, "cat"], b"a cat\na dog\n"),
    (["classify", "-m", BERT, "-l", "x,y"], b"a cat\n"), (["search", "-m", BERT, "cat"], b"a cat\na dog\n"),
    (["toast", "-m", QWEN, "-n", "8", "hi"], b"a text"), (["index", "-m", BERT], b"a cat\n"),
    (["toast", "-m", QWEN, "-n", "4", "--each"], b"one\ntwo\n"), (["tokenize", "-m", QWEN, "--ids"], b"a cat"),
]  # fmt: skip


def size(warm):
    """(descriptors, threads, bytes) of the process."""
    status = warm.status()
    assert status["running"] == 0
    pid = status["pid"]
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")), status["memory"]


@pytest.mark.long
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_soak(tmp_path):
    env = {"TOAST_HOME": str(tmp_path)}
    right = [command(*words, stdin=stdin, env=env).ok(quiet=False).out for words, stdin in KINDS]
    warm, wrong = Warm(**env).start(), []

    def one(n):
        words, stdin = KINDS[n % len(KINDS)]
        chance = random.Random(n)
        process = subprocess.Popen(
            [*words_of(CLIENTS[0], words[0]), *words[1:]], env=environment(warm.env),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if chance.random() < 0.1:
            try:
                process.wait(chance.random() / 50)
            except subprocess.TimeoutExpired:
                process.send_signal(chance.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
            process.communicate()
        elif (process.communicate(stdin)[0], process.returncode) != (right[n % len(KINDS)], 0):
            wrong.append((words, process.returncode))

    def some(count):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(count)))
        warm.wait(lambda: warm.status()["running"] == 0)
        time.sleep(2)  # it tidies up every second
        return size(warm)

    try:
        before, after = some(CALLS // 2), some(CALLS // 2)
    finally:
        warm.end()
    assert not wrong
    assert after[0] <= before[0] and after[1] <= before[1] + 2 and after[2] < before[2] * 1.05, (before, after)
