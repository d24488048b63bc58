"""Spearman correlation of `embed`'s cosines with human scores of similarity (STS).

python tests/bench/sts.py PAIRS.tsv [embed options, e.g. -m minilm@f32]
Lines of PAIRS.tsv: score, sentence, sentence. Runs the installed command; prints the correlation.
"""

import io
import os
import subprocess
import sys

import numpy as np


def embed(lines, options):
    """Vectors of the lines, by the command beside this Python, else the one on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), "embed")
    command = [beside if os.path.exists(beside) else "embed", *options]
    text = "".join(line + "\n" for line in lines).encode()
    ran = subprocess.run(command, input=text, stdout=subprocess.PIPE, check=True)
    return np.load(io.BytesIO(ran.stdout))


def ranks(x):
    """Ranks from 1, ties sharing their mean."""
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]


def main(path, *options):
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    gold = np.array([float(row[0]) for row in rows])
    vectors = embed([row[1] for row in rows] + [row[2] for row in rows], options)
    left, right = np.split(vectors, 2)
    cosine = np.sum(left * right, axis=1)
    print(f"{np.corrcoef(ranks(gold), ranks(cosine))[0, 1]:.5f}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
