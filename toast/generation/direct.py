"""A quantised Llama, Qwen 2 or Qwen 3 straight from its tensors, without MLX-LM's file, MLX's layers and what these
import: a third of a short answer's time.

Owns which settings and tensors it is sure of. The ops are those of the layers (`kernels/modules.py`), so bits are the
same; whatever else is asked of such a model is asked of the whole one, which is made then.
"""

from __future__ import annotations

from _thread import allocate_lock

import mlx.core as mx

from toast import kernels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]
    Tensors = dict[str, mx.array]

BITS, GROUPS = {2, 3, 4, 5, 6, 8}, {32, 64, 128}
SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")
PLAIN: dict[str, Config] = {  # model_type -> the settings whose other values mean other ops
    "llama": {"attention_bias": False, "mlp_bias": False, "rope_traditional": False, "sliding_window": None,
              "layer_types": None},
    "qwen2": {"rope_traditional": False, "use_sliding_window": False},
    "qwen3": {"attention_bias": False, "use_sliding_window": False},
}  # fmt: skip
BASES = {"llama": 10_000, "qwen2": 1_000_000}  # rope_theta where none is told; Qwen 3 tells
STEP = 256  # positions that a cache grows by, as MLX-LM's


class KVCache:
    """Keys and values (B, H, T, D) of a layer, with the methods of MLX-LM's class of this name."""

    step = STEP

    def __init__(self) -> None:
        self.keys: Any = None
        self.values: Any = None
        self.offset = 0

    def reserve(self, shape: tuple[int, int, int, int], dtype: mx.Dtype) -> None:
        """Room for new positions (B, H, L, D)."""
        stop = self.offset + shape[2]
        if self.keys is not None and stop <= self.keys.shape[2]:
            return
        more = (shape[0], shape[1], (STEP + shape[2] - 1) // STEP * STEP, shape[3])
        if self.keys is None:
            self.keys, self.values = mx.zeros(more, dtype), mx.zeros(more, dtype)
            return
        kept = (..., slice(self.offset), slice(None))
        self.keys = mx.concatenate([self.keys[kept], mx.zeros(more, dtype)], axis=2)
        self.values = mx.concatenate([self.values[kept], mx.zeros(more, dtype)], axis=2)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.reserve(keys.shape, keys.dtype if self.keys is None else self.keys.dtype)  # type: ignore[arg-type]
        start, self.offset = self.offset, self.offset + keys.shape[2]
        self.keys[..., start : self.offset, :] = keys.astype(self.keys.dtype)
        self.values[..., start : self.offset, :] = values.astype(self.values.dtype)
        return self.keys[..., : self.offset, :], self.values[..., : self.offset, :]

    @property
    def state(self) -> tuple[mx.array, mx.array, int]:
        return self.keys, self.values, self.offset

    @state.setter
    def state(self, state: tuple[mx.array, mx.array, int]) -> None:
        self.keys, self.values, self.offset = state

    def size(self) -> int:
        return self.offset

    def empty(self) -> bool:
        return self.keys is None

    def is_trimmable(self) -> bool:
        return True

    def trim(self, n: int) -> int:
        n = min(self.offset, n)
        self.offset -= n
        return n

    def make_mask(self, *args: Any, **kwargs: Any) -> Any:
        from mlx_lm.models import cache  # which the whole model has imported

        mask: Any = cache.create_attention_mask
        return mask(*args, offset=self.offset, **kwargs)


class Matrix:
    """Quantised weights (rows, width) as ops take them."""

    def __init__(self, tensors: list[mx.array], group: int, bits: int) -> None:
        self.weight, self.scales, self.biases = tensors
        self.form: dict[str, Any] = {"group_size": group, "bits": bits, "mode": "affine"}

    def rows(self, ids: mx.array) -> mx.array:
        return mx.dequantize(self.weight[ids], self.scales[ids], self.biases[ids], **self.form)

    def product(self, x: mx.array) -> mx.array:
        return mx.quantized_matmul(x, self.weight, self.scales, self.biases, transpose=True, **self.form)

    def linear(self) -> tuple[mx.array, mx.array, mx.array, int, int]:
        return self.weight, self.scales, self.biases, self.form["group_size"], self.form["bits"]


class Direct:
    """What decoder.load gives for such a model. whole: makes MLX-LM's."""

    def __init__(self, reader: _Reader, whole: Callable[[], Any]) -> None:
        self._embedding = reader.matrix("model.embed_tokens", reader.vocabulary, reader.hidden)
        self._head = self._embedding
        if not reader.tied:
            self._head = reader.matrix("lm_head", reader.vocabulary, reader.hidden)
        self._norm, self._eps = reader.norm("model.norm"), reader.eps
        self._layers, self._count = kernels.DecoderLayers.stack(reader.layers()), reader.count
        self._make, self._whole, self._lock = whole, None, allocate_lock()

    def make_cache(self) -> list[KVCache]:
        return [KVCache() for _ in range(self._count)]

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        """inputs (B, L) -> logits (B, L, V)."""
        states = self._states(inputs, cache)
        return self.whole(inputs, cache=cache) if states is None else self._logits(states)

    def last(self, inputs: mx.array, cache: Any) -> mx.array | None:
        """Of the last place alone: (B, 1, V); None where it takes the whole model."""
        states = self._states(inputs, cache)
        return None if states is None else self._logits(states[:, -1:])

    def _logits(self, states: mx.array) -> mx.array:
        return self._head.product(mx.fast.rms_norm(states, self._norm, self._eps))

    def _states(self, inputs: mx.array, caches: Any) -> mx.array | None:
        """What the layers make; None where these caches are not their own."""
        if not caches or len(caches) != self._count or any(type(cache) is not KVCache for cache in caches):
            return None
        x = self._embedding.rows(inputs)
        offset, layers = caches[0].offset, self._layers
        if not layers.takes(x) or any(cache.offset != offset for cache in caches):
            return None
        B, L, _ = x.shape
        for cache in caches:
            cache.reserve((B, layers.kv_heads, L, layers.head_dims), layers.kv_dtype)
        keys, values = [cache.keys for cache in caches], [cache.values for cache in caches]
        y, keys, values = layers(x, keys, values, offset, causal=True)
        for cache, cache.keys, cache.values in zip(caches, keys, values, strict=True):
            cache.offset += L
        return y

    def fused_layers(self) -> tuple[int, int]:
        return self._count, self._count

    @property
    def whole(self) -> Any:
        """MLX-LM's model of the same weights."""
        with self._lock:
            if self._whole is None:
                self._whole = self._make()
        return self._whole

    @property
    def layers(self) -> Any:
        return self.whole.layers

    @property
    def model(self) -> Any:
        return self.whole.model


def model(config: Config, tensors: Tensors, quantization: Any, *, whole: Callable[[], Any]) -> Direct | None:
    """The model of these tensors; None for any that is not surely of this kind, or that is wrong."""
    if not isinstance(quantization, dict):
        return None
    try:
        reader = _Reader(config, tensors, quantization)
        found = Direct(reader, whole)
        return found if not reader.left else None
    except (KeyError, ValueError, TypeError, ArithmeticError):
        return None


def may_be(config: Config) -> bool:
    """Whether a configuration is that of such a model."""
    if kernels.DecoderLayers is None:
        return False
    sizes = all(type(config.get(name)) is int and config[name] > 0 for name in SIZES)
    settings = PLAIN.get(str(config.get("model_type")))
    if settings is None or not sizes or "text_config" in config:
        return False
    scaling = config.get("rope_scaling") or {"rope_type": "llama3"}
    llama3 = isinstance(scaling, dict) and scaling.get("rope_type") == "llama3"
    return llama3 and all(config.get(name, x) == x for name, x in settings.items())


class _Reader:
    """A checkpoint's tensors by the layers' parts. ValueError, KeyError where one is not as it should be.

    left: names of tensors that nothing has asked for."""

    def __init__(self, config: Config, tensors: Tensors, quantization: Config) -> None:
        self.tensors, self.quantization, self.left = tensors, quantization, set(tensors)
        self.hidden, self.count, self.inner, self.heads, self.vocabulary = (config[name] for name in SIZES)
        self.kv_heads = config.get("num_key_value_heads") or self.heads
        self.dims = config.get("head_dim") or self.hidden // self.heads
        self.kind, self.eps = config["model_type"], config["rms_norm_eps"]
        self.tied = config.get("tie_word_embeddings", True)
        base, scaling = config.get("rope_theta") or BASES[self.kind], config.get("rope_scaling")
        freqs = _llama3_frequencies(self.dims, base, scaling) if scaling else None
        self.rope = kernels.Rope(
            dims=self.dims, traditional=False, base=None if scaling else base, scale=1.0, freqs=freqs
        )

    def _take(self, name: str, shape: tuple[int, ...]) -> mx.array:
        found = self.tensors[name]
        self.left.discard(name)
        if found.shape != shape:
            raise ValueError(name)
        return found

    def norm(self, name: str, size: int | None = None) -> mx.array:
        return self._take(f"{name}.weight", (size or self.hidden,))

    def matrix(self, name: str, rows: int, width: int) -> Matrix:
        """With the sizes that its tensors tell, and the settings must not contradict."""
        words, groups = (self.tensors[f"{name}.{part}"].shape[-1] for part in ("weight", "scales"))
        bits, group = words * 32 // width, width // groups
        settings = self.quantization.get(name, {})
        wanted = bits, group, "affine"
        if settings and (settings["bits"], settings["group_size"], settings.get("mode", "affine")) != wanted:
            raise ValueError(name)
        if bits not in BITS or group not in GROUPS or width % group:
            raise ValueError(name)
        weight = self._take(f"{name}.weight", (rows, width * bits // 32))
        scales, biases = (self._take(f"{name}.{part}", (rows, width // group)) for part in ("scales", "biases"))
        if weight.dtype != mx.uint32 or scales.dtype != biases.dtype:
            raise ValueError(name)
        return Matrix([weight, scales, biases], group, bits)

    def layers(self) -> list[Any]:
        return [self._layer(f"model.layers.{i}") for i in range(self.count)]

    def _layer(self, name: str) -> Any:
        q, kv, attention, mlp = self.heads * self.dims, self.kv_heads * self.dims, f"{name}.self_attn", f"{name}.mlp"
        matrices = [
            self.matrix(f"{attention}.q_proj", q, self.hidden), self.matrix(f"{attention}.k_proj", kv, self.hidden),
            self.matrix(f"{attention}.v_proj", kv, self.hidden), self.matrix(f"{attention}.o_proj", self.hidden, q),
            self.matrix(f"{mlp}.gate_proj", self.inner, self.hidden),
            self.matrix(f"{mlp}.up_proj", self.inner, self.hidden),
            self.matrix(f"{mlp}.down_proj", self.hidden, self.inner),
        ]  # fmt: skip
        norms: list[Any] = [(self.norm(f"{name}.{which}_layernorm"), self.eps) for which in ("input", "post_attention")]
        if self.kind == "qwen3":
            norms += [(self.norm(f"{attention}.{which}_norm", self.dims), self.eps) for which in "qk"]
        norms += [None] * (6 - len(norms))  # before the residuals: none of these has any
        biases: list[Any] = [None] * len(matrices)
        if self.kind == "qwen2":
            biases[:3] = [self._take(f"{attention}.{x}_proj.bias", (n,)) for x, n in (("q", q), ("k", kv), ("v", kv))]
        return kernels.DecoderLayers(
            linears=[matrix.linear() for matrix in matrices], norms=norms, rope=self.rope, heads=self.heads,
            kv_heads=self.kv_heads, scale=self.dims**-0.5, updates=[None] * len(matrices),
            biases=biases, activation="silu",
        )  # fmt: skip


def _llama3_frequencies(dims: int, base: float, scaling: Config) -> mx.array:
    """(dims // 2,): the wavelengths of rotary positions, long ones stretched, as Llama 3.1's model card defines it;
    operation for operation as MLX-LM, for the same bits."""
    factor, context = scaling["factor"], scaling.get("original_max_position_embeddings", 8192)
    low, high = scaling.get("low_freq_factor", 1.0), scaling.get("high_freq_factor", 4.0)
    plain = base ** (mx.arange(0, dims, 2) / dims)
    lengths = 2 * mx.pi * plain
    stretched = mx.where(lengths > context / low, plain * factor, plain)
    share = (context / lengths - low) / (high - low)
    between = (lengths > context / high) & (lengths < context / low)
    return mx.where(between, stretched / ((1 - share) / factor + share), stretched)
