"""How long, and for how much, an index of N records takes on M machines: measured on a few, predicted for many.

    python tests/bench/scale_model.py [--text FILE] [--cores 32] [--price 1.0] [--check 100000]

Measures, with TOAST_THREADS=1, a run of nothing (start), of SAMPLE records and of a quarter of them (seconds and bytes
of a record), and merges of two sizes (seconds of a merged record). Predicts, for 10^6 to 10^10 records on machines of
--cores cores at --price an hour each: records come in shards of SHARD, machines merge their own shards, the results
are searched side by side. --check N indexes N records here, in shards, and says how far the prediction was off.
Lines of --text are the records, over and over, each with its number; without it, sentences that are made.
"""

import argparse
import itertools
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

SAMPLE, SHARD, REPEAT = 4000, 100_000, 3
WORDS = """the a of to and in it is was that for on with as by from this which all were when we there can an your has
water house river morning machine letter garden music number winter country paper market school doctor engine station
bridge forest window picture village captain island question answer reason weather journey silver bread horse""".split()


def records(path, count):
    """Lines of text, as bytes: numbered, so that no two are alike."""
    if path:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip()]
    else:
        rng = random.Random(1)
        lines = [" ".join(rng.choices(WORDS, k=rng.randint(5, 40))) for _ in range(1000)]
    return b"".join(f"{i} {line}\n".encode() for i, line in zip(range(count), itertools.cycle(lines)))


def run(words, stdin=b""):
    """(CPU seconds, wall seconds) of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, input=stdin, check=True, env={**os.environ, "TOAST_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - began


def best(words, stdin=b""):
    """The least CPU seconds of a few runs: whatever else runs only adds."""
    return min(run(words, stdin)[0] for _ in range(REPEAT))


class Model:
    """What was measured. start, each: seconds of a shard and of a record; merged: of a record that is merged; size:
    bytes of a record in an index."""

    def __init__(self, text, folder):
        few, many = SAMPLE // 4, SAMPLE
        parts = []
        for i, count in enumerate((few, many, many)):
            parts.append(f"{folder}/{i}.db")
            run(["index", "-q", "--source", str(i), "-o", parts[-1]], records(text, count))
        least, most = (best(["index", "-q", "-o", f"{folder}/x.db"], records(text, n)) for n in (few, many))
        self.each = (most - least) / (many - few)
        self.start = max(0.0, least - self.each * few)
        small, large = (best(["index", "-q", "--merge", a, parts[2], "-o", f"{folder}/m.db"]) for a in parts[:2])
        self.merged = max(0.0, large - small) / (many - few)
        self.size = os.path.getsize(parts[1]) / many

    def seconds(self, count, shards):
        """CPU seconds of so many records in so many shards, merged once."""
        return self.start * shards + (self.each + self.merged) * count

    def told(self):
        shard, each, merged = 1000 * self.start, 1e6 * self.each, 1e6 * self.merged
        return f"a shard {shard:.0f} ms, a record {each:.0f} us, merged {merged:.0f} us, {self.size:.0f} bytes"


def check(model, text, count, folder):
    """(predicted, measured) CPU seconds of a run in shards, two at a time, and of their merge."""
    shards = max(2, -(-count // SHARD) * 4)
    lines = records(text, count).splitlines(keepends=True)
    size = -(-count // shards)
    parts = [b"".join(lines[i : i + size]) for i in range(0, count, size)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    def one(i):
        words = ["index", "-q", "--source", f"part-{i}", "-o", f"{folder}/part-{i}.db"]
        subprocess.run(words, input=parts[i], check=True, env={**os.environ, "TOAST_THREADS": "1"})
        return words[-1]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(one, range(len(parts))))
    run(["index", "-q", "--merge", *made, "-o", f"{folder}/all.db"])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return model.seconds(count, len(parts)), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", metavar="FILE")
    parser.add_argument("--cores", type=int, default=32)
    parser.add_argument("--price", type=float, default=1.0)
    parser.add_argument("--check", type=int, metavar="N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Model(args.text, folder)
        print(model.told())
        print("| records | machines | hours | price | index of each, GB |\n|---|---|---|---|---|")
        for power in range(6, 11):
            for machines in (1, 10, 100):
                count = 10**power
                hours = model.seconds(count, count / SHARD) / 3600 / machines / args.cores
                size = model.size * count / machines / 1e9
                print(f"| 10^{power} | {machines} | {hours:.2f} | {hours * machines * args.price:.2f} | {size:.1f} |")
        if args.check:
            predicted, measured = check(model, args.text, args.check, folder)
            print(f"{args.check} records: predicted {predicted:.0f} s of CPU, measured {measured:.0f} s "
                  f"({predicted / measured - 1:+.0%})")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
