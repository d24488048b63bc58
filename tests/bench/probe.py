"""Probes on labelled collections, by the installed command: accuracy and calibration error.

    python tests/bench/probe.py FOLDER    with trec-train, trec-test, sst2-dev, banking77-train .jsonl

TREC's own split; SST-2: 200 sentences teach, the rest test; Banking77: 5 and 20 of each label.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time


def lines(folder, name):
    with open(f"{folder}/{name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def split(rows, count, by_label):
    """(the first `count`, of each label or of all, in a seeded order; the others)."""
    rows, taken, train, test = random.Random(0).sample(rows, len(rows)), {}, [], []
    for row in rows:
        key = row["label"] if by_label else None
        taken[key] = taken.get(key, 0) + 1
        (train if taken[key] <= count else test).append(row)
    return train, test


def measure(name, train, test):
    with tempfile.TemporaryDirectory() as folder:
        for part, rows in (("train", train), ("test", test)):
            with open(os.path.join(folder, part), "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        start = time.perf_counter()
        subprocess.run(["classify", "--learn", "train", "-o", "probe"], cwd=folder, check=True)
        seconds = time.perf_counter() - start
        words = ["classify", "-m", "probe", "--report", "test"]
        out = subprocess.run(words, cwd=folder, check=True, stdout=subprocess.PIPE).stdout.decode()
    measures = "\t".join(line.replace("\t", " ") for line in out.splitlines()[:4])
    print(f"{name}\tlearnt {len(train)} in {seconds:.1f} s\t{measures}", flush=True)


if __name__ == "__main__":
    folder = sys.argv[1]
    measure("TREC", lines(folder, "trec-train"), lines(folder, "trec-test"))
    measure("SST-2", *split(lines(folder, "sst2-dev"), 200, by_label=False))
    for count in (5, 20):
        measure(f"Banking77, {count}", *split(lines(folder, "banking77-train"), count, by_label=True))
