"""T5 (Raffel et al. 2020): the encoder alone (sentence-t5, gtr-t5): distances as biases of attention.

Owns: buckets of distances, the gated form of version 1.1. Does not know: text, pooling, the decoder.
"""

from __future__ import annotations

from math import log

import mlx.core as mx

from toast.errors import BadModel
from toast.models import layers
from toast.models.qwen3 import distances

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.models.layers import Tensors, Weights

    Config = dict[str, Any]


class Layer:
    def __init__(self, config: Config, w: Tensors) -> None:
        D, F, eps = config["d_model"], config["d_ff"], config.get("layer_norm_epsilon", 1e-6)
        self.n, inner = config["num_heads"], config["num_heads"] * config["d_kv"]
        kind = config.get("feed_forward_proj", "relu")
        self.gated, name = kind.startswith("gated-"), kind.removeprefix("gated-")
        # the gated form was trained with the approximation
        self.act = layers.activation("gelu_new" if kind == "gated-gelu" else name)
        attend, feed = w.at("layer.0"), w.at("layer.1")
        self.norm1, self.norm2 = attend.rms_norm("layer_norm", D, eps), feed.rms_norm("layer_norm", D, eps)
        self.q, self.k, self.v = (attend.linear(f"SelfAttention.{x}", inner, D, bias=False) for x in "qkv")
        self.out = attend.linear("SelfAttention.o", D, inner, bias=False)
        ups = ("wi_0", "wi_1") if self.gated else ("wi",)
        self.up = [feed.linear(f"DenseReluDense.{name}", F, D, bias=False) for name in ups]
        self.down = feed.linear("DenseReluDense.wo", D, F, bias=False)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        y = self.norm1(x)
        q, k, v = (layers.heads(part(y), self.n) for part in (self.q, self.k, self.v))
        x = x + self.out(layers.attention(q, k, v, mask=mask, scale=1.0))
        y = self.norm2(x)
        up = self.act(self.up[0](y))
        return x + self.down(up * self.up[1](y) if self.gated else up)


class Model:
    """ids (B, L), lengths (B,), types ignored -> token states (B, L, D)."""

    outputs, head = 0, None

    def __init__(self, config: Config, weights: Weights) -> None:
        whole = layers.Tensors(weights, config)
        w, D = whole.at("encoder"), config["d_model"]
        shared = whole if whole.rows("shared") else w
        name = "shared" if shared is whole else "embed_tokens"
        self.words = shared.embedding(name, config["vocab_size"], D)
        self.layers = [Layer(config, w.at(f"block.{i}")) for i in range(config["num_layers"])]
        self.buckets = config.get("relative_attention_num_buckets", 32)
        self.far = config.get("relative_attention_max_distance", 128)
        if not 1 <= self.buckets // 4 < self.far:
            raise BadModel(f"{self.buckets} buckets of distances up to {self.far}")
        name = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        self.biases = w.take(name, self.buckets, config["num_heads"])
        self.norm = w.rms_norm("final_layer_norm", D, config.get("layer_norm_epsilon", 1e-6))
        whole.settle()

    def __call__(self, ids: mx.array, lengths: mx.array, types: mx.array | None = None) -> mx.array:
        x, L = self.words(ids), ids.shape[1]
        mask = self.biases[self.bucket(-distances(L))].transpose(2, 0, 1)
        inside = layers.length_mask(lengths, L)
        if inside is not None:
            mask = mx.where(inside, mask, -mx.inf)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)

    def bucket(self, ahead: mx.array) -> mx.array:
        """The bucket of each distance: half of them for keys after a query; near ones alone, far ones by logarithm."""
        half = self.buckets // 2
        exact, away = half // 2, mx.abs(ahead)
        steps = mx.log(mx.maximum(away, 1) / exact) / log(self.far / exact) * (half - exact)
        far = mx.minimum(exact + steps.astype(mx.int32), half - 1)
        return mx.where(away < exact, away, far) + half * (ahead > 0)
