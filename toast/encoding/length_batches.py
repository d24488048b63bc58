"""Encodings of texts, long ones in pieces, computed in batches of similar length.

Owns what becomes of a text over the limit, the bound on a batch and the order of the results.
Knows nothing of models.
"""

import mlx.core as mx

from toast.errors import BadInput

TOKENS = 2048  # padded tokens of a batch: bounds the memory of a layer's activations
AHEAD = 64 << 20  # bytes of outputs that exist at once, about two layers of the default embedder
BATCH = 128  # texts of a batch, fewer where they are long: short ones fill it with half the steps of 32


def pieces(encodings, long):
    """(pieces, the index of the encoding that each comes from, how many encodings were too long).

    An encoding over the limit is its first piece under long="truncate", an error under "error",
    and all of its pieces under anything else.
    """
    parts, owners, cut = [], [], 0
    for i, encoding in enumerate(encodings):
        further = encoding.overflowing
        cut += bool(further)
        if further and long == "error":
            raise BadInput(f"a record is longer than {len(encoding.ids)} tokens", "--long chooses")
        own = [encoding] if long == "truncate" else [encoding, *further]
        parts += own
        owners += [i] * len(own)
    return parts, owners, cut


def compute(function, parts, size=BATCH) -> mx.array:
    """function(list of at most `size` encodings) -> (B, ...) over all parts: (N, ...), N > 0, in order."""
    order = sorted(range(len(parts)), key=lambda i: len(parts[i].ids))
    rows = []
    # MLX allocates the outputs of many ops ahead of their work; over the limit it waits for that work
    limit = mx.set_memory_limit(mx.get_active_memory() + AHEAD)
    try:
        for group in _groups(parts, order, size):
            rows.append(function([parts[i] for i in group]))
            mx.eval(rows[-1])
    finally:
        mx.set_memory_limit(limit)
    place = [0] * len(order)
    for row, i in enumerate(order):
        place[i] = row
    return mx.concatenate(rows)[mx.array(place)]


def _groups(parts, order, size):
    """Indices in groups of at most `size` rows and TOKENS padded tokens; lengths ascend."""
    group = []
    for i in order:
        if group and (len(group) == size or (len(group) + 1) * len(parts[i].ids) > TOKENS):
            yield group
            group = []
        group.append(i)
    yield group
