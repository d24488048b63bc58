"""Replaces models whose layers have a state by one op for all layers: attention, mixers and feed-forward blocks, so
that Python and MLX do little for a token.

Knows the caches that MLX-LM makes for them. What the layers are made of is in qwen3_next.py, lfm2.py, granite.py and
falcon.py; what those do not know, or a batch with padding, is done layer by layer (recurrent.py, mamba.py).
"""

from __future__ import annotations

import sys

import mlx.core as mx

from toast.kernels import recurrent
from toast.kernels.modules import _has_room, _once, _reserve, _sees_all
from toast.kernels.recurrent import keep, put, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from toast.kernels import _ext

ext: Any = None  # the extension, whose ops are used here; set by fuse()


class Family:
    """Models of one kind: what a layer's fused form is, and how MLX-LM names what stands around the layers."""

    def __init__(
        self, make: Callable[[Any], _ext.DecoderLayers | None], *, norm: str = "norm", multiplier: str | None = None
    ) -> None:
        self.make, self.norm, self.multiplier = make, norm, multiplier

    def layers(self, model: Any) -> list[_ext.DecoderLayers | None]:
        return [_once(layer, self._layer) for layer in model.layers]

    def _layer(self, layer: Any) -> _ext.DecoderLayers | None:
        try:
            return self.make(layer)
        except ValueError:  # floating point in 4 bits, say
            return None

    def stack(self, model: Any) -> _ext.DecoderLayers | None:
        """All layers as one, None where one has no fused form or some are elsewhere."""
        parts = self.layers(model)
        if not all(parts) or getattr(model, "pipeline_size", 1) > 1:
            return None
        try:
            return ext.DecoderLayers.stack(parts)
        except ValueError:  # layers of several shapes
            return None

    def embed(self, model: Any, inputs: mx.array) -> mx.array:
        x: mx.array = model.embed_tokens(inputs)
        return x if self.multiplier is None else x * getattr(model, self.multiplier)


def fuse(extension: Any, others: Sequence[Any]) -> None:
    """Use its op in the models of mlx_lm that are loaded, as these files know them; call it again after
    loading others."""
    global ext
    ext = extension
    families[:] = [model for other in others for model in other.MODELS]
    for file, name, method, code, ours in [one for other in others for one in other.METHODS]:
        put(sys.modules.get(f"mlx_lm.models.{file}"), name, method, code, ours)
    for file, name, code, family in families:
        put(sys.modules.get(f"mlx_lm.models.{file}"), name, "__call__", code, _calls.setdefault(name, _call(family)))


def fused_layers(model: Any) -> list[Any]:
    """The fused form of each layer, None for one that has none; empty for models of other kinds."""
    inner: Any = getattr(getattr(model, "language_model", model), "model", None)
    for _, name, _, family in families:
        if type(inner).__name__ == name and type(inner).__call__ is _calls[name]:
            return family.layers(inner)
    return []


def _call(family: Family) -> Callable[..., mx.array]:
    """The __call__ of a family's model."""

    def call(self: Any, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None) -> mx.array:
        caches = _flat(cache) if input_embeddings is None and len(cache or []) == len(self.layers) else []
        layers: Any = _once(self, family.stack) if _knows(caches) else None
        x = None if layers is None else family.embed(self, inputs)
        if x is None or not layers.takes(x):
            more = () if input_embeddings is None else (input_embeddings,)  # not all have such an argument
            return recurrent._unfused[type(self).__name__](self, inputs, cache, *more)
        return getattr(self, family.norm)(_run(layers, x, caches))

    return call


families: list[tuple[str, str, int, Family]] = []  # file, class, what its __call__ refers to (as recurrent.METHODS)
_calls: dict[str, Any] = {}  # a class's name -> its __call__ here


def _flat(caches: Sequence[Any]) -> list[Any]:
    """Those of all layers' mixers and attention in turn; a layer that has both has a list of them."""
    return [one for cache in caches for one in getattr(cache, "caches", [cache])]


def _knows(caches: Sequence[Any]) -> bool:
    """Whether these caches are of texts without padding that are equally far."""
    seen = [cache for cache in caches if type(cache).__name__ != "ArraysCache"]
    plain = all(one.lengths is one.left_padding is None for one in caches if type(one).__name__ == "ArraysCache")
    whole = all(_sees_all(one, None) and hasattr(one, "offset") for one in seen)
    return bool(caches) and plain and whole and len({one.offset for one in seen}) < 2


def _run(layers: _ext.DecoderLayers, x: mx.array, caches: Sequence[Any]) -> mx.array:
    """All layers over their caches, which get the new rows and states."""
    B, L, _ = x.shape
    seen = [cache for cache in caches if _has_keys(cache)]
    for cache in seen:
        if not _has_room(cache, L):
            _reserve(cache, (B, layers.kv_heads, L, layers.head_dims), layers.kv_dtype)
    kept = [(cache.keys, cache.values) if _has_keys(cache) else state(cache) for cache in caches]
    y, keys, values = layers(x, [one for one, _ in kept], [one for _, one in kept], seen[0].offset if seen else 0)
    for cache, new_keys, new_values in zip(caches, keys, values, strict=True):
        if _has_keys(cache):
            cache.keys, cache.values = new_keys, new_values
            cache.offset += L
        else:
            keep(cache, L, new_keys, new_values)
    return y


def _has_keys(cache: Any) -> bool:
    return hasattr(cache, "keys")


def _norms(norms: list[Any], others: int) -> list[tuple[mx.array, float] | None]:
    return [*((norm.weight, norm.eps) for norm in norms), *[None] * others]
