"""Qwen3-Next's and Qwen3.5's layers as one op: gated attention and gated delta nets, with experts or without.

Knows MLX-LM's modules by their code, as recurrent.py.
"""

from __future__ import annotations

from toast.kernels import hybrid, recurrent
from toast.kernels.hybrid import Family, _norms
from toast.kernels.known import _is_affine, _matrix, activation, feed_forward, plain_matrices
from toast.kernels.modules import _make_rope, _once
from toast.kernels.recurrent import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.kernels import _ext

ATTENTION = 0xD1911CFC  # what its __call__ refers to


def _make_layer(layer: Any) -> _ext.DecoderLayers | None:
    """One layer, None where the extension has no such form."""
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    known = type(layer).__call__ is recurrent._layer and all(type(norm).__name__ == "RMSNorm" for norm in norms)
    feeds = feed_forward(layer.mlp) if known else None
    if feeds is None:
        return None
    return _net_layer(layer, norms, feeds) if layer.is_linear else _attention_layer(layer, norms, feeds)


def _net_layer(layer: Any, norms: list[Any], feeds: Any) -> _ext.DecoderLayers | None:
    mixer = layer.linear_attn
    if type(mixer).__call__ is not recurrent._delta_net or getattr(mixer, "sharding_group", None) is not None:
        return None
    net, projections = recurrent.form(mixer)
    matrices = plain_matrices([*projections, mixer.out_proj, *feeds[0]])
    if net is None or matrices is None:
        return None
    return hybrid.ext.DecoderLayers(mixer=net, linears=matrices, norms=_norms(norms, 4), experts=feeds[1])


def _attention_layer(layer: Any, norms: list[Any], feeds: Any) -> _ext.DecoderLayers | None:
    attention = layer.self_attn
    linears = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, *feeds[0]]
    rope = _once(attention.rope, _make_rope)
    if rope is None or names(type(attention).__call__) != ATTENTION or not all(map(_is_affine, linears)):
        return None
    return hybrid.ext.DecoderLayers(
        rope=rope, linears=[_matrix(x) for x in linears], biases=[x.get("bias") for x in linears],
        norms=_norms([*norms, attention.q_norm, attention.k_norm], 2), activation=activation(layer.mlp),
        experts=feeds[1], gated=True, heads=attention.num_attention_heads, kv_heads=attention.num_key_value_heads,
        scale=attention.scale,
    )  # fmt: skip


METHODS: list[Any] = []
MODELS = [
    ("qwen3_next", "Qwen3NextModel", 0x9041DEF5, Family(_make_layer)),
    ("qwen3_5", "Qwen3_5TextModel", 0x09E9B64D, Family(_make_layer)),
]
