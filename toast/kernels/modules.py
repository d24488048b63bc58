"""Owns the shorter ways through MLX-LM's modules: SwiGLU, a cache update, an attention step, and decoder layers,
alone or all at once, which also take texts of different lengths in one call.

Knows the code of one architecture, Llama's, which a dozen model files repeat word for word.
Does not change what is computed: the same kernels in the same order. Layers in float32 keep keys and values in half
precision, and the long way over a cache that they began does too: the same bits again.
"""

import sys

import mlx.core as mx

from toast.kernels import replace

# What Llama's classes refer to in __call__. If a release of MLX-LM says something else, it is left alone.
NAMES = {
    "Attention": ("shape", "q_proj", "k_proj", "v_proj", "reshape", "n_heads", "transpose", "n_kv_heads", "rope",
                  "offset", "update_and_fetch", "scaled_dot_product_attention", "scale", "o_proj"),
    "MLP": ("down_proj", "swiglu", "gate_proj", "up_proj"),
    "TransformerBlock": ("self_attn", "input_layernorm", "mlp", "post_attention_layernorm"),
    "LlamaModel": ("embed_tokens", "len", "layers", "create_attention_mask", "fa_idx", "swa_idx", "sliding_window", "zip",
                   "use_sliding", "norm"),
}  # fmt: skip

_originals = {}  # class name -> Llama's __call__ as MLX-LM wrote it


def shorten(ext):
    """Use the extension's ops in the models of mlx_lm that are loaded; call it again after loading others."""
    from mlx_lm.models import activations, cache, llama

    for name in NAMES:
        _originals.setdefault(name, getattr(llama, name).__call__)
    if cache.KVCache.update_and_fetch.__module__ != __name__:
        replace(cache.KVCache, "update_and_fetch", _appending(cache.KVCache.update_and_fetch, ext.append))
    shorter = {
        "Attention": _stepping(ext.attention_step),
        "TransformerBlock": _layering(ext.DecoderLayers),
        "LlamaModel": _stacking(ext.DecoderLayers),
    }
    swiglu = activations.swiglu
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models."):
            if getattr(module, "swiglu", None) is swiglu:
                replace(module, "swiglu", ext.swiglu)
            for cls in list(vars(module).values()):
                call = vars(cls).get("__call__") if isinstance(cls, type) else None
                if _kind(call) in shorter and not hasattr(call, "instead_of"):
                    replace(cls, "__call__", shorter[_kind(call)])


def _kind(function):
    """Which of Llama's classes a __call__ belongs to by its code, or None."""
    function = getattr(function, "instead_of", function)
    code = getattr(function, "__code__", None)
    for name, original in _originals.items():
        known = original.__code__
        same = code and code.co_names == NAMES[name] == known.co_names
        if same and (code.co_code, code.co_consts) == (known.co_code, known.co_consts):
            return name


def _appending(grow, append):
    """update_and_fetch that leaves only the growth of the buffers to MLX-LM's own."""

    def update_and_fetch(self, keys, values):
        start, stop = self.offset, self.offset + keys.shape[2]
        if self.keys is not None:  # begun by a layer, perhaps, which keeps them narrower
            keys, values = keys.astype(self.keys.dtype), values.astype(self.values.dtype)
        if self.keys is None or stop > self.keys.shape[2]:
            return grow(self, keys, values)
        self.offset = stop
        self.keys, keys = append(self.keys, keys, start)
        self.values, values = append(self.values, values, start)
        return keys, values

    return update_and_fetch


def _stepping(step):
    """Attention whose work between the projections is one op, where the cache has room for it."""
    plain = _originals["Attention"]

    def attention(self, x, mask=None, cache=None):
        rope = _rope(self.rope)
        if rope is None or not (_plain(cache, mask) and _room(cache, x.shape[1])):
            return plain(self, x, mask, cache)
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if not q.dtype == k.dtype == v.dtype == cache.keys.dtype == cache.values.dtype:
            return plain(self, x, mask, cache)
        y, cache.keys, cache.values = step(
            q, k, v, cache.keys, cache.values, cache.offset, self.n_heads, self.n_kv_heads, self.scale,
            mask is not None, *rope,
        )  # fmt: skip
        cache.offset += x.shape[1]
        return self.o_proj(y)

    attention.instead_of = plain
    return attention


def _layering(DecoderLayers):
    """A block as one call of the extension, where its weights are quantised and its cache is plain."""
    plain = _originals["TransformerBlock"]

    def block(self, x, mask=None, cache=None):
        layer = block.shorter(self)
        if layer is None or not layer.takes(x) or not _plain(cache, mask):
            if layer is not None and hasattr(cache, "kv_dtype"):
                cache.kv_dtype = layer.kept
            return plain(self, x, mask, cache)
        return _run(layer, x, [cache], mask is not None)

    block.instead_of, block.shorter = plain, _remembered(lambda self: _layer(self, DecoderLayers))
    return block


