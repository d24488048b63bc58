"""The GGUF container: metadata and the table of tensors, read with every bound checked.
Does not know architectures, tokenizers or what a quantised block means.

Source: the GGUF specification of ggml (docs/gguf.md), versions 2 and 3, little-endian."""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from math import prod

from toast import files
from toast.errors import BadModel
from toast.store import hub

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# ggml type -> (name, elements in a block, bytes in a block)
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip

AHEAD = 1 << 20  # bytes of metadata that are read at once

# metadata value type -> struct code; 8 is a string, 9 an array
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIifBQqd", strict=True))
BOOL, STRING, ARRAY = 7, 8, 9


class Tensor:
    """Where one tensor lies: `shape` in row-major order, `start` and `nbytes` in `file`."""

    __slots__ = ("type", "shape", "start", "nbytes", "file")

    def __init__(self, type: str, shape: tuple[int, ...], *, start: int, nbytes: int, file: Gguf) -> None:
        self.type, self.shape, self.start, self.nbytes, self.file = type, shape, start, nbytes, file


class _Reader:
    """A cursor over the file that never reads past its end; what it reads ahead is `held`, from `start` on."""

    def __init__(self, file: Gguf) -> None:
        self.file, self.at, self.held, self.start = file, 0, b"", 0

    def take(self, n: int) -> bytes:
        if n > self.left():
            raise ValueError("it ends too early")
        if self.at + n > self.start + len(self.held):
            self.held, self.start = self.file.read(self.at, min(max(n, AHEAD), self.left())), self.at
        begin = self.at - self.start
        self.at += n
        return self.held[begin : begin + n]

    def left(self) -> int:
        return self.file.size - self.at

    def unpack(self, codes: str) -> tuple[Any, ...]:
        return struct.unpack("<" + codes, self.take(struct.calcsize("<" + codes)))

    def count(self, least: int) -> int:
        """A 64-bit count of things of at least `least` bytes each; bounds all allocations."""
        (n,) = self.unpack("Q")
        if n * least > self.left():
            raise ValueError(f"it claims {n} items, more than it has bytes for")
        return n

    def string(self) -> str:
        return self.take(self.count(1)).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array()
        if kind not in SCALARS:
            raise ValueError(f"metadata of unknown type {kind}")
        (value,) = self.unpack(SCALARS[kind])
        return bool(value) if kind == BOOL else value

    def array(self) -> list[Any]:
        (kind,) = self.unpack("I")
        if kind == STRING:
            return [self.string() for _ in range(self.count(8))]
        if kind not in SCALARS:
            raise ValueError(f"an array of type {kind}")
        n = self.count(struct.calcsize(SCALARS[kind]))
        values = list(self.unpack(f"{n}{SCALARS[kind]}"))
        return [bool(v) for v in values] if kind == BOOL else values


def architecture(path: str) -> str | None:
    """general.architecture of a file, which stands before its words; None where it cannot be read."""
    try:
        return Gguf(path, upto="general.architecture").metadata.get("general.architecture")
    except BadModel:
        return None


def whole(path: str) -> Gguf:
    """The model in the GGUF file at `path`, which may be any part of several: the first part with all tensors.

    Raises BadModel, which names what is missing."""
    files_ = parts(path)
    if missing := [name for name in files_ if not os.path.exists(name)]:
        names = ", ".join(os.path.basename(name) for name in missing[:3]) + (" .." if missing[3:] else "")
        raise BadModel(f"{path} is one of {len(files_)} parts, not beside it: {names}",
                       hint="all parts go into one folder")  # fmt: skip
    model = Gguf(files_[0])
    _check_parts(model, path, len(files_))
    for name in files_[1:]:
        tensors = Gguf(name).tensors
        if twice := model.tensors.keys() & tensors.keys():
            raise BadModel(f"cannot read {name}: {min(twice)} is in another part, too")
        model.tensors.update(tensors)
    count = model.metadata.get("split.tensors.count", len(model.tensors))
    if files_[1:] and count != len(model.tensors):
        raise BadModel(f"cannot read {path}: its parts hold {len(model.tensors)} tensors of {count}")
    return model


