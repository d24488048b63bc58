"""These tests ask what only a GPU can answer, by Metal or CUDA; without one they are skipped.

Commands run as installed, on the GPU; `on_cpu` runs the same command on the CPU by plain MLX.
"""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from command import Result, environment, fed

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    if mx.default_device() == mx.Device(mx.cpu):
        for item in items:
            if item.path.parent == HERE:
                item.add_marker(pytest.mark.skip(reason="needs a GPU that MLX knows"))


@pytest.fixture
def metal():
    if not mx.metal.is_available():
        pytest.skip("Metal alone")


@pytest.fixture
def on_cpu():
    """on_cpu(name, *args, stdin): what command.command gives, by MLX on the CPU."""
    code = "import mlx.core as mx, sys; mx.set_default_device(mx.cpu); import {0}.cli as c; c.{1}()"

    def run(name, *args, stdin=None):
        package = "toast" if name == "toast" else "embed"
        words = [sys.executable, "-c", code.format(package, name), *map(str, args)]
        env = environment({"TOAST_KERNELS": "off"})
        ran = subprocess.run(words, capture_output=True, env=env, timeout=600, **fed(name, stdin))
        return Result([name, *args], ran.returncode, ran.stdout, ran.stderr)

    return run
