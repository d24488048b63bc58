"""Writes GGUF files for the tests: metadata of Python values, tensors as (type, shape, bytes)."""

import struct

from toast.store.gguf import TYPES

TYPE_IDS = {name: number for number, (name, _, _) in TYPES.items()}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(v):
    """The type of a metadata value and its bytes."""
    if isinstance(v, bool):
        return 7, struct.pack("<?", v)
    if isinstance(v, int):
        return 4, struct.pack("<I", v)
    if isinstance(v, float):
        return 6, struct.pack("<f", v)
    if isinstance(v, str):
        return 8, string(v)
    kinds = [value(x) for x in v]
    return 9, struct.pack("<IQ", kinds[0][0], len(v)) + b"".join(data for _, data in kinds)


def gguf(metadata, tensors=(), version=3):
    """The bytes of a GGUF file; `tensors`: name -> (type, shape row-major, bytes)."""
    pairs = b"".join(string(k) + struct.pack("<I", value(v)[0]) + value(v)[1] for k, v in metadata.items())
    table, data = b"", b""
    for name, (kind, shape, raw) in dict(tensors).items():
        dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        table += string(name) + dims + struct.pack("<IQ", TYPE_IDS[kind], len(data))
        data += raw + bytes(-len(raw) % 32)
    head = b"GGUF" + struct.pack("<IQQ", version, len(dict(tensors)), len(metadata)) + pairs + table
    return head + bytes(-len(head) % 32) + data
