"""Where MLX-LM's files compute something else than transformers, or cannot read what it saves: put right around them.

Owns those differences, each with its architecture; windows are `windows.py`'s. Tests hold the results to transformers'.
"""

from __future__ import annotations

import re

import mlx.core as mx
import mlx.nn as nn

from toast.errors import BadModel

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
    if kind == "longcat_flash":  # experts that give back what they get have halves of weights
        halves = {
            name.rpartition(".gate_proj.")[0] for name in tensors if ".experts." in name and ".gate_proj." in name
        }
        halves = {name for name in halves if f"{name}.down_proj.weight" not in tensors}
        return {name: array for name, array in tensors.items() if name.rsplit(".", 2)[0] not in halves}
    if kind in RENAMED:
        return {_renamed(name, RENAMED[kind]): array for name, array in tensors.items()}
    if kind == "ernie4_5_moe":  # under a name that MLX-LM's file does not drop
        end = "moe_statics.e_score_correction_bias"
        biases = {n.replace(end, "correction"): a.reshape(-1) for n, a in tensors.items() if n.endswith(end)}
        return {name: array for name, array in tensors.items() if not name.endswith(end)} | biases
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


# what transformers calls a part -> what MLX-LM's file does
RENAMED: dict[str, dict[str, str]] = {
    "nanochat": {"model.embed_tokens.": "transformer.wte.", "model.layers.": "transformer.h.",
                 ".mlp.fc1.": ".mlp.c_fc.", ".mlp.fc2.": ".mlp.c_proj.",
                 **{f".self_attn.{x}_proj.": f".attn.c_{x}." for x in "qkv"},
                 ".self_attn.o_proj.": ".attn.c_proj."},
    "olmo_hybrid": {".attention_layer_norm.": ".input_layernorm.",
                    ".feedforward_layer_norm.": ".post_attention_layernorm."},
}  # fmt: skip


def _renamed(name: str, changes: dict[str, str]) -> str:
    for theirs, ours in changes.items():
        name = name.replace(theirs, ours)
    return name


def within(model: Any, kind: str) -> Tensors:
    """Change what a new model is made of, before it gets its weights. Returns those that a checkpoint may lack."""
    if kind == "phi3small" and model.args.vocab_size < 100352:  # it writes to tokens up to there, whatever there is
        raise BadModel("a phi3small model has a vocabulary of 100352 tokens")
    for layer in model.layers if kind == "bitnet" else ():
        _unpack(layer)  # their kernel is for Metal alone; `foreign.py` reads their weights
    lacking = {}
    for i, layer in enumerate(model.layers if kind == "ernie4_5_moe" else ()):
        if hasattr(layer.mlp, "switch_mlp"):
            layer.mlp.__class__ = _biased(type(layer.mlp))
            layer.mlp.correction = mx.zeros(layer.mlp.gate.weight.shape[:1])
            lacking[f"model.layers.{i}.mlp.correction"] = layer.mlp.correction
    return lacking


def _unpack(layer: Any) -> None:
    """BitNet's linear layers as MLX's own."""
    for part in (layer.self_attn, layer.mlp):
        for name, module in list(part.children().items()):
            if type(module).__name__ == "BitLinear":
                setattr(part, name, nn.Linear(module.in_features, module.out_features, bias=module.bias is not None))


def _biased(cls: Any) -> Any:
    """Experts that are chosen by their share and a correction, and weighed by their share."""

    def call(self: Any, x: mx.array) -> mx.array:
        shares = self.gate_act(self.gate(x).astype(mx.float32))
        best = mx.argpartition(-(shares + self.correction), kth=self.k - 1, axis=-1)[..., : self.k]
        weights = mx.take_along_axis(shares, best, axis=-1)
        weights = weights / mx.maximum(weights.sum(axis=-1, keepdims=True), 1e-12)
        y = (self.switch_mlp(x, best) * weights[..., None]).sum(axis=-2).astype(x.dtype)
        return y if self.shared_experts is None else y + self.shared_experts(x)

    return type(cls.__name__, (cls,), {"__call__": call})


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
        elif kind == "jamba" and hasattr(layer.feed_forward, "router"):
            layer.feed_forward.__class__ = _shared_out(type(layer.feed_forward))
        elif kind == "phi3small":
            layer.self_attn.__class__ = _added(type(layer.self_attn))
    if kind == "plamo3":
        model.__class__ = _keeping(type(model))
    if kind == "phi3small":  # which blocks a token sees depends on how many there are
        model.one_by_one = True
    if kind == "gpt_bigcode":
        model.transformer.__class__ = _placed(type(model.transformer))
    if kind == "gemma3_text":
        _rescale(model.model.embed_tokens, config["hidden_size"], unround=True)
    if kind == "recurrent_gemma":
        _rescale(model.model.embed_tokens, config["hidden_size"], unround=False)


def _rescale(embedding: Any, width: int, *, unround: bool) -> None:
    """Embeddings are scaled by a root rounded to bfloat16, where transformers rounds it to their own type; or the
    other way about."""
    cls, root = type(embedding), width**0.5
    rounded: Any = mx.array(root, mx.bfloat16).astype(mx.float32).item()
    factor = root / rounded if unround else rounded / root

    def call(self: Any, ids: mx.array) -> mx.array:
        x = cls.__call__(self, ids)
        return x if x.dtype == mx.bfloat16 else x * factor

    embedding.__class__ = type(cls.__name__, (cls,), {"__call__": call})


def _grouped(cls: Any) -> Any:
    """Attention that keeps the queries of a key's head apart: the mask of a batch, (B, 1, 1, T), needs their axis."""

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        batched = self.repeats > 1 and isinstance(mask, mx.array) and mask.ndim == 4
        return cls.__call__(self, x, mask[:, :, None] if batched else mask, cache)

    return type(cls.__name__, (cls,), {"__call__": call})


def _shared_out(cls: Any) -> Any:
    """Experts that are weighed by their share among all, not among those that are chosen."""

    def call(self: Any, x: mx.array) -> mx.array:
        k, shares = self.num_experts_per_tok, mx.softmax(self.router(x), axis=-1, precise=True)
        best = mx.argpartition(-shares, kth=k - 1, axis=-1)[..., :k]
        return (self.switch_mlp(x, best) * mx.take_along_axis(shares, best, axis=-1)[..., None]).sum(axis=-2)

    return type(cls.__name__, (cls,), {"__call__": call})


def _keeping(cls: Any) -> Any:
    """A model whose caches forget one position before its masks do."""

    def caches(self: Any) -> list[Any]:
        made = cls.make_cache(self)
        for cache in made:
            if hasattr(cache, "max_size"):
                cache.max_size += 1
        return made

    return type(cls.__name__, (cls,), {"make_cache": caches})


def _added(cls: Any) -> Any:
    """Attention that adds its mask to the scores, whatever the mask's type: of True and False that hides nothing."""

    def call(self: Any, x: mx.array, mask: Any = None, cache: Any = None) -> mx.array:
        if isinstance(mask, mx.array) and mask.dtype == mx.bool_:
            mask = mx.where(mask, mx.array(0, x.dtype), mx.array(-mx.inf, x.dtype))
        return cls.__call__(self, x, mask, cache)

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
