"""An embedding model, ready to encode: records of text in, vectors out.

Owns prompts, batches of similar length and what happens to long records. Knows nothing of
architectures (`toast/models`) or of what a vector is written as (`embed/encode.py`).
"""

import mlx.core as mx

from toast import kernels, models, store
from toast.errors import BadInput
from toast.models.sentence import Sentence, normalize
from toast.models.tokens import Tokens, batch

HEAD = 1 << 14  # characters of a record that are tokenized at first
BATCH_TOKENS = 4096  # padded tokens of a batch: bounds the memory of a layer's activations


class Encoder:
    """An embedding model, ready to encode.

    kind: `query` or `document`, which chooses the model's prompt. dims: cut vectors to this many
    numbers and renormalise (Matryoshka, Kusupati et al. 2022). long: what becomes of records over
    the model's limit: `truncate`, `error`, or `mean` of their pieces, weighted by length.
    """

    def __init__(self, call, name, kind="document", dims=None, normalized=True, long="truncate", size=32):
        kernels.install_for(call)
        path = store.find(call, name)
        self.sentence = Sentence(path)
        self.model = models.encoder(self.sentence.folder)
        self.tokens = Tokens(self.sentence.folder, self.sentence.max_length, self.sentence.lower)
        self.long, self.size, self.cut = long, size, 0
        self.prompt = self.sentence.prompt(kind)
        self.skip = self._prompt_tokens()
        self.normalized = normalized and (self.sentence.normalize or normalized)
        if dims and dims > self.sentence.dims:
            raise BadInput(f"--dims {dims} is more than the {self.sentence.dims} that {name} has")
        self.dims = dims or self.sentence.dims

    def _prompt_tokens(self):
        """How many tokens the prompt takes, counted as sentence-transformers does."""
        return len(self.tokens.encode([self.prompt])[0].ids) - 1 if self.prompt else 0

    def encode(self, texts) -> mx.array:
        """Texts -> vectors (N, dims) float32, in the same order."""
        pieces, owners = self._pieces(texts)
        order = sorted(range(len(pieces)), key=lambda i: len(pieces[i].ids))
        rows = [self._vectors([pieces[i] for i in part]) for part in self._batches(pieces, order)]
        place = [0] * len(order)
        for row, i in enumerate(order):
            place[i] = row
        vectors = mx.concatenate(rows)[mx.array(place)] if rows else mx.zeros((0, self.sentence.dims))
        if len(pieces) > len(texts):
            extra = self.tokens.tokenizer.num_special_tokens_to_add(False)
            vectors = _average(vectors, owners, [max(1, len(p.ids) - extra) for p in pieces])
        return self._finish(vectors)

    def _pieces(self, texts):
        """Encodings within the limit and, for each, the index of its text."""
        pieces, owners = [], []
        for i, encoding in enumerate(self._encodings([self.prompt + text for text in texts])):
            further = encoding.overflowing
            self.cut += bool(further)
            if further and self.long == "error":
                raise BadInput(f"a record is longer than {self.tokens.max_length} tokens: {texts[i][:40]!r}...")
            whole = [encoding, *further] if self.long == "mean" else [encoding]
            pieces += whole
            owners += [i] * len(whole)
        return pieces, owners

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

    def _batches(self, pieces, order):
        """Indices in groups of similar length: at most `size` rows and BATCH_TOKENS padded tokens."""
        group = []
        for i in order:
            if group and (len(group) == self.size or (len(group) + 1) * len(pieces[i].ids) > BATCH_TOKENS):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _vectors(self, encodings):
        ids, lengths, types = batch(encodings)
        vectors = self.sentence.pool(self.model(ids, lengths, types), lengths, self.skip)
        mx.eval(vectors)
        return vectors

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
