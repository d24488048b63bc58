"""Damaged configurations, weights, GGUF files, caches, sessions, probes, indexes and files of all kinds that are read:
every command says in a line what is wrong, or answers right. The same damage every time; `make test-all` does forty
times as much.
"""

import json
import os
import sqlite3
import struct
import subprocess
from binascii import crc32

import fuzz
import pytest
import test_formats
import tiny
from command import command
from fuzz import check, guard, ran, seeded
from gguf_file import gguf, string, value
from test_convert import MORE, SHAPE, metadata
from test_convert import tiny as tiny_decoder
from test_probe import examples

from toast import kernels
from toast.generation import prefix_file
from toast.store import safetensors

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
LLAMA, QWEN = (os.path.join(ORACLES, name) for name in ("llama-causal", "qwen3-causal"))
LINES = b"the cat sat\na dog ran\n\nthe sky is blue\n"
MANY = 40  # times as many seeds for who has the time
SOME = [("toast", "-n", "3", "--json", "hi"), ("tokenize", "--count"), ("tokenize", "--ids")]
FOLDERS = {  # a model (None: one that is made here), and commands that it is for
    "bert": (None, [("embed", "--json"), ("search", "--json", "cat"), ("rerank", "--json", "cat"),
                    ("classify", "--json", "-l", "a,b"), ("tokenize", "--count")]),
    "cross": ("bert-crossencoder", [("rerank", "--json", "cat")]),
    "labels": ("bert-classifier", [("classify", "--json")]),
    "nli": ("roberta-nli", [("classify", "--json", "-l", "a,b")]),
    "judge": ("qwen3-reranker", [("rerank", "--json", "cat")]),
    "colbert": ("tiny-colbert-pylate", [("rerank", "--json", "cat")]),
    "stanford": ("tiny-colbert-stanford", [("rerank", "--json", "cat")]),
    "llama": ("llama-causal", [*SOME, ("toast", "-n", "3", "--each", "--json", "hi"),
                               ("toast", "-n", "3", "-t", "1", "--logprobs", "2", "--no-cache", "hi"),
                               ("toast", "-n", "9", "--regex", "[a-z]+", "hi")]),
    "qwen3": ("qwen3-causal", [*SOME, ("classify", "--json", "-l", "a,b")]),
}  # fmt: skip


def seeds(count):
    """Numbers for the usual suite, and many more for `make test-all`."""
    return [range(count), pytest.param(range(count, count * MANY), marks=pytest.mark.long)]


def each(name, numbers, damage, run):
    """Run what each seed damages; damage(rng) -> what was done, run(rng) -> Ran."""
    for seed in numbers:
        rng = seeded(name, seed)
        done = damage(rng)
        try:
            check(guard(run, rng))
        except (AssertionError, TimeoutError) as error:
            raise AssertionError(f"{name} {seed} {done}: {error}") from None


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny.bert(tmp_path_factory.mktemp("fuzz") / "bert")


@pytest.mark.parametrize("numbers", seeds(12))
@pytest.mark.parametrize("name", FOLDERS)
def test_model_folders(tmp_path, bert, name, numbers):
    source, commands = FOLDERS[name]
    whole, folder = bert if source is None else os.path.join(ORACLES, source), str(tmp_path / "model")

    def damage(rng):
        fuzz.copied(whole, folder)
        return fuzz.damage_folder(folder, rng)

    def run(rng):
        verb, *words = rng.choice(commands)
        return ran(verb, "-m", folder, *words, stdin=LINES, home=tmp_path)

    each(name, numbers, damage, run)


# ---------------------------------------------------------------- GGUF


WORDS = {  # a vocabulary that the tokenizers library takes, unlike that of test_convert.py
    "tokenizer.ggml.tokens": [
        "<s>",
        "</s>",
        *"abcdefghijklmnopqrstuvwxyz0123456789.,:;'[]{}()",
        "\u0120",
        "th",
        "the",
        *"ABCDEFGHIJ",
    ][:64],
    "tokenizer.ggml.merges": ["t h", "th e"],
    "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
}


def odd_metadata(meta, rng):
    """Metadata with values of other types and sizes, and what was done."""
    meta, done = dict(meta), []
    for _ in range(rng.choice((1, 1, 2))):
        key = rng.choice(sorted(meta))
        old = meta[key]
        new = rng.choice((0, 1, -1, 3, 1 << 31, 10**12, 0.0, 0.5, -1.0, float("nan"), float("inf"), "", "x", "llama",
                          True, ["a", "b"], [1, 2], [0.5], [-1], old, None))  # fmt: skip
        done.append((key, repr(new)[:40]))
        meta[key] = new
        if new is None:
            del meta[key]
    return meta, done


