"""Replaces Qwen3-Next's and Qwen3.5's models by one op for all layers: gated attention, gated delta nets and their
feed-forward blocks, so that Python and MLX do little for a token.

Knows what these layers are made of, and the caches that MLX-LM makes for them. What it does not know, a batch with
padding, say, is done layer by layer (recurrent.py).
"""

from __future__ import annotations

import sys

import mlx.core as mx

from toast.kernels import recurrent
from toast.kernels.known import _is_affine, _matrix, feed_forward
from toast.kernels.modules import _has_room, _make_rope, _once, _reserve, _sees_all
from toast.kernels.recurrent import names, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from toast.kernels import _ext

ext: Any = None  # the extension, whose ops are used here; set by fuse()

ATTENTION = 0xD1911CFC  # what its __call__ refers to, as recurrent.METHODS


def fuse(extension: Any) -> None:
    """Use its op in the models of mlx_lm that are loaded; call it again after loading others."""
    global ext
    ext = extension
    for (file, name), (code, ours) in MODELS.items():
        put(sys.modules.get(f"mlx_lm.models.{file}"), name, "__call__", code, ours)


def fused_layers(model: Any) -> list[Any]:
    """The fused form of each layer, None for one that has none; empty for models of other kinds."""
    inner: Any = getattr(getattr(model, "language_model", model), "model", None)
    if type(inner).__call__ not in [ours for _, ours in MODELS.values()]:
        return []
    return [_once(layer, _make_layer) for layer in inner.layers]


def _model(name: str) -> Callable[..., mx.array]:
    def call(self: Any, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None) -> mx.array:
        layers: Any = _once(self, _stack) if input_embeddings is None and _knows(cache, self.layers) else None
        x = None if layers is None else self.embed_tokens(inputs)
        if x is None or not layers.takes(x):
            more = () if input_embeddings is None else (input_embeddings,)  # Qwen3-Next's has no such argument
            return recurrent._unfused[name](self, inputs, cache, *more)
        return self.norm(_run(layers, x, cache))

    return call


MODELS = {
    ("qwen3_next", "Qwen3NextModel"): (0x9041DEF5, _model("Qwen3NextModel")),
    ("qwen3_5", "Qwen3_5TextModel"): (0x09E9B64D, _model("Qwen3_5TextModel")),
}


def _knows(caches: Sequence[Any] | None, layers: Sequence[Any]) -> bool:
    """Whether there is a cache for each layer, of texts without padding that are equally far."""
    if not caches or len(caches) != len(layers):
        return False
    seen = [cache for cache, layer in zip(caches, layers, strict=True) if not layer.is_linear]
    states = [cache for cache, layer in zip(caches, layers, strict=True) if layer.is_linear]
    plain = all(type(one).__name__ == "ArraysCache" and one.lengths is one.left_padding is None for one in states)
    whole = all(_sees_all(one, None) and hasattr(one, "offset") for one in seen)
    return plain and whole and len({one.offset for one in seen}) < 2


def _run(layers: _ext.DecoderLayers, x: mx.array, caches: Sequence[Any]) -> mx.array:
    """All layers over their caches, which get the new rows and states."""
    B, L, _ = x.shape
    seen = [cache for cache in caches if _has_keys(cache)]
    for cache in seen:
        if not _has_room(cache, L):
            _reserve(cache, (B, layers.kv_heads, L, layers.head_dims), layers.kv_dtype)
    keys = [cache.keys if _has_keys(cache) else cache[0] for cache in caches]
    values = [cache.values if _has_keys(cache) else cache[1] for cache in caches]
    y, keys, values = layers(x, keys, values, seen[0].offset if seen else 0)
    for cache, new_keys, new_values in zip(caches, keys, values, strict=True):
        if _has_keys(cache):
            cache.keys, cache.values = new_keys, new_values
            cache.offset += L
        else:
            cache[0], cache[1] = new_keys, new_values
            cache.advance(L)
    return y


def _has_keys(cache: Any) -> bool:
    return hasattr(cache, "keys")


# ---------------------------------------------------------------- a layer's fused form


def _stack(model: Any) -> _ext.DecoderLayers | None:
    """All layers as one, None where one has no fused form or some are elsewhere."""
    parts = [_once(layer, _make_layer) for layer in model.layers]
    if not all(parts) or model.pipeline_size > 1:
        return None
    try:
        return ext.DecoderLayers.stack(parts)
    except ValueError:  # layers of several shapes
        return None


def _make_layer(layer: Any) -> _ext.DecoderLayers | None:
    """One layer, None where the extension has no such form."""
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    known = type(layer).__call__ is recurrent._layer and all(type(norm).__name__ == "RMSNorm" for norm in norms)
    feeds = feed_forward(layer.mlp) if known else None
    if feeds is None:
        return None
    try:
        return _net_layer(layer, norms, *feeds) if layer.is_linear else _attention_layer(layer, norms, *feeds)
    except ValueError:  # floating point in 4 bits, say
        return None


def _net_layer(layer: Any, norms: list[Any], feeds: list[Any], experts: Any) -> _ext.DecoderLayers | None:
    mixer = layer.linear_attn
    if type(mixer).__call__ is not recurrent._delta_net or getattr(mixer, "sharding_group", None) is not None:
        return None
    net, projections = recurrent.form(mixer)
    linears = [*projections, mixer.out_proj, *feeds]
    if net is None or not all(_is_affine(x) and "bias" not in x for x in linears):
        return None
    return ext.DecoderLayers.delta_net(
        net=net, linears=[_matrix(x) for x in linears], norms=_norms(norms, 4), experts=experts
    )


def _attention_layer(layer: Any, norms: list[Any], feeds: list[Any], experts: Any) -> _ext.DecoderLayers | None:
    attention = layer.self_attn
    linears = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, *feeds]
    rope = _once(attention.rope, _make_rope)
    if rope is None or names(type(attention).__call__) != ATTENTION or not all(map(_is_affine, linears)):
        return None
    return ext.DecoderLayers(
        rope=rope, linears=[_matrix(x) for x in linears], biases=[x.get("bias") for x in linears], updates=[],
        norms=_norms([*norms, attention.q_norm, attention.k_norm], 2), activation="silu", experts=experts, gated=True,
        heads=attention.num_attention_heads, kv_heads=attention.num_key_value_heads, scale=attention.scale,
    )  # fmt: skip


def _norms(norms: list[Any], others: int) -> list[tuple[mx.array, float] | None]:
    return [*((norm.weight, norm.eps) for norm in norms), *[None] * others]
