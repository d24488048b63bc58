"""Llama (Touvron et al. 2023) as an encoder: Qwen3's layers without norms of queries and keys.

Owns: what differs. Does not know: text, pooling.
"""

from toast.models import qwen3


class Layer(qwen3.Layer):
    qk_norm = False


class Model(qwen3.Model):
    Layer = Layer
