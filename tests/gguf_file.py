"""Writes GGUF files for the tests: metadata of Python values, tensors as (type, shape, bytes)."""

import struct

TYPE_IDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10,
            "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "I16": 25, "F64": 28, "BF16": 30, "MXFP4": 39}  # fmt: skip


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
