"""RoBERTa (Liu et al. 2019): BERT with positions counted from pad_token_id + 1 and its own head.

Owns: the differences from bert.py. Does not know: text, pooling.
"""

import mlx.core as mx

from toast.models import bert


class Model(bert.Model):
    prefix = "roberta"
    classifier = "classifier.out_proj"

    def position_ids(self, L):
        return mx.arange(L) + self.config["pad_token_id"] + 1

    def make_head(self, w, D):
        """First token's state (B, D) -> (B, n)."""
        dense = w.linear("classifier.dense", D, D)
        out = w.linear("classifier.out_proj", w.rows(self.classifier), D)
        return lambda x: out(mx.tanh(dense(x)))
