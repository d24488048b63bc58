"""`search --dupes`: which texts are near-duplicates, and how groups are written."""

import json
import os
import shutil
import sqlite3
from array import array

import numpy as np
import pytest
from command import command, shell

from embed import near
from toast import kernels
from toast.kernels import scan

TEXT = "the cat sat\na dog ran to the bird\nthe cat sat\nslow\nThe cat sat\na dog ran to the bird\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    made = tmp_path_factory.mktemp("dupes")
    (made / "x.txt").write_text(TEXT)
    (made / "y.txt").write_text("a pipe\nslow\n")
    records = [{"id": i, "kind": "ab"[i % 2], "text": text} for i, text in enumerate(TEXT.splitlines())]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    command("index", "-m", model, "--jsonl", "--id", "id", "-o", "x.db", stdin=lines.encode(), cwd=made).ok()
    command("index", "-m", model, "-o", "y.db", stdin=b"slow\nfast\n", cwd=made).ok()
    return made


def dupes(folder, model, *words, **options):
    return command("search", "-m", model, "--dupes", *words, cwd=folder, **options)


def groups(result):
    return [group.splitlines() for group in result.ok().out.decode().split("\n\n")]


def test_groups_come_in_order_with_all_their_members(folder, model):
    """The tiny model's vocabulary has no capitals: `The cat sat` has the vector of `the cat sat`."""
    expected = [
        ["1:the cat sat", "3:the cat sat", "5:The cat sat"],
        ["2:a dog ran to the bird", "6:a dog ran to the bird"],
    ]
    for words, label, given in (
        ([], "-", TEXT.encode()),
        (["x.txt"], "x.txt", b""),
        (["x.txt", "--lines"], "x.txt", b""),
    ):
        found = dupes(folder, model, "--threshold", "0.999", *words, stdin=given)
        assert groups(found) == [[f"{label}:{line}" for line in group] for group in expected]
    found = dupes(folder, model, "--threshold", "0.999", "-i", "x.db", "-k", "1")
    assert groups(found) == [["0:1:the cat sat", "2:3:the cat sat", "4:5:The cat sat"]]
    assert dupes(folder, model, "--threshold", "0.999", "-q", "x.txt").ok().out == b""


def test_json_has_the_group_and_the_fields(folder, model):
    found = [
        json.loads(line)
        for line in dupes(folder, model, "--threshold", "0.999", "--json", "-i", "x.db").ok().out.splitlines()
    ]
    assert [(hit["id"], hit["group"], hit["kind"]) for hit in found] == [
        (0, 0, "a"), (2, 0, "a"), (4, 0, "a"), (1, 1, "b"), (5, 1, "b"),
    ]  # fmt: skip
    assert all(hit["score"] == pytest.approx(1) and "copies" not in hit for hit in found)


def test_filters_and_several_indexes(folder, model):
    strict = ["--threshold", "0.999"]
    assert len(groups(dupes(folder, model, *strict, "--where", "kind=b", "-i", "x.db"))) == 1
    assert dupes(folder, model, *strict, "--where", "id=1", "-i", "x.db").status == 1
    found = groups(dupes(folder, model, *strict, "x.db", "y.db", "y.txt"))
    assert found[2] == ["3:4:slow", "-:1:slow", "y.txt:2:slow"]
    found = groups(dupes(folder, model, *strict, "--path", "*.txt", "x.txt", "y.txt"))
    assert found[2] == ["x.txt:4:slow", "y.txt:2:slow"]


def test_statuses_and_usage(folder, model):
    assert dupes(folder, model, stdin=b"").status == 1
    assert dupes(folder, model, "--threshold", "1", stdin=b"the cat\nslow\n").status == 1
    dupes(folder, model, "--threshold", "1.1", "x.txt").fails("must be from 0 to 1, not 1.1")
    for words in (
        ["-l"],
        ["-c"],
        ["-C", "1"],
        ["--rerank"],
        ["--per-file", "2"],
        ["--like", "x.txt"],
        ["--queries", "x.txt"],
    ):
        dupes(folder, model, *words, "x.txt").fails("exclude each other")
    dupes(folder, model, ".").fails("Is a directory")


# ---------------------------------------------------------------- groups of vectors


