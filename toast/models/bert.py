"""BERT (Devlin et al. 2019): the encoder, its pooler and classification head.

Owns: the post-norm layer that its descendants share. Does not know: text, pooling.
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
    """Attention and feed-forward, each followed by residual and norm (post-norm)."""

    qkv = "attention.self.qkv", ["attention.self." + name for name in ("query", "key", "value")]
    out, norm1 = "attention.output.dense", "attention.output.LayerNorm"
    up, down, norm2 = "intermediate.dense", "output.dense", "output.LayerNorm"

    def __init__(self, config: Config, w: Tensors) -> None:
        D, F, eps = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.n = config["num_attention_heads"]
        if D % self.n:
            raise BadModel(f"hidden_size {D} is not a multiple of {self.n} heads")
        qkv = w.split_linear(*self.qkv, outputs=D, inputs=D)
        out, norm1 = w.linear(self.out, D, D), w.layer_norm(self.norm1, D, eps)
        up, down = w.linear(self.up, F, D), w.linear(self.down, D, F)
        norm2, act = w.layer_norm(self.norm2, D, eps), layers.known(config["hidden_act"])
        self.whole = layers.PostNorm(qkv, self.n, out=out, norm1=norm1, up=up, act=act, down=down, norm2=norm2)

    def __call__(self, x: mx.array, mask: Any) -> mx.array:
        return self.whole(x, mask)


class Model:
    """ids (B, L), lengths (B,), types (B, L) or None -> token states (B, L, D).

    outputs: of the classification head, 0 without one.
    """

    prefix, classifier = "bert", "classifier"  # of tensor names; the last layer of the head
    stack = "encoder.layer"
    Layer: Any = Layer  # of descendants: their own

    def __init__(self, config: Config, weights: Weights) -> None:
        self.check(config)
        whole = layers.Tensors(weights, config)
        w = whole.under(self.prefix)
        self.read_embeddings(config, w.at("embeddings"))
        self.read_encoder(config, w)
        self.layers = self.read_layers(config, w)
        self.outputs = whole.rows(self.classifier)
        self.head = self.read_head(whole, config["hidden_size"]) if self.outputs else None
        whole.settle()

    positions: mx.array | None

    def check(self, config: Config) -> None:
        """BadModel for settings that change what is computed here."""
        kind = config.get("position_embedding_type", "absolute")
        if kind != "absolute":
            raise BadModel(f"position_embedding_type {kind!r} is not supported, only absolute")

    def read_layers(self, config: Config, w: Tensors) -> list[Any]:
        return [self.Layer(config, w.at(f"{self.stack}.{i}")) for i in range(config["num_hidden_layers"])]

    def read_embeddings(self, config: Config, w: Tensors) -> None:
        """Words, positions, types and the norm of their sum."""
        D = config.get("embedding_size", config["hidden_size"])
        self.words = w.embedding("word_embeddings", config["vocab_size"], D)
        rows = config["max_position_embeddings"]
        positions = w.take("position_embeddings.weight", rows, D)
        self.positions = w.made(positions[self.first_position(config) :])
        kinds = config.get("type_vocab_size", 0)
        self.types = w.take("token_type_embeddings.weight", kinds, D) if kinds else None
        self.norm = w.layer_norm("LayerNorm", D, config["layer_norm_eps"])

    def first_position(self, config: Config) -> int:
        """Where positions begin in their table."""
        return 0

    def read_encoder(self, config: Config, w: Tensors) -> None:
        """What an architecture has besides embeddings and layers."""

    def read_head(self, w: Tensors, D: int) -> Head:
        """The function from the first token's state (B, D) to (B, n)."""
        pool = w.under(self.prefix).linear("pooler.dense", D, D)
        classify = w.linear("classifier", self.outputs, D)
        return lambda x: classify(mx.tanh(pool(x)))

    def __call__(self, ids: mx.array, lengths: mx.array, types: mx.array | None = None) -> mx.array:
        x, mask = self.embed(ids, types), self.mask(lengths, ids.shape[1])
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def embed(self, ids: mx.array, types: mx.array | None) -> mx.array:
        """Norm of the sum of word, position and type embeddings (B, L, D)."""
        x = self.words(ids)
        if self.positions is not None:
            x = x + self.positions[: ids.shape[1]]
        if self.types is not None:
            alike = types is None or len(self.types) == 1
            x = x + (self.types[0] if alike else self.types[types])
        return self.norm(x)

    def mask(self, lengths: mx.array, L: int) -> mx.array | None:
        """What a layer gets besides its input."""
        return layers.length_mask(lengths, L)

    def logits(self, ids: mx.array, lengths: mx.array, types: mx.array | None = None) -> mx.array:
        """Scores of the classification head before softmax or sigmoid: (B, n)."""
        if self.head is None:
            raise BadModel("the model has no classification head")
        return self.head(self(ids, lengths, types)[:, 0])
