"""The embedder of an index: which model it is, the limit it sets to chunks, and its vectors as rows.

Knows models by name and by the digest of their weights; nothing of tables or of files.
"""

from __future__ import annotations

import os

from toast.errors import BadInput, UsageError
from toast.store import alias, catalog
from toast.store.fingerprint import digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import mlx.core as mx

    from embed.vectors import Row
    from toast.command import Call
    from toast.encoding.encoder import Encoder

DEFAULT = "minilm"

# questions and texts of which none has to do with another: what a model's cosine of these is says what its 0 is
QUESTIONS = ("how to bake bread", "contract law", "the moons of Jupiter")
TEXTS = ("The ferry is late.", "He scored two goals.", "Sand the wood first.")


def chosen(call: Call, name: str | None) -> str:
    """The model to make an index with: the one that is named, else the caller's, else the default."""
    return name or call.env.get("EMBED_MODEL") or DEFAULT


def unread(name: str, what: str) -> str:
    """What to say where a model has no words of the script that something is in."""
    return f"{name} hardly knows the script of this {what} (index -m e5 knows that of 100 languages)"


def unrelated(queries: Encoder, documents: Encoder) -> float:
    """The mean cosine of queries and texts that have nothing to do with each other; 0 for a model that spreads its
    vectors over all directions."""
    import mlx.core as mx

    return float(mx.mean(queries.encode(list(QUESTIONS)) @ documents.encode(list(TEXTS)).T))


class Embedder:
    """Texts to rows (codes, scale, exact or None) of bytes; a chunk has at most `limit` tokens."""

    def __init__(self, call: Call, name: str, *, exact: bool = False) -> None:
        from toast.encoding.encoder import Encoder

        self.encoder, self.exact = Encoder(call, name), exact
        self.dims, tokens = self.encoder.dims, self.encoder.tokens
        special = len(tokens.encode([""], truncate=None)[0].ids)
        self.limit = max(1, tokens.max_length - special - self.encoder.skip)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(e.ids) for e in self.encoder.tokens.encode(texts, special=False, truncate=None)]

    def rows(self, texts: Sequence[str]) -> list[Row]:
        return quantize(self.encoder.encode(list(texts)), exact=self.exact)


class NoEmbedder:
    """What stands in for an embedder where only words are looked for: rows without numbers."""

    dims, limit, exact = 0, 256, False

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def rows(self, texts: Sequence[str]) -> list[Row]:
        return [(b"", bytes(4), None)] * len(texts)


def quantize(vectors: mx.array, *, exact: bool) -> list[Row]:
    """Rows (N, D) float32 -> (codes, scale, exact or None) of each, as bytes: x is about codes * scale."""
    import mlx.core as mx

    scales = mx.maximum(mx.max(mx.abs(vectors), axis=1), 1e-30) / 127
    codes = mx.round(vectors / scales[:, None]).astype(mx.int8)
    parts = [(codes, 1), (scales[:, None], 4)] + [(vectors, 4)] * exact
    columns: list[Any] = [_rows(array, size) for array, size in parts] + [[None] * len(vectors)] * (not exact)
    return list(zip(*columns, strict=True))


def _rows(array: mx.array, size: int) -> list[bytes]:
    """The rows of an array (N, D) as bytes; size: of a number."""
    from toast.store.safetensors import data

    whole, size = bytes(data(array)), size * array.shape[1]
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def refuse_number(call: Call, name: str | None) -> None:
    """UsageError for grep's `-m NUMBER`."""
    if name and name.isdecimal() and not os.path.exists(call.path(name)):
        raise UsageError("-m is the model, not the number of hits", f"-k {name}")


def check(call: Call, name: str, *, made: str, expected: str, index: str) -> None:
    """BadInput unless the model is the one that the index was made with, under the name `made`.

    Another one of the catalog's is not fetched to be told so."""
    ours, theirs = (catalog.known(alias.target(call, model)) for model in (name, made))
    other = name != made and ours and theirs and ours != theirs
    if other or digest(call, name) != expected:
        file = "x.db" if index == "standard input" else index
        raise BadInput(
            f"{index} was made with another model than {name}",
            f"-m MODEL names the right one; or build it again: index -m {name} -o {file} ...",
        )