def _stacking(DecoderLayers):
    """A model as one call for all its blocks: Python and MLX do half as much for a token."""
    plain = _originals["LlamaModel"]

    def model(self, inputs, cache=None, input_embeddings=None):
        layers = model.shorter(self)
        if layers is None or input_embeddings is not None or not _even(cache, len(self.layers)):
            return plain(self, inputs, cache, input_embeddings)
        x = self.embed_tokens(inputs)
        return self.norm(_run(layers, x, cache, True)) if layers.takes(x) else plain(self, inputs, cache)

    model.instead_of, model.shorter = plain, _remembered(lambda self: _all_layers(self, DecoderLayers))
    return model


def _remembered(make):
    """A function that gives what make(module) gave the first time, which stays with the module."""

    def shorter(self):
        if "shorter" not in self.__dict__:
            self.shorter = make(self)
        return self.shorter

    return shorter


def _parts(model) -> list:
    """The extension's form of each block, None for one that has none."""
    return [getattr(type(block).__call__, "shorter", lambda block: None)(block) for block in model.layers]


def _all_layers(model, DecoderLayers):
    """The extension's form of all blocks, None where one has none or sees a window alone."""
    parts = _parts(model)
    if not all(parts) or model.swa_idx is not None:
        return None
    try:
        return DecoderLayers.together(parts)
    except ValueError:  # layers of several shapes
        return None


def _run(layers, x, caches, causal):
    """Layers over their caches, which get room and the new rows: plain ones, or those of several texts."""
    if getattr(caches[0], "ragged", False):
        texts = caches[0].segments
        for cache in caches:
            cache.reserve(layers.kv_heads, layers.head_dims, layers.kept)
    else:
        B, L, _ = x.shape
        texts = [(row, L, caches[0].offset) for row in range(B)]
        for cache in caches:
            if not _room(cache, L):
                _reserve(cache, (B, layers.kv_heads, L, layers.head_dims), layers.kept)
    y, keys, values = layers(x, [c.keys for c in caches], [c.values for c in caches], texts, causal)
    for cache, new_keys, new_values in zip(caches, keys, values):
        cache.keys, cache.values = new_keys, new_values
        if hasattr(cache, "offset"):
            cache.offset += x.shape[1]
    return y


def supports_ragged_batch(model) -> bool:
    """Whether every layer takes the rows of several texts in one call."""
    parts = _parts(model)
    return all(parts) and parts[0].takes(model.model.embed_tokens(mx.array([0])))


def _layer(block, DecoderLayers):
    """The extension's form of a block, None where it has none."""
    attention, mlp = block.self_attn, block.mlp
    kinds = _kind(type(attention).__call__), _kind(type(mlp).__call__)
    norms = block.input_layernorm, block.post_attention_layernorm
    if kinds != ("Attention", "MLP") or any(type(norm).__name__ != "RMSNorm" for norm in norms):
        return None
    linears = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    linears += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    rope = _rope(attention.rope)
    if rope is None or any(type(x).__name__ != "QuantizedLinear" or "bias" in x or x.mode != "affine" for x in linears):
        return None
    try:
        return DecoderLayers(
            [(x.weight, x.scales, x.biases, x.group_size, x.bits) for x in linears],
            norms[0].weight, norms[0].eps, norms[1].weight, norms[1].eps,
            attention.n_heads, attention.n_kv_heads, attention.scale, *rope,
        )  # fmt: skip
    except ValueError:  # 3 bits, say
        return None


def _plain(cache, mask) -> bool:
    """Whether these are plain keys and values, MLX-LM's or a ragged batch's, all of which a position sees that come before it."""
    plain = type(cache).__name__ == "KVCache" or getattr(cache, "ragged", False)
    return plain and (mask is None or isinstance(mask, str))


def _even(caches, count) -> bool:
    """Whether there is a plain cache for each of `count` layers, all equally far."""
    if not caches or len(caches) != count or not all(_plain(cache, None) for cache in caches):
        return False
    return len({getattr(cache, "offset", None) for cache in caches}) == 1


def _room(cache, length) -> bool:
    return cache.keys is not None and cache.offset + length <= cache.keys.shape[2]


def _reserve(cache, shape, dtype) -> None:
    """Let MLX-LM's cache grow as it does, for new positions (B, H, L, D) that are written later."""
    rows = mx.zeros(shape, dtype)
    cache.update_and_fetch(rows, rows)
    cache.offset -= shape[2]


def _rope(rope):
    """(dims, traditional, base, scale, frequencies) of the two kinds that are no more than that."""
    kind = type(rope).__name__
    if kind == "RoPE":
        return rope.dims, rope.traditional, rope.base, rope.scale, None
    if kind == "Llama3RoPE":
        return rope.dims, rope.traditional, None, 1.0, rope._freqs
