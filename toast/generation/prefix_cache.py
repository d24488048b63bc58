"""KV caches of prompts on disk, found again by any later process: what was read is not read twice. A process that
stays has them in memory, too.

Owns the files, their keys and their bound. Knows caches; no text, no tokenizer.

Caches of keys and values are kept in blocks of BLOCK tokens, each under a hash of all tokens up
to its end; every other kind (rotating, state-space, ...) as snapshots: of a prompt's longest whole number of
blocks, and where it leaves an earlier prompt that begins alike, so that a third one finds what they share. The key also
covers the model's files and all versions that decide a bit. A file that is damaged
or not ours is as good as none.
"""

from __future__ import annotations

import os
from _blake2 import blake2b  # hashlib would load OpenSSL
from array import array
from functools import partial
from time import time_ns

import mlx.core as mx

import toast
from toast import files, kept, kernels
from toast.generation.generate import STEP, common_prefix, has_kv_caches
from toast.generation.prefix_file import MAGIC, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Caches = list[Any]
    Tree = Any  # nested lists of arrays, numbers, texts and None

BLOCK = 64
CHAINS = 8  # prompts that begin with the same block, whose blocks are remembered to see where others leave them
ENDS = 4  # ends of prompts that are kept after a chain of blocks
HEX = frozenset("0123456789abcdef")
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
        self.snapshots: dict[int, Tree] = {}  # how many blocks -> the state after them

    def find(self, caches: Caches, ids: list[int], *, like: Callable[[], Caches] | None = None) -> int:
        """Fill new caches with the longest known prefix of the ids, but not with all of them.

        Gives its length; the caches stay new when that is 0. like: gives caches as the model makes them, which tell
        what it can go on from."""
        keys, self.snapshots = self._keys(ids[:-1]), {}
        if has_kv_caches(caches):
            blocks = self._blocks(keys, len(caches), like)
            blocks += self._end(keys[: len(blocks)], ids[len(blocks) * BLOCK : -1])
            return _fill(caches, blocks) if blocks else 0
        if not (keys and os.path.exists(os.path.join(self.folder, keys[0]))):
            like = None
        expected = [cache.state for cache in like()] if like is not None else None
        for count in range(len(keys), 0, -1):
            states = self._load(keys[count - 1])
            if isinstance(states, list) and len(states) == len(caches) and (not expected or _alike(states, expected)):
                self._used([keys[count - 1]])
                for cache, state in zip(caches, states, strict=True):
                    cache.state = state
                return count * BLOCK
        return 0

    def _blocks(self, keys: list[str], layers: int, like: Callable[[], Caches] | None) -> list[Tree]:
        """The blocks of a chain as far as they are there; those of files are looked at."""
        blocks: list[Tree] = []
        expected: Tree = None
        for key in keys:
            if (block := _remembered(key)) is None and (block := self._read(key)) is not None:
                if expected is None and like is not None:
                    expected = [cache.state for cache in like()]
                if not _is_block(block, layers) or (expected and not _alike(block, expected)):
                    break
            if block is None:
                break
            blocks.append(block)
        self._used(keys[: len(blocks)])
        return blocks

    def _end(self, keys: list[str], ids: list[int]) -> list[Tree]:
        """Of the ids that follow a chain of blocks, those that were the end of a prompt before; in memory alone."""
        ends = kept.memory.find(self._after(keys)) if kept.memory is not None else None
        if not (ends and ids):
            return []
        count, tree = max(((common_prefix(end, ids), tree) for end, tree in ends), key=lambda found: found[0])
        part = (..., slice(count), slice(None))
        return [[[keys[part], values[part]] for keys, values in tree]] if count else []

    def _after(self, keys: list[str]) -> str:
        """Under which name ends of prompts are that follow a chain of blocks."""
        return f"after {keys[-1] if keys else self.root.hex()}"

    def _keep_end(self, caches: Caches, ids: list[int], prompt: int) -> None:
        """Keep the block in which a prompt ends, which is no whole one, or has more than the prompt."""
        at = (prompt - 1) // BLOCK * BLOCK
        if kept.memory is None or at == prompt - 1:
            return
        name, part = self._after(self._keys(ids[:at])), ids[at : at + BLOCK]
        ends = kept.memory.find(name) or []
        if all(common_prefix(end, part) < len(part) for end, _ in ends):
            span = (..., slice(at, at + len(part)), slice(None))
            ends = [(part, _computed([[c.keys[span], c.values[span]] for c in caches])), *ends][:ENDS]
            kept.memory.keep(name, ends, sum(_size(tree) for _, tree in ends))

    def boundaries(self, caches: Caches, ids: list[int]) -> list[int]:
        """Where reading the ids should pause for `mark`, in order."""
        keys = [] if has_kv_caches(caches) else self._keys(ids[:-1])
        return [count * BLOCK for count in sorted({self._alike_for(keys), len(keys)} - {0})]

    def mark(self, caches: Caches, at: int) -> None:
        """Remember the state of caches that cannot be cut, at a boundary."""
        self.snapshots[at // BLOCK] = [_copied(cache.state) for cache in caches]

    def _alike_for(self, keys: list[str]) -> int:
        """For how many blocks an earlier prompt was like this one."""
        return max((common_prefix(chain, keys) for chain in self._chains(keys)), default=0)

    def _chains(self, keys: list[str]) -> list[list[str]]:
        """The keys of earlier prompts that begin with the same block."""
        found = self._load(_chains_name(keys)) if keys else None
        chains = found if isinstance(found, list) else []
        return [chain for chain in chains if isinstance(chain, list) and all(isinstance(key, str) for key in chain)]

    def _keep_chain(self, keys: list[str]) -> None:
        """Remember a prompt's keys; the last writer of several wins, and a snapshot may be missing."""
        others = [chain for chain in self._chains(keys) if chain != keys[: len(chain)]]
        chains, name = [keys, *others][:CHAINS], _chains_name(keys)
        if kept.memory is not None:
            kept.memory.keep(name, chains, 64 * sum(map(len, chains)))
        files.replace(os.path.join(self.folder, name), pack(chains, name), mode=0o600)

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
        keys = [] if has_kv_caches(caches) else self._keys(ids[: prompt - 1])
        trees += [(keys[n - 1], partial(self.snapshots.get, n)) for n in sorted(self.snapshots, reverse=True)]
        _keep_in_memory(trees)
        if has_kv_caches(caches):
            self._keep_end(caches, ids, prompt)
        if not write:
            return
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            if keys:
                self._keep_chain(keys)
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
        keys, last, tokens = [], self.root, array("I", ids).tobytes()
        size = 4 * BLOCK
        for at in range(0, len(tokens) - size + 1, size):
            last = blake2b(last + tokens[at : at + size], digest_size=20).digest()
            keys.append(last.hex())
        return keys

    # ---- files

    def _load(self, key: str) -> Tree:
        """The tree of that name, to be gone on with; None without one."""
        return self._read(key) if (found := _remembered(key)) is None else _copied(found)

    def _read(self, key: str) -> Tree:
        """The tree in a file, whole and unharmed; None without one."""
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
            ours = ((e.path, e.stat(follow_symlinks=False)) for e in entries if _is_key(e.name))
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


def _chains_name(keys: list[str]) -> str:
    """Under which name the keys of prompts are that begin with the same block."""
    return blake2b(b"chains" + keys[0].encode(), digest_size=20).hexdigest()


def _is_key(name: str) -> bool:
    """What is not called so is not ours."""
    return len(name) == 40 and HEX.issuperset(name)


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
    """Put blocks of keys and values (1, H, n, D), one after the other, into new caches."""
    count = sum(block[0][0].shape[2] for block in blocks)
    for i, cache in enumerate(caches):
        buffers = []
        for part in range(2):
            pieces = [block[i][part] for block in blocks]
            spare = list(pieces[0].shape)
            spare[2] = STEP - count % STEP  # room for what comes next, or it would be copied again
            buffers.append(mx.concatenate([*pieces, mx.zeros(spare, pieces[0].dtype)], axis=2))
        cache.state = (*buffers, count)
    return count


def _remembered(key: str) -> Tree:
    """The tree in memory, None without one; whoever writes into it has a copy."""
    return None if kept.memory is None else kept.memory.find(key)


def _keep_in_memory(trees: list[tuple[str, Callable[[], Tree]]]) -> None:
    """Keep trees [(key, function that gives it)] where this process stays, computed and apart from the caches."""
    for key, tree in trees if kept.memory is not None else ():
        if kept.memory is not None and kept.memory.find(key) is None:
            found = _computed(tree())
            kept.memory.keep(key, found, _size(found))


def _computed(tree: Tree) -> Tree:
    """The tree with nothing left to compute, and apart from what it is a part of."""
    found = _mapped(tree, mx.contiguous)
    mx.eval(_arrays(found))
    return found


def _size(tree: Tree) -> int:
    return sum(array.nbytes for array in _arrays(tree))


def _arrays(tree: Tree) -> list[mx.array]:
    found: list[mx.array] = []
    _mapped(tree, found.append)
    return found


def _mapped(tree: Tree, function: Callable[[mx.array], Any]) -> Tree:
    """The tree of what the function gives for each array."""
    if isinstance(tree, mx.array):
        return function(tree)
    return [_mapped(x, function) for x in tree] if isinstance(tree, (list, tuple)) else tree


def _copied(tree: Tree) -> Tree:
    """The tree with handles of its own, which later writes into the caches do not reach."""
    return _mapped(tree, mx.array)
