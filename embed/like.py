"""`search --like`: a text in place of a query. It is cut as a file of its kind is, and asked for by the mean of its
chunks' vectors and by the rarest of its words.

Owns what of a text is asked. Knows nothing of ranking, or of where indexes come from.
"""

from __future__ import annotations

import os
from _blake2 import blake2b
from collections import Counter
from math import log

from embed import chunk, database, formats, model, words
from embed.search import Query, expect_dims, expected_model, known_shares
from toast import pipes
from toast.encoding import idf
from toast.errors import BadInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mlx.core as mx

    from embed.hits import Found
    from embed.search import Opened
    from toast.command import Call

WORDS = 16  # of a text that BM25 is asked for; docs/notebook.md compares


class Sample:
    """A text that others shall be like; BadInput when it cannot be read or says nothing. name: - is standard input."""

    def __init__(self, call: Call, name: str) -> None:
        told = "standard input" if name == "-" else name
        data = b"".join(pipes.read_chunks(call, name, told))
        try:
            if problem := formats.refused(name, data):
                raise formats.Unreadable(problem)
            self.content = formats.read(name, data)
        except formats.Unreadable as error:
            raise BadInput(f"cannot read {told}: {error}", "--like wants a text") from None
        self.text = self.content.text
        if not self.text.strip():
            raise BadInput(f"{told} holds no text", "search --like FILE")
        self.path = None if name == "-" else os.path.realpath(call.path(name))
        self.hashes = {blake2b(bytes, digest_size=16).digest() for bytes in (data, data.rstrip(b"\r\n"))}
        self.call = call

    def query(self, indexes: list[Opened], *, name: str | None) -> Query:
        """What is asked of the indexes, by their model, or by `name`, which must be the same."""
        name = expected_model(self.call, indexes, name)
        embedder = model.Embedder(self.call, name)
        encoder = embedder.encoder
        expect_dims(indexes[0], name, encoder.dims)
        suffix = self.content.suffix
        texts = [text for *_, text in chunk.chunk(self.text, embedder.count, embedder.limit, suffix=suffix)]
        return Query(
            self.rarest(), mean(encoder.encode(texts), embedder.count(texts)),
            known_shares(encoder.tokens, [self.text])[0], encode=encoder.encode,
        )  # fmt: skip

    def rarest(self) -> str:
        """The words that say most about the text: often here, in few texts elsewhere."""
        counts = Counter(match[0].lower() for match in idf.WORD.finditer(words.composed(self.text)))
        shares = idf.shares(counts)
        weights = {word: -log(shares[word]) * count / (count + 1) for word, count in counts.items()}
        return " ".join(sorted(weights, key=lambda word: (-weights[word], word))[:WORDS])

    def is_of(self, hit: Found) -> bool:
        """Whether a hit is the text itself: of its file, or of a document with the same bytes."""
        own = self.path and hit.number is None and os.path.realpath(self.call.path(hit.path)) == self.path
        return bool(own) or database.document(hit.db, hit.document)[3] in self.hashes


def mean(rows: mx.array, counts: list[int]) -> bytes:
    """Vectors (N, D) averaged by the tokens of their chunks -> one of length 1 (D,), float32 bytes."""
    import mlx.core as mx

    from toast.store.safetensors import data

    total = mx.array(counts, mx.float32) @ rows
    return bytes(data(total / mx.maximum(mx.linalg.norm(total), 1e-30)))
