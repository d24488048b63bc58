"""Tensors of a model folder, by name.

Owns: which files hold them. Does not know: what the tensors mean.
"""

import os

import mlx.core as mx

from toast.errors import BadModel


def load(path):
    """All tensors of the folder's *.safetensors files: dict of name -> mx.array, read lazily."""
    files = sorted(f for f in os.listdir(path) if f.endswith(".safetensors"))
    if not files:
        raise BadModel(f"{path}: no .safetensors file")
    tensors = {}
    for file in files:
        try:
            tensors.update(mx.load(os.path.join(path, file)))
        except RuntimeError as error:
            raise BadModel(f"{path}/{file}: {error}") from None
    return tensors
