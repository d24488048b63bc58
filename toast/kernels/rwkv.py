"""Replaces RWKV-7's model by one op for all layers: token shifts, projections, the recurrence and the channel mix.

Knows what these layers are made of in MLX-LM, by the code of their parts, and the cache that it makes for them. What it
does not know, an adapter say, is MLX-LM's own to do, with our recurrence (recurrent.py).
"""

from __future__ import annotations

import sys

import mlx.core as mx

from toast.kernels import recurrent
from toast.kernels.known import _is_affine
from toast.kernels.modules import _once
from toast.kernels.recurrent import names, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from toast.kernels import _ext

ext: Any = None  # the extension, whose ops are used here; set by fuse()

# what __call__ of the model and its parts refers to, as recurrent.METHODS
MODEL = 0x89AD731B
PARTS = {
    "Rwkv7Layer": 0xC418A8EC, "Rwkv7TimeMixing": 0x6B702D09, "Rwkv7ChannelMixing": 0x7203C248,
    "TokenShift": 0xE655D303, "LayerNormPerHead": 0xD773979C, "LoRA": 0x34835100,
}  # fmt: skip


def fuse(extension: Any) -> None:
    """Use its op in the model of mlx_lm, if that is loaded; call it again after loading others."""
    global ext
    ext = extension
    put(sys.modules.get("mlx_lm.models.rwkv7"), "Rwkv7Model", "__call__", MODEL, _model)


def fused_layers(model: Any) -> list[Any]:
    """The fused form of each layer, None for one that has none; empty for models of other kinds."""
    inner: Any = getattr(model, "model", None)
    if type(inner).__call__ is not _model:
        return []
    return [_once(layer, _make_layer) for layer in inner.layers]


def _model(self: Any, x: mx.array, cache: Sequence[Any] | None) -> mx.array:
    layers: Any = _once(self, _stack) if cache is not None else None
    states = None if layers is None else self.layers[0].pre_norm(self.embeddings(x))
    if states is None or not layers.takes(states):
        return recurrent._unfused["Rwkv7Model"](self, x, cache)
    return self.norm(_run(layers, states, cache))


def _run(layers: _ext.RwkvLayers, x: mx.array, caches: Any) -> mx.array:
    """All layers over their caches, which get the new rows and states."""
    y, kept = layers(x, [cache[i] for cache in caches for i in range(3)])
    for i, one in enumerate(kept):
        caches[i // 3][i % 3] = one
    return y


# ---------------------------------------------------------------- a layer's fused form


def _stack(model: Any) -> _ext.RwkvLayers | None:
    """All layers as one, None where one has no fused form."""
    parts = [_once(layer, _make_layer) for layer in model.layers]
    try:
        return ext.RwkvLayers.stack(parts) if all(parts) else None
    except ValueError:  # layers of several shapes
        return None


def _make_layer(layer: Any) -> _ext.RwkvLayers | None:
    """One layer, None where the extension has no such form."""
    time, channel = layer.attn, layer.ffn
    ranks = [time[f"{name}_lora"] for name in "gwav" if f"{name}_lora" in time]
    if not all(map(_is_known, [layer, time, channel, time.token_shift, time.g_norm, *ranks])):
        return None
    if [type(rank.lora[1]).__name__ for rank in ranks] != ["Sigmoid", "Tanh", "Identity", "Identity"][: len(ranks)]:
        return None
    linears = [time.r_proj, time.k_proj, time.v_proj, time.o_proj, channel.key, channel.value]
    linears += [linear for rank in ranks for linear in (rank.lora[0], rank.lora[2])]
    norms = [layer.attn_norm, layer.ffn_norm]
    if not all(_is_affine(x) or type(x).__name__ == "Linear" for x in linears):
        return None
    if any(type(norm).__name__ != "LayerNorm" or "bias" not in norm for norm in norms):
        return None
    try:
        return ext.RwkvLayers(
            linears=[_matrix(x) for x in linears], heads=time.num_heads,
            numbers=[mx.concatenate([time[f"x_{name}"].reshape(1, -1) for name in "rkvwag"]), channel.x_k,
                     time.k_k, time.k_a, time.r_k],
            norms=[(norm.weight, norm.bias, norm.eps) for norm in (*norms, time.g_norm)],
        )  # fmt: skip
    except ValueError:  # floating point in 4 bits, say
        return None


def _is_known(part: Any) -> bool:
    return names(type(part).__call__) == PARTS.get(type(part).__name__)


def _matrix(linear: Any) -> tuple[Any, ...]:
    sizes = (linear.group_size, linear.bits) if "scales" in linear else (0, 0)
    return linear.weight, linear.get("scales"), linear.get("biases"), *sizes, linear.get("bias")
