"""Sliding windows for the architectures whose files in MLX-LM ignore them: a layer sees `window` positions.

Owns which layers those are, and what such a layer's mask becomes. The caches stay whole, so that they can be trimmed,
kept on disk and put beside others; what the window has passed is masked.
"""

from __future__ import annotations

import mlx.core as mx

from toast.store.config import text_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Config = dict[str, Any]

# what a layer's number tells where the configuration has no layer_types; as in transformers' configuration classes
EVERY = {"mistral", "mixtral", "phi3", "phimoe", "starcoder2", "ministral3", "qwen3_moe"}
ALTERNATE = {"gemma2"}
LATE = {"qwen2", "qwen3", "dots1", "qwen2_vl", "qwen2_5_vl"}  # from max_window_layers on
EARLY = {"qwen2_moe"}  # every other one before max_window_layers
TYPED = {"smollm3"}  # only by layer_types
SWITCHED = {"qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen2_moe", "qwen3_moe", "smollm3"}  # use_sliding_window


def windows(config: Config) -> list[int | None]:
    """For each layer how many positions it sees, None for all; none at all where MLX-LM's file knows windows."""
    kind, count = _kind(config), config.get("num_hidden_layers")
    size = config.get("sliding_window")
    known = EVERY | ALTERNATE | LATE | EARLY | TYPED
    if kind not in known or not isinstance(size, int) or size < 1 or not isinstance(count, int):
        return []
    if kind in SWITCHED and not config.get("use_sliding_window"):
        return []
    return [size if slides else None for slides in _slides(kind, config, count)]


def _kind(config: Config) -> str:
    return str(config.get("model_type")).removesuffix("_text")


def _slides(kind: str, config: Config, count: int) -> list[bool]:
    types = config.get("layer_types")
    if kind in EVERY:
        return [True] * count
    if isinstance(types, list) and len(types) == count:
        return [name == "sliding_attention" for name in types]
    last = config.get("max_window_layers", count)
    if kind in ALTERNATE:
        return [i % 2 == 0 for i in range(count)]
    if kind in LATE:
        return [i >= last for i in range(count)]
    return [kind in EARLY and i % 2 == 0 and i < last for i in range(count)]


def left_to_us(config: Config) -> Config:
    """The configuration for MLX-LM, which for these architectures is to know nothing of windows."""
    if "text_config" in config:
        return {**config, "text_config": left_to_us(config["text_config"])}
    if _kind(config) not in EVERY | ALTERNATE | LATE | EARLY | TYPED:
        return config
    return {name: value for name, value in config.items() if name not in ("sliding_window", "layer_types")}


def apply(model: Any, config: Config) -> None:
    """Let the layers of a loaded model see no further than their windows."""
    for layer, window in zip(model.layers, windows(text_part(config)), strict=False):
        if window is not None:
            layer.__class__ = _windowed(type(layer))
            layer.window = window


_classes: dict[type, type] = {}  # a layer's class -> the same with a window


def _windowed(cls: Any) -> Any:
    """The class of layers with a window that are otherwise of class `cls`."""
    if cls not in _classes:
        names = cls.__call__.__code__.co_varnames[: cls.__call__.__code__.co_argcount]

        def call(self: Any, *given: Any, **named: Any) -> mx.array:
            named |= dict(zip(names[1:], given, strict=False))
            named["mask"] = _masked(
                named.get("mask"), named.get("cache"), window=self.window, length=named[names[1]].shape[1]
            )
            return cls.__call__(self, **named)

        _classes[cls] = type(cls.__name__, (cls,), {"__call__": call, "seen_whole": cls})
    return _classes[cls]


def _masked(mask: Any, cache: Any, *, window: int, length: int) -> Any:
    """A layer's mask for `length` new positions: as it came while the text fits into the window."""
    rows = getattr(cache, "lengths", None) or [getattr(cache, "offset", 0)]
    if max(rows) + length <= window:
        return mask
    if cache is not None:
        return cache.make_mask(length, return_array=True, window_size=window)
    from mlx_lm.models.base import create_causal_mask

    return create_causal_mask(length, window_size=window)
