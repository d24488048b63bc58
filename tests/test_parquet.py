"""embed --parquet: rows in, the same rows with a column of vectors out. embed --join: .npy files as one."""

import json
from io import BytesIO

import numpy as np
import pytest
from command import command, shell

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

N = 5000  # more than are read at once


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    table = {"id": range(N), "body": [f"cat {i % 50}\nand dog" for i in range(N)], "tags": [["a", "b"]] * N}
    parquet.write_table(pyarrow.table({k: list(v) for k, v in table.items()}), path, row_group_size=2000)
    return str(path)


def rows_of(data):
    return parquet.read_table(BytesIO(data))


@pytest.mark.parametrize(
    "precision, kind", [("f32", "float"), ("f16", "halffloat"), ("int8", "int8"), ("binary", "uint8")]
)
def test_vectors_stand_beside_the_columns(model, file, precision, kind):
    found = rows_of(
        command("embed", "--parquet", "--field", "body", "-m", model, "--precision", precision, file).ok().out
    )
    texts = "".join(json.dumps({"text": f"cat {i % 50}\nand dog"}) + "\n" for i in range(N)).encode()
    plain = np.load(BytesIO(command("embed", "--jsonl", "-m", model, "--precision", precision, stdin=texts).ok().out))
    assert found.drop_columns("embedding").equals(parquet.read_table(file))
    assert found.schema.field("embedding").type == pyarrow.list_(
        getattr(pyarrow, {"float": "float32", "halffloat": "float16"}.get(kind, kind))(), plain.shape[1]
    )
    numbers = np.concatenate([chunk.values.to_numpy() for chunk in found["embedding"].chunks])
    assert numbers.tobytes() == plain.tobytes()


def test_a_pipe_and_many_files_are_as_a_file(model, file):
    words = ["embed", "--parquet", "--field", "body", "-m", model]
    one = command(*words, file).ok().out
    with open(file, "rb") as data:
        assert command(*words, stdin=data.read()).ok().out == one
    with open(file, "rb") as data:
        assert command(*words, stdin=data).ok().out == one
    assert rows_of(command(*words, file, file).ok().out).num_rows == 2 * N


def test_json_has_the_columns(model, file):
    ran = command("embed", "--parquet", "--field", "body", "--json", "-m", model, file).ok()
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert len(lines) == N and lines[7].keys() == {"id", "body", "tags", "index", "embedding"}
    assert (lines[7]["id"], lines[7]["index"], lines[7]["tags"]) == (7, 7, ["a", "b"])


def test_a_row_without_text(model, tmp_path):
    path = str(tmp_path / "x.parquet")
    parquet.write_table(pyarrow.table({"text": ["a", None, "b"]}), path)
    words = ["embed", "--parquet", "-m", model]
    command(*words, path).fails("x.parquet, row 2: no text in 'text'")
    ran = command(*words, "--on-error", "skip", path).fails("row 2")
    assert rows_of(ran.out)["text"].to_pylist() == ["a", "b"]


def test_what_is_wrong_is_told_before_anything_is_written(model, file, tmp_path):
    words = ["embed", "--parquet", "-m", model]
    assert not command(*words, file).fails("no column 'text'", "id, body, tags").out
    assert not command(*words, "--field", "id", file).fails("'id' holds no text but int64").out
    assert not command(*words, stdin=b"no parquet").fails("standard input", "no Parquet file").out
    command(*words, "--jsonl", file).fails("--parquet and --jsonl exclude each other")
    parquet.write_table(pyarrow.table({"body": ["a"]}), tmp_path / "other.parquet")
    command(*words, "--field", "body", file, tmp_path / "other.parquet").fails("has other columns than")
    (tmp_path / "cut.parquet").write_bytes(open(file, "rb").read()[:-100])
    command(*words, "--field", "body", tmp_path / "cut.parquet").fails("cut.parquet", "no Parquet file")


def test_a_reader_that_leaves_and_a_full_disk(model, file):
    line = f"embed --parquet --field body -m {model} {file}"
    shell(f"set -o pipefail; {line} | head -c 10 > /dev/null").ok()
    shell(f"{line} > /dev/full").fails("cannot write standard output: No space left")


