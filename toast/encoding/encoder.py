"""An embedding model, ready to encode: records of text in, vectors out.

Owns prompts, batches of similar length and what happens to long records. Knows nothing of
architectures (`toast/models`) or of what a vector is written as (`embed/encode.py`).
"""

import mlx.core as mx

from toast import kernels, models, store
from toast.encoding import length_batches
from toast.encoding.sentence_transformers import Sentence, normalize
from toast.encoding.tokens import Tokens, batch
from toast.errors import BadInput
from toast.task import need

HEAD = 1 << 14  # characters of a record that are tokenized at first


class Encoder:
    """An embedding model, ready to encode.

    kind: `query` or `document`, which chooses the model's prompt. dims: cut vectors to this many
    numbers and renormalise (Matryoshka, Kusupati et al. 2022). long: what becomes of records over
    the model's limit: `truncate`, `error`, or `mean` of their pieces, weighted by length.
    """

    def __init__(
        self, call, name, kind="document", dims=None, normalized=True, long="truncate", size=length_batches.BATCH
    ):
        kernels.install_for(call)
        path = store.find(call, name)
        need(name, path, "embed")
        self.sentence = Sentence(path)
        self.model = models.encoder(self.sentence.folder)
        self.tokens = Tokens(self.sentence.folder, self.sentence.max_length, self.sentence.lower)
        self.long, self.size, self.cut = long, size, 0
        self.use(kind)
        self.normalized = normalized
        if dims and dims > self.sentence.dims:
            raise BadInput(f"--dims {dims} is more than the {self.sentence.dims} that {name} has")
        self.dims = dims or self.sentence.dims

    def use(self, kind):
        """Put the model's prompt for `query` or `document` before the texts to come."""
        self.prompt = self.sentence.prompt(kind)
        # counted as sentence-transformers does: the first special token is part of the prompt
        self.skip = len(self.tokens.encode([self.prompt])[0].ids) - 1 if self.prompt else 0

    def encode(self, texts) -> mx.array:
        """Texts -> vectors (N, dims) float32, in the same order."""
        if not texts:
            return mx.zeros((0, self.dims))
        parts, owners = self.pieces(texts)
        vectors = length_batches.compute(self._vectors, parts, self.size)
        if len(parts) > len(texts):
            extra = self.tokens.tokenizer.num_special_tokens_to_add(False)
            vectors = _average(vectors, owners, [max(1, len(p.ids) - extra) for p in parts])
        return self._finish(vectors)

    def pieces(self, texts):
        """Encodings within the limit and, for each, the index of its text."""
        encodings = self._encodings([self.prompt + text for text in texts])
        parts, owners, cut = length_batches.pieces(encodings, self.long)
        self.cut += cut
        return parts, owners

    def _encodings(self, texts):
        """Encodings by heads of the texts, doubled until they fill the limit: the tail of a huge
        record is not worth its tokens where it would be cut anyway."""
        if self.long == "mean" or max(map(len, texts), default=0) <= HEAD:
            return self.tokens.encode(texts)
        encodings, size, todo = [None] * len(texts), HEAD, range(len(texts))
        while todo:
            for i, encoding in zip(todo, self.tokens.encode([texts[i][:size] for i in todo])):
                encodings[i] = encoding
            todo = [i for i in todo if len(texts[i]) > size and not encodings[i].overflowing]
            size *= 2
        return encodings

    def states(self, encodings):
        """(token states (B, L, D), lengths (B,), their pooled vectors (B, D'), not normalised)."""
        ids, lengths, types = batch(encodings)
        hidden = self.model(ids, lengths, types)
        return hidden, lengths, self.sentence.pool(hidden, lengths, self.skip)

    def _vectors(self, encodings):
        return self.states(encodings)[2]

    def _finish(self, vectors):
        vectors = vectors[:, : self.dims]
        return normalize(vectors) if self.normalized else vectors


def _average(vectors, owners, lengths):
    """Means of the rows that have the same owner, weighted by length: (N, D)."""
    weights = mx.array(lengths, mx.float32)[:, None]
    index = mx.array(owners)
    shape = (owners[-1] + 1, vectors.shape[1])
    total = mx.zeros(shape).at[index].add(vectors * weights)
    return total / mx.zeros((shape[0], 1)).at[index].add(weights)
