"""Owns the shorter ways through MLX-LM's modules: SwiGLU, a cache update and an attention step as one op each.

Knows the code of one architecture, Llama's attention, which a dozen model files repeat word for word.
Does not change what is computed: the same kernels in the same order, the same bits.
"""
import sys

from toast.kernels import replace

# What that code refers to. If a release of MLX-LM says something else, it is left alone.
NAMES = ("shape", "q_proj", "k_proj", "v_proj", "reshape", "n_heads", "transpose", "n_kv_heads", "rope", "offset",
         "update_and_fetch", "scaled_dot_product_attention", "scale", "o_proj")  # fmt: skip

_attention = None  # llama.Attention.__call__ as MLX-LM wrote it


def shorten(ext):
    """Use the extension's ops in the models of mlx_lm that are loaded; call it again after loading others."""
    global _attention
    from mlx_lm.models import activations, cache, llama

    _attention = _attention or llama.Attention.__call__
    if cache.KVCache.update_and_fetch.__module__ != __name__:
        replace(cache.KVCache, "update_and_fetch", _appending(cache.KVCache.update_and_fetch, ext.append))
    swiglu = activations.swiglu
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models."):
            if getattr(module, "swiglu", None) is swiglu:
                replace(module, "swiglu", ext.swiglu)
            for cls in list(vars(module).values()):
                if isinstance(cls, type) and _same(vars(cls).get("__call__")):
                    replace(cls, "__call__", _stepping(ext.attention_step, cache.KVCache))


def _same(function):
    code, known = getattr(function, "__code__", None), _attention.__code__
    return code and code.co_names == NAMES and (code.co_code, code.co_consts) == (known.co_code, known.co_consts)


def _appending(grow, append):
    """update_and_fetch that leaves only the growth of the buffers to MLX-LM's own."""

    def update_and_fetch(self, keys, values):
        start, stop = self.offset, self.offset + keys.shape[2]
        if self.keys is None or stop > self.keys.shape[2]:
            return grow(self, keys, values)
        self.offset = stop
        self.keys, keys = append(self.keys, keys, start)
        self.values, values = append(self.values, values, start)
        return keys, values

    return update_and_fetch


def _stepping(step, KVCache):
    """Attention whose work between the projections is one op, where the cache has room for it."""

    def attention(self, x, mask=None, cache=None):
        length, rope = x.shape[1], _rope(self.rope)
        room = type(cache) is KVCache and cache.keys is not None and cache.offset + length <= cache.keys.shape[2]
        if not room or rope is None or not (mask is None or isinstance(mask, str)):
            return _attention(self, x, mask, cache)
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if not q.dtype == k.dtype == v.dtype == cache.keys.dtype == cache.values.dtype:
            return _attention(self, x, mask, cache)
        y, cache.keys, cache.values = step(
            q, k, v, cache.keys, cache.values, cache.offset, self.n_heads, self.n_kv_heads, self.scale,
            mask is not None, *rope,
        )  # fmt: skip
        cache.offset += length
        return self.o_proj(y)

    return attention


def _rope(rope):
    """(dims, traditional, base, scale, frequencies) of the two kinds that are no more than that."""
    kind = type(rope).__name__
    if kind == "RoPE":
        return rope.dims, rope.traditional, rope.base, rope.scale, None
    if kind == "Llama3RoPE":
        return rope.dims, rope.traditional, None, 1.0, rope._freqs