def parts(path: str) -> list[str]:
    """The paths of all parts of a file, the first one first, there or not: NAME-00001-of-00003.gguf."""
    stem, number, count = hub.part_of(path)
    return [f"{stem}-{i:05}-of-{count:05}.gguf" for i in range(1, count + 1)] if number else [path]


def _check_parts(model: Gguf, path: str, count: int) -> None:
    """That the file is as many parts as its name says: one of several may have been given another name."""
    said = model.metadata.get("split.count", 1)
    if isinstance(said, int) and said > 1 and said != count:
        raise BadModel(f"{path} is one of {said} parts, which its name does not say",
                       hint=f"give them their names again: NAME-00001-of-{said:05}.gguf")  # fmt: skip


@contextmanager
def converting(path: str) -> Iterator[None]:
    """Metadata that is missing or wrong ends in a BadModel that names the file."""
    try:
        yield
    except BadModel as error:
        if path in error.message:
            raise
        raise BadModel(f"cannot convert {path}: {error.message}", error.hint) from None
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise BadModel(f"cannot convert {path}: metadata missing or wrong: {error!r}") from None


class Gguf:
    """`metadata` (key -> value) and `tensors` (name -> Tensor) of the file at `path`; `upto`: a key to stop at.

    Raises BadModel when the file is truncated, damaged or not GGUF."""

    def __init__(self, path: str, *, upto: str | None = None) -> None:
        self.path, self.upto = path, upto
        self.tensors: dict[str, Tensor] = {}
        try:
            self.file = open(files.open_regular(path), "rb", buffering=0)  # noqa: SIM115  closed with this object
            self.size = os.fstat(self.file.fileno()).st_size
        except OSError as error:
            raise BadModel(f"cannot open {path}: {error.strerror}") from None
        try:
            self._parse(_Reader(self))
        except ValueError as error:
            raise BadModel(f"cannot read {path}: not a whole GGUF file: {error}") from None

    def read(self, start: int, n: int) -> bytes:
        """Bytes that the file had when it was opened. Not mapped: a mapped file that shrinks can end the process."""
        parts, end = [], start + n
        while start < end and (part := os.pread(self.file.fileno(), end - start, start)):
            parts.append(part)
            start += len(part)
        if start < end:
            raise BadModel(f"{self.path} changed while it was used")
        return b"".join(parts)

    def _parse(self, reader: _Reader) -> None:
        if reader.take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        (version,) = reader.unpack("I")
        if version not in (2, 3):
            raise ValueError(f"version {version} (2 and 3 are known, little-endian)")
        n_tensors, n_pairs = reader.count(24), reader.count(13)
        self.metadata: dict[str, Any] = {}
        for _ in range(n_pairs):
            key = reader.string()
            self.metadata[key] = reader.value(*reader.unpack("I"))
            if key == self.upto:
                return
        table = [self._entry(reader) for _ in range(n_tensors)]
        align = self.metadata.get("general.alignment", 32)
        if not isinstance(align, int) or align < 1 or align & (align - 1):
            raise ValueError(f"alignment {align}")
        base = -(-reader.at // align) * align
        self.tensors = {name: self._placed(base, kind, shape, offset=offset) for name, kind, shape, offset in table}
        if len(self.tensors) != n_tensors:
            raise ValueError("a tensor is there twice")

    def _entry(self, reader: _Reader) -> tuple[str, int, tuple[int, ...], int]:
        name = reader.string()
        (n_dims,) = reader.unpack("I")
        if n_dims > 4:
            raise ValueError(f"{name} has {n_dims} dimensions")
        dims = reader.unpack(f"{n_dims}Q")
        kind, offset = reader.unpack("IQ")
        return name, kind, tuple(reversed(dims)), offset

    def _placed(self, base: int, kind: int, shape: tuple[int, ...], *, offset: int) -> Tensor:
        if kind not in TYPES:
            raise ValueError(f"a tensor of unknown type {kind}")
        name, block, nbytes = TYPES[kind]
        n, start = prod(shape), base + offset
        row = shape[-1] if shape else 1
        if row % block:
            raise ValueError(f"rows of {row} values in {name}")
        size = n // block * nbytes
        if start + size > self.size:
            raise ValueError("it ends before its tensors")
        return Tensor(name, shape, start=start, nbytes=size, file=self)
