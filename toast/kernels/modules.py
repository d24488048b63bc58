"""Replaces MLX-LM's Llama layers by fused ops: SwiGLU, a cache update, an attention step, and decoder layers, alone or
all at once, which also take a ragged batch in one call.

Knows the code of one architecture, Llama's, which a dozen model files repeat word for word; knows no class above it.
Fused and unfused paths give the same bits. With float32 layers the KV cache is float16, also on the unfused path.
"""

from __future__ import annotations

import sys

import mlx.core as mx

from toast.kernels.replaced import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from toast.kernels import _ext

ext: Any = None  # the extension, whose ops are used here; set by fuse()

# What Llama's classes refer to in __call__. If a release of MLX-LM says something else, it is left alone.
NAMES = {
    "Attention": ("shape", "q_proj", "k_proj", "v_proj", "reshape", "n_heads", "transpose", "n_kv_heads", "rope",
                  "offset", "update_and_fetch", "scaled_dot_product_attention", "scale", "o_proj"),
    "MLP": ("down_proj", "swiglu", "gate_proj", "up_proj"),
    "TransformerBlock": ("self_attn", "input_layernorm", "mlp", "post_attention_layernorm"),
    "LlamaModel": ("embed_tokens", "len", "layers", "create_attention_mask", "fa_idx", "swa_idx", "sliding_window",
                   "zip", "use_sliding", "norm"),
}  # fmt: skip

_unfused: dict[str, Any] = {}  # class name -> Llama's __call__ as MLX-LM wrote it; and KVCache's update_and_fetch


def fuse(extension: Any) -> None:
    """Use its fused ops in the models of mlx_lm that are loaded; call it again after loading others."""
    global ext
    ext = extension
    from mlx_lm.models import activations, cache, llama

    for name in NAMES:
        _unfused.setdefault(name, getattr(llama, name).__call__)
    if cache.KVCache.update_and_fetch is not _update_and_fetch:
        _unfused["update_and_fetch"] = cache.KVCache.update_and_fetch
        replace(cache.KVCache, "update_and_fetch", _update_and_fetch)
    swiglu = activations.swiglu
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models."):
            if getattr(module, "swiglu", None) is swiglu:
                replace(module, "swiglu", ext.swiglu)
            for cls in list(vars(module).values()):
                call = vars(cls).get("__call__") if isinstance(cls, type) else None
                fused = FUSED.get(kind(call) or "")
                if fused and call is not fused:
                    replace(cls, "__call__", fused)


def kind(function: Any) -> str | None:
    """Which of Llama's classes a __call__ belongs to by its code, or None."""
    for name, fused in FUSED.items():
        if function is fused:
            return name
    code = getattr(function, "__code__", None)
    for name, names in NAMES.items():
        known = _unfused[name].__code__
        if code is None or not code.co_names == names == known.co_names:
            continue
        if (code.co_code, code.co_consts) == (known.co_code, known.co_consts):
            return name
    return None


def supports_ragged_batch(model: Any) -> bool:
    """Whether every layer takes the rows of several texts in one call (`Ragged`)."""
    parts = _fused_blocks(model)
    return all(parts) and parts[0].takes(model.model.embed_tokens(mx.array([0])))


def fused_layers(model: Any) -> tuple[int, int]:
    """How many of a model's layers are fused ones, and how many it has."""
    parts = _fused_blocks(model)
    return sum(part is not None for part in parts), len(parts)


# ---------------------------------------------------------------- fused methods, in place of MLX-LM's


