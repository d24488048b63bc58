"""What an adapter changes of a model: low-rank updates beside its layers, whatever form their weights have.

Owns the layers that add them, and which layer a name means. Does not know the layouts of adapters (`store/adapter.py`).
The base's own weights stay as they are mapped.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from toast.errors import BadModel
from toast.store.adapter import Adapter, LowRank
from toast.store.folder import blame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class LoRALinear(nn.Module):
    """A linear layer and its low-rank update. gain: what each output is scaled by (DoRA), None for none."""

    def __init__(self, linear: Any, change: LowRank) -> None:
        super().__init__()
        self.linear, self.lora_a, self.lora_b, self.scale = linear, change.a, change.b, change.scale
        self.gain = self.bias = None
        if change.magnitude is not None:
            self.gain = change.magnitude.reshape(-1) / mx.linalg.norm(_changed(linear, change), axis=1)
            self.bias = linear.pop("bias", None)  # which the gain does not scale

    def __call__(self, x: mx.array) -> mx.array:
        y = self.linear(x)
        # mx.matmul, not @: only the functions are replaced by kernels whose rows do not depend on others
        z = mx.addmm(y, mx.matmul(x, self.lora_a), self.lora_b, alpha=self.scale)
        if self.gain is not None:
            z = z * self.gain if self.bias is None else z * self.gain + self.bias
        return z.astype(y.dtype)


class LoRASwitchLinear(nn.Module):
    """The same for the linear layers of all experts."""

    def __init__(self, linear: Any, change: LowRank) -> None:
        super().__init__()
        self.linear, self.scale = linear, change.scale
        self.lora_a, self.lora_b = change.a.swapaxes(1, 2), change.b.swapaxes(1, 2)

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:  # noqa: FBT001, FBT002
        y = self.linear(x, indices, sorted_indices=sorted_indices)
        z = mx.gather_mm(x, self.lora_a, rhs_indices=indices, sorted_indices=sorted_indices)
        z = mx.gather_mm(z, self.lora_b, rhs_indices=indices, sorted_indices=sorted_indices)
        return y + (self.scale * z).astype(y.dtype)


class LoRAEmbedding(nn.Module):
    """The same for an embedding, a (V, r) and b (r, D)."""

    def __init__(self, embedding: Any, change: LowRank) -> None:
        super().__init__()
        self.embedding, self.lora_a, self.lora_b = embedding, change.a, change.b
        self.scale, self.ties = change.scale, change.ties

    def __call__(self, ids: mx.array) -> mx.array:
        y = self.embedding(ids)
        return y + (self.scale * mx.matmul(self.lora_a[ids], self.lora_b)).astype(y.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        """x (.., D) -> (.., V), for models whose output layer is their embedding."""
        y = self.embedding.as_linear(x)
        if not self.ties:
            return y
        z = mx.addmm(y, mx.matmul(x, self.lora_b.T), self.lora_a.T, alpha=self.scale)
        return z.astype(y.dtype)


FORMS: dict[str, Any] = {
    "Linear": LoRALinear, "QuantizedLinear": LoRALinear,
    "SwitchLinear": LoRASwitchLinear, "QuantizedSwitchLinear": LoRASwitchLinear,
    "Embedding": LoRAEmbedding, "QuantizedEmbedding": LoRAEmbedding,
}  # fmt: skip


def apply(model: Any, path: str, base: str) -> None:
    """Change a model that nobody uses yet by the adapter in `path`; base: what to call the model.

    Raises BadModel, which names the layer, where it is for another model."""
    changes, arrays = Adapter(path).changes()
    with blame(path):
        if not changes and not arrays:
            raise BadModel("it changes nothing")
        dtype = _dtype(model)
        known = dict(model.named_modules())
        for name, array in arrays.items():
            layer, _, leaf = name.rpartition(".")
            layer = _place(model, known, layer, of=base)
            _put(model, layer, _with_array(known[layer], leaf, _as_type(array, dtype)))
        known = dict(model.named_modules())
        for name, change in changes.items():
            layer = _place(model, known, name, of=base)
            _put(model, layer, _adapted(name, known[layer], _promoted(change, dtype)))


def _adapted(name: str, module: Any, change: LowRank) -> nn.Module:
    """A layer with its change; BadModel where it is none of ours, or its shape another."""
    form = FORMS.get(type(module).__name__)
    if form is None:
        raise BadModel(f"{name}: a {type(module).__name__} cannot be adapted")
    shape, found = _shape(module), _shape_of(change, form)
    if shape != found:
        raise BadModel(f"it is for another model: {name} changes a matrix of shape {found}, the base's is {shape}")
    if change.magnitude is not None and (form is not LoRALinear or change.magnitude.size != shape[0]):
        raise BadModel(f"{name}: DoRA of a {type(module).__name__} of shape {shape} cannot be read")
    made = form(module, change)
    mx.eval(made.parameters())
    return made


def _shape(module: Any) -> tuple[int, ...]:
    """(outputs, inputs) of a linear layer, behind the number of experts; (tokens, dims) of an embedding."""
    shape = list(module.weight.shape)
    if "scales" in module:
        shape[-1] = shape[-1] * 32 // module.bits
    return tuple(shape)


def _shape_of(change: LowRank, form: Any) -> tuple[int, ...]:
    """The same by the two matrices."""
    a, b = change.a.shape, change.b.shape
    if form is LoRASwitchLinear and len(a) == 3:
        return a[0], b[1], a[2]
    return (a[0], b[-1]) if form is LoRAEmbedding else (b[-1], a[0])


def _changed(linear: Any, change: LowRank) -> mx.array:
    """W + scale (a b)^T in float32."""
    weight = linear.weight
    if "scales" in linear:
        form = {"group_size": linear.group_size, "bits": linear.bits, "mode": linear.mode}
        weight = mx.dequantize(weight, linear.scales, linear.get("biases"), **form)
    b, a = change.b.T.astype(mx.float32), change.a.T.astype(mx.float32)
    return mx.addmm(weight.astype(mx.float32), b, a, alpha=change.scale)


def _dtype(model: Any) -> mx.Dtype:
    """What the model computes in: the widest of its numbers' types."""
    from mlx.utils import tree_flatten

    arrays: Any = tree_flatten(model.parameters())
    types = {array.dtype for _, array in arrays}
    return mx.result_type(*[dtype for dtype in types if mx.issubdtype(dtype, mx.floating)])


