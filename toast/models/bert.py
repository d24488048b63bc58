"""BERT (Devlin et al. 2019): the encoder, its pooler and classification head.

Owns: tensor names and order of operations of `model_type` bert. Does not know: text, pooling.
"""

import mlx.core as mx

from toast.errors import BadModel
from toast.models import layers


class Layer:
    """Attention and feed-forward, each followed by residual and norm (post-norm)."""

    def __init__(self, config, w):
        D, F, eps = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.heads = config["num_attention_heads"]
        self.qkv = w.at("attention.self").split_linear("qkv", ["query", "key", "value"], D, D)
        self.out = w.linear("attention.output.dense", D, D)
        self.norm1 = w.layer_norm("attention.output.LayerNorm", D, eps)
        self.up = w.linear("intermediate.dense", F, D)
        self.act = layers.activation(config["hidden_act"])
        self.down = w.linear("output.dense", D, F)
        self.norm2 = w.layer_norm("output.LayerNorm", D, eps)

    def __call__(self, x, mask):
        q, k, v = (layers.heads(y, self.heads) for y in self.qkv(x))
        x = self.norm1(x + self.out(layers.attention(q, k, v, mask)))
        return self.norm2(x + self.down(self.act(self.up(x))))


class Model:
    """ids (B, L), lengths (B,), types (B, L) or None -> token states (B, L, D)."""

    prefix = "bert"
    classifier = "classifier"

    def __init__(self, config, weights):
        kind = config.get("position_embedding_type", "absolute")
        if kind != "absolute":
            raise BadModel(f"position_embedding_type {kind!r} is not supported, only absolute")
        D, eps = config["hidden_size"], config["layer_norm_eps"]
        self.config = config
        whole = layers.Tensors(weights, config)
        w = whole.under(self.prefix)
        self.words = w.embedding("embeddings.word_embeddings", config["vocab_size"], D)
        self.positions = w.take(
            "embeddings.position_embeddings.weight", config["max_position_embeddings"], D
        )
        self.types = w.take(
            "embeddings.token_type_embeddings.weight", config["type_vocab_size"], D
        )
        self.norm = w.layer_norm("embeddings.LayerNorm", D, eps)
        self.layers = [
            Layer(config, w.at(f"encoder.layer.{i}")) for i in range(config["num_hidden_layers"])
        ]
        self.head = self.make_head(whole, D) if whole.rows(self.classifier) else None

    def __call__(self, ids, lengths, types=None):
        x = self.norm(self.embed(ids, types))
        mask = layers.length_mask(lengths, ids.shape[1])
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def embed(self, ids, types):
        """Sum of word, type and position embeddings (B, L, D)."""
        alike = types is None or len(self.types) == 1
        kind = self.types[0] if alike else self.types[types]
        return self.words(ids) + kind + self.positions[self.position_ids(ids.shape[1])]

    def position_ids(self, L):
        return mx.arange(L)

    def logits(self, ids, lengths, types=None):
        """Scores of the classification head before softmax or sigmoid: (B, n)."""
        return self.head(self(ids, lengths, types)[:, 0])

    def make_head(self, w, D):
        """First token's state (B, D) -> (B, n)."""
        pool = w.under(self.prefix).linear("pooler.dense", D, D)
        classify = w.linear("classifier", w.rows("classifier"), D)
        return lambda x: classify(mx.tanh(pool(x)))
