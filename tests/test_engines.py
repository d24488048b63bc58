"""examples/: shards on engines that others have made give what one run gives. Skipped where there is no such engine."""

import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command import BIN, command, environment

EXAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples")
SHARDS, EACH, EMPTY = 4, 60, 2
COLUMN = "body"


@pytest.fixture(scope="module")
def records():
    """[[record, ...] of each shard]; one shard has none."""
    numbers = range(SHARDS * EACH)
    texts = [{"id": n, COLUMN: f"cat {n % 37} and\ndog {n}"} for n in numbers]
    return [texts[shard * EACH : (shard + 1) * EACH] if shard != EMPTY else [] for shard in range(SHARDS)]


@pytest.fixture
def shards(records, tmp_path):
    """A folder of JSON lines, a file for each shard."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i, shard in enumerate(records):
        (folder / f"{i}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in shard))
    return folder


@pytest.fixture
def table(records, tmp_path):
    """A folder of Parquet, a file for each shard that has records."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "table").mkdir()
    for i, shard in enumerate(records):
        if shard:
            parquet.write_table(pyarrow.Table.from_pylist(shard), tmp_path / "table" / f"{i}.parquet")
    return tmp_path / "table"


def single(model, records, *words, verb="embed"):
    """What one run over all records gives."""
    lines = "".join(json.dumps(one) + "\n" for shard in records for one in shard)
    return command(verb, "-m", model, "--field", COLUMN, *words, stdin=lines.encode()).ok().out


def run(name, *words, path=None, limit=300):
    """An example, run as it would be; its standard error when it fails."""
    words = [os.path.join(EXAMPLES, name), *map(str, words)]
    env = environment(
        {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "PYSPARK_PYTHON": sys.executable, **({"PATH": path} if path else {})}
    )
    ran = subprocess.run(
        [sys.executable, *words] if name.endswith(".py") else words, capture_output=True, env=env, timeout=limit
    )
    return ran.returncode, ran.stderr.decode()[-2000:]


