"""Whole commands warm and cold, in turn: wall time in ms (median of 15); the client's memory; many at once.

python tests/bench/warm.py    the default models have to be in the store
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from command import environment
from warm import CLIENTS, Warm, words_of

REPEAT = int(os.environ.get("REPEAT", 15))
RECORDS = "".join(f"record {i} about cats, dogs and the weather of day {i * 7 % 31}\n" for i in range(20)).encode()


def timed(words, stdin, env):
    """Seconds from the start of a command to its end."""
    began = time.perf_counter()
    subprocess.run(words, input=stdin, stdout=subprocess.DEVNULL, env=env, check=True)
    return time.perf_counter() - began


def memory(words, env):
    """MB that a command that waits for its input has taken at most."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env)
    time.sleep(0.5)
    with open(f"/proc/{process.pid}/status") as file:
        found = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    process.communicate()
    return found / 1024


def compare(warm, name, words, stdin):
    """Lines of the table for one call; TURN in its words and input is another number each time."""
    kinds = {"cold": ([*words_of(CLIENTS[0], name), *words, "-p", "here"], warm.env)}
    kinds |= {client: ([*words_of(client, name), *words], warm.env) for client in CLIENTS}
    found = {kind: [] for kind in kinds}
    for turn in range(REPEAT + 1):
        for n, (kind, (line, env)) in enumerate(kinds.items()):
            number = str(3 * turn + n)
            line = [word.replace("TURN", number) for word in line]
            result = timed(line, stdin.replace(b"TURN", number.encode()), environment(env))
            if turn:  # the first one loads
                found[kind].append(result)
    for kind, results in found.items():
        print(f"{name} {' '.join(words)[:40]}\t{kind}\t{1000 * statistics.median(results):.1f} ms", flush=True)


def at_once(warm, count, tokens=64):
    """Seconds of each of `count` answers begun at once."""
    words = [*words_of(CLIENTS[0], "toast"), "-n", str(tokens), "--no-loop-stop", "--no-input"]
    env, began = environment(warm.env), time.perf_counter()
    stories = [[*words, f"Tell a story about number {i}."] for i in range(count)]
    running = [subprocess.Popen(story, stdout=subprocess.DEVNULL, env=env) for story in stories]
    ends = {}
    while running:
        for process in list(running):
            if process.poll() is not None:
                running.remove(process)
                ends[process.pid] = time.perf_counter() - began
        time.sleep(0.002)
    return sorted(ends.values())


def main():
    warm = Warm().start()
    folder = tempfile.mkdtemp()
    try:
        text = "".join(f"line {i}: the {i % 97} cats and {i % 89} dogs went to town {i % 1013}\n" for i in range(10000))
        with open(f"{folder}/x.db", "wb") as file:
            subprocess.run(words_of(CLIENTS[0], "index"), input=text.encode(), stdout=file, check=True)
        compare(warm, "embed", [], b"a cat\n")
        compare(warm, "rerank", ["cats"], RECORDS)
        compare(warm, "rerank", ["cats"], RECORDS.replace(b"day", b"day TURN"))
        compare(warm, "search", ["dogs in town", f"{folder}/x.db"], b"")
        compare(warm, "search", ["dogs in town TURN", f"{folder}/x.db"], b"")
        compare(warm, "toast", ["-n", "1", "say it"], b"")
        for client in CLIENTS:
            used = memory([*words_of(client, "embed"), "--json"], environment(warm.env))
            print(f"memory of a client\t{client}\t{used:.1f} MB")
        turns = [[at_once(warm, count) for count in (1, 16)] for _ in range(5)]
        rates = [[64 * len(ends) / ends[-1] for ends in turn] for turn in turns]
        late = statistics.median(many[-1] / statistics.median(many) for _, many in turns)
        ratio = statistics.median(many / one for one, many in rates)
        one, many = (statistics.median(rate) for rate in zip(*rates))
        print(f"toast -n 64, tokens/s\t1: {one:.0f}, 16 at once: {many:.0f}, in turn {ratio:.1f} times\t"
              f"the slowest takes {late:.2f} of the median")  # fmt: skip
    finally:
        warm.end()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
