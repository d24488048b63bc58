"""A checkpoint's tensors into the layers that an architecture has made: quantised layers, names, shapes.

MLX's own functions make an array for each weight first, of random numbers and then quantised, and walk the tree of
layers six times: a sixth of a short answer's time. Knows no files.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FLOAT_MODES = {(4, 16): "nvfp4", (4, 32): "mxfp4", (8, 32): "mxfp8"}  # (bits, group) of scales in 8 bits
BITS, GROUPS = {2, 3, 4, 5, 6, 8}, {32, 64, 128}  # that MLX has in its mode affine


def quantize(model: Any, settings: dict[str, Any], tensors: dict[str, mx.array]) -> None:
    """Replace the layers that have scales; sizes from the settings of the layer, else its shapes."""
    for owner, key, path in list(_layers(model, "")):
        module = owner[key]
        form = settings[path] if path in settings else _form(path, module, tensors)
        if not form:
            continue
        form = {name: settings[name] for name in ("group_size", "bits")} if form is True else form
        _check(form, module)
        if not hasattr(module, "to_quantized"):
            raise ValueError(f"{path} cannot be quantised")
        owner[key] = _quantized(module, form)


def _layers(node: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """(what holds it, under which key, its name) of every module that has no other in it."""
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, (dict, list)):
            found = list(_layers(value, name))
            if found or not isinstance(value, nn.Module):
                yield from found
            else:
                yield node, key, name


def _form(path: str, module: Any, tensors: dict[str, mx.array]) -> dict[str, Any] | None:
    """The sizes that a layer's tensors tell; None where it has no scales."""
    if not hasattr(module, "to_quantized") or f"{path}.scales" not in tensors:
        return None
    if not module.weight.size:
        raise ValueError(f"{path} is empty")
    scales, width = tensors[f"{path}.scales"], module.weight.shape[-1]
    bits, group = tensors[f"{path}.weight"].shape[-1] * 32 // width, width // scales.shape[-1]
    mode = FLOAT_MODES.get((bits, group), "?") if scales.dtype == mx.uint8 else "affine"
    return {"group_size": group, "bits": bits, "mode": mode}


def _check(form: Any, module: Any) -> None:
    """ValueError where MLX would divide by nothing, which ends the process."""
    sizes = [form.get(name, 1) for name in ("group_size", "bits")] if isinstance(form, dict) else []
    if not module.weight.size or not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"{form} is no quantisation")


def _quantized(module: Any, form: dict[str, Any]) -> Any:
    """What module.to_quantized(**form) gives, but that its arrays are nothing until the checkpoint's come."""
    group, bits, mode = form.get("group_size"), form.get("bits"), form.get("mode", "affine")
    *rows, width = module.weight.shape
    plain = mode == "affine" and bits in BITS and group in GROUPS and not width % group
    if not plain or form.keys() - {"group_size", "bits", "mode"} or type(module) not in (nn.Linear, nn.Embedding):
        return module.to_quantized(**form)
    kind: Any = nn.QuantizedLinear if type(module) is nn.Linear else nn.QuantizedEmbedding
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    made.group_size, made.bits, made.mode = group, bits, mode
    if kind is nn.QuantizedEmbedding:
        made.num_embeddings, made.dims = rows[0], width
    made["weight"] = mx.zeros((*rows, width * bits // 32), mx.uint32)
    made["scales"] = made["biases"] = mx.zeros((*rows, width // group))
    if "bias" in module:
        made["bias"] = module["bias"]
    return made


def fill(model: Any, tensors: dict[str, mx.array]) -> None:
    """Put the tensors where they belong. ValueError, which names a few, where some are missing, belong nowhere or have
    another shape."""
    places = {name: (owner, key) for owner, key, name in _arrays(model, "")}
    for names, told in (
        (places.keys() - tensors.keys(), "missing"),
        (tensors.keys() - places.keys(), "not part of it"),
    ):
        if names:
            first, more = sorted(names)[:3], len(names) - 3
            rest = f" and {more} more tensors" if more > 0 else ""
            raise ValueError(f"{', '.join(first)}{rest} {'is' if len(names) == 1 else 'are'} {told}")
    for name, (owner, key) in places.items():
        wanted, given = owner[key].shape, tensors[name].shape
        if wanted != given:
            raise ValueError(f"{name} has the shape {given}, not {wanted}")
        owner[key] = tensors[name]


def _arrays(node: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """(what holds it, under which key, its name) of every parameter."""
    hides = isinstance(node, nn.Module)  # what begins with a line is not a parameter
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if hides and str(key).startswith("_"):
            continue
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, mx.array):
            yield node, key, name
        elif isinstance(value, (dict, list)):
            yield from _arrays(value, name)
