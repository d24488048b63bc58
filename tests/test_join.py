"""embed --join: .npy files as one, and what cannot be one."""

import os
import stat

import numpy as np
import pytest
from command import command, shell


@pytest.fixture
def here(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "a.npy", rows)
    np.save(tmp_path / "b.npy", rows[:1] + 100)
    np.save(tmp_path / "none.npy", rows[:0])
    return tmp_path


def test_shards_are_the_whole(model, tmp_path):
    lines = [f"cat {i}\n" for i in range(50)]
    for name, part in (("a", lines[:20]), ("b", []), ("c", lines[20:])):
        with open(tmp_path / f"{name}.npy", "wb") as file:
            file.write(command("embed", "-m", model, stdin="".join(part).encode()).ok().out)
    whole = command("embed", "-m", model, stdin="".join(lines).encode()).ok().out
    shards = [str(tmp_path / f"{name}.npy") for name in "abc"]
    assert command("embed", "--join", *shards).ok().out == whole
    assert shell(f"embed --join {' '.join(shards)} > {tmp_path}/all.npy").ok()
    assert (tmp_path / "all.npy").read_bytes() == whole


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_each_version_of_the_format(here, version):
    with open(here / "v.npy", "wb") as file:
        np.lib.format.write_array(file, np.full((2, 3), 7, np.float32), version)
    (here / "all.npy").write_bytes(
        command("embed", "--join", here / "a.npy", here / "none.npy", here / "v.npy").ok().out
    )
    assert np.load(here / "all.npy").shape == (6, 3) and np.load(here / "all.npy")[-1].tolist() == [7, 7, 7]


def test_what_is_no_part(here):
    def fails(name, *words):
        assert not command("embed", "--join", here / "a.npy", here / name).fails(name, *words).out

    (here / "cat.npy").write_bytes((here / "a.npy").read_bytes() + (here / "b.npy").read_bytes())
    fails("cat.npy", "holds more than the 4 rows", "cat")
    (here / "cut.npy").write_bytes((here / "a.npy").read_bytes()[:-1])
    fails("cut.npy", "holds less than the 4 rows")
    np.save(here / "wide.npy", np.zeros((2, 4), np.float32))
    fails("wide.npy", "rows of 4 f4", "rows of 3 f4")
    np.save(here / "f16.npy", np.zeros((2, 3), np.float16))
    fails("f16.npy", "rows of 3 f2")
    np.save(here / "flat.npy", np.zeros(3, np.float32))
    fails("flat.npy", "no .npy file of rows")
    np.save(here / "fortran.npy", np.asfortranarray(np.zeros((2, 3), np.float32)))
    fails("fortran.npy", "Fortran order")
    np.save(here / "object.npy", np.array([[{}, 1, 2]], object), allow_pickle=True)
    fails("object.npy", "no .npy file of rows")
    (here / "text.npy").write_bytes(b"hello")
    fails("text.npy", "no .npy file of rows")
    (here / "zeros.npy").write_bytes(bytes(500))  # of an `embed` that was killed
    fails("zeros.npy", "no .npy file of rows")
    os.mkfifo(here / "fifo", stat.S_IRUSR | stat.S_IWUSR)
    fails("fifo")
    fails("missing.npy", "No such file")


def test_what_goes_with_it(here):
    command("embed", "--join").fails("--join wants files")
    command("embed", "--join", "--json", here / "a.npy").fails("exclude each other")
    shell(f"embed --join {here}/a.npy > /dev/full").fails("No space left")
