"""The end of a prompt in one call of the model: its states go into the caches, of the last token's alone come logits.

Owns which models this is known of: those whose file ends as Llama's does, where a row does not depend on the others.
"""

from __future__ import annotations

import sys

import mlx.core as mx

from toast import kernels
from toast.generation.generate import can_trim, forward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def logits(model: Any, caches: list[Any], ids: list[int]) -> mx.array | None:
    """The logits (V,) that follow the ids, which go into the caches; None where the last has to be fed apart, and
    nothing was done."""
    if kernels.variant() == "off" or not can_trim(caches):
        return None
    given = mx.array([ids])
    if hasattr(type(model), "last"):
        found = model.last(given, caches)
        return None if found is None else found[0, -1]
    if not _ends_as_llama(type(model)):
        return None
    return forward(lambda x, cache: type(model).__call__(_Shortened(model), x, cache), given, caches)[0, -1]


def _ends_as_llama(cls: Any) -> bool:
    """Whether a class's __call__ is layers, norm and then a product for each row, in the words of MLX-LM's Llama."""
    llama = sys.modules.get("mlx_lm.models.llama")
    code = getattr(cls.__call__, "__code__", None)
    if llama is None or code is None:
        return False
    known = llama.Model.__call__.__code__
    return (code.co_names, code.co_code, code.co_consts) == (known.co_names, known.co_code, known.co_consts)


class _Shortened:
    """A model whose layers give the last row alone."""

    def __init__(self, model: Any) -> None:
        self._model, self.model = model, _Layers(model.model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Layers:
    def __init__(self, layers: Any) -> None:
        self._layers = layers

    def __call__(self, *given: Any) -> mx.array:
        return self._layers(*given)[:, -1:]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layers, name)
