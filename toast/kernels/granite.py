"""Granite 4's layers as one op, where they have no experts: Mamba-2, and attention, without rope or with it.

Knows MLX-LM's modules by their code, as recurrent.py.
"""

from __future__ import annotations

from toast.kernels import hybrid, mamba
from toast.kernels.hybrid import Family, _norms
from toast.kernels.known import activation, feed_forward, plain_matrices
from toast.kernels.modules import _make_rope, _once
from toast.kernels.recurrent import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.kernels import _ext

LAYER, ATTENTION = 0x014A181D, 0xFCBF5D15  # what __call__ refers to


def _make_layer(layer: Any) -> _ext.DecoderLayers | None:
    if names(type(layer).__call__) != LAYER or layer.use_moe:
        return None
    mixes = layer.layer_type == "mamba"
    parts = _mamba_parts(layer.mamba) if mixes else _attention_parts(layer.self_attn)
    feeds = feed_forward(layer.mlp)
    if parts is None or feeds is None or feeds[1] is not None:
        return None
    matrices = plain_matrices([*parts.pop("linears"), *feeds[0]])
    if matrices is None:
        return None
    norms = _norms([layer.input_layernorm, layer.post_attention_layernorm], 4)
    return hybrid.ext.DecoderLayers(
        linears=matrices, norms=norms, activation=activation(layer.mlp), residual=layer.residual_multiplier, **parts
    )


def _mamba_parts(mixer: Any) -> dict[str, Any] | None:
    op = mamba.mixer(mixer)
    return None if op is None else {"mixer": op, "linears": [mixer.in_proj, mixer.out_proj]}


def _attention_parts(attention: Any) -> dict[str, Any] | None:
    rope = None if attention.rope is None else _once(attention.rope, _make_rope)
    if names(type(attention).__call__) != ATTENTION or (attention.rope is not None and rope is None):
        return None
    return {
        "linears": [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj], "rope": rope,
        "heads": attention.n_heads, "kv_heads": attention.n_kv_heads, "scale": attention.scale,
    }  # fmt: skip


METHODS: list[Any] = []
MODELS = [
    ("granitemoehybrid", "GraniteMoeHybridModel", 0xDCA4CA8C, Family(_make_layer, multiplier="embedding_multiplier"))
]
