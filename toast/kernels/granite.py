"""Granite 4's layers as one op, where they have no experts: Mamba-2, and attention, without rope or with it.

Knows MLX-LM's modules by their code, as recurrent.py; Mamba-2 is one op also where its layer is not.
"""

from __future__ import annotations

from toast.kernels import hybrid, recurrent
from toast.kernels.hybrid import Family, _feed_forward, _matrix, _norms
from toast.kernels.known import _is_affine
from toast.kernels.modules import _make_rope, _once
from toast.kernels.recurrent import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import mlx.core as mx

    from toast.kernels import _ext

LAYER, ATTENTION, MAMBA = 0x014A181D, 0xFCBF5D15, 0x6501716A  # what __call__ refers to
STEPS = 0x0EBCDCC5, 0x65225952  # and Mamba-2's _conv and _ssm


def _mamba(self: Any, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
    mixer = _once(self, _make_mixer)
    if mixer is None or not recurrent.plain(mask, cache) or x.dtype != self.norm.weight.dtype:
        return recurrent._unfused[type(self).__name__](self, x, mask, cache)
    return self.out_proj(recurrent.run(mixer, [self.in_proj(x)], cache))


def _make_mixer(mamba: Any) -> _ext.Mixer | None:
    if (names(type(mamba)._conv), names(type(mamba)._ssm)) != STEPS:
        return None
    try:
        return hybrid.ext.mamba2(
            sizes=(mamba.num_heads, mamba.n_groups, mamba.head_dim, mamba.ssm_state_size),
            conv=mamba.conv1d.weight, bias=mamba.conv1d.get("bias"), A_log=mamba.A_log, D=mamba.D,
            dt_bias=mamba.dt_bias, limits=tuple(mamba.time_step_limit), norm=(mamba.norm.weight, mamba.norm.eps),
        )  # fmt: skip
    except ValueError:  # a longer convolution, say
        return None


def _make_layer(layer: Any) -> _ext.DecoderLayers | None:
    if names(type(layer).__call__) != LAYER or layer.use_moe or names(type(layer.mlp).__call__) != hybrid.MLP:
        return None
    mamba = layer.layer_type == "mamba"
    parts = _mamba_parts(layer.mamba) if mamba else _attention_parts(layer.self_attn)
    if parts is None:
        return None
    linears = [*parts.pop("linears"), *_feed_forward(layer.mlp)]
    if not all(_is_affine(x) and "bias" not in x for x in linears):
        return None
    norms = _norms([layer.input_layernorm, layer.post_attention_layernorm], 4)
    return hybrid.ext.DecoderLayers(
        linears=[_matrix(x) for x in linears], norms=norms, residual=layer.residual_multiplier, **parts
    )


def _mamba_parts(mamba: Any) -> dict[str, Any] | None:
    mixer = _once(mamba, _make_mixer) if type(mamba).__call__ is _mamba else None
    return mixer and {"mixer": mixer, "linears": [mamba.in_proj, mamba.out_proj]}


def _attention_parts(attention: Any) -> dict[str, Any] | None:
    rope = None if attention.rope is None else _once(attention.rope, _make_rope)
    if names(type(attention).__call__) != ATTENTION or (attention.rope is not None and rope is None):
        return None
    return {
        "linears": [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj], "rope": rope,
        "heads": attention.n_heads, "kv_heads": attention.n_kv_heads, "scale": attention.scale,
    }  # fmt: skip


METHODS = [("granitemoehybrid", "GraniteMoeHybridMamba2Mixer", "__call__", MAMBA, _mamba)]
MODELS = [
    ("granitemoehybrid", "GraniteMoeHybridModel", 0xDCA4CA8C, Family(_make_layer, multiplier="embedding_multiplier"))
]
