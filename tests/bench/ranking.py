"""How well `rerank` ranks, by the installed commands.

    python tests/bench/ranking.py qa CANDIDATES.jsonl [rerank options]      MAP and MRR
    python tests/bench/ranking.py ir FOLDER INDEX.db [rerank options]       nDCG@10 on the hybrid top 50

A line of CANDIDATES.jsonl: {"query", "candidates": [{"text", "label"}]}; questions without a right
candidate do not count. FOLDER is as for retrieval.py, INDEX.db what it keeps.
"""

import json
import re
import sqlite3
import subprocess
import sys
from collections import defaultdict

from retrieval import ndcg


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def rerank(rows, options):
    """Rows {"q": group, "query", "text", ...} -> group -> rows, best first."""
    words = ["rerank", "-q", "--group", "q", "--query-field", "query", "--json", *options]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    out = subprocess.run(words, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    ranked = defaultdict(list)
    for line in out.splitlines():
        row = json.loads(line)
        ranked[row["q"]].append(row)
    return ranked


def bm25(rows):
    """The same by SQLite's BM25 over each question's own candidates, porter stems, OR of the words."""
    groups, ranked = defaultdict(list), {}
    for row in rows:
        groups[row["q"]].append(row)
    for q, group in groups.items():
        db = sqlite3.connect(":memory:")
        db.execute("CREATE VIRTUAL TABLE t USING fts5(text, tokenize='porter unicode61')")
        db.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", enumerate((row["text"] for row in group), 1))
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", group[0]["query"]))
        found = dict(db.execute("SELECT rowid, rank FROM t WHERE t MATCH ?", (words,)))
        ranked[q] = sorted(group, key=lambda row: found.get(group.index(row) + 1, 0))
    return ranked


def precision(ranked):
    """(mean average precision, mean reciprocal rank)."""
    average, reciprocal = [], []
    for rows in ranked.values():
        at = [i for i, row in enumerate(rows, 1) if row["label"]]
        if at:
            average.append(sum(n / i for n, i in enumerate(at, 1)) / len(at))
            reciprocal.append(1 / at[0])
    return sum(average) / len(average), sum(reciprocal) / len(reciprocal)


def qa(path, options):
    rows = [
        {"q": i, "query": question["query"], **candidate}
        for i, question in enumerate(lines(path))
        for candidate in question["candidates"]
    ]
    for name, ranked in (("rerank", rerank(rows, options)), ("BM25", bm25(rows))):
        print("{}\tMAP {:.4f}\tMRR {:.4f}".format(name, *precision(ranked)))


def ir(folder, index, options):
    grades = defaultdict(dict)
    with open(f"{folder}/qrels.tsv") as file:
        for query, document, grade in (line.split("\t") for line in file):
            grades[query][document] = int(grade)
    queries = lines(f"{folder}/queries.jsonl")
    words = ["search", "--queries", f"{folder}/queries.jsonl", "-k", "50", "--json", "-i", index]
    out = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
    hits = [json.loads(line) for line in out.splitlines()]
    before = defaultdict(list)
    for hit in hits:
        before[hit["query"]].append(hit)
    rows = [
        {"q": hit["query"], "id": hit["id"], "query": queries[hit["query"]]["text"], "text": hit["text"]}
        for hit in hits
    ]
    for name, ranked in (("search", before), ("rerank", rerank(rows, options))):
        each = [
            ndcg([row["id"] for row in ranked[i]], grades[query["id"]])
            for i, query in enumerate(queries)
            if any(grades[query["id"]].values())
        ]
        print(f"{name}\tnDCG@10 {sum(each) / len(each):.4f}\t{len(each)} queries")


if __name__ == "__main__":
    kind, *words = sys.argv[1:]
    qa(words[0], words[1:]) if kind == "qa" else ir(words[0], words[1], words[2:])
