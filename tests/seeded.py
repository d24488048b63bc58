"""Weights that need no file: a tensor's values follow from its name and shape alone, in every version of numpy."""

from binascii import crc32
from math import prod

import numpy as np


def tensor(name, shape):
    """float32 values of a tensor called `name`; larger than trained ones, so that every part matters."""
    raw = np.random.PCG64(crc32(name.encode())).random_raw(max(1, prod(shape)))[: prod(shape)]
    uniform = ((raw >> np.uint64(40)) / (1 << 24) * 2 - 1).astype(np.float32).reshape(shape)  # -1 to 1
    if len(shape) > 1:
        spread = 1.0 if "embed" in name or "wte" in name else 2.4 / prod(shape[1:]) ** 0.5
        return uniform * np.float32(spread)
    return np.asarray(
        uniform * np.float32(0.2) + np.float32(0 if name.endswith("bias") and "correction" not in name else 1)
    )


def tensors(shapes):
    """name -> values, for name -> shape."""
    return {name: tensor(name, tuple(shape)) for name, shape in shapes.items()}
