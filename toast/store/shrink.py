"""A language model's tensors into a folder in MLX's layout, its matrices in fewer bits: a few rows at a time.

Owns which layers have which form, and that no more than one tensor is in memory. Does not know how they are computed
with.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from math import prod

import mlx.core as mx
import numpy as np

from toast import options
from toast.errors import BadModel, UsageError
from toast.files import Draft
from toast.store import ggml, safetensors
from toast.store.folder import read_json, write_texts
from toast.store.quantize import copy_rest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from typing import Any, Protocol

    Shape = tuple[int, ...]
    Form = dict[str, Any]
    Factors = tuple[mx.array | None, mx.array | None]

    class Tensor(Protocol):
        parts: list[mx.array]
        form: Form | None
        layer: bool
        shape: Shape

        def rows(self, index: slice) -> mx.array: ...


AT_ONCE = 32  # rows, at least, whatever their length
MODES = {"affine": None, "mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}  # mode -> (bits, group)
BITS, GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)


class Wanted:
    """The form of all layers, and of those that a glob names, which have other bits; without bits, as they are."""

    def __init__(
        self,
        bits: int | None = None,
        group: int = 64,
        *,
        mode: str = "affine",
        layers: list[tuple[str, int]] | None = None,
    ) -> None:
        self.mode, self.layers, self.bits, self.group = mode, layers or [], bits, group
        if fixed := MODES[mode]:
            self.bits, self.group = fixed

    def of(self, path: str) -> Form | None:
        """MLX's settings for the layer at `path`, by the last glob that fits it; None: it stays as it is."""
        bits = self.bits
        for glob, other in self.layers:
            if _fits(path, glob):
                bits = other
        if bits is None or bits >= 16:
            return None
        if bits != self.bits and self.mode != "affine":
            return {"group_size": 32 if self.group == 16 else self.group, "bits": bits, "mode": "affine"}
        return {"group_size": self.group, "bits": bits, "mode": self.mode}

    def check(self, paths: list[str]) -> None:
        """UsageError for a glob that fits none of a model's layers."""
        for glob, bits in self.layers:
            if not any(_fits(path, glob) for path in paths):
                some = ", ".join(paths[:1] + paths[-1:])
                raise UsageError(f"--layer {glob}={bits} fits no layer", f"they are called {some}, ...")


def _fits(path: str, glob: str) -> bool:
    return fnmatchcase(path, glob) or fnmatchcase(path, f"*.{glob}")


def layers_of(words: list[str]) -> list[tuple[str, int]]:
    """GLOB=BITS each; UsageError."""
    found = []
    for word in words:
        glob, _, bits = word.rpartition("=")
        number = options.whole(bits)
        if not glob or number not in (*BITS, 16):
            raise UsageError(f"--layer {word}: not GLOB=BITS with {', '.join(map(str, BITS))} or 16 (as it is)")
        found.append((glob, number))
    return found


def write(
    tensors: MutableMapping[str, Any],
    source: str,
    out: str,
    *,
    wanted: Wanted,
    left: Callable[..., Any] | None = None,
    factors: Mapping[str, Factors] | None = None,
    name: str,
) -> None:
    """Fill the folder `out` with the model of `source`, called `name`; its tensors are let go as they are written.

    left(path, module): MLX-LM's word on single layers, where no glob has one. factors: name -> what a tensor's columns,
    and what its rows are multiplied by first, either or None. Raises BadModel, UsageError."""
    wanted.check([path.removesuffix(".weight") for path, tensor in tensors.items() if tensor.layer])
    plan = {path: _form(path, tensor, wanted, left=left) for path, tensor in tensors.items()}
    if wanted.bits and not any(plan.values()):
        raise BadModel(f"{name}: no layer that can be quantised so")
    arrays = {}
    for path, form in plan.items():
        arrays.update(_arrays(path, tensors[path], form))
    copy_rest(source, out)
    with Draft(os.path.join(out, "model.safetensors")) as draft:
        to = safetensors.Rows(draft.fd, arrays, {"format": "mlx"})
        for path, form in plan.items():
            _put(to, path, tensors.pop(path), form=form, factors=(factors or {}).get(path, (None, None)))
        draft.place()
    write_texts(out, {"config.json": _settings(source, plan)})


