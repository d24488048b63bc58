"""DistilBERT (Sanh et al. 2019): BERT's layers under other names, without token types.

Owns: the names. Does not know: text, pooling.
"""

from __future__ import annotations

import mlx.core as mx

from toast.models import bert

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.models.layers import Tensors, Weights

    Config = dict[str, Any]
    Head = Callable[[mx.array], mx.array]

NAMES = {
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "activation": "hidden_act",
}


class Layer(bert.Layer):
    qkv = "attention.qkv_lin", ["attention." + name for name in ("q_lin", "k_lin", "v_lin")]
    out, norm1 = "attention.out_lin", "sa_layer_norm"
    up, down, norm2 = "ffn.lin1", "ffn.lin2", "output_layer_norm"


class Model(bert.Model):
    prefix, stack, Layer = "distilbert", "transformer.layer", Layer

    def __init__(self, config: Config, weights: Weights) -> None:
        renamed = {bert_name: config[name] for name, bert_name in NAMES.items()}
        super().__init__({**config, **renamed, "layer_norm_eps": 1e-12}, weights)

    def read_head(self, w: Tensors, D: int) -> Head:
        dense = w.linear("pre_classifier", D, D)
        classify = w.linear("classifier", self.outputs, D)
        return lambda x: classify(mx.maximum(dense(x), 0))
