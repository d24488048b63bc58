"""Probes on labelled collections, by the installed command: accuracy and calibration error.

    python tests/bench/probe.py FOLDER    with trec-train, trec-test, sst2-dev, banking77-train .jsonl

TREC's own split; SST-2: 8, 16 and 64 of each label, five times; Banking77: 8 and 16 of each label. Beside each, the
share of another collection's lines (foreign) that score 0.9 or more.
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


# a sentence for each label, as a user would write it
SENTIMENT = "negative: A negative review of a movie that the critic did not like.\n" \
            "positive: A positive review of a movie that the critic liked.\n"  # fmt: skip


def split(rows, count, seed=0):
    """(the first `count` of each label, in a seeded order; the others)."""
    rows, taken, train, test = random.Random(seed).sample(rows, len(rows)), {}, [], []
    for row in rows:
        key = row["label"]
        taken[key] = taken.get(key, 0) + 1
        (train if taken[key] <= count else test).append(row)
    return train, test


def measure(name, train, test, *, foreign, labels=""):
    with tempfile.TemporaryDirectory() as folder:
        for part, rows in (("train", train), ("test", test)):
            with open(os.path.join(folder, part), "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        with open(os.path.join(folder, "labels"), "w", encoding="utf-8") as file:
            file.write(labels)
        start = time.perf_counter()
        more = ["-L", "labels"] if labels else []
        subprocess.run(["classify", "-q", "--learn", "train", "-o", "probe", *more], cwd=folder, check=True)
        seconds = time.perf_counter() - start
        words = ["classify", "-m", "probe", "--report", "test"]
        out = subprocess.run(words, cwd=folder, check=True, stdout=subprocess.PIPE).stdout.decode()
        text = "".join(row["text"].replace("\n", " ") + "\n" for row in foreign).encode()
        found = subprocess.run(["classify", "-m", "probe"], cwd=folder, check=True, input=text, stdout=subprocess.PIPE)
        sure = sum(float(line.split(b"\t")[1]) >= 0.9 for line in found.stdout.splitlines()) / len(foreign)
    measures = "\t".join(line.replace("\t", " ") for line in out.splitlines()[:4])
    print(f"{name}\tlearnt {len(train)} in {seconds:.1f} s\t{measures}\tforeign {sure:.3f}", flush=True)


if __name__ == "__main__":
    folder = sys.argv[1]
    trec, sst, bank = (lines(folder, name) for name in ("trec-train", "sst2-dev", "banking77-train"))
    measure("TREC", trec, lines(folder, "trec-test"), foreign=sst)
    for count in (8, 16, 64):
        for seed in range(5):
            measure(f"SST-2, {count}", *split(sst, count, seed), foreign=trec[:1000], labels=SENTIMENT)
    for count in (8, 16):
        measure(f"Banking77, {count}", *split(bank, count), foreign=sst)
