"""RoBERTa (Liu et al. 2019): BERT with positions counted from pad_token_id + 1 and its own head.

Owns: the differences from bert.py. Does not know: text, pooling.
"""

from __future__ import annotations

import mlx.core as mx

from toast.models import bert

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.models.layers import Tensors

    Config = dict[str, Any]
    Head = Callable[[mx.array], mx.array]


class Model(bert.Model):
    prefix, classifier = "roberta", "classifier.out_proj"
    activation = staticmethod(mx.tanh)

    def first_position(self, config: Config) -> int:
        return config["pad_token_id"] + 1

    def read_head(self, w: Tensors, D: int) -> Head:
        dense = w.linear("classifier.dense", D, D)
        out = w.linear("classifier.out_proj", self.outputs, D)
        return lambda x: out(self.activation(dense(x)))
