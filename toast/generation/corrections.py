"""Where MLX-LM's files compute something else than transformers, or cannot read what it saves: put right around them.

Owns those differences, each with its architecture; windows are `windows.py`'s. Tests hold the results to transformers'.
"""

from __future__ import annotations

import re

import mlx.core as mx
import mlx.nn as nn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Config = dict[str, Any]
    Tensors = dict[str, mx.array]


def before(kind: str, tensors: Tensors) -> Tensors:
    """The tensors as an architecture's file expects them."""
    if kind == "gpt2":
        return {name.removeprefix("transformer."): array for name, array in tensors.items()}
    if kind in ("qwen3_5_moe", "qwen3_5_moe_text"):
        return _stacked(tensors)
    if kind != "gpt_oss":
        return tensors
    # saved without MXFP4, experts have other names and hold their inputs first
    ends = ".experts.gate_up_proj", ".experts.down_proj"
    apart = {name: array for name, array in tensors.items() if name.endswith(ends)}
    turned = {f"{name}.weight": array.swapaxes(-1, -2) for name, array in apart.items()}
    return {name: array for name, array in tensors.items() if name not in apart} | turned


EXPERT = re.compile(r"(.*\.mlp)\.experts\.(\d+)\.(\w+)\.weight$")


def _stacked(tensors: Tensors) -> Tensors:
    """Experts that were saved one by one, as one tensor each."""
    found: dict[str, dict[int, mx.array]] = {}
    for name in [name for name in tensors if EXPERT.match(name)]:
        place, number, part = EXPERT.match(name).groups()  # type: ignore[union-attr]
        found.setdefault(f"{place}.switch_mlp.{part}.weight", {})[int(number)] = tensors.pop(name)
    stacks = {name: mx.stack([parts[i] for i in sorted(parts)]) for name, parts in found.items()}
    return tensors | stacks


def after(model: Any, config: Config) -> None:
    """Change the layers of a loaded model, whose language model has this configuration."""
    layers, kind = model.layers, str(config.get("model_type"))
    model = getattr(model, "language_model", model)
    for layer in layers:
        if kind == "glm":  # it turns whole heads
            layer.self_attn.rope.dims = int(layer.self_attn.rope.dims * config.get("partial_rotary_factor", 0.5))
        elif kind in FORWARD and (kind != "gpt_neox" or config.get("hidden_act", "gelu") == "gelu"):
            layer.mlp.__class__ = FORWARD[kind]
        elif kind == "gemma2":
            layer.self_attn.__class__ = _grouped(type(layer.self_attn))
    if kind == "gpt_bigcode":
        model.transformer.__class__ = _placed(type(model.transformer))
    if kind == "gemma3_text":
        _unround(model.model.embed_tokens, config["hidden_size"])


def _unround(embedding: Any, width: int) -> None:
    """Embeddings are scaled by a root rounded to bfloat16; transformers rounds it to their own type."""
    cls, root = type(embedding), width**0.5
    rounded: Any = mx.array(root, mx.bfloat16).astype(mx.float32).item()

    def call(self: Any, ids: mx.array) -> mx.array:
        x = cls.__call__(self, ids)
        return x if x.dtype == mx.bfloat16 else x * (root / rounded)

    embedding.__class__ = type(cls.__name__, (cls,), {"__call__": call})


def _grouped(cls: Any) -> Any:
    """Attention that keeps the queries of a key's head apart: the mask of a batch, (B, 1, 1, T), needs their axis."""

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        batched = self.repeats > 1 and isinstance(mask, mx.array) and mask.ndim == 4
        return cls.__call__(self, x, mask[:, :, None] if batched else mask, cache)

    return type(cls.__name__, (cls,), {"__call__": call})


def _placed(cls: Any) -> Any:
    """A model whose positions numpy counted, which knows none that differ by row."""
    from mlx_lm.models.base import create_attention_mask

    def call(self: Any, inputs: mx.array, cache: Any = None) -> mx.array:
        caches = cache or [None] * len(self.h)
        offset = mx.array(getattr(caches[0], "offset", 0)).reshape(-1, 1)
        x = self.wte(inputs) + self.wpe(offset + mx.arange(inputs.shape[1]))
        mask = create_attention_mask(x, caches[0])
        for layer, layer_cache in zip(self.h, caches, strict=True):
            x = layer(x, mask, cache=layer_cache)
        return self.ln_f(x)

    return type(cls.__name__, (cls,), {"__call__": call})


# ---------------------------------------------------------------- activations: exact GELU and its tanh form


class _Gemma(nn.Module):
    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(nn.gelu_approx(self.gate_proj(x)) * self.up_proj(x))


class _StarCoder(nn.Module):
    def __call__(self, x: mx.array) -> mx.array:
        return self.c_proj(nn.gelu_approx(self.c_fc(x)))


class _NeoX(nn.Module):
    def __call__(self, x: mx.array) -> mx.array:
        return self.dense_4h_to_h(nn.gelu(self.dense_h_to_4h(x)))


FORWARD = {"gemma": _Gemma, "starcoder2": _StarCoder, "gpt_bigcode": _StarCoder, "gpt_neox": _NeoX}
