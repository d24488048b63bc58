"""Replaces what MLX-LM does step by step in layers with a state: the gated delta rule, Mamba-2's and RWKV-7's, and
gated delta nets whole.

Knows MLX-LM's functions, and some of its methods by their code; what a release has changed is left alone. A batch with
padding (`mask`, `lengths`) is MLX-LM's own to do.
"""

from __future__ import annotations

import sys
from zlib import crc32

import mlx.core as mx

from toast.kernels.replaced import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    Part = tuple[int, int, int, int]  # which projection, its first column, columns a group of heads, heads in a group

ext: Any = None  # the extension, whose ops are used here; set by fuse()

# file, class, method -> what it refers to, as a CRC-32 of the names
METHODS = {
    ("qwen3_next", "Qwen3NextGatedDeltaNet", "__call__"): 0xCBE83C30,
    ("qwen3_5", "GatedDeltaNet", "__call__"): 0x506F42AC,
    ("qwen3_next", "Qwen3NextDecoderLayer", "__call__"): 0x1F324C66,
    ("qwen3_5", "DecoderLayer", "__call__"): 0x1F324C66,
    ("rwkv7", "Rwkv7TimeMixing", "_wkv7"): 0x01B3FA2F,
}

_unfused: dict[str, Any] = {}  # a function's or class's name -> the function, or the method, as MLX-LM wrote it


def fuse(extension: Any) -> None:
    """Use its ops in the models of mlx_lm that are loaded; call it again after loading others."""
    global ext
    ext = extension
    loaded = {name[14:]: module for name, module in list(sys.modules.items()) if name.startswith("mlx_lm.models.")}
    for file, function in FUNCTIONS:
        if file in loaded:
            _replace_everywhere(loaded, file, function)
    for (file, name, method), ours in OURS.items():
        put(loaded.get(file), name, method, METHODS[file, name, method], ours)


def put(module: ModuleType | None, name: str, method: str, code: int, ours: Any) -> None:
    """Put ours in the place of a class's method, where it is the one that we know."""
    theirs = getattr(getattr(module, name, None), method, None)
    if theirs is not None and theirs is not ours and names(theirs) == code:
        _unfused.setdefault(name, theirs)
        replace(getattr(module, name), method, ours)


def _replace_everywhere(loaded: dict[str, ModuleType], file: str, function: str) -> None:
    """Put ours in the place of a file's function, there and where it was imported."""
    theirs, ours = _unfused.setdefault(function, getattr(loaded[file], function)), FUNCTIONS[file, function]
    for module in loaded.values():
        if getattr(module, function, None) is theirs:
            replace(module, function, ours)


def names(function: Any) -> int:
    """What a function refers to, as a number."""
    return crc32(" ".join(getattr(function, "__code__", fuse.__code__).co_names).encode())


# ---------------------------------------------------------------- in place of MLX-LM's


def _gated_delta_update(
    q: mx.array, k: mx.array, v: mx.array, a: mx.array, b: mx.array, A_log: mx.array, dt_bias: mx.array,
    state: mx.array | None = None, mask: mx.array | None = None, *,
    use_kernel: bool = True, lower_bound: float | None = None, allow_neg_eigval: bool = False,
) -> tuple[mx.array, mx.array]:  # fmt: skip
    """q, k (B, T, heads, dk), v (B, T, v_heads, dv), a (B, T, v_heads[, dk]), b (B, T, v_heads) -> y, state."""
    from mlx_lm.models import gated_delta

    if mask is not None:
        more = {"use_kernel": use_kernel, "lower_bound": lower_bound, "allow_neg_eigval": allow_neg_eigval}
        return _unfused["gated_delta_update"](q, k, v, a, b, A_log, dt_bias, state, mask, **more)
    beta = mx.sigmoid(b)
    if lower_bound is None:
        g = gated_delta.compute_g(A_log, a, dt_bias)
    else:
        g = gated_delta.compute_lower_bound_g(A_log, a, dt_bias, lower_bound)
    return ext.gated_delta(q=q, k=k, v=v, g=g, beta=beta * 2.0 if allow_neg_eigval else beta, state=state)


def _ssm_update(
    hidden_states: mx.array, A_log: mx.array, B: mx.array, C: mx.array, D: mx.array, dt: mx.array, dt_bias: mx.array,
    state: mx.array | None = None, time_step_limit: tuple[float, float] = (0.001, 100.0),
    mask: mx.array | None = None, lengths: mx.array | None = None,
) -> tuple[mx.array, mx.array]:  # fmt: skip
    """Hidden states (B, T, heads, D), B, C (B, T, groups, N), dt (B, T, heads) -> y as them, state (B, heads, D, N)."""
    if mask is not None or lengths is not None:
        inputs = hidden_states, A_log, B, C, D, dt, dt_bias, state, time_step_limit
        return _unfused["ssm_update"](*inputs, mask=mask, lengths=lengths)
    return ext.state_space(
        x=hidden_states, B=B, C=C, dt=dt, A_log=A_log, D=D, dt_bias=dt_bias, limits=tuple(time_step_limit), state=state
    )


