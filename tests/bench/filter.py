"""What `toast` promises about time, on its default model, by the installed command and its library.

    python tests/bench/filter.py [PEER COMMAND...]

PEER is a command that answers "hi" and streams, measured in turn with ours up to its first byte: it may know no
limit of one token, with which ours ends. Ratios are of medians.
"""

import os
import subprocess
import sys
import tempfile
import time

from toast.command import Call
from toast.generation.batch_generate import Job, decode
from toast.generation.engine import Engine
from toast.generation.generate import Generation, Sequence, prefill
from toast.generation.prompt_lookup import Drafter
from toast.generation.sample import Sampler

TOAST = os.path.join(os.path.dirname(sys.executable), "toast")
LINES = "the lighthouse keeper walked down to the harbour and counted every boat before the storm came in".split()
TEXT = (
    "Local modles are tools. A tool reads its standrd input, writes its standard outptu and ends with a status. "
    "Nobody has to start a server before thay can search a file, and nobody has to stop one afterwards. The weights "
    "lie in one directory, wich all programs share, and they are mapped into memory when they are needed. A shell "
    "script that calls such a tool a hundred times should be as qiuck as one that calls grep. If the input is bad, "
    "the tool says so in one line and ends. If the reader of a pipe gose away, the writer goes away as well."
)


def seconds(words, stdin=b"", **env):
    start = time.perf_counter()
    subprocess.run(words, input=stdin, env=os.environ | env, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def first_byte(words):
    start = time.perf_counter()
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout.read(1), f"no answer from {words[0]}"
        taken = time.perf_counter() - start
        child.kill()
    return taken


def median(values):
    return sorted(values)[len(values) // 2]


def in_turn(runs, turns=5):
    """The median of each run, measured A B A B ..."""
    found = [[run() for run in runs] for _ in range(turns)]
    return [median(column) for column in zip(*found)]


def cold(peer):
    ours = lambda: seconds([TOAST, "--no-input", "-n", "1", "hi"])  # noqa: E731
    found = in_turn([ours, lambda: first_byte(peer)] if peer else [ours])
    print(
        f"cold, one token: {found[0]:.3f} s" + (f", {found[0] / found[1]:.2f} of the peer's first byte" if peer else "")
    )


def second_question():
    text = " ".join(f"{i} {LINES[i % len(LINES)]}" for i in range(700)).encode()
    with tempfile.TemporaryDirectory() as home:
        os.symlink(os.path.join(store_home(), "models"), os.path.join(home, "models"))
        first = seconds([TOAST, "-n", "1", "What is it?"], text, TOAST_HOME=home)
        second = median([seconds([TOAST, "-n", "1", f"Question {i}?"], text, TOAST_HOME=home) for i in range(3)])
    print(f"the same file, second question: {second:.2f} s, {second / first:.2f} of the first's")


def store_home():
    from toast import store

    return store.home(call())


def call():
    return Call("toast", os.environ, os.open(".", os.O_RDONLY))


class Bench:
    def __init__(self):
        self.engine = Engine(call(), "smollm2")

    def ids(self, text):
        return self.engine.prompt([{"role": "user", "content": text}])[1]

    def alone(self, ids, count, drafts=False, ends=()):
        """(ids, seconds of decoding)."""
        caches = self.engine.language.caches()
        prefill(self.engine.language.model, caches, ids[:-1])
        run = Generation(
            self.engine.language.model,
            caches,
            Sampler(),
            sequence=Sequence(ends, count),
            drafter=Drafter(ids) if drafts else None,
        )
        start = time.perf_counter()
        list(run.run(ids[-1]))
        return run.ids, time.perf_counter() - start

    def each(self):
        texts = [" ".join(LINES[i % 9 : i % 9 + 4 + i % 5]) for i in range(64)]
        prompts = [self.ids(f"{text} {i}\n\nTranslate to French.") for i, text in enumerate(texts)]

        def singly():
            start = time.perf_counter()
            for ids in prompts:
                self.alone(ids, 16)
            return time.perf_counter() - start

        def together():
            jobs = [Job(ids, Sampler(), Sequence(limit=16)) for ids in prompts]
            start = time.perf_counter()
            list(decode(self.engine.language.model, self.engine.language.caches, jobs))
            return time.perf_counter() - start

        one, many = in_turn([singly, together], 3)
        print(f"--each, 64 short records: {one / many:.1f} times as fast as one by one")

    def drafts(self):
        """Whole answers: what the model would say after its end is no answer."""
        ends = self.engine.ends
        for name, text in (
            ("editing", f"{TEXT}\n\nRepeat this text with the typos fixed."),
            ("free", "Tell me a story."),
        ):
            ids = self.ids(text)
            answer = self.alone(ids, 256, ends=ends)[0]
            assert answer == self.alone(ids, 256, True, ends)[0]
            plain, drafted = in_turn(
                [lambda: self.alone(ids, 256, ends=ends)[1], lambda: self.alone(ids, 256, True, ends)[1]]
            )
            print(f"drafts, {name}: {plain / drafted:.2f} times plain decoding, {len(answer)} tokens")


if __name__ == "__main__":
    cold(sys.argv[1:])
    second_question()
    bench = Bench()
    bench.each()
    bench.drafts()
