"""Qwen3 (Yang et al. 2025) as an encoder and scorer: Qwen3-Embedding, Qwen3-Reranker.

Owns: one causal pass over right-padded rows. Does not know: generation, caches, text.
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
    def __init__(self, config: Config, w: Tensors) -> None:
        D, F, eps = config["hidden_size"], config["intermediate_size"], config["rms_norm_eps"]
        self.n, self.kv = config["num_attention_heads"], config["num_key_value_heads"]
        d = config.get("head_dim") or D // self.n
        bias, self.theta = config.get("attention_bias", False), theta(config)
        self.norm1 = w.rms_norm("input_layernorm", D, eps)
        self.q = w.linear("self_attn.q_proj", self.n * d, D, bias=bias)
        self.k = w.linear("self_attn.k_proj", self.kv * d, D, bias=bias)
        self.v = w.linear("self_attn.v_proj", self.kv * d, D, bias=bias)
        self.out = w.linear("self_attn.o_proj", D, self.n * d, bias=bias)
        self.q_norm = w.rms_norm("self_attn.q_norm", d, eps)
        self.k_norm = w.rms_norm("self_attn.k_norm", d, eps)
        self.norm2 = w.rms_norm("post_attention_layernorm", D, eps)
        self.gate = w.linear("mlp.gate_proj", F, D, bias=False)
        self.up = w.linear("mlp.up_proj", F, D, bias=False)
        self.act = layers.activation("silu")
        self.down = w.linear("mlp.down_proj", D, F, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        y = self.norm1(x)
        q = self.rope(self.q_norm(layers.heads(self.q(y), self.n)))
        k = self.rope(self.k_norm(layers.heads(self.k(y), self.kv)))
        v = layers.heads(self.v(y), self.kv)
        # Padding is on the right, where a causal mask never looks.
        x = x + self.out(layers.attention(q, k, v, mask="causal"))
        y = self.norm2(x)
        return x + self.down(self.act(self.gate(y)) * self.up(y))

    def rope(self, x: mx.array) -> mx.array:
        return mx.fast.rope(x, x.shape[-1], traditional=False, base=self.theta, scale=1.0, offset=0)


def theta(config: Config) -> float:
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type", "default")) != "default":
        raise BadModel(f"rope_scaling {scaling} is not supported for qwen3")
    return float(config["rope_theta"])


class Model:
    """ids (B, L), lengths (B,), types ignored -> token states (B, L, D)."""

    def __init__(self, config: Config, weights: Weights) -> None:
        whole = layers.Tensors(weights, config)
        w, D, V = whole.under("model"), config["hidden_size"], config["vocab_size"]
        self.words = w.embedding("embed_tokens", V, D)
        self.layers = [Layer(config, w.at(f"layers.{i}")) for i in range(config["num_hidden_layers"])]
        self.norm = w.rms_norm("norm", D, config["rms_norm_eps"])
        tied = config.get("tie_word_embeddings", True)
        self.unembedding = self.words if tied else whole.embedding("lm_head", V, D)
        whole.settle()

    def __call__(self, ids: mx.array, lengths: mx.array | None = None, types: mx.array | None = None) -> mx.array:
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def next_logits(self, ids: mx.array, lengths: mx.array, tokens: list[int]) -> mx.array:
        """Logits of `tokens` alone as the token after each row: (B, len(tokens))."""
        last = self(ids)[mx.arange(ids.shape[0]), lengths - 1]
        return last @ self.unembedding(mx.array(tokens)).T