def _update_and_fetch(self: Any, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
    """KVCache's, which leaves only the growth of the buffers to MLX-LM's own."""
    start, stop = self.offset, self.offset + keys.shape[2]
    if self.keys is not None:  # begun by a layer, perhaps, which stores float16
        keys, values = keys.astype(self.keys.dtype), values.astype(self.values.dtype)
    if self.keys is None or stop > self.keys.shape[2]:
        return _unfused["update_and_fetch"](self, keys, values)
    self.offset = stop
    self.keys, keys = ext.append(self.keys, keys, start)
    self.values, values = ext.append(self.values, values, start)
    return keys, values


def _attention(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
    """Attention whose work between the projections is one op, where the cache has room for it."""
    rope = _once(self.rope, _make_rope)
    if rope is None or not (_sees_all(cache, mask) and _has_room(cache, x.shape[1])):
        return _unfused["Attention"](self, x, mask, cache)
    q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
    if not q.dtype == k.dtype == v.dtype == cache.keys.dtype == cache.values.dtype:
        return _unfused["Attention"](self, x, mask, cache)
    y, cache.keys, cache.values = ext.attention_step(
        q=q, k=k, v=v, keys=cache.keys, values=cache.values,
        rope=rope, offset=cache.offset, scale=self.scale, causal=mask is not None,
    )  # fmt: skip
    cache.offset += x.shape[1]
    return self.o_proj(y)


def _block(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
    """A block as one op, where its weights are quantised and its cache holds all that a position sees."""
    layer = _once(self, _make_layer)
    if layer is None or not layer.takes(x) or not _sees_all(cache, mask):
        if layer is not None and hasattr(cache, "kv_dtype"):
            cache.kv_dtype = layer.kv_dtype
        return _unfused["TransformerBlock"](self, x, mask, cache)
    return _run(layer, x, [cache], causal=mask is not None)


def _model(self: Any, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None) -> mx.array:
    """A model as one op for all its blocks: Python and MLX do half as much for a token.

    Of a ragged batch, the rows whose logits are wanted."""
    layers = _once(self, _stack)
    if layers is None or input_embeddings is not None or not _equally_far(cache, len(self.layers)):
        return _unfused["LlamaModel"](self, inputs, cache, input_embeddings)
    x = self.embed_tokens(inputs)
    if not layers.takes(x):
        return _unfused["LlamaModel"](self, inputs, cache)
    x = _run(layers, x, cache, causal=True)
    wanted = getattr(cache[0], "wanted", None)
    return self.norm(x if wanted is None else x[:, wanted])


FUSED = {"Attention": _attention, "TransformerBlock": _block, "LlamaModel": _model}


def _run(layers: _ext.DecoderLayers, x: mx.array, caches: Sequence[Any], *, causal: bool) -> mx.array:
    """Layers over their caches, MLX-LM's or a ragged batch's, which get room and the new rows."""
    if isinstance(caches[0], Ragged):
        return _write(layers, x, caches)
    B, L, _ = x.shape
    for cache in caches:
        if not _has_room(cache, L):
            _reserve(cache, (B, layers.kv_heads, L, layers.head_dims), layers.kv_dtype)
    keys, values = [cache.keys for cache in caches], [cache.values for cache in caches]
    y, keys, values = layers(x, keys, values, caches[0].offset, causal=causal)
    for cache, new_keys, new_values in zip(caches, keys, values, strict=True):
        cache.keys, cache.values = new_keys, new_values
        cache.offset += L
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
    attention, mlp = block.self_attn, block.mlp
    norms = block.input_layernorm, block.post_attention_layernorm
    if kind(type(attention).__call__) != "Attention" or kind(type(mlp).__call__) != "MLP":
        return None
    linears = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    linears += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    updates = [_update(linear) for linear in linears]
    linears = [linear.linear if update else linear for linear, update in zip(linears, updates, strict=True)]
    rope = _once(attention.rope, _make_rope)
    if rope is None or not all(map(_is_affine, linears)) or any(type(norm).__name__ != "RMSNorm" for norm in norms):
        return None
    try:
        return ext.DecoderLayers(
            linears=[(x.weight, x.scales, x.biases, x.group_size, x.bits) for x in linears],
            norms=[(norm.weight, norm.eps) for norm in norms],
            rope=rope, heads=attention.n_heads, kv_heads=attention.n_kv_heads, scale=attention.scale, updates=updates,
        )  # fmt: skip
    except ValueError:  # floating point in 4 bits, say
        return None


def _update(linear: Any) -> tuple[mx.array, mx.array, float] | None:
    """(a, b, scale) of an adapter's layer that adds no more than that: x W + scale (x a) b."""
    if type(linear).__name__ != "LoRALinear" or linear.gain is not None:
        return None
    return linear.lora_a, linear.lora_b, linear.scale


def _is_affine(linear: Any) -> bool:
    return type(linear).__name__ == "QuantizedLinear" and "bias" not in linear and linear.mode == "affine"


def _fused_blocks(model: Any) -> list[Any]:
    """The fused form of each block, None for one that has none."""
    blocks = getattr(model, "layers", [])
    return [_once(block, _make_layer) if type(block).__call__ is _block else None for block in blocks]


def _stack(model: Any) -> _ext.DecoderLayers | None:
    """All blocks as one, None where one has no fused form or sees a window alone."""
    parts = _fused_blocks(model)
    if not all(parts) or model.swa_idx is not None:
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
    if not caches or len(caches) != count or not all(_sees_all(cache, None) for cache in caches):
        return False
    return len({getattr(cache, "offset", None) for cache in caches}) == 1


def _has_room(cache: Any, length: int) -> bool:
    return cache.keys is not None and cache.offset + length <= cache.keys.shape[2]


def _reserve(cache: Any, shape: tuple[int, int, int, int], dtype: mx.Dtype) -> None:
    """Let MLX-LM's cache grow as it does, for new positions (B, H, L, D) that are stored later."""
    rows = mx.zeros(shape, dtype)
    cache.update_and_fetch(rows, rows)
    cache.offset -= shape[2]
