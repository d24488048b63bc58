"""toast under mlx.launch: processes that share a model answer as one does."""

import os
import socket
import subprocess
from contextlib import ExitStack, suppress

import mlx.core as mx
import pytest
from command import BIN, command, environment
from tiny_adapter import LLAMA, llama

pytestmark = pytest.mark.skipif(not mx.distributed.is_available("ring"), reason="MLX without its ring backend")


def ports(count):
    """The first of so many ports in a row that nobody has; below 32768, where no system takes one for a client."""
    for first in range(20000 + os.getpid() * 16 % 12000, 32000, 16):
        with ExitStack() as held, suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no port is free")


def together(count, *words, port=None):
    """(standard output, standard error) of a command that so many processes run."""
    launch = [f"{BIN}/mlx.launch", "-n", str(count), "--backend", "ring", "--starting-port", str(port or ports(count))]
    launch += ["--env", "TOAST_THREADS=1", "--", f"{BIN}/toast", *words]
    ran = subprocess.run(launch, capture_output=True, timeout=200, env=environment(), stdin=subprocess.DEVNULL)
    return ran.stdout, ran.stderr.decode()


@pytest.mark.parametrize("bits", [None, 4])
def test_two_answer_as_one(tmp_path, bits):
    folder = llama(tmp_path / "llama", bits=bits, intermediate_size=128)
    words = ["-m", folder, "-n", "12", "say it"]
    alone = command("toast", *words, "--no-input").ok(quiet=False)
    out, err = together(2, *words)
    assert out == alone.out, err


def test_a_model_that_cannot_be_shared_evenly():
    out, err = together(3, "-m", os.path.abspath(LLAMA), "-n", "2", "say it")
    assert not out and "has 4 attention heads, which 3 cannot share evenly" in err


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        out, err = together(2, "-m", os.path.abspath(LLAMA), "-n", "2", "say it", port=taken.getsockname()[1])
    assert not out and "toast: these processes cannot meet: " in err and "--starting-port" in err


def test_what_is_for_one_process(tmp_path):
    out, err = together(2, "-m", os.path.abspath(LLAMA), "--session", "x", "say it")
    assert not out and "mlx.launch and --session exclude each other" in err
