"""Which inputs of a layer a text makes large, and by what they are scaled so that rounding spares them.

Owns the search. A scale goes out of a layer and into the one before it, so that the whole stays the same function.
Source: AWQ (Lin et al. 2023, arXiv:2306.00978).
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from toast.errors import BadInput, BadModel
from toast.generation import decoder
from toast.generation.tokenizer import Tokenizer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call
    from toast.store.shrink import Wanted

TOKENS, CONTEXT, LEAST = 8192, 512, 64  # of the text that are read, at once, and at least
EXPONENTS = [i / 10 for i in range(11)]
ROWS = 256  # of a matrix that are tried
CHANGE = 0.1  # of the logits, relative, that half precision may make
ALIKE = 1e-3


def factors(call: Call, path: str, text: str, *, wanted: Wanted) -> dict[str, tuple[mx.array | None, mx.array | None]]:
    """name -> (what its columns, what its rows are multiplied by) of tensors of the model at `path`.

    Raises BadInput for a text that is too short, BadModel for a model none of whose layers can pass a scale on."""
    from toast import kernels

    kernels.install_for(call)
    model, _ = decoder.load(path)
    ids = Tokenizer(path).encode(text)[:TOKENS]
    if len(ids) < LEAST:
        raise BadInput(f"--text: {len(ids)} tokens, and {LEAST} are the least")
    seen = _squares(model, ids)
    found: dict[str, tuple[mx.array | None, mx.array | None]] = {}
    for name, layer in enumerate(model.layers):
        _of_layer(layer, seen, wanted, found=found, path=_path(model, layer, name))
    if not found:
        raise BadModel(f"{path}: no layer's scales can go into the one before", "quantize without --text")
    _check(model, found, ids[:LEAST])
    return found


def _path(model: Any, layer: Any, number: int) -> str:
    return next(name for name, module in model.named_modules() if module is layer)


# ---------------------------------------------------------------- what a text makes of inputs


def _squares(model: Any, ids: list[int]) -> dict[int, mx.array]:
    """id of a linear layer or a norm -> mean square of each input (of each output, for a norm)."""
    sums: dict[int, mx.array] = {}
    changed = []
    for _, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.QuantizedLinear)) or _is_norm(module):
            changed.append((module, module.__class__))
            module.__class__ = _recording(module.__class__, sums, output=_is_norm(module))
    try:
        for at in range(0, len(ids), CONTEXT):
            mx.eval(model(mx.array([ids[at : at + CONTEXT]])), list(sums.values()))
    finally:
        for module, own in changed:
            module.__class__ = own
    return sums


def _is_norm(module: Any) -> bool:
    return "Norm" in type(module).__name__ and "weight" in module


def _recording(cls: Any, sums: dict[int, mx.array], *, output: bool) -> Any:
    def call(self: Any, x: mx.array, *args: Any, **more: Any) -> mx.array:
        y = cls.__call__(self, x, *args, **more)
        told = y if output else x
        square = told.astype(mx.float32).reshape(-1, told.shape[-1]).square().sum(0)
        sums[id(self)] = sums[id(self)] + square if id(self) in sums else square
        return y

    return type(cls.__name__, (cls,), {"__call__": call})


# ---------------------------------------------------------------- one layer

Found = "dict[str, tuple[mx.array | None, mx.array | None]]"


def _of_layer(layer: Any, seen: dict[int, mx.array], wanted: Wanted, *, found: Any, path: str) -> None:
    """Scales between a layer's norms and the matrices that read them, and between its up and down projections."""
    norms = [(name, module) for name, module in layer.children().items() if _is_norm(module)]
    for block in ("self_attn", "mlp"):
        inner = dict(layer.children()).get(block)
        linears = {
            name: m for name, m in _linears(inner) if name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
        }
        for name, norm in norms:
            if linears and all(_reads(seen, norm, linear) for linear in linears.values()) and _plain(norm):
                forms = {f"{path}.{block}.{n}": linear for n, linear in linears.items()}
                _scale(forms, seen, wanted, found=found, before={f"{path}.{name}.weight", f"{path}.{name}.bias"})
    inner = dict(layer.children()).get("mlp")
    parts = dict(_linears(inner))
    if parts.keys() == {"gate_proj", "up_proj", "down_proj"}:
        up = f"{path}.mlp.up_proj"
        _scale({f"{path}.mlp.down_proj": parts["down_proj"]}, seen, wanted, found=found,
               before={f"{up}.weight", f"{up}.bias"})  # fmt: skip


def _linears(block: Any) -> list[tuple[str, Any]]:
    """The matrices of attention or of a feed-forward network, if it has no others that read the same."""
    if block is None:
        return []
    parts = [(n, m) for n, m in block.children().items() if isinstance(m, (nn.Linear, nn.QuantizedLinear))]
    known = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    return parts if {name for name, _ in parts} <= known else []


