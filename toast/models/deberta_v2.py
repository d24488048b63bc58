"""DeBERTa-v2 and v3 (He et al. 2021): content and relative position attend to each other.

Owns: disentangled attention, the convolution of v2-xlarge, the head. Does not know: text, pooling.
"""

from __future__ import annotations

import math

import mlx.core as mx

from toast.errors import BadModel
from toast.models import bert, layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.models.layers import Tensors

    Config = dict[str, Any]
    Head = Callable[[mx.array], mx.array]


class Layer(bert.Layer):
    names = ["attention.self." + name for name in ("query_proj", "key_proj", "value_proj")]
    qkv = "attention.self.qkv", names

    def __init__(self, config: Config, w: Tensors) -> None:
        super().__init__(config, w)
        D, kinds = config["hidden_size"], config.get("pos_att_type") or []
        kinds = kinds.split("|") if isinstance(kinds, str) else kinds
        self.scale = ((1 + len({"c2p", "p2c"} & set(kinds))) * D // self.n) ** -0.5
        own = not config.get("share_att_key")
        names = ("pos_key_proj", "pos_query_proj") if own else ("key_proj", "query_proj")
        key, query = (f"attention.self.{name}" for name in names)
        self.pos_key = w.linear(key, D, D) if "c2p" in kinds else None
        self.pos_query = w.linear(query, D, D) if "p2c" in kinds else None

    def __call__(self, x: mx.array, mask: Any) -> mx.array:
        return self.whole.after(self.attend(x, mask), x)

    def attend(self, x: mx.array, mask: Any) -> mx.array:
        inside, table, at = mask
        q, k, v = (layers.heads(y, self.n) for y in self.whole.qkv(x))
        bias = mx.zeros((1, 1, 1, 1))
        if self.pos_key:
            bias = bias + self.relate(q, self.pos_key(table), at)
        if self.pos_query:
            bias = bias + self.relate(k, self.pos_query(table), at.T).swapaxes(2, 3)
        bias = bias if inside is None else mx.where(inside, bias, -mx.inf)
        return layers.attention(q, k, v, mask=bias, scale=self.scale)

    def relate(self, x: mx.array, table: mx.array, at: mx.array) -> mx.array:
        """x (B, n, L, d) by the row of `table` (1, 2 span, D) that `at` (L, L) names: (B, n, L, L)."""
        scores = x @ layers.heads(table, self.n).swapaxes(2, 3)
        at = mx.broadcast_to(at, (*scores.shape[:2], *at.shape))
        return mx.take_along_axis(scores, at, axis=-1) * self.scale


class Model(bert.Model):
    prefix, Layer = "deberta", Layer

    def read_embeddings(self, config: Config, w: Tensors) -> None:
        D = config.get("embedding_size", config["hidden_size"])
        if config["hidden_size"] != D:
            raise BadModel("embedding_size must equal hidden_size")
        self.words = w.embedding("word_embeddings", config["vocab_size"], D)
        rows, kinds = config["max_position_embeddings"], config.get("type_vocab_size", 0)
        biased = config.get("position_biased_input", True)
        self.positions = w.take("position_embeddings.weight", rows, D) if biased else None
        self.types = w.take("token_type_embeddings.weight", kinds, D) if kinds else None
        self.norm = w.layer_norm("LayerNorm", D, config["layer_norm_eps"])

    def read_encoder(self, config: Config, w: Tensors) -> None:
        if not config.get("relative_attention"):
            raise BadModel("DeBERTa without relative_attention is not supported")
        D, eps = config["hidden_size"], config["layer_norm_eps"]
        furthest = config.get("max_relative_positions", -1)
        self.furthest = config["max_position_embeddings"] if furthest < 1 else furthest
        self.buckets = config.get("position_buckets", -1)
        self.span = self.buckets if self.buckets > 0 else self.furthest
        table = w.take("encoder.rel_embeddings.weight", 2 * self.span, D)
        norm = "layer_norm" in config.get("norm_rel_ebd", "none").lower()
        self.table = w.made((w.layer_norm("encoder.LayerNorm", D, eps)(table) if norm else table)[None])
        size = config.get("conv_kernel_size", 0)
        self.conv = self.read_conv(config, w.at("encoder.conv"), size=size, D=D) if size else None
        self.pooler = layers.activation(config.get("pooler_hidden_act", "gelu"))

    def read_conv(self, config: Config, w: Tensors, *, size: int, D: int) -> Callable[[mx.array, mx.array], mx.array]:
        groups = config.get("conv_groups", 1)
        kernel = w.made(w.take("conv.weight", D, D // groups, size).swapaxes(1, 2))
        bias, norm = w.take("conv.bias", D), w.layer_norm("LayerNorm", D, config["layer_norm_eps"])
        act = layers.activation(config.get("conv_act", "tanh"))

        def run(x: mx.array, y: mx.array) -> mx.array:
            z = mx.conv1d(x, kernel, padding=(size - 1) // 2, groups=groups) + bias
            return norm(y + act(z))

        return run

    def read_head(self, w: Tensors, D: int) -> Head:
        dense = w.linear("pooler.dense", D, D)
        classify = w.linear("classifier", self.outputs, D)
        return lambda x: classify(self.pooler(dense(x)))

    def __call__(self, ids: mx.array, lengths: mx.array, types: mx.array | None = None) -> mx.array:
        L = ids.shape[1]
        x, inside = self.embed(ids, types), layers.length_mask(lengths, L)
        if inside is not None:  # the convolution sees zeros beyond the end
            x = mx.where(inside[:, 0, 0, :, None], x, 0)
        first, mask = x, (inside, self.table, self.relative(L))
        for i, layer in enumerate(self.layers):
            x = layer(x, mask)
            if i == 0 and self.conv:
                x = self.conv(first, x)
        return x

    def relative(self, L: int) -> mx.array:
        """Row of the relative table for each (query, key): (L, L)."""
        rows = [self.row(distance) for distance in range(1 - L, L)]
        at = mx.arange(L)
        return mx.array(rows)[at[:, None] - at + L - 1]

    def row(self, distance: int) -> int:
        """Near distances count one by one, further ones in buckets of growing size."""
        middle, far = self.buckets // 2, abs(distance)
        if self.buckets > 0 and far > middle:
            log = math.log(far / middle) / math.log((self.furthest - 1) / middle)
            distance = int(math.copysign(math.ceil(log * (middle - 1)) + middle, distance))
        return min(max(distance + self.span, 0), 2 * self.span - 1)