def packed(v):
    """As gguf_file.value, with numbers of 64 bits where they need it."""
    if isinstance(v, int) and not isinstance(v, bool) and not 0 <= v < 1 << 32:
        return 11, struct.pack("<q", v)
    if v == [-1]:
        return 9, struct.pack("<IQi", 5, 1, -1)
    return value(v)


def write_gguf(path, meta, whole, rng):
    """The tensors of a GGUF file under other metadata."""
    pairs = b"".join(string(k) + struct.pack("<I", packed(v)[0]) + packed(v)[1] for k, v in meta.items())
    table, body = whole
    head = b"GGUF" + struct.pack("<IQQ", 3, table[1], len(meta)) + pairs + table[0]
    data = head + bytes(-len(head) % 32) + body
    with open(path, "wb") as file:
        file.write(fuzz.damaged_bytes(data, rng) if rng.random() < 0.25 else data)


def split_gguf(data, meta):
    """((table of tensors, how many), their data) of a file that `gguf` wrote."""
    (count,) = struct.unpack("<Q", data[8:16])
    start = len(gguf(meta)) - 31
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(meta))
    start = len(head) + len(b"".join(string(k) + struct.pack("<I", value(v)[0]) + value(v)[1] for k, v in meta.items()))
    at = start
    for _ in range(count):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        at += 8 + length
        (dims,) = struct.unpack("<I", data[at : at + 4])
        at += 4 + 8 * dims + 12
    return (data[start:at], count), data[at + -at % 32 :]


@pytest.mark.parametrize("numbers", seeds(16))
@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "gemma3_text", "phi3"])
def test_gguf_files(tmp_path, kind, numbers):
    kernels.install("off")
    config = {"model_type": kind} | SHAPE | MORE[kind]
    meta, path = metadata(kind, config), str(tmp_path / "m.gguf")
    whole = split_gguf(tiny_decoder(kind)[1], meta)
    meta |= WORDS

    def damage(rng):
        odd, done = odd_metadata(meta, rng)
        write_gguf(path, odd, whole, rng)
        return done

    def run(rng):
        verb, *words = rng.choice(SOME)
        return ran(verb, "-m", path, *words, stdin=LINES, home=tmp_path)

    each(kind, numbers, damage, run)


# ---------------------------------------------------------------- caches and sessions


@pytest.mark.parametrize("numbers", seeds(30))
def test_caches_of_prompts(tmp_path, monkeypatch, numbers):
    """A cache whose check sum is right: as good as none, or the same bytes."""
    monkeypatch.setattr("toast.answer.WORTH_KEEPING", -1.0)
    words = ["toast", "-m", LLAMA, "-n", "4", "--json", "-t", "0", "the cat sat on the mat " * 12]
    right = guard(lambda: ran(*words, home=tmp_path))
    folder = tmp_path / "prefix"
    whole = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    assert right.status == 0 and whole

    def damage(rng):
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        name = rng.choice(sorted(whole))
        data, length = whole[name], int.from_bytes(whole[name][8:16], "little")
        header = json.loads(data[16 : 16 + length])
        if rng.random() < 0.2:
            (folder / name).write_bytes(fuzz.damaged_bytes(data, rng))
            return "bytes"
        odd, done = fuzz.damaged_json({"tree": header["tree"]} if rng.random() < 0.8 else header, rng)
        odd = header | odd
        if isinstance(odd["crc32"], int) and rng.random() < 0.9:  # a right one
            odd["crc32"] = crc32(data[16 + length :], crc32(json.dumps(odd["tree"]).encode()))
        text = json.dumps(odd).encode()
        text += b" " * (-(len(text) + 16) % 64)
        (folder / name).write_bytes(prefix_file.MAGIC + len(text).to_bytes(8, "little") + text + data[16 + length :])
        return done

    def run(rng):
        found = ran(*words, home=tmp_path)
        assert found.status == 0 and found.out == right.out, found
        return found

    each("prefix", numbers, damage, run)