def _wkv7(
    self: Any, r: mx.array, w: mx.array, k: mx.array, v: mx.array, a: mx.array, b: mx.array, state: mx.array | None
) -> tuple[mx.array, mx.array]:
    """Six of (B, T, heads, D) -> y as them, state (B, heads, D, D)."""
    return ext.wkv7(r=r, w=w, k=k, v=v, a=a, b=b, state=state)


def _delta_net(self: Any, inputs: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
    """Qwen3-Next's and Qwen3.5's, between its projections one op."""
    net, projections = form(self)
    if net is None or not plain(mask, cache) or getattr(self, "sharding_group", None) is not None:
        return _unfused[type(self).__name__](self, inputs, mask, cache)
    return self.out_proj(run(net, [project(inputs) for project in projections], cache))


def _layer(self: Any, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
    """Qwen3-Next's and Qwen3.5's layer, with our sums."""
    mix = self.linear_attn if self.is_linear else self.self_attn
    h = ext.add(x, mix(self.input_layernorm(x), mask, cache))
    return ext.add(h, self.mlp(self.post_attention_layernorm(h)))


FUNCTIONS = {("gated_delta", "gated_delta_update"): _gated_delta_update, ("ssm", "ssm_update"): _ssm_update}
OURS = {
    ("qwen3_next", "Qwen3NextGatedDeltaNet", "__call__"): _delta_net,
    ("qwen3_5", "GatedDeltaNet", "__call__"): _delta_net,
    ("qwen3_next", "Qwen3NextDecoderLayer", "__call__"): _layer,
    ("qwen3_5", "DecoderLayer", "__call__"): _layer,
    ("rwkv7", "Rwkv7TimeMixing", "_wkv7"): _wkv7,
}


def plain(mask: mx.array | None, cache: Any) -> bool:
    """Whether nothing of a batch is padding."""
    return mask is None and (cache is None or cache.lengths is None)


def run(mixer: Any, projected: list[mx.array], cache: Any) -> mx.array:
    """What a mixer gives, whose cache gets what it keeps."""
    y, *after = mixer(projected, *state(cache))
    keep(cache, y.shape[1], *after)
    return y


def state(cache: Any) -> tuple[mx.array | None, mx.array | None]:
    """What was convolved before, and a mixer's states, or None."""
    arrays = [] if cache is None else cache.cache
    return (*arrays, None, None)[:2]


def keep(cache: Any, steps: int, *after: mx.array) -> None:
    """The same after some steps; a mixer without states has a cache of one array."""
    if cache is not None:
        cache.cache[:] = after[: len(cache.cache)]
        cache.advance(steps)


# ---------------------------------------------------------------- a layer's op


def form(layer: Any) -> tuple[Any, list[Any]]:
    """A gated delta net's op, made once, and the projections that it takes; None where the extension lacks its form."""
    joined = "in_proj_qkvz" in layer
    if "fused" not in layer.__dict__:
        layer.fused = _make_net(layer, _next_parts(layer) if joined else _qwen35_parts(layer))
    names = ("qkvz", "ba") if joined else ("qkv", "z", "a", "b")
    return layer.fused, [layer[f"in_proj_{name}"] for name in names]


def _make_net(layer: Any, parts: list[Part]) -> Any:
    try:
        return ext.gated_delta_net(
            heads=(layer.num_k_heads, layer.num_v_heads, layer.head_k_dim, layer.head_v_dim), parts=parts,
            conv=layer.conv1d.weight, A_log=layer.A_log, dt_bias=layer.dt_bias,
            norm=layer.norm.weight, eps=layer.norm.eps,
        )  # fmt: skip
    except ValueError:  # a longer convolution, say
        return None


def _next_parts(layer: Any) -> list[Part]:
    """q, k, v, z, and b, a: side by side for each head of keys."""
    each, dk = layer.num_v_heads // layer.num_k_heads, layer.head_k_dim
    values = each * layer.head_v_dim
    group = 2 * dk + 2 * values
    parts = [(0, 0, group, 1), (0, dk, group, 1), (0, 2 * dk, group, each), (0, 2 * dk + values, group, each)]
    return [*parts, (1, each, 2 * each, each), (1, 0, 2 * each, each)]


def _qwen35_parts(layer: Any) -> list[Part]:
    """All q, then all k, then all v; z, a and b of their own."""
    keys, values, width = layer.num_k_heads, layer.num_v_heads, layer.key_dim
    parts = [(0, 0, 0, keys), (0, width, 0, keys), (0, 2 * width, 0, values)]
    return [*parts, *((which, 0, 0, values) for which in (1, 2, 3))]
