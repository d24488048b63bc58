"""`embed`: vectors for records."""

import io
import json
import os
import pty
import shutil

import numpy as np
import pytest
import tiny
from command import command, shell, start


@pytest.fixture
def embed(model):
    return lambda *words, **options: command("embed", "-m", model, *words, **options)


def array(result):
    return np.load(io.BytesIO(result.ok().out))


LINES = b"the cat sat\na dog ran to the mat\n\nsky\n" + b"red " * 20 + b"\nthe cat sat\n"


def test_a_row_for_each_line(embed):
    rows = array(embed(stdin=LINES))
    assert rows.shape == (6, 32) and rows.dtype == np.float32
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    assert (rows[0] == rows[5]).all()


def test_batch_equals_single(embed):
    rows = array(embed(stdin=LINES))
    alone = np.concatenate([array(embed(stdin=line + b"\n")) for line in LINES.splitlines()])
    for size in ("1", "2", "5"):
        assert np.abs(array(embed("--batch", size, stdin=LINES)) - rows).max() < 1e-6
    assert np.abs(alone - rows).max() < 1e-6


def test_pipe_file_and_append_give_the_same_bytes(model, tmp_path):
    (tmp_path / "in").write_bytes(LINES)
    script = (
        f"embed -m {model} in | cat > a; embed -m {model} in > b; embed -m {model} in >> c; embed -m {model} < in > d"
    )
    shell(script, cwd=tmp_path).ok()
    a, b, c, d = ((tmp_path / name).read_bytes() for name in "abcd")
    assert a == b == c == d and len(a) == 128 + 6 * 32 * 4


def test_two_arrays_in_one_file(model, tmp_path):
    shell(f"{{ echo cat | embed -m {model}; echo dog | embed -m {model}; }} > x", cwd=tmp_path).ok()
    with open(tmp_path / "x", "rb") as file:
        assert np.load(file).shape == np.load(file).shape == (1, 32)


def test_no_records(embed):
    assert array(embed()).shape == (0, 32)
    assert array(embed("--no-input", stdin=b"cat\n")).shape == (0, 32)
    assert embed("--json").ok().out == b""


def test_files_in_order(embed, tmp_path):
    (tmp_path / "x").write_bytes(b"cat\ndog")
    (tmp_path / "y").write_bytes(b"sky\n")
    together = array(embed("y", "-", "x", cwd=tmp_path, stdin=b"mat\n"))
    assert (together == array(embed(stdin=b"sky\nmat\ncat\ndog\n"))).all()


def test_json_passes_fields_through_and_ours_win(embed):
    out = embed("--field", "body", "--json", stdin=b'{"id": "\xc3\xa9", "index": 9, "body": "cat"}\n').ok().out
    value = json.loads(out)
    assert value["id"] == "é" and value["index"] == 0 and value["body"] == "cat"
    assert np.abs(np.array(value["embedding"]) - array(embed(stdin=b"cat\n"))[0]).max() < 1e-7


def test_raw_rows(embed):
    rows = np.frombuffer(embed("--raw", stdin=LINES).ok().out, "<f4").reshape(-1, 32)
    assert (rows == array(embed(stdin=LINES))).all()


def test_nul_records(embed):
    assert (array(embed("-0", stdin=b"the\ncat\0dog\0"))[1] == array(embed(stdin=b"dog\n"))[0]).all()


def test_dims_cut_and_renormalise(embed):
    whole, cut = array(embed("--no-normalize", stdin=LINES)), array(embed("--dims", "5", stdin=LINES))
    expected = whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True)
    assert np.abs(cut - expected).max() < 1e-6


def test_precisions(embed):
    x = array(embed(stdin=LINES))
    f16, int8, bits = (array(embed("--precision", p, stdin=LINES)) for p in ("f16", "int8", "binary"))
    assert f16.dtype == np.float16 and (f16 == x.astype(np.float16)).all()
    assert int8.dtype == np.int8 and (int8 == np.round(127 * x / np.abs(x).max(1, keepdims=True))).all()
    assert bits.dtype == np.uint8 and (bits == np.packbits(x > 0, axis=1)).all()
    odd = array(embed("--precision", "binary", "--dims", "11", stdin=LINES))
    assert (odd == np.packbits(array(embed("--dims", "11", stdin=LINES)) > 0, axis=1)).all()


def test_query_prompt(embed):
    asked = array(embed("--as", "query", stdin=b"cat\n"))
    assert np.abs(asked - array(embed(stdin=b"red cat\n"))).max() < 1e-6


LONG = b" ".join([b"cat dog bird"] * 12) + b"\n"  # 36 tokens, of which 22 fit


def test_long_records_are_cut_and_counted(embed):
    result = embed(stdin=LONG + b"cat\n")
    assert result.err == b"embed: 1 record over 24 tokens cut\n"
    assert embed("--strict", stdin=LONG).status == 3
    assert embed("--strict", "-q", stdin=LONG).err == b""
    embed("--long", "error", stdin=LONG).fails("longer than 24 tokens")
    head = b" ".join(LONG.split()[:22])
    assert np.abs(np.load(io.BytesIO(result.out))[0] - array(embed(stdin=head))[0]).max() < 1e-6


