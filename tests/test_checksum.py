"""CRC-32: the extension against zlib, on memory and on files."""

import os
import random
import zlib
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toast import kernels
from toast.kernels import checksum

VARIANTS = ("generic", "avx2", "avx512", "neon")


def extension(variant):
    if kernels.install(variant) == "off":
        pytest.skip(f"this CPU cannot run {variant} kernels")
    from toast.kernels import _ext

    return _ext


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_length_at_every_alignment(variant):
    ext, rng = extension(variant), random.Random(7)
    for length in range(301):
        start = length % 17
        data = rng.randbytes(start + length)
        assert ext.crc32(data, start) == zlib.crc32(data[start:])
    with pytest.raises(ValueError):
        ext.crc32(b"x", 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_bytes(variant):
    ext = extension(variant)

    @given(st.binary(max_size=4096), st.integers(0, 64))
    def same(data, start):
        start = min(start, len(data))
        assert ext.crc32(data, start) == zlib.crc32(data[start:])

    same()


@pytest.mark.parametrize("variant", (*VARIANTS, "off"))
@pytest.mark.parametrize(
    "size, block", [(0, 8), (1, 8), (1000, 7), (1_000_000, 1 << 18), (3 << 20, 1 << 18), (200_000, 65_537)]
)
def test_a_whole_file(tmp_path, variant, size, block):
    if variant != "off":
        extension(variant)
    data = random.Random(size).randbytes(size + 3)
    (tmp_path / "x").write_bytes(data)
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    expected = [zlib.crc32(data[at : min(at + block, size)]) for at in range(0, size, block)]
    assert checksum.crc32_blocks(fd, size, block) == array("I", expected).tobytes()
    os.close(fd)


@pytest.mark.parametrize("variant", ("auto", "off"))
def test_files_that_cannot_be_read(tmp_path, variant):
    kernels.install(variant)
    (tmp_path / "x").write_bytes(bytes(1000))
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    with pytest.raises(ValueError, match="too early"):
        checksum.crc32_blocks(fd, 1001, 100)
    os.close(fd)
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        checksum.crc32_blocks(folder, 1000, 100)
    os.close(folder)
