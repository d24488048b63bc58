"""How long one cold `search` takes on a large index: random vectors, Zipf-distributed words.

    python tests/bench/scale.py [--chunks 200000] [--words 60] [--keep FILE]

The index is made by the package's own writer, with random numbers in place of an embedder.
"""

import argparse
import itertools
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from embed import checksum, database, model, schema, vectors, words, writer  # noqa: E402
from embed.documents import Document  # noqa: E402
from toast import command  # noqa: E402
from toast.store.fingerprint import digest  # noqa: E402

COMMON = "the of and to a in is that it for was on are as with his they be at one have this".split()
RARE = ["install", "compiler", "borrow", "lifetime", "thread", "iterator", "closure", "trait", "module", "ownership"]
QUERIES = [
    "how to install the compiler", "what is the lifetime of a thread", "to be or not to be",
    "the ownership of it", "closure",
]  # fmt: skip


class Random(model.NoEmbedder):
    """Rows of random numbers, with the size and the distribution of real ones."""

    dims = 384

    def __init__(self):
        self.rng = np.random.default_rng(1)

    def rows(self, texts):
        codes = self.rng.integers(-60, 60, (len(texts), self.dims), dtype=np.int8)
        scales = (1 / np.linalg.norm(codes.astype(np.float32), axis=1)).astype(np.float32)
        return [(code.tobytes(), scale.tobytes(), None) for code, scale in zip(codes, scales)]


def build(call, path, chunks, size):
    rng = random.Random(1)
    vocabulary = [*COMMON, *RARE, *(f"word{i}" for i in range(50_000))]
    heavy = list(itertools.accumulate(1 / (i + 1) for i in range(len(vocabulary))))
    db = schema.connect(path)
    schema.create(db)
    db.execute("PRAGMA synchronous = OFF")
    name = os.environ.get("EMBED_MODEL", model.DEFAULT)
    database.set_meta(db, model=name, digest=digest(call, name), dims=Random.dims, chunk="auto", exact=0)
    out = writer.Writer(db, Random())
    for i in range(chunks):
        text = f"{i} " + " ".join(rng.choices(vocabulary, cum_weights=heavy, k=size))
        data = text.encode()
        out.add(Document(f"folder{i // 100}/file{i}.txt", data, raw=data))
    out.flush()
    vectors.pack(db, Random.dims)
    words.optimize(db)
    db.close()
    fd = os.open(path, os.O_RDWR)
    checksum.seal(call, fd, path)
    os.close(fd)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=200_000)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--keep", help="the index to make, or to use when it is there")
    args = parser.parse_args()
    path = args.keep or os.path.join(tempfile.mkdtemp(), "scale.db")
    if not os.path.exists(path):
        build(command.Call("scale", os.environ, os.open(".", os.O_RDONLY)), path, args.chunks, args.words)
    print(f"{path}: {os.path.getsize(path) / 1e6:.0f} MB")
    for query in QUERIES:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run(["search", query, "-i", path], stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - start)
        print(f"{statistics.median(times):.3f} s  {query}", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
