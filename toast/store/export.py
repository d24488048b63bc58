"""Tensors under MLX-LM's names -> a GGUF file: `convert.py` the other way round, a few rows at a time.

Owns the stream from one to the other, and which tensors stay in float32. Names are `architectures.py`'s.
"""

from __future__ import annotations

import re
from math import prod

import numpy as np

from toast.errors import BadModel
from toast.store import ggml, layout
from toast.store.architectures import TABLES
from toast.store.gguf_writer import SIZES, Writer, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Protocol

    from numpy import ndarray

    from toast.store.layout import Rule, Shape

    Json = dict[str, Any]


class Source(Protocol if TYPE_CHECKING else object):  # type: ignore[misc]
    """One of ours: its shape, and numbers(indices of rows) -> (n, columns) float32; of a list, of its numbers."""

    shape: Shape

    def numbers(self, index: ndarray) -> ndarray:
        raise NotImplementedError


def _all(source: Source) -> ndarray:
    return source.numbers(np.arange(layout.count(source.shape))).reshape(source.shape)


# what llama.cpp leaves in float32: small, and decisive
EXACT = re.compile(
    r"ffn_gate_inp|ssm_|shortconv\.conv|norm|rope_f|\.bias$|\.scale$|sinks|exp_probs_b|layer_output_scale"
)


def gguf(fd: int, sources: dict[str, Any], config: Json, *, metadata: Json, kind: str, more: Json) -> None:
    """Write a GGUF file of these tensors, matrices in `kind`, with `more` (name -> numbers) beside them; `sources` is
    empty then, and each tensor is let go once it is written.

    Raises BadModel for a tensor that the architecture has no name for."""
    jobs = list(_jobs(sources, config))
    sources.clear()
    shapes = {name: shape for job in jobs for name, shape in job.theirs.items()}
    types = {name: _type(name, shape, kind) for name, shape in shapes.items()}
    extra = {name: np.array([numbers], np.float32) for name, numbers in more.items()}
    table = {name: ("F32", numbers.shape[1:]) for name, numbers in extra.items()}
    to = Writer(fd, metadata, table | {name: (types[name], shape) for name, shape in shapes.items()})
    for name, numbers in extra.items():
        to.put(name, encode("F32", numbers), 0)
    while jobs:  # what is written is let go
        jobs.pop(0).write(to, types)


def _type(name: str, shape: Shape, kind: str) -> str:
    if len(shape) < 2 or EXACT.search(name):
        return "F32"
    return kind if shape[-1] % SIZES[kind][0] == 0 else "F16"


class Job:
    """One rule's tensors of one layer."""

    def __init__(self, rule: Rule, config: Json, *, ours: list[Source], names: list[str]) -> None:
        self.rule, self.config, self.ours = rule, config, ours
        self.numbers: list[ndarray] | None = None
        if rule.to:
            found = rule.to(config, *(_all(source) for source in ours))
            self.numbers = list(found) if isinstance(found, tuple) else [found]
            shapes = [part.shape for part in self.numbers]
        else:
            shapes = self._shapes()
        self.theirs = dict(zip(names, shapes, strict=True))

    def _shapes(self) -> list[Shape]:
        shapes = [source.shape for source in self.ours]
        if len(self.rule.theirs) == len(shapes):
            return shapes
        if len(self.rule.theirs) == 1:  # parts of each expert become one
            return [(*shapes[0][:-2], sum(shape[-2] for shape in shapes), shapes[0][-1])]
        lines = self.rule.lines(self.config) if self.rule.lines else []
        return [(n, shapes[0][-1]) for n in lines]

    def write(self, to: Writer, types: Mapping[str, str]) -> None:
        shapes = list(self.theirs.values())
        index = layout.inverse(self.rule.rows(self.config, shapes)) if self.rule.rows else None
        start = 0
        for i, (name, shape) in enumerate(self.theirs.items()):
            lines = prod(shape[:-1])
            if self.numbers is not None:
                whole = self.numbers[i]
                if index is not None:
                    whole = whole[index]
                to.put(name, encode(types[name], whole.reshape(lines, -1)), 0)
                continue
            for first, last in ggml.spans(shape):
                rows = np.arange(start + first, start + last)
                to.put(name, encode(types[name], self._rows(rows, index, shape)), first)
            start += lines

    def _rows(self, rows: ndarray, index: ndarray | None, shape: Shape) -> ndarray:
        if len(shape) < 2:  # a list's rows are its numbers
            whole = _all(self.ours[0]).reshape(-1)
            return (whole if index is None else whole[index]).reshape(1, -1)
        x = self._gather(rows if index is None else index[rows])
        if self.rule.blocks:
            _, order = self.rule.blocks(self.config)
            x = x.reshape(len(x), len(order), -1)[:, layout.inverse(order)].reshape(len(x), -1)
        return x

    def _gather(self, rows: ndarray) -> ndarray:
        """Rows of ours, counted one after the other."""
        if len(self.ours) == 1:
            return self.ours[0].numbers(rows)
        found, start = np.empty((len(rows), self.ours[0].shape[-1]), np.float32), 0
        for source in self.ours:
            mine = (rows >= start) & (rows < start + layout.count(source.shape))
            if mine.any():
                found[mine] = source.numbers(rows[mine] - start)
            start += layout.count(source.shape)
        return found


def _jobs(sources: Mapping[str, Source], config: Json) -> Iterator[Job]:
    kind = str(config.get("model_type"))
    table = TABLES[SAME.get(kind, kind)]
    found: dict[str, tuple[Rule, list[str], dict[int, Source]]] = {}
    for name, source in sources.items():
        match = table.find(name, ours=True) or table.find(name.removeprefix("language_model."), ours=True)
        if not match:
            raise BadModel(f"{name} is a tensor that {kind} has no name for in GGUF")
        rule, position, number, leaf = match
        names = [layout.named(theirs, number, leaf) for theirs in rule.theirs]
        found.setdefault(names[0], (rule, names, {}))[2][position] = source
    for rule, names, parts in found.values():
        if len(parts) != len(rule.ours):
            raise BadModel(f"{names[0]} wants tensors that are not all there")
        yield Job(rule, config, ours=[parts[i] for i in range(len(rule.ours))], names=names)


# model types that have the tensors of another
SAME = {"mistral": "llama", "glm4_moe_lite": "deepseek_v3", "qwen3_5": "qwen3_5_text",
        "qwen3_5_moe": "qwen3_5_moe_text", "llama4_text": "llama4"}  # fmt: skip
