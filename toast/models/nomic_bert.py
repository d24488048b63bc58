"""NomicBERT (Nussbaum et al. 2024): GTE's layers under other names, some with experts (v2, 2025).

Owns: the names, experts. Does not know: text, pooling.
"""

from __future__ import annotations

import mlx.core as mx

from toast.errors import BadModel
from toast.models import gte, layers
from toast.models.rotary import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.models.layers import Map, Tensors, Weights

    Config = dict[str, Any]

# the makers' name -> transformers'
NAMES = {
    "n_embd": "hidden_size", "n_inner": "intermediate_size", "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads", "layer_norm_epsilon": "layer_norm_eps", "rotary_emb_base": "rope_theta",
}  # fmt: skip
GATED = {"swiglu": "silu", "geglu": "gelu", "silu": "silu"}  # activation_function -> the gate's


class Layer(gte.Layer):
    def __init__(self, config: Config, w: Tensors, rope: Map) -> None:
        qkv, up, down = (config.get(name, False) for name in ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"))
        self.biases = qkv, up, down
        self.experts = Experts(config, w.at("mlp")) if w.rows("mlp.router.layer") else None
        self.read_attention(config, w, rope)
        if self.experts is None:
            self.read_feed_forward(config, w)

    def read_feed_forward(self, config: Config, w: Tensors) -> None:
        self.gated = not w.rows("mlp.fc1")
        if self.gated:
            super().read_feed_forward(config, w)
            return
        D, F = config["hidden_size"], config["intermediate_size"]
        self.fc1 = w.linear("mlp.fc1", F, D, bias=self.biases[1])
        self.down, self.name = w.linear("mlp.fc2", D, F, bias=self.biases[2]), layers.known(config["hidden_act"])

    def feed_forward(self, x: mx.array) -> mx.array:
        if self.experts is not None:
            return x + self.experts(x)
        return super().feed_forward(x) if self.gated else self.down(self.fc1(x, self.name), residual=x)


class Experts:
    """x (..., D) -> the sum of what the chosen experts make of it, by their share, plus a bias.

    Each expert sees every token: how a sum is made does not depend on what stands beside a token.
    """

    def __init__(self, config: Config, w: Tensors) -> None:
        D, F, self.n = config["hidden_size"], config["intermediate_size"], config["num_experts"]
        self.top, self.act = config["moe_top_k"], layers.activation(config["hidden_act"])
        if config.get("moe_normalize_expert_weights"):
            raise BadModel("moe_normalize_expert_weights is not supported")
        self.router = w.linear("router.layer", self.n, D, bias=False)
        up, down = (w.take(f"experts.mlp.{name}", self.n * F, D).reshape(self.n, F, D) for name in ("w1", "w2"))
        self.up = [layers.Linear(w.made(up[i])) for i in range(self.n)]
        self.down = [layers.Linear(w.made(mx.contiguous(down[i].T))) for i in range(self.n)]
        self.bias = w.take("experts.bias", D)

    def __call__(self, x: mx.array) -> mx.array:
        shares = mx.softmax(self.router(x), axis=-1)
        least = mx.sort(shares, axis=-1)[..., self.n - self.top, None]
        shares = mx.where(shares >= least, shares, 0)
        y = self.bias
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            y = y + down(self.act(up(x))) * shares[..., i, None]
        return y


class Model(gte.Model):
    prefix = "nomic_bert"
    Layer = Layer

    def __init__(self, config: Config, weights: Weights) -> None:
        config = config | {theirs: config[name] for name, theirs in NAMES.items() if name in config}
        act = config.get("activation_function")
        super().__init__(config | ({"hidden_act": GATED.get(act, act)} if act else {}), weights)

    def check(self, config: Config) -> None:
        if config.get("prenorm") or config.get("causal") or config.get("rotary_emb_scale_base"):
            raise BadModel("prenorm, causal attention and rotary_emb_scale_base are not supported")
        if config.get("rotary_scaling_factor"):
            raise BadModel("rotary_scaling_factor, whose positions depend on the longest text beside, is not supported")

    def embedding_norm(self, w: Tensors, D: int, eps: float) -> layers.LayerNorm:
        """Of the makers' it stands beside the embeddings, under another name."""
        outside = layers.Tensors(w.tensors, w.config, w.prefix.removesuffix("embeddings."), taken=w.taken)
        return outside.layer_norm("emb_ln" if "emb_ln.weight" in outside else "embeddings.LayerNorm", D, eps)

    def rope(self, config: Config) -> Map:
        dims = config["hidden_size"] // config["num_attention_heads"] * config.get("rotary_emb_fraction", 1)
        return plain(int(dims), float(config["rope_theta"]), interleaved=config.get("rotary_emb_interleaved", False))
