"""ELECTRA (Clark et al. 2020): BERT with narrow embeddings and a GELU head.

Owns: the differences from bert.py. Does not know: text, pooling.
"""

from __future__ import annotations

from toast.models import bert, layers, roberta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import mlx.core as mx

    from toast.models.layers import Tensors

    Config = dict[str, Any]
    Head = Callable[[mx.array], mx.array]


class Model(bert.Model):
    prefix, classifier = "electra", "classifier.out_proj"
    read_head = roberta.Model.read_head

    def read_encoder(self, config: Config, w: Tensors) -> None:
        self.activation = layers.activation("gelu")
        D, E = config["hidden_size"], config.get("embedding_size", config["hidden_size"])
        self.project = w.linear("embeddings_project", D, E) if E != D else lambda x: x

    def embed(self, ids: mx.array, types: mx.array | None) -> mx.array:
        return self.project(super().embed(ids, types))
