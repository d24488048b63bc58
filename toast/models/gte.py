"""GTE's BERT (Zhang et al. 2024): rotary positions, gated feed-forward, norms after, as in BERT.

Owns: the layer that its relatives share, under the names that each writer gives its tensors. Does not know: text.
"""

from __future__ import annotations

import mlx.core as mx

from toast.errors import BadModel
from toast.models import bert, layers
from toast.models.rotary import rotary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.models.layers import Map, Tensors

    Config = dict[str, Any]

# what a layer is made of -> its names: the makers', then transformers'
QKV = "attention.qkv_proj", "attn.Wqkv"
OUT = "attention.o_proj", "attn.out_proj", "self_attn.o_proj"
NORM1, NORM2 = ("attn_ln", "norm1", "post_attention_layernorm"), ("mlp_ln", "norm2", "post_mlp_layernorm")
UP, GATE = ("mlp.fc11", "mlp.up_proj"), ("mlp.fc12", "mlp.gate_proj")
DOWN = "mlp.fc2", "mlp.down_proj"
STACKS = "encoder.layer", "encoder.layers"


class Layer:
    """biases: of attention, of up and gate, of down."""

    biases = True, False, True

    def __init__(self, config: Config, w: Tensors, rope: Map) -> None:
        self.read_attention(config, w, rope)
        self.read_feed_forward(config, w)

    def read_attention(self, config: Config, w: Tensors, rope: Map) -> None:
        D, eps, bias = config["hidden_size"], config["layer_norm_eps"], self.biases[0]
        self.n, self.rope = config["num_attention_heads"], rope
        if D % self.n:
            raise BadModel(f"hidden_size {D} is not a multiple of {self.n} heads")
        names = [f"{'self_attn' if 'self_attn.q_proj.weight' in w else 'attention'}.{x}_proj" for x in "qkv"]
        self.qkv = w.split_linear(w.either(*QKV), names, outputs=D, inputs=D, bias=bias)
        self.out = w.linear(w.either(*OUT), D, D, bias=bias)
        self.norm1, self.norm2 = (w.layer_norm(w.either(*names), D, eps) for names in (NORM1, NORM2))

    def read_feed_forward(self, config: Config, w: Tensors) -> None:
        D, F, (_, in_up, in_down) = config["hidden_size"], config["intermediate_size"], self.biases
        self.up = w.split_linear("mlp.up_gate_proj", [w.either(*UP), w.either(*GATE)], outputs=F, inputs=D, bias=in_up)
        self.act = layers.activation(config["hidden_act"])
        self.down = w.linear(w.either(*DOWN), D, F, bias=in_down)

    def __call__(self, x: mx.array, mask: Any) -> mx.array:
        q, k, v = (layers.heads(y, self.n) for y in self.qkv(x))
        x = self.norm1(self.out(layers.attention(self.rope(q), self.rope(k), v, mask=mask), residual=x))
        return self.norm2(self.feed_forward(x))

    def feed_forward(self, x: mx.array) -> mx.array:
        up, gate = self.up(x)
        return self.down(self.act(gate) * up, residual=x)


class Model(bert.Model):
    """ids (B, L), lengths (B,), types (B, L) or None -> token states (B, L, D)."""

    prefix = "gte"
    Layer = Layer

    def read_embeddings(self, config: Config, w: Tensors) -> None:
        D, kinds = config["hidden_size"], config.get("type_vocab_size", 0)
        self.words, self.positions = w.embedding("word_embeddings", config["vocab_size"], D), None
        self.types = w.take("token_type_embeddings.weight", kinds, D) if kinds else None
        self.norm = self.embedding_norm(w, D, config["layer_norm_eps"])

    def embedding_norm(self, w: Tensors, D: int, eps: float) -> layers.LayerNorm:
        return w.layer_norm("LayerNorm", D, eps)

    def read_layers(self, config: Config, w: Tensors) -> list[Any]:
        rope = self.rope(config)
        stack = next(
            (name for name in STACKS if any(key.startswith(f"{w.prefix}{name}.") for key in w.tensors)), "layers"
        )
        return [self.Layer(config, w.at(f"{stack}.{i}"), rope) for i in range(config["num_hidden_layers"])]

    def rope(self, config: Config) -> Map:
        return rotary(config, config["hidden_size"] // config["num_attention_heads"])

    def check(self, config: Config) -> None:
        kind = config.get("position_embedding_type", "rope")
        if kind != "rope" or config.get("layer_norm_type", "layer_norm") != "layer_norm":
            raise BadModel(f"positions of type {kind!r} or norms of another are not supported")
        if config.get("logn_attention_scale"):
            raise BadModel("logn_attention_scale is not supported")
