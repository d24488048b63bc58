"""LFM2's layers as one op: short convolutions, and attention with norms of queries and keys.

Knows MLX-LM's modules by their code, as recurrent.py; a short convolution is one op also where its layer is not.
"""

from __future__ import annotations

from toast.kernels import hybrid, recurrent
from toast.kernels.hybrid import Family, _norms
from toast.kernels.known import plain_matrices
from toast.kernels.modules import _make_rope, _once
from toast.kernels.recurrent import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import mlx.core as mx

    from toast.kernels import _ext

LAYER, ATTENTION, MLP, CONVOLUTION = 0x3A363CCE, 0xCDD54D14, 0xF84BEE8C, 0xD46D352E  # what __call__ refers to


def _short_conv(self: Any, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
    mixer = _once(self, _make_mixer)
    if mixer is None or not recurrent.plain(mask, cache):
        return recurrent._unfused["ShortConv"](self, x, mask, cache)
    return self.out_proj(recurrent.run(mixer, [self.in_proj(x)], cache))


def _make_mixer(conv: Any) -> _ext.Mixer | None:
    try:
        return None if "bias" in conv.conv else hybrid.ext.short_convolution(conv.conv.weight)
    except ValueError:  # a longer one
        return None


def _make_layer(layer: Any) -> _ext.DecoderLayers | None:
    norms = [layer.operator_norm, layer.ffn_norm]
    mlp = layer.feed_forward
    if names(type(layer).__call__) != LAYER or names(type(mlp).__call__) != MLP:
        return None
    feed_forward = [mlp.w1, mlp.w3, mlp.w2]
    if layer.is_attention_layer:
        return _attention_layer(layer.self_attn, norms, feed_forward)
    conv = layer.conv
    mixer = _once(conv, _make_mixer) if type(conv).__call__ is _short_conv else None
    matrices = plain_matrices([conv.in_proj, conv.out_proj, *feed_forward])
    if mixer is None or matrices is None:
        return None
    return hybrid.ext.DecoderLayers(mixer=mixer, linears=matrices, norms=_norms(norms, 4))


def _attention_layer(attention: Any, norms: list[Any], feed_forward: list[Any]) -> _ext.DecoderLayers | None:
    matrices = plain_matrices([attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, *feed_forward])
    rope = _once(attention.rope, _make_rope)
    if rope is None or matrices is None or names(type(attention).__call__) != ATTENTION:
        return None
    return hybrid.ext.DecoderLayers(
        rope=rope, linears=matrices,
        norms=_norms([*norms, attention.q_layernorm, attention.k_layernorm], 2),
        heads=attention.n_heads, kv_heads=attention.n_kv_heads, scale=attention.scale,
    )  # fmt: skip


METHODS = [(file, "ShortConv", "__call__", CONVOLUTION, _short_conv) for file in ("lfm2", "lfm2_moe")]
MODELS = [("lfm2", "Lfm2Model", 0x1AFB4E20, Family(_make_layer, norm="embedding_norm"))]