@pytest.mark.parametrize("numbers", seeds(40))
def test_small_files_of_the_store(tmp_path, monkeypatch, bert, numbers):
    """What templates come to, and digests of weights: as good as none, or the same bytes."""
    talk = ["toast", "-m", LLAMA, "-n", "3", "--json", "-t", "0", "--no-cache", "hi"]
    make = ["index", "-m", bert, "-o", "x.db", "--jsonl", "x.jsonl"]
    (tmp_path / "x.jsonl").write_text('{"text": "the cat"}\n')
    right = {words[0]: guard(lambda words=words: ran(*words, home=tmp_path)) for words in (talk, make)}
    paths = [
        os.path.join(at, n) for part in ("chat", "digests") for at, _, names in os.walk(tmp_path / part) for n in names
    ]
    whole = {path: open(path, "rb").read() for path in sorted(paths)}
    assert whole and all(found.status == 0 for found in right.values())

    def damage(rng):
        path, data = rng.choice(sorted(whole.items()))
        odd, done = data, "bytes"
        if data[:1] == b"{" and rng.random() < 0.8:
            parsed, done = fuzz.damaged_json({"cases": json.loads(data)["cases"]}, rng)
            parsed = json.loads(data) | parsed
            if rng.random() < 0.5:
                parsed["sum"] = crc32(repr(parsed["cases"]).encode())  # a right one
            odd = json.dumps(parsed).encode()
        else:
            odd = fuzz.damaged_bytes(data, rng)
        with open(path, "wb") as file:
            file.write(odd)
        return path, done

    def run(rng):
        words = rng.choice((talk, make))
        found = ran(*words, home=tmp_path)
        assert found.status == 0 and found.out == right[words[0]].out, found
        for path, data in whole.items():
            with open(path, "wb") as file:
                file.write(data)
        return found

    each("store", numbers, damage, run)


SAID = ["", "x", "\ud800", "\0", "<|im_end|>", "<|im_start|>user", "a" * 5000, "system", "{{ 1 }}", "\U000f0000"]


@pytest.mark.parametrize("numbers", seeds(40))
def test_sessions(tmp_path, numbers):
    whole = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the cat"},
             {"role": "assistant", "content": "a dog"}]  # fmt: skip
    path = tmp_path / "sessions" / "s.jsonl"
    path.parent.mkdir()

    def damage(rng):
        messages, done = fuzz.damaged_json(whole, rng)
        if rng.random() < 0.5:  # nothing is wrong with it but what it says
            done = rng.randrange(3), rng.choice(("role", "content", "more")), rng.choice(SAID)
            messages = [dict(m) for m in whole]
            messages[done[0]][done[1]] = done[2]
        data = b"".join(json.dumps(m).encode() + b"\n" for m in messages)
        path.write_bytes(fuzz.damaged_bytes(data, rng) if rng.random() < 0.3 else data)
        return done

    def run(rng):
        form = rng.choice((["--json"], ["--dry-run"], ["--dry-run", "--json"], ["-s", "be brief"]))
        return ran("toast", "-m", QWEN, "-n", "2", "--session", "s", *form, "hi", home=tmp_path)

    each("session", numbers, damage, run)


# ---------------------------------------------------------------- probes and indexes


@pytest.mark.parametrize("numbers", seeds(40))
def test_probes(tmp_path, bert, numbers):
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples(40)))
    made = guard(lambda: ran("classify", "--learn", "e.jsonl", "-o", "x.probe", "-m", bert, home=tmp_path))
    assert made.status == 0, made
    data, path = (tmp_path / "x.probe").read_bytes(), str(tmp_path / "y.probe")

    def damage(rng):
        with open(path, "wb") as file:
            file.write(data)
        if rng.random() < 0.7:
            return fuzz.damage_header(path, rng)
        with open(path, "wb") as file:
            file.write(fuzz.damaged_bytes(data, rng))
        return "bytes"

    def run(rng):
        words = rng.choice((["--json"], ["--count"], ["--report", "e.jsonl"]))
        return ran("classify", "-m", path, *words, stdin=b"" if "--report" in words else LINES, home=tmp_path)

    each("probe", numbers, damage, run)


TABLES = {
    "meta": ("key", "value"), "documents": ("id", "path", "number", "name", "hash", "data"),
    "chunks": ("id", "document", "start_line", "end_line", "hash", "text"),
    "segments": ("first", "ids", "codes", "scales", "exact"),
}  # fmt: skip
CELLS = [None, 0, -1, 1 << 40, -(1 << 62), 0.5, 1e308, float("inf"), "", "x", "[" * 3000, "{}", "\0", b"", b"\xff" * 4,
         b"\0" * 1000, b"\xff" * 1000, '{"text": NaN}']  # fmt: skip


