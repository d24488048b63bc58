"""recall@10 of search's int8 scan against exact float32, by the commands, on an index made with --exact.

python tests/bench/recall.py INDEX QUERIES.txt
"""

import json
import os
import subprocess
import sys
import tempfile
from io import BytesIO

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from embed import checksum  # noqa: E402

K = 10


def without_floats(index, path):
    """A copy with the int8 codes alone: search would read the floats."""
    import shutil
    import sqlite3

    shutil.copy(index, path)
    db = sqlite3.connect(path)
    db.execute("UPDATE segments SET exact = NULL")
    db.execute("UPDATE meta SET value = '0' WHERE key = 'exact'")
    db.commit()
    db.close()
    fd = os.open(path, os.O_RDWR)
    checksum.cut(fd)
    os.close(fd)
    return path


def scanned(index, queries):
    """Query number -> the first lines of its K nearest chunks."""
    words = ["search", "-i", index, "--queries", queries, "--mode", "vector", "--json", "-k", str(K)]
    found = {}
    for line in subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.splitlines():
        hit = json.loads(line)
        found.setdefault(hit["query"], set()).add(hit["start_line"])
    return found


def exact(index, queries):
    """The same by float32 vectors in the order of the index's chunks."""
    import sqlite3

    db = sqlite3.connect(f"file:{index}?mode=ro", uri=True)
    lines = dict(db.execute("SELECT id, start_line FROM chunks"))
    with open(queries, "rb") as file:
        embedded = subprocess.run(["embed", "--as", "query"], stdin=file, stdout=subprocess.PIPE, check=True).stdout
    wanted = np.load(BytesIO(embedded))
    ids, scores = [], []
    for own, vectors in db.execute("SELECT ids, exact FROM segments ORDER BY first"):
        ids.append(np.frombuffer(own, np.int64))
        scores.append(wanted @ np.frombuffer(vectors, np.float32).reshape(len(ids[-1]), -1).T)
    ids, scores = np.concatenate(ids), np.concatenate(scores, axis=1)
    best = np.argpartition(-scores, K, axis=1)[:, :K]
    return {q: {lines[i] for i in ids[row].tolist()} for q, row in enumerate(best)}, len(ids)


def main(index, queries):
    wanted, count = exact(index, queries)
    with tempfile.TemporaryDirectory() as folder:
        found = scanned(without_floats(index, os.path.join(folder, "codes.db")), queries)
    hits = sum(len(wanted[q] & found.get(q, set())) for q in wanted)
    print(f"recall@{K} {hits / (K * len(wanted)):.4f} over {count} vectors, {len(wanted)} queries")


main(*sys.argv[1:])