def _as_type(array: mx.array, dtype: mx.Dtype) -> mx.array:
    return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array


def _promoted(change: LowRank, dtype: mx.Dtype) -> LowRank:
    """The change in a type that no step has to convert it to."""
    wide = mx.result_type(dtype, change.a, change.b)
    change.a, change.b = change.a.astype(wide), change.b.astype(wide)
    return change


def _place(model: Any, known: dict[str, Any], layer: str, *, of: str) -> str:
    """The model's own name of a layer: where its loader puts a weight of that name; BadModel where it has none."""
    if layer and layer in known:
        return layer
    try:
        found = list(model.sanitize({f"{layer}.weight": mx.zeros((1, 1))}))
    except Exception:  # it has no such function, or looks for others beside the weight
        found = []
    place = found[0].removesuffix(".weight") if len(found) == 1 else f"language_model.{layer}"
    if place in known:
        return place
    raise BadModel(f"it is for another model: {of} has no {layer}", "-m BASE --adapter FOLDER takes another base")


def _with_array(module: Any, leaf: str, array: mx.array) -> Any:
    """A layer with an array in the place of its own; instead of a quantised matrix, an ordinary layer."""
    quantised = leaf == "weight" and "scales" in module and mx.issubdtype(array.dtype, mx.floating)
    shape = _shape(module) if quantised else getattr(module.get(leaf), "shape", None)
    if shape != array.shape:
        raise BadModel(f"it is for another model: a {leaf} of shape {array.shape}, where the base's has {shape}")
    if not quantised:
        module[leaf] = array
        return module
    plain: Any = nn.Embedding(1, 1) if "Embedding" in type(module).__name__ else nn.Linear(1, 1, bias=False)
    plain.weight = array
    if "bias" in module:
        plain.bias = module.bias
    return plain


def _put(model: Any, path: str, module: Any) -> None:
    """The module at a path of names and numbers."""
    *before, last = path.split(".")
    node = model
    for name in before:
        node = node[int(name)] if isinstance(node, list) else node[name]
    node[int(last) if isinstance(node, list) else last] = module
