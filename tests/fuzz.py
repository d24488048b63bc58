"""Damage for the fuzz tests, from a seed, and commands run in this process as their users run them."""

import copy
import io
import json
import math
import os
import random
import re
import shutil
import signal
import tempfile
import time
import zipfile

from embed.cli import embed, index, search
from rerank.cli import classify, rerank
from toast import loaded
from toast.cli import toast, tokenize
from toast.command import Call, run

COMMANDS = {c.name: c for c in (embed, index, search, rerank, classify, toast, tokenize)}
SLOW = 10  # seconds of the processor that no input may take
ODD = [
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 1 << 20, 1 << 31, 1 << 40, 10**12, 10**30, -(10**12), 0.0, -0.0, 0.5,
    -1.5, 1e-30, 1e30, 1e308, math.nan, math.inf, -math.inf, "", "x", "1", "\ud800", "\0", "a" * 5000, [], {}, [None],
    [[]], [1, 2], ["x"], {"x": 1}, {"": None}, [{}], [math.nan],
]  # fmt: skip


class Ran:
    """What a command came to."""

    def __init__(self, words, status, out, err, seconds):
        self.words, self.status, self.out, self.err, self.seconds = words, status, out, err, seconds

    def __repr__(self):
        return (
            f"\n$ {' '.join(self.words)}\nstatus {self.status}, {self.seconds:.1f} s\n{self.out[:400]!r}\n{self.err!r}"
        )


def ran(name, *words, stdin=b"", home, env=None):
    """Run a command in this process."""
    files = [tempfile.TemporaryFile() for _ in range(3)]
    files[0].write(stdin)
    files[0].seek(0)
    fds = dict(zip(("stdin", "stdout", "stderr"), (f.fileno() for f in files)))
    cwd = os.open(home, os.O_RDONLY)
    settings = {"TOAST_HOME": str(home), "HOME": str(home), "TMPDIR": str(home), "TOAST_THREADS": "1", **(env or {})}
    settings["TOAST_KERNELS"] = os.environ.get("TOAST_KERNELS", "")
    began = time.process_time()
    try:
        status = int(run(COMMANDS[name], list(words), Call(name, settings, cwd, **fds)))
        seconds = time.process_time() - began
        for file in files[1:]:
            file.seek(0)
        return Ran([name, *words], status, files[1].read(), files[2].read().decode(), seconds)
    finally:
        os.close(cwd)
        for file in files:
            file.close()


def check(found, seen=None):
    """No crash told as such, no hang, one line for an error, no numbers that are none."""
    assert "unexpected" not in found.err and "Traceback" not in found.err, found
    assert found.seconds < SLOW, found
    assert found.status in (0, 1, 2), found
    if found.status == 2:
        assert found.err.strip(), found
    for line in found.out.splitlines() if "--json" in found.words else ():
        if line.startswith(b"{"):
            json.loads(line, parse_constant=_refuse)
    return found


def _refuse(word):
    raise AssertionError(f"{word} in JSON")