def test_no_rows(model, tmp_path):
    path = str(tmp_path / "x.parquet")
    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    assert rows_of(command("embed", "--parquet", "-m", model, path).ok().out).schema.names == ["text", "embedding"]


def test_a_column_that_is_replaced_is_told(model, tmp_path):
    path = str(tmp_path / "x.parquet")
    parquet.write_table(pyarrow.table({"text": ["a"], "embedding": [1]}), path)
    ran = command("embed", "--parquet", "-m", model, path)
    assert ran.status == 0 and ran.err == b"embed: column 'embedding' of the input is replaced\n"
    assert rows_of(ran.out).schema.names == ["text", "embedding"]


@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.list_(pyarrow.binary()), pyarrow.binary(1),
                                  pyarrow.struct([("a", pyarrow.large_binary())])])  # fmt: skip
def test_bytes_are_no_json(model, tmp_path, kind):
    value = {"a": b"x"} if pyarrow.types.is_struct(kind) else [b"x"] if pyarrow.types.is_list(kind) else b"x"
    path = str(tmp_path / "x.parquet")
    parquet.write_table(pyarrow.table({"text": ["a"], "b": pyarrow.array([value], kind)}), path)
    for words in (["embed", "--json"], ["index", "-o", str(tmp_path / "x.db")], ["classify", "-l", "a,b", "--json"]):
        assert not command(*words, "--parquet", "-m", model, path).fails("column 'b' holds", "JSON").out
    assert rows_of(command("embed", "--parquet", "-m", model, path).ok().out)["b"].to_pylist() == [value]


# ---------------------------------------------------------------- classify


def test_labels_stand_beside_the_columns(model, file):
    words = ["classify", "--field", "body", "-m", model, "-l", "cat,dog,red sky"]
    found = rows_of(command(*words, "--parquet", file).ok().out)
    assert found.drop_columns(["label", "score"]).equals(parquet.read_table(file))
    plain = command(*words, "--parquet", "--json", file).ok().out.splitlines()
    rows = [(one["label"], one["score"]) for one in map(json.loads, plain)]
    assert list(zip(found["label"].to_pylist(), found["score"].to_pylist())) == rows and len(rows) == N


@pytest.mark.parametrize("words", [["--multi"], ["--multi", "--threshold", "0.2"], ["--threshold", "0.4"],
                                   ["--threshold", "0.4", "--none", "other"]])  # fmt: skip
def test_labels_as_in_json(model, tmp_path, words):
    """Also of a row without a word; a label that came along is kept as gold."""
    path = str(tmp_path / "x.parquet")
    parquet.write_table(pyarrow.table({"text": ["the cat", "", "red sky", "x"], "label": ["a", "b", "c", None]}), path)
    words = ["classify", "--parquet", "-m", model, "-l", "cat,dog,red sky", *words]
    found = command(*words, path)
    plain = command(*words, "--json", path)
    assert found.status == plain.status and not found.err
    rows = rows_of(found.out).to_pylist()
    for row, one in zip(rows, map(json.loads, plain.out.splitlines()), strict=True):
        assert row["label"] == one["label"] and row["score"] == one["score"] and row["gold"] == one["gold"]
        assert ("--multi" in words) == ("labels" in row)
        assert "labels" not in row or row["labels"] == [each["label"] for each in one["labels"]]


def test_classify_refuses(model, tmp_path, file):
    words = ["classify", "--parquet", "--field", "body", "-m", model, "-l", "cat,dog", file]
    for more in (["--only", "cat"], ["-k", "2"], ["-c"], ["--next", "2"]):
        command(*words, *more).fails("--parquet", more[0])
    (tmp_path / "e").write_text("cat\tthe cat\n")
    command("classify", "--parquet", "--learn", "e", "-o", "x", cwd=tmp_path).fails("--learn", "--parquet")
    path = str(tmp_path / "x.parquet")
    parquet.write_table(pyarrow.table({"text": ["the cat", "cat " * 900, "a dog"]}), path)
    words = [*words[:2], *words[4:-1], "--long", "error", path]
    command(*words).fails("x.parquet, row 2 is longer than")
    ran = command(*words, "--on-error", "skip")
    assert ran.status == 2 and rows_of(ran.out)["text"].to_pylist() == ["the cat", "a dog"]