@pytest.mark.parametrize("numbers", seeds(40))
def test_indexes(tmp_path, bert, numbers):
    rows = [{"id": f"r{i}", "text": f"the cat {i} sat on the mat"} for i in range(9)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("the sky is blue\n" * 20)
    make = ("index", "-m", bert, "-o", "whole.db", "--id", "id", "x.jsonl", "docs")
    made = guard(lambda: ran(*make, home=tmp_path))
    if made.status:  # records and files apart
        made = guard(lambda: ran("index", "-m", bert, "-o", "whole.db", "docs", home=tmp_path))
    assert made.status == 0, made
    data, path = (tmp_path / "whole.db").read_bytes(), str(tmp_path / "y.db")

    def damage(rng):
        with open(path, "wb") as file:
            file.write(data if rng.random() < 0.7 else fuzz.damaged_bytes(data, rng))
        table = rng.choice(sorted(TABLES))
        column, cell = rng.choice(TABLES[table]), rng.choice(CELLS)
        try:
            with sqlite3.connect(path) as db:
                which = rng.choice(("", " WHERE rowid = (SELECT min(rowid) FROM chunks)" if table == "chunks" else ""))
                db.execute(f"UPDATE {table} SET {column} = ?{which}", (cell,))
            db.close()
        except sqlite3.Error as error:
            return table, column, repr(error)
        return table, column, repr(cell)[:40]

    def run(rng):
        verb, *words = rng.choice((
            ("search", "--json", "cat sky", path), ("search", "--json", "--mode", "lexical", "cat", path),
            ("search", "--json", "--mode", "vector", "sky", path), ("search", "--rerank", "sky", path),
            ("index", "-u", path, "docs"), ("index", "--merge", path, "whole.db", "-o", "m.db"),
        ))  # fmt: skip
        return ran(verb, *words, home=tmp_path, env={"EMBED_MODEL": bert, "RERANK_MODEL": bert})

    each("index", numbers, damage, run)


FILES = {
    "a.html": test_formats.PAGE.replace("<title>", '<meta charset="koi8-r"><title>\xe9').encode("latin-1"),
    "b.docx": test_formats.DOCX, "c.odt": test_formats.ODT, "d.fodt": b"<?xml version='1.0' encoding='utf-8'?><p>x</p>",
    "d.epub": test_formats.EPUB, "e.ipynb": json.dumps(test_formats.NOTEBOOK).encode(), "f.eml": test_formats.MAIL,
    "g.txt.gz": test_formats.zipped(LINES), "h.pdf": test_formats.pdf("the cat", "sat"), "i.txt": LINES,
}  # fmt: skip


@pytest.mark.parametrize("numbers", seeds(10))
def test_files_of_each_kind(tmp_path, bert, numbers):
    """A bad file costs itself: what is beside it is found."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "whole.txt").write_text("a zebra\n")

    def damage(rng):
        for i, (name, whole) in enumerate(4 * list(FILES.items())):
            hurt = fuzz.damaged_archive if whole.startswith(b"PK") else fuzz.damaged_text
            hurt = fuzz.damaged_bytes if name.endswith((".gz", ".pdf")) else hurt
            (folder / f"{i}{name}").write_bytes(hurt(whole, rng))
        return "files"

    def run(rng):
        form = rng.choice((("index", "-m", bert, "-o", "x.db", "docs"), ("search", "--mode", "lexical", "cat", "docs")))
        found = check(ran(*form, home=tmp_path))
        assert found.status in (0, 1), found
        if form[0] == "search":
            return found
        found = ran("search", "--mode", "lexical", "zebra", "x.db", home=tmp_path)
        assert b"whole.txt" in found.out, found
        return found

    each("files", numbers, damage, run)


# ---------------------------------------------------------------- arguments, names, temporary files


@pytest.mark.parametrize("words", [
    ("toast", "-n", "2", b"\xff\xfe"), ("toast", "-n", "2", "-s", b"\xff", "hi"),
    ("toast", "-n", "2", "--stop", b"\xff", "hi"), ("toast", "-n", "2", "--prefill", b"\xed\xa0\x80", "hi"),
    ("toast", "-n", "2", "--session", b"\xff", "hi"),
    ("toast", "-n", "2", "--template", b"x=\xff", "hi"), ("toast", "-n", "2", "--template", 'x="\\ud800"', "hi"),
    ("toast", "-n", "2", "--choice", b"\xff,b", "hi"), ("toast", "-n", "2", "--regex", b"\xff", "hi"),
    ("toast", "-n", "2", "hi", b"\xff"), ("tokenize", b"\xff"),
])  # fmt: skip
def test_arguments_that_are_no_text(tmp_path, words):
    found = command(words[0], "-m", LLAMA, *words[1:], stdin=b"a\n", cwd=tmp_path, env={"TOAST_HOME": str(tmp_path)})
    assert found.status in (0, 2) and b": unexpected" not in found.err and b"Traceback" not in found.err, found


@pytest.mark.parametrize("words", [
    ("search", "--mode", "lexical", b"\xff"), ("search", b"\xffcat"), ("rerank", b"\xff"),
    ("classify", "-l", b"a,\xff"), ("embed", b"\xff"), ("index", "-o", b"\xff.db", b"\xff.txt"),
    ("search", "cat", b"\xff.txt"),
])  # fmt: skip
def test_arguments_that_are_no_text_of_encoders(tmp_path, bert, words):
    with open(os.path.join(os.fsencode(tmp_path), b"\xff.txt"), "w") as file:
        file.write("the cat\n")
    model = () if words[0] == "search" else ("-m", bert)
    env = {"TOAST_HOME": str(tmp_path), "EMBED_MODEL": bert}
    found = command(words[0], *model, *words[1:], stdin=LINES, cwd=tmp_path, env=env)
    assert found.status in (0, 1, 2) and b": unexpected" not in found.err and b"Traceback" not in found.err, found


@pytest.mark.parametrize("line", [
    b'{"text": "\\ud800 cat"}', b'{"text": "cat", "x": "\\udfff"}', b'{"text": "cat", "\\ud800": 1}',
    b'{"text": "cat", "x": NaN}', b'{"text": "cat", "x": 1e999}', b'{"text": "cat", "x": ' + b"9" * 5000 + b"}",
    b'{"text": "cat", "x": ' + b"[" * 5000 + b"}",
])  # fmt: skip
@pytest.mark.parametrize("words", [
    ("embed", "--json"), ("rerank", "--json", "cat"), ("classify", "--json", "-l", "a,b"),
    ("toast", "--each", "--json", "-n", "2"), ("search", "--json", "cat"),
])  # fmt: skip
def test_fields_that_are_no_text_or_number(tmp_path, bert, line, words):
    model = LLAMA if words[0] == "toast" else bert
    found = check(guard(lambda: ran(*words, "-m", model, "--jsonl", stdin=b'{"text": "a"}\n' + line, home=tmp_path)))
    assert found.status == 0 or "2" in found.err, found


def test_a_full_tmpdir(tmp_path, bert):
    """Whoever needs a temporary file and has no room says so."""
    (tmp_path / "small").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path / "small"], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount")
    try:
        text = b"the cat sat on the mat\n" * 400_000
        env = {"TMPDIR": str(tmp_path / "small"), "TOAST_HOME": str(tmp_path), "EMBED_MODEL": bert}
        for words in (("search", "--mode", "lexical", "cat"), ("embed", "-m", bert)):
            found = command(*words, stdin=text, env=env, cwd=tmp_path)
            assert found.status in (0, 2) and b": unexpected" not in found.err, found
            assert found.status == 0 or b"temporary file" in found.err, found
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=False)


def test_safetensors_headers(tmp_path):
    """Every header that is not one is a ValueError, whatever it holds."""
    whole = safetensors.pack({}, {})[0]
    tensors = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
               "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
               "__metadata__": {"format": "mlx"}}  # fmt: skip
    assert safetensors.parse(json.dumps(tensors).encode(), 8 + len(json.dumps(tensors)) + 32) and whole
    for seed in range(2000):
        rng = seeded("header", seed)
        text = json.dumps(fuzz.damaged_json(tensors, rng)[0]).encode()
        if rng.random() < 0.2:
            text = fuzz.damaged_bytes(text, rng)
        size = 8 + len(text) + 32
        try:
            found = safetensors.parse(text, size)[1]
        except ValueError:
            continue
        for start, dtype, shape in found.values():
            count = 1
            for n in shape:
                count *= n
            assert 8 + len(text) <= start and start + count * dtype.size <= size