def test_long_records_averaged_by_length(embed):
    words = LONG.split()
    head, tail = (array(embed("--no-normalize", stdin=b" ".join(w)))[0] for w in (words[:22], words[22:]))
    mean = np.load(io.BytesIO(embed("--long", "mean", "--no-normalize", stdin=LONG).ok(quiet=False).out))[0]
    assert np.abs(mean - (head * 22 + tail * 14) / 36).max() < 2e-6


def test_a_slow_writer_is_answered_at_once(model):
    process = start("embed", "-m", model, "--json")
    for i in range(3):
        process.stdin.write(b"cat\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["index"] == i
    process.stdin.close()
    assert process.wait(20) == 0


def test_a_terminal_is_spared_binary_data(model, tmp_path):
    leader, terminal = pty.openpty()
    (tmp_path / "x").write_text("cat\n")
    script = f"embed -m {model} x 2>err >/dev/tty"
    pid = os.fork()
    if not pid:
        os.setsid()
        import fcntl
        import termios

        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        os._exit(shell(script, cwd=tmp_path).status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert "will not write binary data to a terminal" in (tmp_path / "err").read_text()
    os.close(leader), os.close(terminal)


def test_a_50_mb_line(embed):
    result = embed("--strict", stdin=b"cat dog " * (50 << 17), timeout=60)
    assert result.status == 3 and len(result.out) == 128 + 128


@pytest.mark.parametrize(
    "words, said",
    [
        (["--dims", "0"], "--dims"),
        (["--dims", "999"], "--dims 999 is more than the 32"),
        (["--precision", "f8"], "--precision"),
        (["--jsonl"], "not a JSON object"),
        (["--long", "tear"], "--long"),
    ],
)
def test_wrong_usage(embed, words, said):
    embed(*words, stdin=b"cat\n").fails(said)


def damaged(model, tmp_path, name, content):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "name, content",
    [
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "nonesuch"}'),
        ("config.json", b'{"model_type": "bert"}'),
        ("tokenizer.json", b"not json"),
        ("modules.json", b"[[["),
        ("1_Pooling/config.json", b""),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 100),
        ("model.safetensors", (1 << 62).to_bytes(8, "little") + b"{}"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"{}"),
    ],
)
def test_damaged_models(model, tmp_path, name, content):
    folder = damaged(model, tmp_path, name, content)
    command("embed", "-m", folder, stdin=b"cat\n").fails("embed: ")


def test_missing_files_of_a_model(model, tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        folder = tmp_path / name
        shutil.copytree(model, folder)
        (folder / name).unlink()
        command("embed", "-m", folder, stdin=b"cat\n").fails(str(folder))


def test_model_of_the_environment(model, tmp_path):
    other = tiny.bert(tmp_path / "other", D=16, seed=3)
    result = command("embed", env={"EMBED_MODEL": other}, stdin=b"cat\n")
    assert array(result).shape == (1, 16)


def test_hugging_face_cache_in_place(model, tmp_path):
    repository = tmp_path / "hub" / "models--tiny--bert"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / "abc").symlink_to(model)
    result = command("embed", "-m", "tiny/bert", env={"HF_HUB_CACHE": tmp_path / "hub"}, stdin=b"cat\n", cwd=tmp_path)
    assert array(result).shape == (1, 32)


def peak_memory(line, cwd):
    """Peak resident kilobytes of the largest process of a shell line."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(['bash', '-c', sys.argv[1]], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    result = shell('python3 -c "$CODE" "$LINE"', env={"CODE": code, "LINE": line}, cwd=cwd, timeout=600)
    return int(result.ok(quiet=False).out)


def test_memory_does_not_grow_with_the_lines(model, tmp_path):
    small, large = (
        peak_memory(f"yes 'cat' | head -{n} | embed -m {model} --batch 512 | cat > out.npy", tmp_path)
        for n in (20000, 200000)
    )
    assert np.load(tmp_path / "out.npy", mmap_mode="r").shape == (200000, 32)
    assert large < small + 30_000, (small, large)


@pytest.mark.model
def test_minilm_equals_sentence_transformers(real):
    """Every text of the reference, alone in a NUL-separated stream, empty and over-long included."""
    folder = os.path.join(os.path.dirname(__file__), "oracles", "minilm")
    expected = np.load(os.path.join(folder, "embeddings.npy"))
    with open(os.path.join(folder, "texts.jsonl"), "rb") as file:
        result = command("embed", "-m", "minilm@f32", "--jsonl", "--field", "text", stdin=file, env=real)
    assert np.abs(np.load(io.BytesIO(result.ok(quiet=False).out)) - expected).max() <= 2e-5
