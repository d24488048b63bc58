"""Many calls of all kinds at once: each gives what it gave alone, and nothing is left over.

Here some, eight at a time; `make test-all` does 1,500.
"""

import os
import random
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from command import environment

LLAMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "llama-causal")
TOAST = f"toast -m {LLAMA} -t 0 -n 4"
LINES = "".join(f"line {i} of the cat and the dog\n" for i in range(40))
SHELL = [  # a line of shell and its status
    ("embed < lines", 0), ("embed --json < lines", 0), ("embed < empty", 0), ("embed --json < noise", 0),
    ("embed < lines > /dev/full", 2), ("embed --json < lines | head -c 100", 0), ("embed -m nowhere/at < lines", 2),
    ("index docs | cat > /dev/null", 0), ("index docs -o $JOB.db && rm $JOB.db", 0), ("index -o no/x.db docs", 2),
    ("index -u x.db docs", 0), ("index --merge x.db x.db -o $JOB.db && rm $JOB.db", 0),
    ("index < lines | search cat", 0),
    ("search cat < x.db", 0), ("search cat lines", 0), ("search --json dog x.db | head -n 1", 0),
    ("search cat < noise", 0), ("search cat < cut.db", 2), ("search --mode lexical zebra < lines", 1),
    ("search cat < docs", 2), ("rerank cat < lines", 0), ("rerank cat < empty", 1),
    ("rerank cat < lines | head -n 1", 0),
    ("classify -l cat,dog < lines", 0), ("classify < lines", 2),
    ("classify --learn examples -o $JOB.p && rm $JOB.p", 0), ("tokenize --count < lines", 0),
    ("tokenize --ids < lines | tokenize --decode", 0), ("tokenize < /dev/null", 0), (f"{TOAST} hi < few", 0),
    (f"{TOAST} hi < lines", 2), (f"{TOAST} --each hi < few", 0), (f"{TOAST} hi < docs", 2), (f"{TOAST} <&-", 2),
    (f"{TOAST} --session $JOB hi && rm $TOAST_HOME/sessions/$JOB.jsonl", 0),
    (f"{TOAST} --json hi < few | head -c 9", 0), ("model ls --json", 1), ("model show nowhere", 2),
]  # fmt: skip


def run(number, line, folder, env):
    """Status, both streams; the names that calls have for themselves are taken out."""
    words = ["bash", "-o", "pipefail", "-c", line]
    ran = subprocess.run(
        words,
        cwd=folder,
        env={**env, "JOB": f"job{number}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )
    return ran.returncode, ran.stdout, ran.stderr.replace(f"job{number}".encode(), b"JOB")


def left(folder):
    return Counter(
        os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names
    )


@pytest.mark.slow
@pytest.mark.parametrize("calls", [2 * len(SHELL), pytest.param(1500, marks=pytest.mark.long)])
def test_many_at_once(tmp_path, model, calls):
    for name in ("work/docs", "home", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    work = tmp_path / "work"
    texts = {"lines": LINES, "few": "cat\ndog\n", "empty": "", "docs/a.txt": LINES, "docs/b.txt": "a zoo\n\na farm\n"}
    texts["examples"] = '{"text": "a cat", "label": "cat"}\n{"text": "a dog", "label": "dog"}\n' * 4
    for name, text in texts.items():
        (work / name).write_text(text)
    (work / "noise").write_bytes(random.Random(1).randbytes(4000).replace(b"\0", b""))
    env = environment(
        {"EMBED_MODEL": model, "TOAST_MODEL": model, "RERANK_MODEL": model, "TOAST_HOME": tmp_path / "home",
         "TMPDIR": tmp_path / "tmp", "HF_HOME": tmp_path / "home/hub", "HOME": tmp_path / "home"}
    )  # fmt: skip
    assert run(0, "index docs -o x.db && head -c 30000 x.db > cut.db", work, env) == (0, b"", b"")
    alone = [run(0, line, work, env) for line, _ in SHELL]
    for (line, status), ran in zip(SHELL, alone, strict=True):
        assert ran[0] == status and b"Traceback" not in ran[2] and b"unexpected" not in ran[2], (line, ran)
    before = left(tmp_path)
    order = random.Random(calls).sample(range(len(SHELL)), len(SHELL)) * (calls // len(SHELL) + 1)
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda at: (at[1], run(at[0], SHELL[at[1]][0], work, env)), enumerate(order[:calls]))
        for which, ran in results:
            assert ran == alone[which], (SHELL[which][0], ran, alone[which])
    assert left(tmp_path) == before
