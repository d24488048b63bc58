"""`embed`: records to vectors, a row for each record, in the order of the input.

Owns windows, batches, what happens to long records, and the forms of a vector. Knows nothing of
architectures (`toast/models`) or of descriptors (`toast/pipes`).
"""

import mlx.core as mx

from toast import models, pipes, store
from toast.errors import BadInput
from toast.models.sentence import Sentence, normalize
from toast.models.tokens import Tokens, batch

BATCH_TOKENS = 4096  # padded tokens of a batch: bounds the memory of a layer's activations


class Encoder:
    """An embedding model, ready to encode.

    kind: `query` or `document`, which chooses the model's prompt. dims: cut vectors to this many
    numbers and renormalise (Matryoshka, Kusupati et al. 2022). long: what becomes of records over
    the model's limit: `truncate`, `error`, or `mean` of their pieces, weighted by length.
    """

    def __init__(self, call, name, kind="document", dims=None, normalized=True, long="truncate", size=32):
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
            vectors = _average(vectors, owners, [len(p.ids) for p in pieces])
        return self._finish(vectors)

    def _pieces(self, texts):
        """Encodings within the limit and, for each, the index of its text."""
        pieces, owners = [], []
        for i, encoding in enumerate(self.tokens.encode([self.prompt + text for text in texts])):
            further = encoding.overflowing
            self.cut += bool(further)
            if further and self.long == "error":
                raise BadInput(f"a record is longer than {self.tokens.max_length} tokens: {texts[i][:40]!r}...")
            whole = [encoding, *further] if self.long == "mean" else [encoding]
            pieces += whole
            owners += [i] * len(whole)
        return pieces, owners

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


# ---------------------------------------------------------------- forms of a vector


def to_int8(x):
    """round(127 x / max|x|), row by row."""
    return mx.round(127 * x / mx.maximum(mx.max(mx.abs(x), axis=1, keepdims=True), 1e-30)).astype(mx.int8)


def to_bits(x):
    """Packed bits of x > 0, first number in the highest bit: (N, D) -> (N, ceil(D / 8)) uint8."""
    bits = mx.pad((x > 0).astype(mx.uint8), ((0, 0), (0, -x.shape[1] % 8)))
    powers = mx.array([128, 64, 32, 16, 8, 4, 2, 1], mx.uint8)
    return mx.sum(bits.reshape(x.shape[0], -1, 8) * powers, axis=2).astype(mx.uint8)


FORMS = {
    "f32": ("<f4", lambda x: x),
    "f16": ("<f2", lambda x: x.astype(mx.float16)),
    "int8": ("|i1", to_int8),
    "binary": ("|u1", to_bits),
}


# ---------------------------------------------------------------- the verb


def embed(call, records, encoder: Encoder, precision="f32", json=False, raw=False) -> None:
    """A vector for each record on standard output, as .npy, JSON lines or raw rows."""
    if not json:
        pipes.refuse_terminal(call, "embed ... > vectors.npy, or --json")
    windows = records.windows()
    if json:
        _write_json(call, windows, encoder, precision)
    elif raw:
        _write_rows(call, _texts(windows), encoder, precision, lambda rows: pipes.write_all(call.stdout, rows))
    else:
        _write_npy(call, _texts(windows), encoder, precision)
    if encoder.cut:
        done = "averaged over its pieces" if encoder.long == "mean" else "cut"
        say = call.warn if encoder.long == "mean" else call.cut
        say(f"{pipes.plural(encoder.cut, 'record')} over {encoder.tokens.max_length} tokens {done}")


def _texts(windows):
    return ([record.text for record in window] for window in windows)


def _write_npy(call, windows, encoder, precision):
    descr, form = FORMS[precision]
    rows = None
    if not pipes.can_patch(call.stdout):
        spool = pipes.Spool(call)
        for window in windows:
            spool.extend(window)
        windows, rows = spool.windows(), spool.count
    columns = form(mx.zeros((1, encoder.dims))).shape[1]
    npy = pipes.Npy(call, descr, columns, rows)
    _write_rows(call, windows, encoder, precision, npy.write, rows)
    npy.close()


def _write_rows(call, windows, encoder, precision, write, total=None):
    form = FORMS[precision][1]
    with pipes.progress(call, total) as bar:
        for window in windows:
            if window:
                write(memoryview(mx.contiguous(form(encoder.encode(window)))))
            bar.update(len(window))


def _write_json(call, windows, encoder, precision):
    form, index = FORMS[precision][1], 0
    for window in windows:
        lines = []
        for record, row in zip(window, form(encoder.encode([r.text for r in window])).tolist()):
            lines.append(pipes.json_line({**(record.data or {}), "index": index, "embedding": row}))
            index += 1
        pipes.write_all(call.stdout, b"".join(lines))
