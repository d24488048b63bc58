"""LFM2 (Liquid AI 2025) as an encoder: short convolutions and attention in turn, both causal.

Owns: those layers. Does not know: text, pooling.
"""

from __future__ import annotations

import mlx.core as mx

from toast.models import layers, qwen3
from toast.models.rotary import rotary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.models.layers import Tensors, Weights

    Config = dict[str, Any]


class Attention:
    def __init__(self, config: Config, w: Tensors) -> None:
        D, eps = config["hidden_size"], config["norm_eps"]
        self.n, self.kv = config["num_attention_heads"], config["num_key_value_heads"]
        d = D // self.n
        self.rope = rotary(config, d)
        self.q = w.linear("q_proj", self.n * d, D, bias=False)
        self.k, self.v = (w.linear(f"{x}_proj", self.kv * d, D, bias=False) for x in "kv")
        self.q_norm, self.k_norm = (w.rms_norm(f"{x}_layernorm", d, eps) for x in "qk")
        self.out = w.linear("out_proj", D, self.n * d, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        q = self.rope(self.q_norm(layers.heads(self.q(x), self.n)))
        k = self.rope(self.k_norm(layers.heads(self.k(x), self.kv)))
        return self.out(layers.attention(q, k, layers.heads(self.v(x), self.kv), mask="causal"))


class ShortConvolution:
    """Each token from itself and the few before it; gated before and after."""

    def __init__(self, config: Config, w: Tensors) -> None:
        D, bias, self.width = config["hidden_size"], config.get("conv_bias", False), config["conv_L_cache"]
        self.into, self.out = w.linear("in_proj", 3 * D, D, bias=bias), w.linear("out_proj", D, D, bias=bias)
        # MLX-LM keeps a channel's taps before its one input, transformers behind it
        shape = (D, self.width, 1) if w.tensors[f"{w.prefix}conv.weight"].shape[1] != 1 else (D, 1, self.width)
        self.taps = w.made(w.take("conv.weight", *shape).reshape(D, self.width))
        self.bias = w.take("conv.bias", D) if bias else None

    def __call__(self, x: mx.array) -> mx.array:
        before, after, y = mx.split(self.into(x), 3, axis=-1)
        L, y = x.shape[1], mx.pad(before * y, [(0, 0), (self.width - 1, 0), (0, 0)])
        found = sum(y[:, i : i + L] * self.taps[:, i] for i in range(self.width))
        return self.out(after * (found if self.bias is None else found + self.bias))


class Layer:
    def __init__(self, config: Config, w: Tensors, *, attends: bool) -> None:
        D, eps = config["hidden_size"], config["norm_eps"]
        self.norm1, self.norm2 = w.rms_norm("operator_norm", D, eps), w.rms_norm("ffn_norm", D, eps)
        self.mix = Attention(config, w.at("self_attn")) if attends else ShortConvolution(config, w.at("conv"))
        F = w.rows("feed_forward.w1")  # the configuration gives it before it is rounded
        self.gate, self.up = (w.linear(f"feed_forward.{x}", F, D, bias=False) for x in ("w1", "w3"))
        self.down, self.act = w.linear("feed_forward.w2", D, F, bias=False), layers.activation("silu")

    def __call__(self, x: mx.array, mask: Any) -> mx.array:
        x = x + self.mix(self.norm1(x))
        y = self.norm2(x)
        return x + self.down(self.act(self.gate(y)) * self.up(y))


class Model(qwen3.Model):
    """ids (B, L), lengths (B,), types ignored -> token states (B, L, D)."""

    def __init__(self, config: Config, weights: Weights) -> None:
        whole = layers.Tensors(weights, config)
        w, D, count = whole.under("model"), config["hidden_size"], config["num_hidden_layers"]
        self.words = w.embedding("embed_tokens", config["vocab_size"], D)
        kinds = config.get("layer_types") or [
            "full_attention" if i in config["full_attn_idxs"] else "conv" for i in range(count)
        ]
        self.layers = [
            Layer(config, w.at(f"layers.{i}"), attends=kind == "full_attention") for i, kind in enumerate(kinds)
        ]
        self.norm = w.rms_norm("embedding_norm", D, config["norm_eps"])
        self.causal, self.windows = True, [None] * count
        self.outputs, self.head = 0, None
        whole.settle()