def guard(function, *args, seconds=120):
    """Call a function; TimeoutError where it hangs."""

    def late(*_):
        raise TimeoutError(f"{function.__name__}{args} hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        return function(*args)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        loaded.forget()


# ---------------------------------------------------------------- damage


def places(value, path=()):
    """Paths of everything inside of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


def damaged_json(value, rng, few=200):
    """The value with one to three things of it replaced, removed or added; what it was done to."""
    value, done = copy.deepcopy(value), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = list(places(value))
        if not found:
            break
        shallow = [p for p in found if len(p) == 1]
        path = rng.choice(shallow if rng.random() < 0.5 else found if len(found) < 5000 else rng.sample(found, few))
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if rng.random() < 0.15:
            del parent[path[-1]]
            done.append((path, "removed"))
        else:
            parent[path[-1]] = _odd(parent[path[-1]], rng)
            done.append((path, repr(parent[path[-1]])[:60]))
    return value, done


def _odd(old, rng):
    if isinstance(old, (int, float)) and not isinstance(old, bool) and rng.random() < 0.4:
        return rng.choice((-old, old + 1, old - 1, old * 2, old // 2, old * 10**6, old + 0.5, str(old), [old]))
    return copy.deepcopy(rng.choice(ODD))


def damaged_bytes(data, rng):
    """Bytes with some changed, some missing or some too many."""
    data = bytearray(data)
    kind = rng.randrange(4)
    at = rng.randrange(len(data) or 1)
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        return bytes(data[:at] + rng.randbytes(rng.choice((1, 8, 64))) + data[at:])
    for _ in range(rng.choice((1, 4, 64))):
        at = rng.randrange(min(len(data), rng.choice((64, 4096, len(data)))) or 1)
        if data:
            data[at] = rng.choice((0, 255, rng.randrange(256)))
    return bytes(data)


MARKS = [
    b"<![", b"<![x[y]]>", b"<!", b"--", b">", b"<", b"=?", b"?=", b";", b":", b'"', b"(", b"\0", b"\xff", b"%", b"*0*=",
    b"@", b"[", b"\\", b",", b"\n", b"\n\n", b"&#", b"&#xd800;", b"--x", b"]]>", b"\\ud800",
]  # fmt: skip
VALUE = re.compile(rb"[=:] ?[\"']?([\w./-]+)")  # of an attribute, a field or a header
VALUES = [
    b"unicode_escape", b"undefined", b"hex", b"shift_jis", b"utf-16", b"foo-bar", b"null", b"-1", b"a", b"9" * 5000,
    b"", b"message/rfc822", b"multipart/mixed", b"[[1]]", b"\\ud800",
]  # fmt: skip


def damaged_text(data, rng):
    """Bytes with marks put in, with values replaced, with pieces missing and pieces twice."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at, kind = rng.randrange(len(data) + 1), rng.random()
        if kind < 0.3:
            data[at:at] = rng.choice(MARKS)
        elif kind < 0.6 and (values := list(VALUE.finditer(data))):
            first, last = rng.choice(values).span(1)
            data[first:last] = rng.choice(VALUES + MARKS)
        elif kind < 0.8:
            del data[at : at + rng.randint(1, 12)]
        else:
            start = rng.randrange(len(data) + 1)
            data[at:at] = data[start : start + rng.randint(1, 20)]
    return bytes(data)


def damaged_archive(data, rng):
    """A zip file, one of whose members is damaged; or the file itself."""
    if rng.random() < 0.2:
        return damaged_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = rng.choice(sorted(members))
    members[name] = damaged_text(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def write_json(path, value):
    text = json.dumps(value).encode("utf-8", "surrogatepass")
    with open(path, "wb") as file:
        file.write(text)


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def damage_header(path, rng):
    """A safetensors file with something wrong in its header, or with numbers that are none."""
    with open(path, "rb") as file:
        data = file.read()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.3:
        at = rng.randrange(len(body)) // 4 * 4
        numbers = rng.choice((b"\xff", b"\x7f\x80\0\0", b"\0\0\x80\x7f", b"\0\0\xc0\x7f"))
        body = body[:at] + (numbers * 400)[:400] + body[at + 400 :]
        done = f"numbers at {at}"
    else:
        header, done = damaged_json(header, rng)
    text = json.dumps(header).encode()
    first = len(text) if rng.random() < 0.9 else rng.choice((0, 1, length, 1 << 40, (1 << 64) - 1))
    with open(path, "wb") as file:
        file.write(first.to_bytes(8, "little") + text + body[: len(body) - rng.choice((0, 0, 0, 1, 4096))])
    return done


def damage_folder(folder, rng):
    """Something wrong in a file of a model's folder."""
    names = sorted(os.path.join(at, n) for at, _, found in os.walk(folder) for n in found if not n.startswith("oracle"))
    path = rng.choice([n for n in names if n.endswith("config.json")] if rng.random() < 0.5 else names)
    done = os.path.relpath(path, folder)
    if path.endswith(".safetensors") and rng.random() < 0.9:
        return done, damage_header(path, rng)
    if path.endswith(".json") and rng.random() < 0.9:
        value, what = damaged_json(read_json(path), rng)
        write_json(path, value)
        return done, what
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(damaged_bytes(data, rng))
    return done, "bytes"


def copied(folder, to):
    """A folder's copy, in place of what was there."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("oracle*"))
    return str(to)


def seeded(*parts):
    return random.Random(":".join(map(str, parts)))
