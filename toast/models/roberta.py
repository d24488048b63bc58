"""RoBERTa (Liu et al. 2019): BERT with positions counted from pad_token_id + 1 and its own head.

Owns: the differences from bert.py. Does not know: text, pooling.
"""

import mlx.core as mx

from toast.models import bert


class Model(bert.Model):
    prefix, classifier = "roberta", "classifier.out_proj"
    activation = staticmethod(mx.tanh)

    def first_position(self, config):
        return config["pad_token_id"] + 1

    def read_head(self, w, D):
        dense = w.linear("classifier.dense", D, D)
        out = w.linear("classifier.out_proj", self.outputs, D)
        return lambda x: out(self.activation(dense(x)))
