"""How everyday answers end: 63 prompts of seven kinds, by several settings of the sampler.

everyday.py [-m MODEL] [--limit 700] ['' 'temperature=0.2,top_p=0.9' 'dry=2,end=0.5' ...]
For each setting: how many ended by themselves, only repeated themselves, or ran to the limit; median tokens; the
same for each kind. --texts FILE...: instead, which of these files the loop stop would cut if a model repeated them.
"""

import argparse
import collections
import json
import os
import statistics

from toast.command import Call
from toast.generation.batch_generate import Job, decode
from toast.generation.engine import Engine
from toast.generation.generate import Sequence
from toast.question import Question

PROMPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "everyday.jsonl")


def answers(engine, settings, limit):
    """(kind, reason, tokens) of each prompt's answer."""
    with open(PROMPTS, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    jobs, kinds = [], {}
    for row in rows:
        _, ids = engine.prompt(Question(row["text"], row["instruction"]).messages())
        job = Job(ids, engine.sampler(settings), Sequence(engine.ends, limit))
        kinds[id(job)] = row["kind"]
        jobs.append(job)
    for job in decode(engine.language.model, engine.language.caches, jobs):
        yield kinds[id(job)], job.sequence.reason, job.sequence.kept


def report(name, found):
    by_kind = collections.defaultdict(list)
    for kind, reason, tokens in found:
        by_kind[kind].append((reason, tokens))
        by_kind["all"].append((reason, tokens))
    print(name or "as the model's defaults have it")
    for kind, rows in by_kind.items():
        reasons = collections.Counter(reason for reason, _ in rows)
        median = statistics.median(tokens for _, tokens in rows)
        print(f"  {kind:10} {len(rows):3} prompts: {dict(reasons)}, median {median:.0f} tokens")


def would_cut(engine, files):
    cut = 0
    for name in files:
        with open(name, encoding="utf-8", errors="replace") as file:
            sequence = Sequence()
            for token in engine.tokenizer.encode(file.read(200_000)):
                sequence.take(token)
                if sequence.reason:
                    break
        cut += sequence.reason == "loop"
        if sequence.reason == "loop":
            print(f"cut after {sequence.kept} tokens: {name}")
    print(f"{cut} of {len(files)} files cut")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("settings", nargs="*", default=[""])
    parser.add_argument("-m", "--model", default="smollm2")
    parser.add_argument("--limit", type=int, default=700)
    parser.add_argument("--texts", nargs="+")
    args = parser.parse_args()
    engine = Engine(Call("everyday", os.environ, os.open(".", os.O_RDONLY)), args.model)
    if args.texts:
        return would_cut(engine, args.texts)
    for setting in args.settings:
        asked = {name: float(value) for name, _, value in (part.partition("=") for part in setting.split(",") if part)}
        report(setting, list(answers(engine, asked, args.limit)))


main()
