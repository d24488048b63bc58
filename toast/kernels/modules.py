"""Owns the shorter ways through MLX-LM's shared modules: SwiGLU as one op, a cache update as one call.

Does not know any architecture; what MLX-LM computes stays the same to the last shape and dtype.
"""
import sys

from toast.kernels import replace


def shorten(ext):
    """Use the extension's ops in mlx_lm.models, in model files loaded before and after this call."""
    from mlx_lm.models import activations, cache

    swiglu = activations.swiglu
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models.") and getattr(module, "swiglu", None) is swiglu:
            replace(module, "swiglu", ext.swiglu)
    if cache.KVCache.update_and_fetch.__module__ != __name__:
        replace(cache.KVCache, "update_and_fetch", _appending(cache.KVCache.update_and_fetch, ext.append))


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