def _form(name: str, tensor: Tensor, wanted: Wanted, *, left: Callable[..., Any] | None) -> Form | None:
    """The form that a tensor gets; that which it has, if it has as few bits."""
    if not tensor.layer:
        return tensor.form
    path = name.removesuffix(".weight")
    form = wanted.of(path)
    if form and left and wanted.of("") == form:
        told = left(path, None)
        form = None if told is False else {**form, "mode": "affine", **told} if isinstance(told, dict) else form
    if not form or tensor.shape[-1] % form["group_size"] or (tensor.form and tensor.form["bits"] <= form["bits"]):
        return tensor.form
    return form


def _arrays(name: str, tensor: Tensor, form: Form | None) -> dict[str, tuple[mx.Dtype, Shape]]:
    if form == tensor.form:
        return {n: (part.dtype, tuple(part.shape)) for n, part in zip(_names(name), tensor.parts, strict=False)}
    assert form
    *lead, width = tensor.shape
    groups = (*lead, width // form["group_size"])
    own = tensor.parts[1 if tensor.form else 0].dtype
    scale = (own if own != mx.uint8 else mx.bfloat16) if form["mode"] == "affine" else mx.uint8
    shapes = [(mx.uint32, (*lead, width * form["bits"] // 32)), (scale, groups)]
    shapes += [(scale, groups)] * (form["mode"] == "affine")
    return dict(zip(_names(name), shapes, strict=False))


def _names(name: str) -> list[str]:
    stem = name.rpartition(".")[0]
    return [name, f"{stem}.scales", f"{stem}.biases"]


def _put(to: safetensors.Rows, name: str, tensor: Tensor, *, form: Form | None, factors: Factors) -> None:
    if form == tensor.form:
        parts = tensor.parts if form else [_scaled(tensor.parts[0], *factors)]
        for part_name, part in zip(_names(name), parts, strict=False):
            to.put(part_name, memoryview(safetensors.data(part)))
        return
    lines, (columns, rows) = prod(tensor.shape[:-1]), factors
    for first, last in ggml.spans((-(-lines // AT_ONCE), AT_ONCE * tensor.shape[-1])):
        first, last = AT_ONCE * first, min(AT_ONCE * last, lines)
        few = _scaled(tensor.rows(slice(first, last)), columns, rows if rows is None else rows[first:last])
        done = _quantized(few, form or {})
        mx.eval(done)
        for part_name, part in zip(_names(name), done, strict=False):
            to.put(part_name, memoryview(safetensors.data(part)), first * part.nbytes // (last - first))


def _quantized(rows: mx.array, form: Form) -> tuple[mx.array, ...]:
    """What mx.quantize gives, whose loop over floats of 4 bits takes five times as long."""
    if form["bits"] != 4 or form["mode"] == "affine":
        return tuple(mx.quantize(rows, **form))
    x = np.array(rows.astype(mx.float32)).reshape(-1, form["group_size"])
    largest = abs(x).max(1, keepdims=True) / np.float32(6)
    if form["mode"] == "mxfp4":  # a power of two
        power = np.where(largest > 0, np.ceil(np.log2(np.where(largest > 0, largest, 1))), 0).clip(-127, 127)
        scales, factor = mx.array((power + 127).astype(np.uint8)), np.exp2(power, dtype=np.float32)
    else:
        scales = mx.to_fp8(mx.array(largest))
        factor = np.array(mx.from_fp8(scales, mx.float32))
    size = abs(x) / np.where(factor == 0, 1, factor)
    codes = np.zeros(x.shape, np.uint8)
    for least in (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0):
        codes += size > least
    codes |= np.where((x < 0) & (codes > 0), np.uint8(8), np.uint8(0))
    return mx.array(ggml.packed(codes.reshape(rows.shape), 4)), scales.reshape(len(rows), -1)


def _scaled(x: mx.array, columns: mx.array | None, rows: mx.array | None) -> mx.array:
    if columns is None and rows is None:
        return x
    if columns is not None:
        x = x * columns.astype(x.dtype)
    return x if rows is None else x * (rows if x.ndim == 1 else rows[:, None]).astype(x.dtype)


def _settings(source: str, plan: Mapping[str, Form | None]) -> Any:
    """config.json with the forms of its layers, in the way that MLX-LM reads."""
    config = read_json(source, "config.json")
    config.pop("quantization_config", None)
    config.pop("quantization", None)
    forms = {name.removesuffix(".weight"): form for name, form in plan.items() if form}
    if not forms:
        return config
    every = list(forms.values())
    common = max(every, key=every.count)
    others = {path: form for path, form in forms.items() if form != common}
    settings = common | others
    return config | {"quantization": settings, "quantization_config": settings}