def _plain(norm: Any) -> bool:
    """Whether its outputs are in proportion to its weights: Gemma adds 1 to them."""
    x = mx.ones((1, norm.weight.shape[0]))
    cls: Any = type(norm)
    half = cls.__new__(cls)
    half.__dict__.update(norm.__dict__)
    dict.update(half, {name: x * 0.5 if isinstance(x, mx.array) else x for name, x in norm.items()})
    return bool(mx.allclose(half(x) * 2, norm(x), rtol=1e-3, atol=1e-3).item())


def _reads(seen: dict[int, mx.array], norm: Any, linear: Any) -> bool:
    """Whether a matrix reads what a norm gives, and that alone."""
    a, b = seen.get(id(norm)), seen.get(id(linear))
    return a is not None and b is not None and a.shape == b.shape and bool(mx.allclose(a, b, rtol=ALIKE).item())


def _scale(linears: dict[str, Any], seen: dict[int, mx.array], wanted: Wanted, *, found: Any, before: set[str]) -> None:
    """Find the scale of columns that costs these matrices least, and note it for them and what comes before."""
    forms = {path: wanted.of(path) for path in linears}
    if not all(forms.values()) or not all(id(linear) in seen for linear in linears.values()):
        return
    size = mx.sqrt(seen[id(next(iter(linears.values())))])
    size = mx.maximum(size / mx.maximum(size.max(), 1e-12), 1e-4)
    rows = {path: _some_rows(linear) for path, linear in linears.items()}
    best, scale = None, None
    for exponent in EXPONENTS:
        s = size**exponent
        s = s / mx.sqrt(s.max() * s.min())
        loss = sum(_loss(rows[path], s, size, form=form) for path, form in forms.items())
        if best is None or loss < best:
            best, scale = loss, s
    if scale is None or mx.array_equal(scale, mx.ones_like(scale)).item():
        return
    for path in linears:
        columns, others = found.get(f"{path}.weight", (None, None))
        found[f"{path}.weight"] = (scale if columns is None else columns * scale, others)
    for name in before:
        columns, others = found.get(name, (None, None))
        found[name] = (columns, 1 / scale if others is None else others / scale)


def _some_rows(linear: Any) -> mx.array:
    weight = linear.weight[:: max(1, linear.weight.shape[0] // ROWS)]
    if "scales" in linear:
        parts = [
            part[:: max(1, part.shape[0] // ROWS)] for part in (linear.scales, linear.get("biases")) if part is not None
        ]
        weight = mx.dequantize(weight, parts[0], parts[1] if parts[1:] else None, group_size=linear.group_size,
                               bits=linear.bits, mode=linear.mode)  # fmt: skip
    return weight.astype(mx.float32)


def _loss(w: mx.array, scale: mx.array, size: mx.array, *, form: Any) -> float:
    """The squares of what rounding does to outputs, inputs taken for independent."""
    if w.shape[-1] % form["group_size"]:
        return 0.0
    parts = mx.quantize(w * scale, **form)
    rounded = mx.dequantize(parts[0], parts[1], parts[2] if parts[2:] else None, **form).astype(mx.float32) / scale
    return (((w - rounded) * size) ** 2).sum().item()  # type: ignore[return-value]


# ---------------------------------------------------------------- a check


def _check(model: Any, found: Any, ids: list[int]) -> None:
    """That the scales, with nothing rounded, leave the model the same function; BadModel."""
    want = model(mx.array([ids]))[0, -1].astype(mx.float32)
    mx.eval(want)
    modules = dict(model.named_modules())
    for name, (columns, rows) in found.items():
        path, _, leaf = name.rpartition(".")
        module = modules[path]
        if leaf in module:
            _apply(module, leaf, columns=columns, rows=rows)
    got = model(mx.array([ids]))[0, -1].astype(mx.float32)
    if (mx.abs(got - want).max() > CHANGE * mx.abs(want).max()).item():
        raise BadModel("scaling changes what the model computes", "quantize without --text")


def _apply(module: Any, leaf: str, *, columns: mx.array | None, rows: mx.array | None) -> None:
    if "scales" in module and leaf == "weight":  # in float for the check
        weight = mx.dequantize(module.weight, module.scales, module.get("biases"), group_size=module.group_size,
                               bits=module.bits, mode=module.mode)  # fmt: skip
        module.__class__ = nn.Linear
        module.weight = weight
    value = module[leaf]
    if columns is not None:
        value = value * columns.astype(value.dtype)
    if rows is not None:
        value = value * (rows if value.ndim == 1 else rows[:, None]).astype(value.dtype)
    module[leaf] = value
