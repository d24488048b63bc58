"""The kernels without MLX (kernels_main.cpp): built for 64-bit Arm and run under qemu, and here with the sanitizers.
And the polynomials that they hold."""

import os
import shutil
import subprocess
import sys

import pytest

SOURCE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "toast", "kernels")
BENCH = os.path.join(os.path.dirname(__file__), "bench")
ARM = [
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
    "-DCMAKE_EXE_LINKER_FLAGS=-static",
]


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"no {program}")


def build(folder, *options):
    configure = ["cmake", "-S", SOURCE, "-B", str(folder), "-DTOAST_PYTHON=OFF", "-DTOAST_MAIN=ON", *options]
    for command in (configure + ["-DCMAKE_BUILD_TYPE=Release"], ["cmake", "--build", str(folder), "--parallel", "2"]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
    return os.path.join(folder, "kernels_main")


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_neon_under_qemu(tmp_path):
    need("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64")
    out = run("qemu-aarch64", "-cpu", "max", build(tmp_path, *ARM))
    assert "generic: ok" in out and "neon: ok" in out


@pytest.mark.sanitize
@pytest.mark.parametrize("kind", ["TOAST_SANITIZE", "TOAST_SANITIZE_THREADS"])
def test_sanitizers_find_nothing(tmp_path, kind):
    need("cmake", "c++")
    assert "generic: ok" in run(build(tmp_path, f"-D{kind}=ON"))


def test_the_stored_polynomials_are_minimax():
    out = run(sys.executable, os.path.join(BENCH, "minimax.py"))
    assert len(out.splitlines()) == 4, out
