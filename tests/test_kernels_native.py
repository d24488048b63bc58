"""kernels_main.cpp: built for 64-bit Arm and run under qemu, and built here with the sanitizers."""

import os
import shutil
import subprocess

import pytest

SOURCE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "toast", "kernels")
SANITIZE = ["-DTOAST_SANITIZE=ON"]
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
def test_sanitizers_find_nothing(tmp_path):
    need("cmake", "c++")
    assert "generic: ok" in run(build(tmp_path, *SANITIZE))
