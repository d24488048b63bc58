"""Replaces the layers of known MLX-LM models (known.py) by fused ops: SwiGLU, a cache update, an attention step, and
decoder layers, alone or all at once, which also take a ragged batch in one call.

Fused and unfused paths give the same bits. With float32 layers the KV cache is float16, also on the unfused path.
"""

from __future__ import annotations

import sys

import mlx.core as mx

from toast.kernels.known import kind, layer_parts, originals, remember, replacements
from toast.kernels.replaced import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from toast.kernels import _ext

ext: Any = None  # the extension, whose ops are used here; set by fuse()
fetches: dict[str, Any] = {}  # a cache's class -> its update_and_fetch as MLX-LM wrote it


def fuse(extension: Any) -> None:
    """Use its fused ops in the models of mlx_lm that are loaded; call it again after loading others."""
    global ext
    ext = extension
    from mlx_lm.models import activations, cache, llama  # noqa: F401

    remember()
    for owner in (cache.KVCache, cache.RotatingKVCache):
        fetches.setdefault(owner.__name__, owner.update_and_fetch)
    replace(cache.KVCache, "update_and_fetch", _update_and_fetch)
    replace(cache.RotatingKVCache, "update_and_fetch", _update_ring_and_fetch)
    swiglu = activations.swiglu
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models."):
            if getattr(module, "swiglu", None) is swiglu:
                replace(module, "swiglu", ext.swiglu)
            for cls in list(vars(module).values()):
                call = vars(cls).get("__call__") if isinstance(cls, type) else None
                fused = replacements.get(kind(call) or "")
                if fused and call is not fused:
                    replace(cls, "__call__", fused)


def supports_ragged_batch(model: Any) -> bool:
    """Whether every layer takes the rows of several texts in one call (`Ragged`)."""
    parts = fused_blocks(model)
    rings = getattr(getattr(model, "model", None), "window_size", None)  # Gemma 3's, whose texts are apart
    return not rings and all(parts) and parts[0].takes(model.model.embed_tokens(mx.array([0])))


# ---------------------------------------------------------------- fused methods, in place of MLX-LM's


