"""A language model's tensors under MLX-LM's names, one by one: none is read before it is asked for, none is kept.

Owns how a quantised layer's parts belong together. Does not know what becomes of them.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from toast.generation import decoder
from toast.store.config import text_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy import ndarray

    Config = dict[str, Any]
    Form = dict[str, Any]


class Tensor:
    """One tensor: `parts` (itself, or weight, scales and any biases of `form`); `layer`: one that can be quantised."""

    def __init__(self, parts: list[mx.array], form: Form | None, *, layer: bool) -> None:
        self.parts, self.form, self.layer = parts, form, layer
        *lead, width = parts[0].shape if parts[0].ndim else (1,)
        self.shape = (*lead, width * 32 // form["bits"] if form else width)

    def rows(self, index: ndarray | slice) -> mx.array:
        """Rows, counted over all leading axes, of what the tensor stands for; of a list of numbers, numbers."""
        chosen = index if isinstance(index, slice) else mx.array(index)
        parts = [part if part.ndim < 2 else part.reshape(-1, part.shape[-1]) for part in self.parts]
        parts = [part[chosen] for part in parts]
        if not self.form:
            return parts[0]
        weight, scales, *biases = parts
        return mx.dequantize(weight, scales, biases[0] if biases else None, **self.form)

    def numbers(self, index: ndarray) -> ndarray:
        """The same in float32."""
        return np.array(self.rows(index).astype(mx.float32))


def read(path: str) -> tuple[dict[str, Tensor], Config, Any]:
    """(name -> tensor, the language model's own configuration, which layers MLX-LM wants left alone or None) of the
    folder at `path`; BadModel."""
    from mlx.utils import tree_flatten

    model, config = decoder.load(path, settled=False)
    forms, layers = {}, set()
    for name, module in model.named_modules():
        if hasattr(module, "to_quantized"):
            layers.add(name)
        if "scales" in module and hasattr(module, "bits"):
            forms[name] = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    predicate = getattr(model, "quant_predicate", None)
    flat: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    found = {}
    for name, array in flat.items():
        module, _, leaf = name.rpartition(".")
        if module in forms and leaf in ("scales", "biases"):
            continue
        form = forms.get(module) if leaf == "weight" else None
        more = [flat[f"{module}.{part}"] for part in ("scales", "biases") if f"{module}.{part}" in flat] if form else []
        found[name] = Tensor([array, *more], form, layer=leaf == "weight" and module in layers | forms.keys())
    return found, text_part(config), predicate