def without_parallel(tmp_path):
    """A PATH on which there is everything but GNU parallel."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (
        "sh",
        "dirname",
        "mkdir",
        "find",
        "sort",
        "basename",
        "xargs",
        "nproc",
        "mv",
        "rm",
        "env",
        "tr",
        "test",
    ):
        os.symlink(shutil.which(name), folder / name)
    return f"{BIN}:{folder}"


def joined(folder):
    return command("embed", "--join", *sorted(glob.glob(f"{folder}/*.npy"))).ok().out


@pytest.mark.parametrize("engine", ["parallel", "xargs"])
def test_shards_of_files(model, records, shards, tmp_path, engine):
    if engine == "parallel" and not shutil.which("parallel"):
        pytest.skip("no GNU parallel")
    path = without_parallel(tmp_path) if engine == "xargs" else None
    words = [shards, tmp_path / "out", "-m", model, "--field", COLUMN]
    assert run("shards.sh", *words, path=path) == (0, "")
    assert joined(tmp_path / "out") == single(model, records)
    made = {name: os.stat(tmp_path / "out" / name).st_mtime_ns for name in os.listdir(tmp_path / "out")}
    assert len(made) == SHARDS
    os.unlink(tmp_path / "out" / "1.npy")  # as if it had been killed before the end
    assert run("shards.sh", *words, path=path) == (0, "")
    assert joined(tmp_path / "out") == single(model, records)
    again = [name for name in made if os.stat(tmp_path / "out" / name).st_mtime_ns != made[name]]
    assert again == ["1.npy"], "what is done stays done"


def test_a_worker_that_is_killed_leaves_nothing_that_looks_done(model, records, shards, tmp_path):
    words = [f"{EXAMPLES}/shard.sh", shards / "big.jsonl", tmp_path / "big.npy", "-m", model, "--field", COLUMN]
    with open(shards / "big.jsonl", "w") as file:
        file.writelines(json.dumps(one) + "\n" for _ in range(100) for shard in records for one in shard)
    running = subprocess.Popen(list(map(str, words)), env=environment(), start_new_session=True)
    while not glob.glob(f"{tmp_path}/big.npy.*"):
        time.sleep(0.001)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not os.path.exists(tmp_path / "big.npy")
    assert run("shard.sh", *words[1:]) == (0, "")
    assert len(np.load(tmp_path / "big.npy")) == 100 * (SHARDS - 1) * EACH


def test_a_bad_record_costs_its_shard_or_itself(model, records, shards, tmp_path):
    with open(shards / "1.jsonl", "a") as file:
        file.write("not JSON\n")
    words = [shards, tmp_path / "out", "-m", model, "--field", COLUMN]
    status, err = run("shards.sh", *words)
    assert status and f"standard input, line {EACH + 1}: not a JSON object" in err
    assert sorted(os.listdir(tmp_path / "out")) == ["0.npy", "2.npy", "3.npy"]
    status, err = run("shards.sh", *words, "--on-error", "warn")
    assert not status and f"line {EACH + 1}: not a JSON object" in err
    assert joined(tmp_path / "out") == single(model, records)


def test_what_is_no_folder_of_shards(model, tmp_path):
    status, _ = run("shards.sh", tmp_path / "nowhere", tmp_path / "out")
    assert status and not (tmp_path / "out").exists()


def test_shards_of_an_index(model, records, shards, tmp_path):
    """One index of ten shards, one of them empty, one given twice, is the index of all."""
    parts = []
    for i in range(SHARDS):
        with open(shards / f"{i}.jsonl", "rb") as file:
            words = ["-m", model, "--field", COLUMN, "--id", "id", "--empty-ok", "-q", "-o", str(tmp_path / f"{i}.db")]
            command("index", *words, stdin=file).ok()
        parts.append(str(tmp_path / f"{i}.db"))
    whole, merged = str(tmp_path / "whole.db"), str(tmp_path / "merged.db")
    with open(whole, "wb") as file:
        file.write(single(model, records, "--id", "id", verb="index"))
    command("index", "--merge", *parts, parts[1], "-o", merged).ok(quiet=False)
    for query in ("cat 3", "dog 77", "and"):
        found = [
            command("search", "--json", "-k", "20", "--threshold", "0", query, db).ok().out for db in (whole, merged)
        ]
        hits = [sorted((one["id"], one["score"]) for one in map(json.loads, out.splitlines())) for out in found]
        assert hits[0] == hits[1]


@pytest.mark.slow
def test_spark_pipe(model, records, shards, tmp_path):
    pytest.importorskip("pyspark")
    with open(shards / "1.jsonl", "a") as file:
        file.write("not JSON\n")
    words = ["-m", model, "--field", COLUMN, "-l", "cats,dogs"]
    status, err = run("spark_pipe.py", shards, tmp_path / "out", *words, "--on-error", "warn")
    assert status == 0, err
    lines = b"".join(open(name, "rb").read() for name in sorted(glob.glob(f"{tmp_path}/out/part-*")))
    expected = single(model, records, "--json", "-l", "cats,dogs", verb="classify")
    assert sorted(lines.splitlines()) == sorted(expected.splitlines())


def vectors(path, records):
    """The rows of a table by their id, in the order of the records."""
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {one["id"]: one for one in parquet.read_table(path).to_pylist()}
    return np.array([rows[one["id"]]["embedding"] for shard in records for one in shard], np.float32), len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["pyspark", "ray"])
def test_engines_that_hold_a_model(model, records, table, tmp_path, engine):
    pytest.importorskip(engine)
    pytest.importorskip("pandas")
    name = {"pyspark": "spark_map.py", "ray": "ray_map.py"}[engine]
    status, err = run(name, table, tmp_path / "out", model, COLUMN)
    assert status == 0, err
    found, count = vectors(tmp_path / "out", records)
    whole = single(model, records, "--raw")
    assert found.tobytes() == whole and count == (SHARDS - 1) * EACH
