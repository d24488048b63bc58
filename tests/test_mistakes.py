"""Mistakes that people make, each with the line that it gets: tests/golden/mistakes.txt, by the installed commands.

After a change: python tests/test_mistakes.py writes the file again, to be read before it is committed.
"""

import os
import tempfile
from pathlib import Path

import pytest
from command import shell

GOLDEN = Path(__file__).parent / "golden" / "mistakes.txt"
LINES = GOLDEN.read_text().split("\n")
CASES = [(line[2:], said) for line, said in zip(LINES, LINES[1:], strict=False) if line.startswith("$ ")]


def said(line, folder):
    """(status, standard output, standard error) of a line of shell, where one file is, and no model."""
    (Path(folder) / "notes.txt").write_text("a cat\na dog\n")
    ran = shell(line, cwd=folder, env={"HOME": folder, "TOAST_HOME": folder, "COLUMNS": "80"})
    return ran.status, ran.out.decode(), ran.err.decode()


@pytest.mark.parametrize("line, expected", CASES)
def test_a_mistake(line, expected, tmp_path):
    status, out, err = said(line, tmp_path)
    assert (out, err) == ("", expected + "\n")
    assert status == 2 or line.startswith("find ")


def test_there_are_enough():
    assert len(CASES) >= 50 and len(set(CASES)) == len(CASES)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(TOAST_HOME=folder, HF_HUB_OFFLINE="1")
        parts = [f"$ {line}\n{said(line, folder)[2]}" for line, _ in CASES]
    GOLDEN.write_text("\n".join(parts))
