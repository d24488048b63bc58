"""KV caches of prompts on disk, found again by any later process: what was read is not read twice. A process that
stays has them in memory, too.

Owns the files, their keys and their bound. Knows caches; no text, no tokenizer.

Caches of keys and values are kept in blocks of BLOCK tokens, each under a hash of all tokens up
to its end; every other kind (rotating, state-space, ...) as one snapshot of the longest whole number of
blocks. The key also covers the model's files and all versions that decide a bit. A file that is damaged
or not ours is as good as none.
"""

from __future__ import annotations

import json
import os
import re
from _blake2 import blake2b  # hashlib would load OpenSSL
from binascii import crc32
from time import time_ns

import mlx.core as mx

import toast
from toast import files, kept, kernels
from toast.generation.generate import STEP, has_kv_caches
from toast.store import safetensors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Caches = list[Any]
    Tree = Any  # nested lists of arrays, numbers, texts and None

BLOCK = 64
KEY = re.compile("[0-9a-f]{40}")  # what is not called so is not ours
MAGIC = b"toastKV2"
READING = 2  # raise when models are read otherwise: windows, corrections


class PrefixCache:
    """The cache in `folder` for the model folder `path`; at most `limit` bytes, oldest use goes first.

    adapter: the folder of what changes the model. form: of the caches, where it is not the usual one."""

    def __init__(self, folder: str, path: str, limit: int, *, adapter: str = "", form: str = "") -> None:
        self.folder, self.limit = folder, limit
        mlx_version: str = mx.__version__  # type: ignore[attr-defined]  # its stubs lack it
        versions = f"{MAGIC!r} {READING} {mlx_version} {toast.__version__} {kernels.variant()} {kernels.VERSION}"
        change = _fingerprint(adapter) if adapter else b""
        self.root = blake2b(versions.encode() + _fingerprint(path) + change + form.encode(), digest_size=20).digest()
        self.snapshot: Tree = None

    def find(self, caches: Caches, ids: list[int], *, like: Callable[[], Caches] | None = None) -> int:
        """Fill new caches with the longest known prefix of the ids, but not with all of them.

        Gives its length; the caches stay new when that is 0. like: gives caches as the model makes them, which tell
        what it can go on from."""
        keys = self._keys(ids[:-1])
        if like is not None and not (keys and os.path.exists(os.path.join(self.folder, keys[0]))):
            like = None
        expected = [cache.state for cache in like()] if like is not None else None
        if has_kv_caches(caches):
            blocks = []
            for key in keys:
                block = self._load(key)
                if not _is_block(block, len(caches)) or (expected and not _alike(block, expected)):
                    break
                blocks.append(block)
            self._used(keys[: len(blocks)])
            return _fill(caches, blocks) if blocks else 0
        for count in range(len(keys), 0, -1):
            states = self._load(keys[count - 1])
            if isinstance(states, list) and len(states) == len(caches) and (not expected or _alike(states, expected)):
                self._used([keys[count - 1]])
                for cache, state in zip(caches, states, strict=True):
                    cache.state = state
                return count * BLOCK
        return 0

    def boundary(self, caches: Caches, ids: list[int]) -> int:
        """Where reading the ids should pause for `mark`; 0: it need not."""
        return 0 if has_kv_caches(caches) else (len(ids) - 1) // BLOCK * BLOCK

    def mark(self, caches: Caches) -> None:
        """Remember the state of caches that cannot be cut, at the boundary."""
        self.snapshot = [_copied(cache.state) for cache in caches]

    def keep(self, caches: Caches, ids: list[int], prompt: int, *, write: bool = True) -> None:
        """Keep what the caches hold for the ids, of which `prompt` were the prompt: in memory where this process stays,
        and on disk, if it is worth to `write` it, as far as there is room.

        A cache that cannot be written is no error."""

        def block(n: int) -> Callable[[], Tree]:
            part = (..., slice(n * BLOCK, (n + 1) * BLOCK), slice(None))
            return lambda: [[c.keys[part], c.values[part]] for c in caches]

        trees: list[tuple[str, Callable[[], Tree]]] = []
        if has_kv_caches(caches):
            trees = [(key, block(n)) for n, key in enumerate(self._keys(ids))]
        elif self.snapshot is not None:
            trees = [(self._keys(ids[: prompt - 1])[-1], lambda: self.snapshot)]
        _keep_in_memory(trees)
        if not write:
            return
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            self._write_all(trees)
            self._bound()
        except OSError:
            pass

    def _write_all(self, trees: list[tuple[str, Callable[[], Tree]]]) -> None:
        """Write trees [(key, function that gives it)] until one would go over the limit."""
        room, kept = self.limit, []
        for key, tree in trees:
            room -= self._write(key, tree, room)
            if room < 0:
                break
            kept.append(key)
        self._used(kept)

    def _used(self, keys: list[str]) -> None:
        """Note the use of a chain, its head last: nothing of it can be found when that is gone."""
        now = time_ns()
        for n, key in enumerate(keys):
            try:
                os.utime(os.path.join(self.folder, key), ns=(now, now - n * 1000))
            except OSError:  # another process was first, or may not
                pass

    def _keys(self, ids: list[int]) -> list[str]:
        """The name of every whole block's file; it covers all the tokens before it."""
        keys, last = [], self.root
        for at in range(0, len(ids) - BLOCK + 1, BLOCK):
            tokens = b"".join(i.to_bytes(4, "little") for i in ids[at : at + BLOCK])
            last = blake2b(last + tokens, digest_size=20).digest()
            keys.append(last.hex())
        return keys

    # ---- files

    def _load(self, key: str) -> Tree:
        """The tree in a file, whole and unharmed; None without one."""
        if kept.memory is not None and (found := kept.memory.find(key)) is not None:
            return _copied(found)
        path = os.path.join(self.folder, key)
        try:
            with open(files.open_regular(path), "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_uid != os.getuid() or not status.st_size:
                    return None
                data = file.read()  # not mapped: a mapped file that shrinks can end the process
            return unpack(memoryview(data), key)
        except OSError:
            return None

    def _write(self, key: str, tree: Callable[[], Tree], room: int) -> int:
        """Write a file, unless it is there or takes more than `room`; its size."""
        path = os.path.join(self.folder, key)
        if os.path.exists(path) and self._load(key) is not None:
            return os.path.getsize(path)
        parts = pack(tree(), key)
        if (size := sum(map(len, parts))) <= room:
            files.replace(path, parts, mode=0o600)
        return size

    def _bound(self) -> None:
        """Delete the files used longest ago until the rest is within the limit."""
        with os.scandir(self.folder) as entries:
            ours = ((e.path, e.stat(follow_symlinks=False)) for e in entries if KEY.fullmatch(e.name))
            found = sorted((s.st_mtime_ns, s.st_size, path) for path, s in ours)
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= self.limit:
                return
            total -= size
            try:
                os.unlink(path)
            except OSError:  # another process was first, or it is no file
                pass


def _fingerprint(path: str) -> bytes:
    """What tells a model folder's weights from others without reading them."""
    parts = []
    for name in sorted(os.listdir(path)):
        if name.endswith((".safetensors", "config.json")):
            status = os.stat(os.path.join(path, name))
            parts.append(f"{name} {status.st_size} {status.st_mtime_ns} {status.st_ino} {status.st_dev}")
    return "\n".join(parts).encode("utf-8", "surrogateescape")


def _is_block(tree: Tree, layers: int) -> bool:
    """Whether a tree is keys and values (1, H, BLOCK, D) for each of so many layers."""
    if not isinstance(tree, list) or len(tree) != layers:
        return False
    return all(
        isinstance(layer, list)
        and len(layer) == 2
        and all(isinstance(part, mx.array) and part.ndim == 4 and part.shape[2] == BLOCK for part in layer)
        for layer in tree
    )


def _alike(tree: Tree, expected: Tree) -> bool:
    """Whether a tree has the arrays that are expected, of any number of tokens (the axis before the last)."""
    if isinstance(expected, mx.array):
        if not isinstance(tree, mx.array) or tree.dtype != expected.dtype or tree.ndim != expected.ndim:
            return False
        tokens = tree.ndim - 2
        return all(a == b for n, (a, b) in enumerate(zip(tree.shape, expected.shape, strict=True)) if n != tokens)
    if isinstance(expected, (list, tuple)):
        if not isinstance(tree, list) or len(tree) < len(expected[:2]):
            return False
        return all(map(_alike, tree, expected))
    return not isinstance(tree, mx.array)


def _fill(caches: Caches, blocks: list[Tree]) -> int:
    """Put blocks of keys and values (1, H, BLOCK, D), one after the other, into new caches."""
    count = len(blocks) * BLOCK
    for i, cache in enumerate(caches):
        buffers = []
        for part in range(2):
            pieces = [block[i][part] for block in blocks]
            spare = list(pieces[0].shape)
            spare[2] = STEP - count % STEP  # room for what comes next, or it would be copied again
            buffers.append(mx.concatenate([*pieces, mx.zeros(spare, pieces[0].dtype)], axis=2))
        cache.state = (*buffers, count)
    return count


def _keep_in_memory(trees: list[tuple[str, Callable[[], Tree]]]) -> None:
    """Keep trees [(key, function that gives it)] where this process stays, computed and apart from the caches."""
    for key, tree in trees if kept.memory is not None else ():
        if kept.memory is not None and kept.memory.find(key) is None:
            found = _mapped(tree(), mx.contiguous)
            arrays: list[mx.array] = []
            _mapped(found, arrays.append)
            mx.eval(arrays)
            kept.memory.keep(key, found, sum(array.nbytes for array in arrays))


def _mapped(tree: Tree, function: Callable[[mx.array], Any]) -> Tree:
    """The tree of what the function gives for each array."""
    if isinstance(tree, mx.array):
        return function(tree)
    return [_mapped(x, function) for x in tree] if isinstance(tree, (list, tuple)) else tree


def _copied(tree: Tree) -> Tree:
    """The tree with handles of its own, which later writes into the caches do not reach."""
    return _mapped(tree, mx.array)


# ---------------------------------------------------------------- the format, docs/formats.md
# MAGIC, length of the header (8 bytes), header (JSON: key, crc32 of tree and rest, tree), the arrays' bytes one after
# the other, each at a multiple of 64. In the tree an array is {"dtype", "shape", "at"}.


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
    sum = crc32(json.dumps(tree).encode())
    for part in parts:
        sum = crc32(part, sum)
    header = json.dumps({"key": key, "crc32": sum, "size": size, "tree": tree}).encode()
    header += b" " * (-(len(header) + 16) % 64)
    return [MAGIC, len(header).to_bytes(8, "little"), header, *parts]


def unpack(data: memoryview, key: str) -> Tree:
    """The tree of a file's bytes; None when they are not what `pack` made for this key."""
    length = int.from_bytes(data[8:16], "little")
    if data[:8] != MAGIC or length > len(data) - 16:
        return None
    try:
        header = json.loads(bytes(data[16 : 16 + length]))
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