def made(rows, dims, seed=1):
    """int8 rows, a third of them near an earlier one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, dims))
    for i in rng.integers(1, rows, rows // 3):
        x[i] = x[rng.integers(0, i)] + 0.2 * rng.normal(size=dims)
    x[rows // 2] = 0
    return np.round(x / np.maximum(np.abs(x).max(1, keepdims=True), 1e-9) * 127).astype(np.int8)


def components(codes, threshold):
    """The groups by the definition: all pairs, in doubles."""
    x = codes.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1)
    near_ = (x @ x.T >= threshold * np.outer(lengths, lengths)) & (np.outer(lengths, lengths) > 0)
    label = np.arange(len(x))
    while True:
        least = np.where(near_, label[None], len(x)).min(1)
        new = np.minimum(label, least)
        if (new == label).all():
            break
        label = new
    return [rows for rows in (list(np.flatnonzero(label == first)) for first in range(len(x))) if len(rows) > 1]


@pytest.mark.parametrize("rows, dims", [(1, 8), (300, 7), (513, 32), (200, 1200)])
@pytest.mark.parametrize("threshold", [0.93, 0.5, -1.0])
def test_groups_are_the_components_whatever_the_block(rows, dims, threshold):
    codes = made(rows, dims)
    expected = components(codes, threshold)
    for variant in ("", "off", "generic"):
        kernels.install(variant)
        for block in (1, 100, 256, 1000):
            if variant == "" or block == 256:
                found = near.groups(codes.tobytes(), rows, threshold, tick=lambda n: None, block=block).found()
                assert found == expected, (variant, block)


def test_pairs_are_of_two_groups_and_in_order():
    kernels.install()
    codes = np.ones((5, 4), np.int8).tobytes()
    assert scan.int8_near(codes, array("I", [0, 0, 2, 3, 3]), start=2, stop=5, threshold=0.9) == [
        (2, 0),
        (3, 0),
        (3, 2),
        (4, 0),
        (4, 2),
    ]
    assert (
        scan.int8_near(codes, array("I", range(5)), start=3, stop=3, threshold=0.9)
        == scan.int8_near(b"", array("I"), start=0, stop=0, threshold=0.9)
        == []
    )
    if kernels.variant() != "off":
        from toast.kernels import _ext

        for given in (
            (bytes(9), bytes(8), 0, 1, 0.5),
            (bytes(8), bytes(8), 0, 3, 0.5),
            (bytes(8), bytes(8), 2, 1, 0.5),
        ):
            with pytest.raises(ValueError):
                _ext.int8_near(*given)


def test_the_contract(folder, model):
    words = f"search -m '{model}' --dupes --threshold 0.999"
    pipe = f"printf 'a cat\\na cat\\n' | {words}"
    shell(f"{pipe} > /dev/full", cwd=folder).fails("cannot write standard output", "No space left")
    shell(f"{pipe} >&-", cwd=folder).fails("cannot write standard output", "Bad file descriptor")
    shell(f"{words} <&-", cwd=folder).fails("nothing to search")
    shell(f"{words} nowhere.txt", cwd=folder).fails("nowhere.txt", "No such file")
    assert shell(f"yes 'a cat' | head -20000 | {words} | head -c1 > /dev/null; echo ${{PIPESTATUS[2]}}").out == b"0\n"
    found = shell(f"printf 'a cat\\0a\\ncat\\0a dog\\0' | {words} -0", cwd=folder).ok()
    assert found.out == b"-:1:a cat\0-:2:a\0"
    found = shell(f"printf 'a \\xff cat\\na \\xff cat\\n' | {words}", cwd=folder)
    assert found.status == 0 and b"2 records held invalid UTF-8" in found.err


def test_copies_are_cheap(folder, model):
    found = shell(f"yes 'a cat' | head -20000 | search -m '{model}' --dupes | wc -l", cwd=folder).ok()
    assert found.out.strip() == b"20000"


def test_a_damaged_index_is_told(folder, tmp_path, model):
    path = shutil.copy(folder / "x.db", tmp_path / "x.db")
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM chunks WHERE id = 2")
    size = os.path.getsize(path)
    os.truncate(path, size - size % 16384)
    dupes(tmp_path, model, "-i", "x.db").fails("x.db is damaged: no chunk 2")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = 16 WHERE key = 'dims'")
    dupes(tmp_path, model, str(folder / "y.db"), "x.db").fails("x.db is damaged: 16 dimensions")
