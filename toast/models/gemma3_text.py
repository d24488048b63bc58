"""Gemma 3 (Kamath et al. 2025) as an encoder: EmbeddingGemma, whose tokens see what is after them, too.

Owns: norms around attention and feed-forward, local and global layers in turn. Does not know: text, pooling.
"""

from __future__ import annotations

import mlx.core as mx

from toast.models import layers, qwen3
from toast.models.rotary import plain, rotary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.models.layers import Map, Tensors, Weights

    Config = dict[str, Any]

EVERY = 6  # each so manyth layer is global, where the configuration does not say


class Layer:
    def __init__(self, config: Config, w: Tensors, *, local: bool) -> None:
        D, F, d = config["hidden_size"], config["intermediate_size"], config["head_dim"]
        eps, bias = config["rms_norm_eps"], config.get("attention_bias", False)
        self.n, self.kv = config["num_attention_heads"], config["num_key_value_heads"]
        self.scale = config["query_pre_attn_scalar"] ** -0.5
        self.rope = plain(d, config.get("rope_local_base_freq", 10000.0)) if local else rotary(config, d)
        self.norm1, self.norm2 = norm(w, "input_layernorm", D, eps=eps), norm(w, "post_attention_layernorm", D, eps=eps)
        self.norm3, self.norm4 = (norm(w, f"{at}_feedforward_layernorm", D, eps=eps) for at in ("pre", "post"))
        self.q = w.linear("self_attn.q_proj", self.n * d, D, bias=bias)
        self.k = w.linear("self_attn.k_proj", self.kv * d, D, bias=bias)
        self.v = w.linear("self_attn.v_proj", self.kv * d, D, bias=bias)
        self.out = w.linear("self_attn.o_proj", D, self.n * d, bias=bias)
        self.q_norm, self.k_norm = (norm(w, f"self_attn.{name}_norm", d, eps=eps) for name in "qk")
        self.gate = w.linear("mlp.gate_proj", F, D, bias=False)
        self.up = w.linear("mlp.up_proj", F, D, bias=False)
        self.act = layers.activation(config.get("hidden_activation", "gelu_pytorch_tanh"))
        self.down = w.linear("mlp.down_proj", D, F, bias=False)

    def __call__(self, x: mx.array, mask: Any) -> mx.array:
        y = self.norm1(x)
        q = self.rope(self.q_norm(layers.heads(self.q(y), self.n)))
        k = self.rope(self.k_norm(layers.heads(self.k(y), self.kv)))
        v = layers.heads(self.v(y), self.kv)
        x = x + self.norm2(self.out(layers.attention(q, k, v, mask=mask, scale=self.scale)))
        y = self.norm3(x)
        return x + self.norm4(self.down(self.act(self.gate(y)) * self.up(y)))


def norm(w: Tensors, name: str, dims: int, *, eps: float) -> Map:
    """RMS norm whose weight is stored less one."""
    weight = w.made(1 + w.take(f"{name}.weight", dims))
    return lambda x: mx.fast.rms_norm(x, weight, eps)


class Model(qwen3.Model):
    """ids (B, L), lengths (B,), types ignored -> token states (B, L, D)."""

    def __init__(self, config: Config, weights: Weights) -> None:
        whole = layers.Tensors(weights, config)
        w, D = whole.under("model"), config["hidden_size"]
        self.embed, self.scale = w.embedding("embed_tokens", config["vocab_size"], D), D**0.5
        self.causal = not config.get("use_bidirectional_attention")
        self.windows = self.read_windows(config)
        self.layers = [
            Layer(config, w.at(f"layers.{i}"), local=window is not None) for i, window in enumerate(self.windows)
        ]
        self.norm = norm(w, "norm", D, eps=config["rms_norm_eps"])
        self.outputs, self.head = 0, None
        whole.settle()

    def words(self, ids: mx.array) -> mx.array:
        return self.embed(ids) * self.scale

    def read_windows(self, config: Config) -> list[int | None]:
        """A window that looks both ways has half of its size on either side."""
        count, every = config["num_hidden_layers"], config.get("sliding_window_pattern", EVERY)
        size = config["sliding_window"]
        kinds = config.get("layer_types") or ["full_attention" if i % every == every - 1 else "" for i in range(count)]
        reach = size if self.causal else size // 2 + 1
        return [None if kind == "full_attention" else reach for kind in kinds]
