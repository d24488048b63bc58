"""The embedder of an index: which model it is, the limit it sets to chunks, and its vectors as rows.

Knows models by name and by the digest of their weights; nothing of tables or of files.
"""

import os

from toast import store
from toast.errors import BadInput

DEFAULT = "minilm"


def chosen(call, name: str | None) -> str:
    """The model to make an index with: the one that is named, else the caller's, else the default."""
    return name or call.env.get("EMBED_MODEL") or DEFAULT


class Embedder:
    """Texts to rows (codes, scale, exact or None) of bytes; a chunk has at most `limit` tokens."""

    def __init__(self, call, name: str, exact: bool = False):
        from toast.encoder import Encoder

        self.encoder, self.exact = Encoder(call, name), exact
        self.dims, tokens = self.encoder.dims, self.encoder.tokens
        special = len(tokens.encode([""], truncate=None)[0].ids)
        self.limit = max(1, tokens.max_length - special - self.encoder.skip)

    def count(self, texts) -> list:
        """Tokens of each text."""
        return [len(e.ids) for e in self.encoder.tokens.encode(texts, special=False, truncate=None)]

    def rows(self, texts) -> list:
        return quantize(self.encoder.encode(texts), self.exact)


class NoEmbedder:
    """What stands in for an embedder where only words are looked for: rows without numbers."""

    dims, limit, exact = 0, 256, False

    def count(self, texts):
        return [len(text.split()) for text in texts]

    def rows(self, texts):
        return [(b"", bytes(4), None)] * len(texts)


def quantize(vectors, exact: bool) -> list:
    """Rows (N, D) float32 -> (codes, scale, exact or None) of each, as bytes: x is about codes * scale."""
    import mlx.core as mx

    scales = mx.maximum(mx.max(mx.abs(vectors), axis=1), 1e-30) / 127
    codes = mx.round(vectors / scales[:, None]).astype(mx.int8)
    parts = [(codes, 1), (scales[:, None], 4)] + [(vectors, 4)] * exact
    columns = [_rows(array, size) for array, size in parts] + [[None] * len(vectors)] * (not exact)
    return list(zip(*columns))


def _rows(array, size):
    """The rows of an array (N, D) as bytes."""
    import mlx.core as mx

    whole, size = bytes(memoryview(mx.contiguous(array))), size * array.shape[1]
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def name_of(call, name: str) -> str:
    """The name to keep in an index: paths become absolute, so that it works from other folders."""
    path = call.path(name)
    return path if os.path.exists(path) else name


def digest(call, name: str) -> str:
    """SHA-256, in hex, of the float weights behind a model: the same for all its variants.

    What had to be computed is kept in the store, under the files' names, sizes and times.
    """
    from toast.store.folder import read_config, transformer

    folder = transformer(store.find(call, name))
    known = read_config(folder).get("source_digest")
    return known if isinstance(known, str) else _kept(call, folder)


def _kept(call, folder: str) -> str:
    from _blake2 import blake2b

    files = [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith(".safetensors")]
    marks = [(os.path.realpath(f), os.stat(f).st_size, os.stat(f).st_mtime_ns) for f in files]
    kept = os.path.join(store.home(call), "digests", blake2b(repr(marks).encode(), digest_size=16).hexdigest())
    try:
        with open(kept) as file:
            return file.read()
    except OSError:
        pass
    from toast.store.quantize import source_digest

    found = source_digest(folder)
    try:
        os.makedirs(os.path.dirname(kept), 0o700, exist_ok=True)
        with open(f"{kept}.{os.getpid()}", "w") as file:
            file.write(found)
        os.rename(f"{kept}.{os.getpid()}", kept)
    except OSError:  # a store that cannot be written: computed anew each time
        pass
    return found


def check(call, name: str, expected: str, index: str) -> None:
    """BadInput unless the model is the one that the index was made with."""
    if digest(call, name) != expected:
        raise BadInput(
            f"{index} was made with another model than {name}",
            f"-m MODEL names the right one; or build it again: index -m {name} -o {index} ...",
        )
