"""GGUF file -> folder in MLX's layout: config.json, model.safetensors, tokenizer.json, chat template.

Owns the stream of tensors from one file to the other, a few rows at a time. Their names are `architectures.py`'s,
bits `ggml.py`'s, settings `gguf_config.py`'s, vocabularies `vocab.py`'s.
"""

from __future__ import annotations

import os
import re
from math import prod

import mlx.core as mx
import numpy as np

from toast.errors import BadModel
from toast.files import Draft
from toast.store import ggml, gguf, gguf_config, layout, safetensors, vocab
from toast.store.architectures import TABLES
from toast.store.folder import write_texts
from toast.store.metadata import ENCODERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy import ndarray

    from toast.store.gguf import Gguf, Tensor
    from toast.store.layout import Rule, Shape

    Json = dict[str, Any]

IGNORED = re.compile(r"rope_freqs|rope_factors|blk\.\d+\.(attn_rot_embd|.*\.input_scale$)")
NEXT = re.compile(r"blk\.(\d+)\.")
REWRITTEN = {"group_size": 32, "bits": 8, "mode": "affine"}  # what is computed anew of quantised tensors


def gguf_to_folder(path: str, out: str) -> None:
    """Write the model of the GGUF file at `path`, of several parts any, into the folder `out`.

    Raises BadModel, in one line, for a damaged file or an architecture or type that is not supported."""
    file = gguf.whole(path)
    with gguf.converting(path):
        config = gguf_config.config(file)
        jobs = list(_jobs(file, config))
        texts = {
            "config.json": config | _quantization(jobs),
            "generation_config.json": vocab.generation_config(file.metadata),
            **vocab.files(file.metadata),
        }
        if config["model_type"] in ENCODERS.values():
            _add_pooling(file, out)
        with Draft(os.path.join(out, "model.safetensors")) as draft:
            to = safetensors.Rows(draft.fd, {n: x for job in jobs for n, x in job.arrays.items()}, {"format": "mlx"})
            for job in jobs:
                job.write(to)
            draft.place()
    write_texts(out, texts)


POOLING = {1: "mean", 2: "cls", 3: "lasttoken"}  # pooling_type


def _add_pooling(file: Gguf, out: str) -> None:
    """The small files of sentence-transformers."""
    kind = file.metadata.get(f"{file.metadata['general.architecture']}.pooling_type", 1)
    if kind not in POOLING:
        raise BadModel(f"pooling of type {kind} is not supported")
    os.mkdir(os.path.join(out, "1_Pooling"))
    steps = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
               for i, (name, path) in enumerate(steps)]  # fmt: skip
    modes = {f"pooling_mode_{name}_token{'s' * (name == 'mean')}": n == kind for n, name in POOLING.items() if n < 3}
    modes["pooling_mode_lasttoken"] = kind == 3
    write_texts(out, {"modules.json": modules, "1_Pooling/config.json": modes})


def _quantization(jobs: list[Job]) -> Json:
    """What config.json says of it: the commonest form, and the layers that have another."""
    forms = {module: form for job in jobs for module, form in job.forms.items()}
    if not forms:
        return {}
    every = list(forms.values())
    common = max(every, key=every.count)
    return {"quantization": common | {module: form for module, form in forms.items() if form != common}}


# ---------------------------------------------------------------- tensors


