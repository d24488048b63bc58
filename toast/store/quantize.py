"""An encoder's folder with its matrices in 8 bits, or 6 stored as 8 (or in 4), ready to be mapped.

Owns: which tensors shrink, and fused query-key-value. Does not know: the store.
"""

from __future__ import annotations

import json
import os
import re
import shutil

import mlx.core as mx

from toast import files
from toast.store import safetensors, sums, weights
from toast.store.folder import read_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MATRIX = re.compile(r"(^|\.)layers?\.\d+\..*\.weight$")
EMBEDDING = re.compile(r"(^|\.)(word_embeddings|tok_embeddings|embed_tokens)\.weight$")
# The last words of names that are one matrix in the stored form, and its name.
FUSED = {
    ("query", "key", "value"): "qkv",
    ("q_lin", "k_lin", "v_lin"): "qkv_lin",
    ("q", "k", "v"): "qkv",
}
OTHER_WEIGHTS = ("*.safetensors", "*.bin", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.gguf")
OTHER_FORMS = ("*.index.json", "onnx", "openvino", ".git*", ".cache", sums.NAME)


def quantize(folder: str, out: str, bits: int = 8, *, group: int = 64) -> None:
    """Write into `out` the encoder of `folder`, its layers and word embeddings quantised.

    MLX's affine quantisation over groups of `group` inputs: MLX-LM's checkpoints have the same
    form. 6 bits are stored as 8, since AVX2 multiplies codes below 64 twice as fast. Everything
    else becomes float32; other files are copied. config.json keeps in `source_digest` the SHA-256
    of the weights this came from, so that variants can share an index; they must be no codes. Raises BadModel.
    """
    config = read_config(folder)
    digest = source_digest(folder)
    tensors: dict[str, mx.array] = {}
    for name, array in fused(weights.load(folder)).items():
        tensors.update(shrink(name, array, bits=bits, group=group))
    copy_rest(folder, out)
    config |= {"quantization": {"group_size": group, "bits": 8 if bits == 6 else bits}, "source_digest": digest}
    files.replace(os.path.join(out, "model.safetensors"), safetensors.pack(tensors, {"format": "mlx"}))
    files.replace(os.path.join(out, "config.json"), [json.dumps(config, indent=1).encode()])


def copy_rest(folder: str, out: str) -> None:
    """Copy what is no weights into a folder that this process fills, and that stays its own until it is done."""
    os.makedirs(out, exist_ok=True)
    mode = os.stat(out).st_mode
    shutil.copytree(folder, out, ignore=only_at(folder), ignore_dangling_symlinks=True, dirs_exist_ok=True)
    os.chmod(out, mode & 0o777)  # with another mode what a killed process left would be nobody's


def only_at(folder: str) -> Callable[[str, list[str]], Iterable[str]]:
    """For copytree: leaves out weights in `folder` itself and other forms of them anywhere."""
    weights_of_any_kind = shutil.ignore_patterns(*OTHER_WEIGHTS, *OTHER_FORMS)
    forms = shutil.ignore_patterns(*OTHER_FORMS)
    return lambda at, names: (weights_of_any_kind if at == folder else forms)(at, names)


def source_digest(folder: str) -> str:
    """SHA-256, in hex, of the float weights behind `folder`: its own or those it was made from."""
    import hashlib

    known = read_config(folder).get("source_digest")
    if known:
        return known
    digest = hashlib.sha256()
    for name in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        with open(files.open_regular(os.path.join(folder, name)), "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def fused(tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The tensors with query, key and value of each layer as one, rows in that order."""
    tensors = dict(tensors)
    for names, whole in FUSED.items():
        for first in [n for n in tensors if MATRIX.search(n) and n.split(".")[-2] == names[0]]:
            stem = first.removesuffix(f"{names[0]}.weight")
            for kind in ("weight", "bias"):
                parts = [f"{stem}{name}.{kind}" for name in names]
                if all(part in tensors for part in parts):
                    whole_name = f"{stem}{whole}.{kind}"
                    tensors[whole_name] = mx.concatenate([tensors.pop(part) for part in parts])
    return tensors


def shrink(name: str, array: mx.array, *, bits: int, group: int) -> dict[str, mx.array]:
    """What is stored for a tensor: itself in float32, or weight, scales and biases."""
    if mx.issubdtype(array.dtype, mx.floating):
        array = array.astype(mx.float32)
    matrix = array.ndim == 2 and (MATRIX.search(name) or EMBEDDING.search(name))
    if not matrix or array.shape[1] % group:
        return {name: array}
    stem = name.removesuffix("weight")
    parts = affine6(array, group) if bits == 6 else mx.quantize(array, group_size=group, bits=bits)
    return {stem + part: x for part, x in zip(("weight", "scales", "biases"), parts, strict=True)}


def affine6(array: mx.array, group: int) -> tuple[mx.array, mx.array, mx.array]:
    """What mx.quantize gives for 8 bits, with codes below 64."""
    rows = array.reshape(len(array), -1, group)
    low = rows.min(-1, keepdims=True)
    scale = mx.maximum((rows.max(-1, keepdims=True) - low) / 63, 1e-7)
    codes = mx.round((rows - low) / scale).astype(mx.uint8).reshape(array.shape)
    return codes.view(mx.uint32), scale.squeeze(-1), low.squeeze(-1)