def _update_and_fetch(self: Any, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
    """KVCache's, which leaves only the growth of the buffers to MLX-LM's own."""
    start, stop = self.offset, self.offset + keys.shape[2]
    if self.keys is not None:  # begun by a layer, perhaps, which stores float16
        keys, values = keys.astype(self.keys.dtype), values.astype(self.values.dtype)
    if self.keys is None or stop > self.keys.shape[2]:
        return fetches["KVCache"](self, keys, values)
    self.offset = stop
    self.keys, keys = ext.append(self.keys, keys, start)
    self.values, values = ext.append(self.values, values, start)
    return keys, values


def _update_ring_and_fetch(self: Any, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
    """RotatingKVCache's, which stays in the dtype that it was begun in."""
    if self.keys is not None:
        keys, values = keys.astype(self.keys.dtype), values.astype(self.values.dtype)
    return fetches["RotatingKVCache"](self, keys, values)


def _attention(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
    """Attention whose work between the projections is one op, where the cache has room for it."""
    rope = _once(self.rope, _make_rope)
    if rope is None or not (_sees_all(cache, mask) and _has_room(cache, x.shape[1])):
        return originals["Attention"](self, x, mask, cache)
    q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
    if not q.dtype == k.dtype == v.dtype == cache.keys.dtype == cache.values.dtype:
        return originals["Attention"](self, x, mask, cache)
    y, cache.keys, cache.values = ext.attention_step(
        q=q, k=k, v=v, keys=cache.keys, values=cache.values,
        rope=rope, offset=cache.offset, scale=self.scale, causal=mask is not None,
    )  # fmt: skip
    cache.offset += x.shape[1]
    return self.o_proj(y)


def _block(name: str) -> Callable[..., mx.array]:
    """The __call__ of a known block: one op, where its weights are quantised and its cache holds all it sees."""

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        layer = _once(self, _make_layer)
        if layer is None or not layer.takes(x):
            return originals[name](self, x, mask, cache)
        if not _is_ready(cache, mask, x.shape[1]):
            _begin(cache, (x.shape[0], layer.kv_heads, 0, layer.head_dims), layer.kv_dtype)
            return originals[name](self, x, mask, cache)
        return _run(layer, x, [cache], causal=mask is not None)

    return call


def _model(name: str) -> Callable[..., mx.array]:
    """The __call__ of a known model: one op for all its blocks, so that Python and MLX do half as much for a token.

    Of a ragged batch, the rows whose logits are wanted."""

    def call(self: Any, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None) -> mx.array:
        layers = _once(self, _stack)
        if layers is None or input_embeddings is not None or not _equally_far(cache, len(self.layers)):
            more = () if input_embeddings is None else (input_embeddings,)  # Phi-3's has no such argument
            return originals[name](self, inputs, cache, *more)
        x = self.embed_tokens(inputs)
        masks = _masks(self, x, cache)
        ready = zip(cache, masks, strict=True)
        if not layers.takes(x) or not all(_is_ready(one, mask, x.shape[1]) for one, mask in ready):
            return originals[name](self, inputs, cache)
        if name == "Gemma3Model":
            x *= mx.array(self.args.hidden_size**0.5, mx.bfloat16).astype(x.dtype)
        x = _run(layers, x, cache, causal=True)
        wanted = getattr(cache[0], "wanted", None)
        return self.norm(x if wanted is None else x[:, wanted])

    return call


def _masks(model: Any, x: mx.array, caches: Sequence[Any]) -> list[Any]:
    """The mask of each layer, as MLX-LM makes it where some see a window alone."""
    window = getattr(model, "window_size", None)
    if window is None:
        return [None if x.shape[1] == 1 else "causal"] * len(caches)
    from mlx_lm.models.base import create_attention_mask

    every = model.sliding_window_pattern
    whole, local = create_attention_mask(x, caches[every - 1]), create_attention_mask(x, caches[0], window_size=window)
    return [whole if i % every == every - 1 else local for i in range(len(caches))]


BLOCKS = {name: _block(name) for name in ("TransformerBlock", "MixtralBlock", "OlmoeBlock", "Gemma3Block")}
NAMES = "LlamaModel", "Qwen2Model", "Qwen3Model", "Phi3Model", "OlmoeModel", "Gemma3Model"
MODELS = {name: _model(name) for name in NAMES}
replacements.update({"Attention": _attention} | BLOCKS | MODELS)


def _run(layers: _ext.DecoderLayers, x: mx.array, caches: Sequence[Any], *, causal: bool) -> mx.array:
    """Layers over their caches, MLX-LM's or a ragged batch's, which get room and the new rows."""
    if isinstance(caches[0], Ragged):
        return _write(layers, x, caches)
    B, L, _ = x.shape
    for cache in caches:
        if _is_ring(cache):
            _reserve_ring(cache, (B, layers.kv_heads, L, layers.head_dims), layers.kv_dtype)
        elif not _has_room(cache, L):
            _reserve(cache, (B, layers.kv_heads, L, layers.head_dims), layers.kv_dtype)
    keys, values = [cache.keys for cache in caches], [cache.values for cache in caches]
    places = [cache._idx if _is_ring(cache) else cache.offset for cache in caches]
    y, keys, values = layers(x, keys, values, caches[0].offset, causal=causal, places=places)
    for cache, new_keys, new_values in zip(caches, keys, values, strict=True):
        cache.keys, cache.values = new_keys, new_values
        cache.offset += L
        if _is_ring(cache):
            cache._idx += L
    return y


def _write(layers: _ext.DecoderLayers, x: mx.array, batches: Sequence[Ragged]) -> mx.array:
    """The same over the texts of a ragged batch, whose caches are written in place, at once."""
    lengths, new = batches[0].lengths, []
    caches = [cache for batch in batches for cache in batch.texts]
    for cache, length in zip(caches, len(batches) * lengths, strict=True):
        if not _has_room(cache, length):
            _reserve(cache, (1, layers.kv_heads, length, layers.head_dims), layers.kv_dtype)
            new += [cache.keys, cache.values]
    mx.eval(new)
    keys, values = [cache.keys for cache in caches], [cache.values for cache in caches]
    offsets = [cache.offset for cache in batches[0].texts]
    states, y = layers.write(x, keys, values, list(zip(lengths, offsets, strict=True)))
    mx.eval(states)
    for cache, length in zip(caches, len(batches) * lengths, strict=True):
        cache.offset += length
    return y


class Ragged:
    """One layer's caches in a batch of texts of any lengths, MLX-LM's KVCache for each, computed and nobody else's.

    lengths: new tokens of each text, which stand in the batch one after the other. wanted: the places in it whose
    logits are asked for."""

    def __init__(self, texts: list[Any], lengths: list[int], wanted: mx.array) -> None:
        self.texts, self.lengths, self.wanted = texts, lengths, wanted

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> str:  # noqa: FBT001, FBT002
        """MLX-LM asks for it, by position; every text sees itself alone."""
        return "causal"


# ---------------------------------------------------------------- a module's fused form


def _once(module: Any, make: Callable[[Any], Any]) -> Any:
    """What make(module) gave the first time, which stays with the module as `fused`."""
    if "fused" not in module.__dict__:
        module.fused = make(module)
    return module.fused


def _make_rope(rope: Any) -> _ext.Rope | None:
    """Of the two kinds that are no more than a base or frequencies; None for others."""
    name = type(rope).__name__
    try:
        if name == "RoPE":
            return ext.Rope(dims=rope.dims, traditional=rope.traditional, base=rope.base, scale=rope.scale, freqs=None)
        if name == "Llama3RoPE":
            return ext.Rope(dims=rope.dims, traditional=rope.traditional, base=None, scale=1.0, freqs=rope._freqs)
    except ValueError:  # an odd number of dims, say
        pass
    return None


def _make_layer(block: Any) -> _ext.DecoderLayers | None:
    """One layer, None where the extension has no such form."""
    parts = layer_parts(block)
    rope = _once(block.self_attn.rope, _make_rope) if parts else None
    if parts is None or rope is None:
        return None
    try:
        return ext.DecoderLayers(rope=rope, **parts)
    except ValueError:  # floating point in 4 bits, say
        return None


def fused_blocks(model: Any) -> list[Any]:
    """The fused form of each block, None for one that has none."""
    blocks, known = getattr(model, "layers", []), BLOCKS.values()
    return [_once(block, _make_layer) if type(block).__call__ in known else None for block in blocks]


def _stack(model: Any) -> _ext.DecoderLayers | None:
    """All blocks as one, None where one has no fused form, or Llama's sees a window alone, or some are elsewhere."""
    parts = fused_blocks(model)
    if not all(parts) or getattr(model, "swa_idx", None) is not None or getattr(model, "pipeline_size", 1) > 1:
        return None
    try:
        return ext.DecoderLayers.stack(parts)
    except ValueError:  # layers of several shapes
        return None


# ---------------------------------------------------------------- caches


def _sees_all(cache: Any, mask: Any) -> bool:
    """Whether the cache, MLX-LM's or a ragged batch's, holds keys and values of which a position sees all before it."""
    known = type(cache).__name__ == "KVCache" or isinstance(cache, Ragged)
    return known and (mask is None or isinstance(mask, str))


def _equally_far(caches: Sequence[Any] | None, count: int) -> bool:
    """Whether there is such a cache for each of `count` layers, all of one length."""
    if not caches or len(caches) != count or not all(_sees_all(cache, None) or _is_ring(cache) for cache in caches):
        return False
    return len({getattr(cache, "offset", None) for cache in caches}) == 1


def _is_ring(cache: Any) -> bool:
    """Whether it is MLX-LM's cache of the last positions, none of them kept forever."""
    return type(cache).__name__ == "RotatingKVCache" and cache.keep == 0


def _is_ready(cache: Any, mask: Any, length: int) -> bool:
    """Whether a layer as one op can store `length` new rows and see what it has to: a ring takes one row, or a
    beginning."""
    if not _is_ring(cache):
        return _sees_all(cache, mask)
    fits = length == 1 or (cache.offset == 0 and cache.keys is None and length <= cache.max_size)
    return fits and (mask is None or isinstance(mask, str))


def _begin(cache: Any, shape: tuple[int, int, int, int], dtype: mx.Dtype) -> None:
    """Let a cache that has nothing yet store what fused layers store."""
    if hasattr(cache, "kv_dtype"):
        cache.kv_dtype = dtype
    elif type(cache).__name__ in ("KVCache", "RotatingKVCache") and cache.keys is None:
        cache.keys = cache.values = mx.zeros(shape, dtype)


def _reserve_ring(cache: Any, shape: tuple[int, int, int, int], dtype: mx.Dtype) -> None:
    """Room for new rows from _idx on, as MLX-LM's RotatingKVCache makes it."""
    held, full = 0 if cache.keys is None else cache.keys.shape[2], cache.max_size
    if shape[2] > 1:
        cache.keys, cache.values = mx.zeros(shape, dtype), mx.zeros(shape, dtype)
    elif cache.offset >= held and held < full:
        rows = (*shape[:2], min(cache.step, full - cache.offset), shape[3])
        cache.keys, cache.values = _longer(cache.keys, rows, dtype), _longer(cache.values, rows, dtype)
        cache._idx = cache.offset
    elif held > full:
        cache.keys, cache.values = (cache._trim(held - full, x) for x in (cache.keys, cache.values))
        cache._idx = full
    if cache._idx == full:
        cache._idx = 0


def _longer(buffer: mx.array | None, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
    if buffer is None:
        return mx.zeros(shape, dtype)
    return mx.concatenate([buffer, mx.zeros(shape, buffer.dtype)], axis=2)


def _has_room(cache: Any, length: int) -> bool:
    return cache.keys is not None and cache.offset + length <= cache.keys.shape[2]


def _reserve(cache: Any, shape: tuple[int, int, int, int], dtype: mx.Dtype) -> None:
    """Let MLX-LM's cache grow as it does, for new positions (B, H, L, D) that are stored later."""
    rows = mx.zeros(shape, dtype)
    cache.update_and_fetch(rows, rows)
    cache.offset -= shape[2]
