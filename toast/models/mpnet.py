"""MPNet (Song et al. 2020): BERT's layers with one relative position bias for all of them.

Owns: the bias and the names. Does not know: text, pooling.
"""

from __future__ import annotations

import math

import mlx.core as mx

from toast.models import bert, layers, roberta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.models.layers import Tensors, Weights

    Config = dict[str, Any]
    Head = Callable[[mx.array], mx.array]


class Layer(bert.Layer):
    qkv = "attention.attn.qkv", ["attention.attn." + name for name in ("q", "k", "v")]
    out, norm1 = "attention.attn.o", "attention.LayerNorm"


class Model(bert.Model):
    prefix, classifier, Layer = "mpnet", "classifier.out_proj", Layer
    activation = staticmethod(mx.tanh)
    first_position, read_head = roberta.Model.first_position, roberta.Model.read_head

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__({**config, "type_vocab_size": 0}, weights)

    def read_encoder(self, config: Config, w: Tensors) -> None:
        self.buckets = config.get("relative_attention_num_buckets", 32)
        shape = self.buckets, config["num_attention_heads"]
        self.bias = w.take("encoder.relative_attention_bias.weight", *shape)

    def mask(self, lengths: mx.array, L: int) -> mx.array | None:
        """Bias of each head by distance, -inf where a key is padding: (B or 1, n, L, L)."""
        by_distance = mx.array([bucket(d, self.buckets) for d in range(1 - L, L)])
        at = mx.arange(L)
        bias = self.bias[by_distance[at - at[:, None] + L - 1]].transpose(2, 0, 1)[None]
        inside = layers.length_mask(lengths, L)
        return bias if inside is None else mx.where(inside, bias, -mx.inf)


def bucket(distance: int, buckets: int, furthest: int = 128) -> int:
    """T5's bucket (Raffel et al. 2020) of key position minus query position."""
    half = buckets // 2
    exact, far, side = half // 2, abs(distance), half if distance > 0 else 0
    if far < exact:
        return side + far
    log = math.log(far / exact) / math.log(furthest / exact)
    return side + min(exact + int(log * (half - exact)), half - 1)
