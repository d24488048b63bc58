"""What people start with: few records, questions that nothing answers, the line that is shown; by the commands.

    python tests/bench/small.py top1 FOLDER                      records cut to 300 characters, 8, 30 and 100 of them
    python tests/bench/small.py nothere FOLDER FOLDER...         200 questions of each asked of each other
    python tests/bench/small.py lines SQUAD.json                 a sentence a line: does the shown one hold the answer
    python tests/bench/small.py files DOCS QUERIES.tsv           the right file among the first three (peps.tsv)
    python tests/bench/small.py shards FOLDER                    ten shards and their merge: the same ids and scores

FOLDER is as for retrieval.py; --keep DIR: where indexes are and stay; -m MODEL.
"""

import argparse
import json
import os
import random
import re
import subprocess
import tempfile

SENTENCE = re.compile(r"(?<=[.!?])\s+")


def rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def graded(folder):
    """Query id -> ids of documents that answer it."""
    found = {}
    with open(f"{folder}/qrels.tsv") as file:
        for query, document, grade in (line.split("\t") for line in file):
            if float(grade) > 0:
                found.setdefault(query, set()).add(document)
    return found


def questions(folder, count=200):
    """As many (id, text) that have an answer, evenly over all of them."""
    right = graded(folder)
    found = [(row["id"], row["text"]) for row in rows(f"{folder}/queries.jsonl") if row["id"] in right]
    return found[:: max(len(found) // count, 1)][:count]


def index(records, path, options=()):
    if not os.path.exists(path):
        text = "".join(json.dumps(record) + "\n" for record in records)
        subprocess.run(["index", "-q", "--jsonl", "--id", "id", "-o", path, *options], input=text.encode(), check=True)


def ask(texts, indexes, *options, k=1):
    """For each text its hits."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(text.replace("\n", " ") + "\n" for text in texts))
        file.flush()
        words = ["search", "--queries", file.name, "--json", "-k", str(k), *options, *indexes]
        ran = subprocess.run(words, stdout=subprocess.PIPE)
    assert ran.returncode in (0, 1)
    found = [[] for _ in texts]
    for hit in map(json.loads, ran.stdout.splitlines()):
        found[hit["query"]].append(hit)
    return found


def name_of(folder, args, suffix=""):
    return os.path.join(
        args.keep, os.path.abspath(folder).strip("/").replace("/", "-") + f"{args.model or ''}{suffix}.db"
    )


def top1(args):
    """Share of first hits that are right, by mode; samples of five seeds."""
    [folder] = args.paths
    records = [{"id": row["id"], "text": row["text"][:300]} for row in rows(f"{folder}/corpus.jsonl")]
    asked = {row["id"]: row["text"] for row in rows(f"{folder}/queries.jsonl")}
    right = graded(folder)
    for size in (8, 30, 100):
        sums = {}
        for seed in range(5):
            sample = random.Random(seed * 1000 + size).sample(records, size)
            ids = {record["id"] for record in sample}
            own = [query for query in asked if right.get(query, set()) & ids]
            path = name_of(folder, args, f"-{size}-{seed}")
            index(sample, path, args.options)
            for mode in ("hybrid", "vector", "lexical"):
                hits = ask([asked[query] for query in own], [path], "--mode", mode)
                good = [bool(hit) and hit[0]["id"] in right[query] for query, hit in zip(own, hits, strict=True)]
                sums.setdefault(mode, []).append(sum(good) / len(good))
        print(size, {mode: round(sum(each) / len(each), 4) for mode, each in sums.items()}, flush=True)


def nothere(args):
    """Of 200 questions of the column asked of the row, how many have hits under the default floor."""
    for here in args.paths:
        path = name_of(here, args)
        index(rows(f"{here}/corpus.jsonl"), path, args.options)
        for there in args.paths:
            found = ask([text for _, text in questions(there)], [path])
            print(here, "<-", there, f"{100 * sum(map(bool, found)) / len(found):.1f}%", flush=True)


def lines(args):
    """Paragraphs with a sentence a line, a file each; 200 questions: of the hits whose chunk holds the answer, how many
    show a line that does. Whole paragraphs, and cut to 300 characters."""
    with open(args.paths[0], encoding="utf-8") as file:
        paragraphs = [part for article in json.load(file)["data"] for part in article["paragraphs"]]
    asked = [(qa["question"], qa["answers"][0]["text"]) for part in paragraphs for qa in part["qas"]]
    asked = asked[:: len(asked) // 200][:200]
    for limit in (300, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            for i, part in enumerate(paragraphs):
                with open(f"{folder}/{i}.txt", "w", encoding="utf-8") as file:
                    file.write("\n".join(SENTENCE.split(part["context"][:limit])) + "\n")
            path = os.path.join(folder, "x.db")
            subprocess.run(["index", "-q", "-o", path, *args.options, folder], check=True)
            held = shown = 0
            for (_, answer), hits in zip(asked, ask([text for text, _ in asked], [path], k=10), strict=True):
                for hit in hits:
                    if answer in hit["text"]:
                        held += 1
                        shown += answer in hit["text"].split("\n")[hit["line"] - hit["start_line"]]
        print(f"{limit} characters: {shown} of {held} hits, {shown / held:.3f}", flush=True)


def files(args):
    docs, queries = args.paths
    path = name_of(docs, args)
    if not os.path.exists(path):
        subprocess.run(["index", "-q", "-o", path, *args.options, docs], check=True)
    with open(queries, encoding="utf-8") as file:
        pairs = [line.rstrip("\n").split("\t") for line in file]
    good = 0
    for (text, right), hits in zip(pairs, ask([text for text, _ in pairs], [path], k=30), strict=True):
        names = list(dict.fromkeys(os.path.basename(hit["path"]) for hit in hits))
        good += right in names[:3]
        if right not in names[:3]:
            print("missed:", text, right, names[:5])
    print(f"{good} of {len(pairs)}")


def shards(args):
    [folder] = args.paths
    records = rows(f"{folder}/corpus.jsonl")
    texts = [text for _, text in questions(folder, 50)]
    paths = [name_of(folder, args, f"-{i}") for i in range(10)]
    for i, path in enumerate(paths):
        index(records[i::10], path, args.options)
    whole = name_of(folder, args, "-all")
    if not os.path.exists(whole):
        subprocess.run(["index", "--merge", *paths, "-o", whole], check=True)
    for mode in ("hybrid", "vector", "lexical"):
        parts, one = (
            [[(hit["id"], hit["score"]) for hit in hits] for hits in ask(texts, where, "--mode", mode, k=10)]
            for where in (paths, [whole])
        )
        same = sum(map(same_hits, parts, one))
        print(mode, f"{same} of {len(texts)} alike", flush=True)


def same_hits(one, other):
    """Scores to 1e-6; hits that score alike may change places."""
    scores = len(one) == len(other) and all(abs(a[1] - b[1]) < 1e-6 for a, b in zip(one, other, strict=True))
    last = one[-1][1] + 1e-6 if one else 0
    return scores and {id for id, score in one if score > last} == {id for id, score in other if score > last}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["top1", "nothere", "lines", "files", "shards"])
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--keep", default=tempfile.gettempdir(), help="where the indexes are and stay")
    parser.add_argument("-m", "--model")
    args = parser.parse_args()
    args.options = ["-m", args.model] if args.model else []
    globals()[args.what](args)


if __name__ == "__main__":
    main()