class Job:
    """One rule's tensors of one layer: the arrays that come of them (name -> dtype, shape), and their forms."""

    def __init__(
        self, rule: Rule, config: Json, *, theirs: list[Tensor], names: list[str], factor: Tensor | None = None
    ) -> None:
        self.rule, self.config, self.theirs, self.names, self.factor = rule, config, theirs, names, factor
        self.kinds = {tensor.type for tensor in theirs}
        self.quantized = any(ggml.form(kind) for kind in self.kinds)
        self.anew = bool(rule.back) or len(self.kinds) > 1 or factor is not None
        self.dense = config["model_type"] in ENCODERS.values()  # whose matrices all have one form
        shapes = self._shapes()
        self.arrays: dict[str, tuple[mx.Dtype, Shape]] = {}
        self.forms: dict[str, Json] = {}
        for name, shape in zip(names, shapes, strict=True):
            form, parts = self._form(shape)
            self.arrays |= zip(_parts(name), parts, strict=False)
            if form:
                self.forms[name.rpartition(".")[0]] = form

    def _shapes(self) -> list[Shape]:
        shapes = [tensor.shape for tensor in self.theirs]
        if self.rule.back:  # of nothing, as zeros without memory of their own
            empty = [np.broadcast_to(np.float32(-1), shape) for shape in shapes]
            return [self.rule.back(self.config, *empty).shape]
        return self.rule.shapes(shapes)

    def _form(self, shape: Shape) -> tuple[Json | None, list[tuple[mx.Dtype, Shape]]]:
        """(MLX's settings, the arrays' dtypes and shapes) of one of ours."""
        if self.dense:
            return None, ggml.shapes("F32" if self.kinds == {"F32"} else "F16", shape)
        if not self.anew:
            kind = next(iter(self.kinds))
            return ggml.form(kind), ggml.shapes(kind, shape)
        if self.quantized and len(shape) > 1 and shape[-1] % 32 == 0:
            return REWRITTEN, ggml.shapes("Q8_0", shape)
        return None, ggml.shapes("F32" if "F32" in self.kinds else "F16", shape)

    def write(self, to: safetensors.Rows) -> None:
        if self.dense:
            self._write_numbers(to, ggml.numbers(self.theirs[0]))
        elif self.rule.back:
            arrays = [ggml.numbers(tensor) for tensor in self.theirs]
            if self.rule.rows:
                arrays = [arrays[0][self._index(len(arrays[0]))]]
            self._write_numbers(to, self.rule.back(self.config, *arrays))
        elif self.anew:
            rows = np.concatenate([ggml.numbers(t).reshape(-1, t.shape[-1]) for t in self.theirs])
            if self.factor is not None:  # a number for all, or for each expert
                factor = ggml.numbers(self.factor).reshape(-1)
                rows *= np.repeat(factor, len(rows) // len(factor))[:, None]
            self._write_numbers(to, rows[self._index(len(rows))])
        else:
            self._write_rows(to)

    def _index(self, rows: int) -> ndarray:
        if self.rule.rows is None:
            return np.arange(rows)
        index = self.rule.rows(self.config, [tensor.shape for tensor in self.theirs])
        if len(index) != rows:
            raise ValueError(f"{self.names[0]} has {rows} rows, which is not right for {len(index)}")
        return index

    def _write_numbers(self, to: safetensors.Rows, x: ndarray) -> None:
        """Numbers that were computed, in the form that `_form` says."""
        (name,) = self.names
        if not self.forms:
            x = x.astype(np.float32 if self.arrays[name][0] == mx.float32 else np.float16)
            return to.put(name, np.ascontiguousarray(x).data.cast("B"))
        x = x.reshape(-1, x.shape[-1])
        for start, end in ggml.spans(x.shape):
            groups = np.ascontiguousarray(x[start:end], np.float32).reshape(-1, 32)
            q, scales, biases = ggml.rounded(groups, 8)
            parts = [ggml.packed(q.reshape(end - start, -1), 8)]
            parts += [part.astype(np.float16).reshape(end - start, -1) for part in (scales, biases)]
            _put(to, name, parts, start=start)

    def _write_rows(self, to: safetensors.Rows) -> None:
        """Rows as they are, in ours' order: a few at once, so that little is in memory."""
        kind = next(iter(self.kinds))
        lines = [layout.count(t.shape) if len(t.shape) > 1 or self.rule.rows else 1 for t in self.theirs]
        index = self._index(sum(lines)) if self.rule.rows else None
        source = self._raw(lines) if index is not None else None
        start = 0
        for name in self.names:
            shape = (lines[0], 1) if len(self.theirs[0].shape) < 2 else self.arrays[name][1]
            n = prod(self.arrays[name][1][:-1]) if len(self.theirs[0].shape) > 1 else lines[0]
            for first, last in ggml.spans((n, max(1, prod(shape) // max(1, n)))):
                if source is None or index is None:
                    raw = ggml.raw(self.theirs[0], first, last, lines=n)
                else:
                    raw = source[index[start + first : start + last]]
                _put(to, name, self._blocks(ggml.rows(kind, raw)), start=first)
            start += n

    def _raw(self, lines: list[int]) -> ndarray:
        """All rows of theirs."""
        return np.concatenate([ggml.raw(t, 0, n, lines=n) for t, n in zip(self.theirs, lines, strict=True)])

    def _blocks(self, parts: tuple[ndarray, ...]) -> list[ndarray]:
        """Rows whose columns are in ours' order, too."""
        if not self.rule.blocks:
            return list(parts)
        _, index = self.rule.blocks(self.config)
        if any(part.shape[1] % len(index) for part in parts):
            raise ValueError(f"{self.names[0]} has groups of columns that belong to several heads")
        return [part.reshape(len(part), len(index), -1)[:, index].reshape(len(part), -1) for part in parts]


def _parts(name: str) -> list[str]:
    stem = name.rpartition(".")[0]
    return [name, f"{stem}.scales", f"{stem}.biases"]


def _put(to: safetensors.Rows, name: str, parts: list[ndarray] | tuple[ndarray, ...], *, start: int) -> None:
    for part_name, part in zip(_parts(name), parts, strict=False):
        part = np.ascontiguousarray(part)
        to.put(part_name, part.data.cast("B"), start * part.nbytes // max(1, len(part)))


def _jobs(file: Gguf, config: Json) -> Iterator[Job]:
    """The rules that a file's tensors fall under, each with all of its tensors. Layers after the last are left out."""
    table, layers = TABLES[config["model_type"]], config.get("num_hidden_layers", 0)
    found: dict[str, tuple[Rule, list[str], dict[int, Tensor]]] = {}
    factors: dict[str, Tensor] = {}
    for name, tensor in file.tensors.items():
        number = NEXT.match(name)
        if IGNORED.match(name) or (number and int(number.group(1)) >= layers):
            continue
        whole = file.tensors.get(f"{name.removesuffix('.scale')}.weight") if name.endswith(".scale") else None
        match = table.find(name, ours=False)
        if whole is not None and whole.type == "NVFP4" and (not match or match[3]):
            factors[name.removesuffix(".scale")] = tensor
            continue
        if not match:
            raise BadModel(f"{name} is a tensor that {config['model_type']} does not have in MLX-LM")
        rule, position, number_, leaf = match
        names = [layout.named(ours, number_, leaf) for ours in rule.ours]
        found.setdefault(names[0], (rule, names, {}))[2][position] = tensor
    stems = {id(tensor): name.removesuffix(".weight") for name, tensor in file.tensors.items()}
    for rule, names, tensors in found.values():
        if len(tensors) != len(rule.theirs):
            raise KeyError(f"{names[0]}, of which a part is missing")
        theirs = [tensors[i] for i in range(len(rule.theirs))]
        yield Job(rule, config, theirs=theirs, names=names, factor=factors.get(stems[id(theirs[0])]))
