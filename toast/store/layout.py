"""How tensors of one naming become those of another: same numbers, other names, rows or columns in another order.

Owns rules and orders, both ways. Which architecture needs which is `architectures.py`'s; knows no files.
"""

from __future__ import annotations

import re
from math import prod

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy import ndarray

    Config = dict[str, Any]
    Shape = tuple[int, ...]

LEAVES = ("weight", "bias", "scale")
NUMBER = re.compile(r"(^|\.)(\d+)(?=\.)")


class Rule:
    """Tensors of GGUF (`theirs`) that together are tensors of MLX-LM (`ours`); "{}" is the number of a layer.

    A name without .weight or .bias stands for both. rows(config, theirs' shapes): for all rows of ours, one after the
    other, the number of theirs, counted alike. blocks(config): (size, for each `size` columns of ours, which of
    theirs). back(config, *arrays) and to(config, *arrays): numbers computed anew, float32, to ours and to theirs.
    lines(config): of several of theirs that are one of ours, each one's rows.
    """

    def __init__(
        self,
        theirs: str | tuple[str, ...],
        ours: str | tuple[str, ...],
        *,
        rows: Callable[[Config, list[Shape]], ndarray] | None = None,
        blocks: Callable[[Config], tuple[int, ndarray]] | None = None,
        back: Callable[..., ndarray] | None = None,
        to: Callable[..., Any] | None = None,
        lines: Callable[[Config], list[int]] | None = None,
    ) -> None:
        self.theirs = (theirs,) if isinstance(theirs, str) else theirs
        self.ours = (ours,) if isinstance(ours, str) else ours
        self.rows, self.blocks, self.back, self.to, self.lines = rows, blocks, back, to, lines

    def shapes(self, theirs: Sequence[Shape]) -> list[Shape]:
        """Those of ours where rows are only sorted: as many of theirs are one of ours, or the other way round."""
        if len(self.theirs) == len(self.ours):
            return list(theirs)
        first, parts = theirs[0], len(self.ours)
        if len(theirs) == 1:  # halves, of each expert where there are several
            return [(*first[:-2], first[-2] // parts, first[-1])] * parts
        return [(sum(prod(shape[:-1]) for shape in theirs), first[-1])]


class Table:
    """Rules by the names of either side."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.theirs = {name: (rule, i) for rule in rules for i, name in enumerate(rule.theirs)}
        self.ours = {name: (rule, i) for rule in rules for i, name in enumerate(rule.ours)}

    def find(self, name: str, *, ours: bool) -> tuple[Rule, int, str, str] | None:
        """(rule, which of its names, the layer's number or "", the leaf that it leaves open or "")."""
        found = NUMBER.search(name)
        number = found.group(2) if found else ""
        template = name[: found.start(2)] + "{}" + name[found.end(2) :] if found else name
        rules = self.ours if ours else self.theirs
        stem, _, leaf = template.rpartition(".")
        if template in rules:
            return *rules[template], number, ""
        return (*rules[stem], number, leaf) if stem in rules and leaf in LEAVES else None


def named(template: str, number: str, leaf: str) -> str:
    """The name of a tensor by a rule's."""
    name = template.replace("{}", number)
    return f"{name}.{leaf}" if leaf else name


# ---------------------------------------------------------------- orders of rows


def count(shape: Shape) -> int:
    return prod(shape[:-1]) if len(shape) > 1 else shape[0]


def halves_of(heads: str) -> Callable[[Config, list[Shape]], ndarray]:
    """llama.cpp turns neighbours, transformers halves: rows are interleaved; `heads`: what their number is called."""

    def rows(config: Config, theirs: list[Shape]) -> ndarray:
        if config.get("position_embedding_type") == "nope":  # there is nothing to turn
            return np.arange(count(theirs[0]))
        index = np.arange(count(theirs[0])).reshape(config[heads], -1, 2)
        return index.swapaxes(1, 2).reshape(-1)

    return rows


def parts_of_experts(parts: int) -> Callable[[Config, list[Shape]], ndarray]:
    """Each expert's rows are `parts` parts, which ours hold apart."""

    def rows(config: Config, theirs: list[Shape]) -> ndarray:
        shape = theirs[0]
        index = np.arange(count(shape)).reshape(prod(shape[:-2]), parts, -1)
        return index.swapaxes(0, 1).reshape(-1)

    return rows


def one_after_the_other(config: Config, theirs: list[Shape]) -> ndarray:
    """Ours are all of theirs, as they come."""
    return np.arange(sum(count(shape) for shape in theirs))


def inverse(index: ndarray) -> ndarray:
    """The order that undoes an order."""
    back = np.empty_like(index)
    back[index] = np.arange(len(index))
    return back


# ---------------------------------------------------------------- gated delta nets


def _linear(config: Config) -> tuple[int, int, int, int]:
    """(key heads, value heads of each, dims of a key, dims of a value)."""
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    return keys, values // keys, config["linear_key_head_dim"], config["linear_value_head_dim"]


def query_key_value_gate(config: Config, theirs: list[Shape]) -> ndarray:
    """Ours: for each key head its query, key, values and gates; theirs: all queries, keys, values, then all gates."""
    heads, each, dk, dv = _linear(config)
    at, groups = 0, []
    for size in (dk, dk, each * dv, each * dv):
        groups.append(np.arange(at, at + heads * size).reshape(heads, size))
        at += heads * size
    return np.concatenate(groups, axis=1).reshape(-1)


def query_key_value_gate_lines(config: Config) -> list[int]:
    heads, each, dk, dv = _linear(config)
    return [heads * (2 * dk + each * dv), heads * each * dv]


def _value_heads(config: Config, dims: int) -> ndarray:
    """Theirs count the values' heads over the key heads first, ours within each."""
    heads, each, _, _ = _linear(config)
    return np.arange(heads * each * dims).reshape(each, heads, dims).swapaxes(0, 1).reshape(-1)


def value_heads(config: Config, theirs: list[Shape]) -> ndarray:
    return _value_heads(config, count(theirs[0]) // config["linear_num_value_heads"])


def keys_and_value_heads(config: Config, theirs: list[Shape]) -> ndarray:
    heads, _, dk, dv = _linear(config)
    values = 2 * heads * dk + _value_heads(config, dv)
    return np.concatenate([np.arange(2 * heads * dk), values])


def value_head_columns(config: Config) -> tuple[int, ndarray]:
    return config["linear_value_head_dim"], _value_heads(config, 1)
