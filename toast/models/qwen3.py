"""Qwen3 (Yang et al. 2025) as an encoder and scorer: Qwen3-Embedding, Qwen3-Reranker.

Owns: one pass of a pre-norm decoder over right-padded rows, causal or not, which its relatives share. Does not know:
generation, caches, text.
"""

from __future__ import annotations

import mlx.core as mx

from toast.errors import BadModel
from toast.models import layers
from toast.models.rotary import rotary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.models.layers import Tensors, Weights

    Config = dict[str, Any]
    Head = Callable[[mx.array], mx.array]


class Layer:
    """Attention and gated feed-forward, each behind a norm and beside a residual."""

    qk_norm = True

    def __init__(self, config: Config, w: Tensors) -> None:
        D, F, eps = config["hidden_size"], config["intermediate_size"], config["rms_norm_eps"]
        self.n, self.kv = config["num_attention_heads"], config["num_key_value_heads"]
        d = config.get("head_dim") or D // self.n
        (in_qkv, in_out), in_mlp = self.biases(config), config.get("mlp_bias", False)
        self.rope = rotary(config, d)
        self.norm1 = w.rms_norm("input_layernorm", D, eps)
        self.q = w.linear("self_attn.q_proj", self.n * d, D, bias=in_qkv)
        self.k = w.linear("self_attn.k_proj", self.kv * d, D, bias=in_qkv)
        self.v = w.linear("self_attn.v_proj", self.kv * d, D, bias=in_qkv)
        self.out = w.linear("self_attn.o_proj", D, self.n * d, bias=in_out)
        if self.qk_norm:
            self.q_norm, self.k_norm = (w.rms_norm(f"self_attn.{name}_norm", d, eps) for name in "qk")
        self.norm2 = w.rms_norm("post_attention_layernorm", D, eps)
        self.gate = w.linear("mlp.gate_proj", F, D, bias=in_mlp)
        self.up = w.linear("mlp.up_proj", F, D, bias=in_mlp)
        self.act = layers.activation(config.get("hidden_act", "silu"))
        self.down = w.linear("mlp.down_proj", D, F, bias=in_mlp)

    def biases(self, config: Config) -> tuple[bool, bool]:
        """Whether the layers into attention, and the one out of it, have biases."""
        return config.get("attention_bias", False), config.get("attention_bias", False)

    def __call__(self, x: mx.array, mask: Any) -> mx.array:
        y = self.norm1(x)
        q, k = layers.heads(self.q(y), self.n), layers.heads(self.k(y), self.kv)
        v = layers.heads(self.v(y), self.kv)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        x = x + self.out(layers.attention(self.rope(q), self.rope(k), v, mask=mask))
        y = self.norm2(x)
        return x + self.down(self.act(self.gate(y)) * self.up(y))


class Model:
    """ids (B, L), lengths (B,), types ignored -> token states (B, L, D).

    outputs: of the classification head (`score`, from the last token), 0 without one.
    """

    Layer = Layer
    layers: list[Any]

    def __init__(self, config: Config, weights: Weights) -> None:
        whole = layers.Tensors(weights, config)
        w, D, V = whole.under("model"), config["hidden_size"], config["vocab_size"]
        self.words = w.embedding("embed_tokens", V, D)
        self.layers = [self.Layer(config, w.at(f"layers.{i}")) for i in range(config["num_hidden_layers"])]
        self.norm = w.rms_norm("norm", D, config["rms_norm_eps"])
        self.unembedding = whole.embedding("lm_head", V, D) if whole.rows("lm_head") else self.words
        self.causal, self.windows = self.is_causal(config), self.read_windows(config)
        self.outputs = whole.rows("score")
        self.head = whole.linear("score", self.outputs, D, bias=False) if self.outputs else None
        whole.settle()

    def is_causal(self, config: Config) -> bool:
        """Whether a token sees only those before it."""
        return config.get("is_causal", True)

    def read_windows(self, config: Config) -> list[int | None]:
        """How far back each layer sees, None for all of the text."""
        count = config["num_hidden_layers"]
        size, last = config.get("sliding_window"), config.get("max_window_layers") or count
        if not config.get("use_sliding_window") or not size:
            return [None] * count
        late = ["full_attention" if i < last else "" for i in range(count)]
        return [None if kind == "full_attention" else size for kind in config.get("layer_types") or late]

    def __call__(self, ids: mx.array, lengths: mx.array, types: mx.array | None = None) -> mx.array:
        x, made = self.words(ids), {}
        for layer, window in zip(self.layers, self.windows, strict=True):
            if window not in made:
                made[window] = self.mask(lengths, ids.shape[1], window)
            x = layer(x, made[window])
        return self.norm(x)

    def mask(self, lengths: mx.array, L: int, window: int | None) -> Any:
        """What a layer's tokens see. Padding is on the right, where a causal mask never looks."""
        whole, far = window is None or window >= L, window or 0
        if self.causal:
            return "causal" if whole else (distances(L) >= 0) & (distances(L) < far)
        inside, near = layers.length_mask(lengths, L), mx.abs(distances(L)) < far
        return inside if whole else near if inside is None else near & inside

    def next_logits(self, ids: mx.array, lengths: mx.array, tokens: list[int]) -> mx.array:
        """Logits of `tokens` alone as the token after each row: (B, len(tokens))."""
        return self.last(ids, lengths) @ self.unembedding(mx.array(tokens)).T

    def last(self, ids: mx.array, lengths: mx.array) -> mx.array:
        """The last token's state (B, D)."""
        return self(ids, lengths)[mx.arange(ids.shape[0]), mx.maximum(lengths - 1, 0)]

    def logits(self, ids: mx.array, lengths: mx.array, types: mx.array | None = None) -> mx.array:
        """Scores of the classification head before softmax or sigmoid: (B, n)."""
        if self.head is None:
            raise BadModel("the model has no classification head")
        return self.head(self.last(ids, lengths))


def distances(L: int) -> mx.array:
    """How far key j is before query i: (L, L)."""
    at = mx.arange(L)
    return at[:, None] - at
