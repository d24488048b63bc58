"""The file of a prefix cache: a tree of arrays, numbers, texts and None under a key; docs/formats.md has it.

MAGIC, length of the header (8 bytes), header (JSON: key, crc32 of tree and rest, tree), the arrays' bytes one after
the other, each at a multiple of 64. In the tree an array is {"dtype", "shape", "at"}. Knows nothing of what a tree is.
"""

from __future__ import annotations

from binascii import crc32

import mlx.core as mx

from toast import json_text
from toast.store import safetensors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Tree = Any  # nested lists of arrays, numbers, texts and None

MAGIC = b"toastKV2"


def pack(tree: Tree, key: str) -> list[bytes]:
    """The parts of a file that holds a tree of arrays, numbers, texts and None."""
    parts: list[bytes] = []
    size = 0

    def described(node: Tree) -> Tree:
        nonlocal size
        if isinstance(node, (list, tuple)):
            return [described(x) for x in node]
        if not isinstance(node, mx.array):
            return node
        data = bytes(safetensors.data(node))
        found = {"dtype": str(node.dtype).rpartition(".")[2], "shape": node.shape, "at": size}
        parts.append(data + bytes(-len(data) % 64))
        size += len(parts[-1])
        return found

    tree = described(tree)
    import json

    sum = crc32(json.dumps(tree).encode())
    for part in parts:
        sum = crc32(part, sum)
    header = json.dumps({"key": key, "crc32": sum, "size": size, "tree": tree}).encode()
    header += b" " * (-(len(header) + 16) % 64)
    return [MAGIC, len(header).to_bytes(8, "little"), header, *parts]


def unpack(data: memoryview, key: str) -> Tree:
    """The tree of a file's bytes; None when they are not what `pack` made for this key."""
    import json

    length = int.from_bytes(data[8:16], "little")
    if data[:8] != MAGIC or length > len(data) - 16:
        return None
    try:
        header = json_text.loads(bytes(data[16 : 16 + length]))
        body = data[16 + length :]
        sum = crc32(body, crc32(json.dumps(header["tree"]).encode()))
        if header["key"] != key or header["size"] != len(body) or header["crc32"] != sum:
            return None
        return _Builder(body).whole(header["tree"])
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError):
        return None


class _Builder:
    """Trees back from a file's body, all of which their arrays must take, one after the other."""

    def __init__(self, body: memoryview) -> None:
        self.body, self.at = body, 0

    def whole(self, tree: Tree) -> Tree:
        """The tree; ValueError unless it takes the body."""
        found = self._built(tree)
        if self.at != len(self.body):
            raise ValueError("there are bytes of no array")
        return found

    def _built(self, node: Tree) -> Tree:
        if isinstance(node, list):
            return [self._built(x) for x in node]
        if not isinstance(node, dict):
            return node
        dtype, count = getattr(mx, node["dtype"]), 1
        if node["at"] != self.at or not all(type(n) is int and n >= 0 for n in node["shape"]):
            raise ValueError("an array is elsewhere, or has no shape")
        for n in node["shape"]:
            count *= n
        data: Any = self.body[self.at : self.at + count * dtype.size]
        self.at += count * dtype.size
        self.at += -self.at % 64
        return mx.array(data).view(dtype).reshape(node["shape"]) if count else mx.zeros(node["shape"], dtype)
