"""ModernBERT (Warner et al. 2024): pre-norm, rotary, gated, global and local attention in turn.

Owns: its tensor names, local windows, the head. Does not know: text, pooling.
"""

from __future__ import annotations

import mlx.core as mx

from toast.errors import BadModel
from toast.models import layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.models.layers import Tensors, Weights

    Config = dict[str, Any]
    Head = Callable[[mx.array], mx.array]


class Layer:
    def __init__(self, config: Config, w: Tensors, i: int) -> None:
        D, F, eps = config["hidden_size"], config["intermediate_size"], config["norm_eps"]
        bias, in_norm = config.get("attention_bias", False), config.get("norm_bias", False)
        self.n = config["num_attention_heads"]
        self.local = kind(config, i) == "sliding_attention"
        self.theta = theta(config, local=self.local)
        # The embeddings end with a norm, so the first layer has none.
        self.norm1 = w.layer_norm("attn_norm", D, eps, bias=in_norm) if i else lambda x: x
        self.qkv = w.linear("attn.Wqkv", 3 * D, D, bias=bias)
        self.out = w.linear("attn.Wo", D, D, bias=bias)
        self.norm2 = w.layer_norm("mlp_norm", D, eps, bias=in_norm)
        self.up = w.linear("mlp.Wi", 2 * F, D, bias=config.get("mlp_bias", False))
        self.down = w.linear("mlp.Wo", D, F, bias=config.get("mlp_bias", False))
        self.act = layers.activation(config["hidden_activation"])

    def __call__(self, x: mx.array, everywhere: mx.array | None, nearby: mx.array) -> mx.array:
        q, k, v = (layers.heads(y, self.n) for y in mx.split(self.qkv(self.norm1(x)), 3, axis=-1))
        q, k = self.rope(q), self.rope(k)
        x = x + self.out(layers.attention(q, k, v, mask=nearby if self.local else everywhere))
        y, gate = mx.split(self.up(self.norm2(x)), 2, axis=-1)
        return x + self.down(self.act(y) * gate)

    def rope(self, x: mx.array) -> mx.array:
        return mx.fast.rope(x, x.shape[-1], traditional=False, base=self.theta, scale=1.0, offset=0)


def kind(config: Config, i: int) -> str:
    """Whether layer i attends everywhere (full_attention) or nearby (sliding_attention)."""
    if config.get("layer_types"):
        return config["layer_types"][i]
    local = i % config.get("global_attn_every_n_layers", 3)
    return "sliding_attention" if local else "full_attention"


def theta(config: Config, *, local: bool) -> float:
    """Rotary base, under its name since transformers 5 or the older one."""
    new = (config.get("rope_parameters") or {}).get("sliding_attention" if local else "full_attention", {})
    old = ("local_rope_theta", 10000.0) if local else ("global_rope_theta", 160000.0)
    return new.get("rope_theta") or config.get(*old)


class Model:
    """ids (B, L), lengths (B,), types ignored -> token states (B, L, D)."""

    def __init__(self, config: Config, weights: Weights) -> None:
        whole = layers.Tensors(weights, config)
        w, D, eps = whole.under("model"), config["hidden_size"], config["norm_eps"]
        in_norm = config.get("norm_bias", False)
        self.words = w.embedding("embeddings.tok_embeddings", config["vocab_size"], D)
        self.norm = w.layer_norm("embeddings.norm", D, eps, bias=in_norm)
        count = range(config["num_hidden_layers"])
        self.layers = [Layer(config, w.at(f"layers.{i}"), i) for i in count]
        self.final_norm = w.layer_norm("final_norm", D, eps, bias=in_norm)
        self.reach = config.get("local_attention", 128) // 2
        self.pooling = config.get("classifier_pooling", "cls")
        self.outputs = whole.rows("classifier")
        self.head = self.read_head(config, whole, D) if self.outputs else None
        whole.settle()

    def read_head(self, config: Config, w: Tensors, D: int) -> Head:
        dense = w.linear("head.dense", D, D, bias=config.get("classifier_bias", False))
        act = layers.activation(config.get("classifier_activation", "gelu"))
        norm = w.layer_norm("head.norm", D, config["norm_eps"], bias=config.get("norm_bias", False))
        classify = w.linear("classifier", self.outputs, D)
        return lambda x: classify(norm(act(dense(x))))

    def __call__(self, ids: mx.array, lengths: mx.array, types: mx.array | None = None) -> mx.array:
        everywhere = layers.length_mask(lengths, ids.shape[1])
        at = mx.arange(ids.shape[1])
        nearby = mx.abs(at - at[:, None]) <= self.reach
        nearby = nearby if everywhere is None else nearby & everywhere
        x = self.norm(self.words(ids))
        for layer in self.layers:
            x = layer(x, everywhere, nearby)
        return self.final_norm(x)

    def logits(self, ids: mx.array, lengths: mx.array, types: mx.array | None = None) -> mx.array:
        """Scores of the classification head before softmax or sigmoid: (B, n)."""
        if self.head is None:
            raise BadModel("the model has no classification head")
        x = self(ids, lengths)
        if self.pooling == "cls":
            return self.head(x[:, 0])
        inside = (mx.arange(ids.shape[1]) < lengths[:, None])[..., None]
        return self.head(mx.sum(mx.where(inside, x, 0), axis=1) / lengths[:, None])
