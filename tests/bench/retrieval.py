"""nDCG@10 of `index` and `search` on folders of corpus.jsonl, queries.jsonl and qrels.tsv.

    python tests/bench/retrieval.py FOLDER... [--modes hybrid,vector,lexical,rerank] [--keep DIR]

The mode rerank is hybrid with --rerank.
"""

import argparse
import json
import math
import os
import subprocess
import tempfile
import time


def ndcg(ranked, grades, k=10):
    gain = sum(grades.get(id, 0) / math.log2(i + 2) for i, id in enumerate(ranked[:k]))
    best = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(grades.values(), reverse=True)[:k]))
    return gain / best


def build(folder, path):
    with open(f"{folder}/corpus.jsonl") as corpus:
        start = time.perf_counter()
        subprocess.run(["index", "-q", "--jsonl", "--id", "id", "-o", path], stdin=corpus, check=True)
    return time.perf_counter() - start


def ask(folder, path, mode):
    """Query number -> ids, best first."""
    how = ["--rerank"] if mode == "rerank" else ["--mode", mode]
    words = ["search", "--queries", f"{folder}/queries.jsonl", *how, "--json", "-k", "10", "-i", path]
    found = {}
    for line in subprocess.run(words, capture_output=True, check=True).stdout.splitlines():
        hit = json.loads(line)
        found.setdefault(hit["query"], []).append(hit["id"])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--modes", default="lexical,vector,hybrid")
    parser.add_argument("--keep", default=tempfile.gettempdir(), help="where the indexes are and stay")
    args = parser.parse_args()
    for folder in args.folders:
        path = os.path.join(args.keep, os.path.abspath(folder).strip("/").replace("/", "-") + ".db")
        row = {"collection": folder}
        if not os.path.exists(path):
            row["index_s"] = round(build(folder, path), 1)
        queries = [json.loads(line)["id"] for line in open(f"{folder}/queries.jsonl")]
        grades = {}
        for line in open(f"{folder}/qrels.tsv"):
            query, document, grade = line.split("\t")
            if float(grade) > 0:
                grades.setdefault(query, {})[document] = float(grade)
        for mode in args.modes.split(","):
            found = ask(folder, path, mode)
            scores = [ndcg(found.get(i, []), grades[q]) for i, q in enumerate(queries) if q in grades]
            row[mode] = round(sum(scores) / len(scores), 4)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
