"""Static embeddings (Tulkens & van Dongen 2024): a row of a table for each token, whatever stands beside it.

Owns: the table, which stays as it is on disk. Does not know: text, pooling.
"""

from __future__ import annotations

import mlx.core as mx

from toast.errors import BadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.models.layers import Weights

TABLES = "embeddings", "embedding.weight"  # model2vec's name, sentence-transformers'


class Model:
    """ids (B, L), lengths and types ignored -> rows (B, L, D) float32.

    bare: texts come without special tokens; skips_unknown: and without the token for what is not known.
    """

    bare, skips_unknown = True, False

    def __init__(self, config: dict[str, Any], weights: Weights) -> None:
        self.table = weights[table_name(weights)]
        self.place = weights.get("mapping")  # token -> row, where tokens share rows
        self.weight = weights.get("weights")  # of a token
        most = {len(array) for array in (self.place, self.weight) if array is not None} or {len(self.table)}
        if len(most) > 1 or any(a is not None and a.ndim != 1 for a in (self.place, self.weight)):
            raise BadModel("tensors mapping and weights are not as long as one another")
        [self.tokens] = most
        if self.place is not None and self.tokens:
            self.place = self.place.astype(mx.int32)
            mx.eval(self.place)
            _check(self.place, len(self.table), "row")

    def __call__(self, ids: mx.array, lengths: mx.array, types: mx.array | None = None) -> mx.array:
        if ids.size:
            _check(ids, self.tokens, "token")
        x = self.table[ids if self.place is None else self.place[ids]].astype(mx.float32)
        return x if self.weight is None else x * self.weight[ids].astype(mx.float32)[..., None]


def _check(ids: mx.array, count: int, what: str) -> None:
    """MLX does not check indices."""
    least, most = int(mx.min(ids)), int(mx.max(ids))
    if least < 0 or most >= count:
        raise BadModel(f"a {what} {most if most >= count else least}, but only {count} embeddings")


def table_name(tensors: dict[str, Any]) -> str:
    """The name of the table among tensors or their headers."""
    for name in TABLES:
        if name in tensors:
            return name
    raise BadModel(f"no tensor {TABLES[0]}")


def width(folder: str) -> int:
    """Numbers of a vector: the configuration of a table that was cut still says how many there were."""
    from toast.store import weights

    tensors = weights.tensors_of(folder)
    shape = tensors[table_name(tensors)][1]
    if len(shape) != 2:
        raise BadModel(f"a table of embeddings with {len(shape)} dimensions")
    return shape[1]
