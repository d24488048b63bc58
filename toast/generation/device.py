"""What is different where MLX computes on a GPU, by Metal or CUDA: how much of a prompt is read at once, what is given
back, what stays resident.

Owns these decisions for language models. Knows nothing of what they compute; on a CPU nothing is done here.
"""

from __future__ import annotations

import mlx.core as mx

from toast import kernels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PIECE = 512  # tokens of a prompt that a CPU reads at once: bounds the memory of a layer's activations
GPU_PIECE = 2048  # the same on a GPU, which fewer would not fill; MLX-LM's number, too
OFTEN = 256  # tokens after which caches have grown, and freed buffers are of sizes that nobody asks for again
HEADROOM = 4 << 30  # bytes of caches and activations that stay resident beside the weights

_wired = 0  # bytes of weights that this process has asked for


def piece() -> int:
    """How many tokens of prompts are read at once."""
    return GPU_PIECE if kernels.on_gpu() else PIECE


def tidy() -> None:
    """Give freed buffers back, which MLX keeps on a GPU until memory is short."""
    if kernels.on_gpu():
        mx.clear_cache()


def wire(model: Any) -> None:
    """Keep a loaded model's weights resident, and HEADROOM beside them, within what Metal recommends; without it
    macOS takes them away between two uses. The limit only grows, so that no work under way loses a buffer."""
    global _wired
    if not kernels.on_gpu():
        return
    most: Any = mx.device_info().get("max_recommended_working_set_size")  # Metal alone tells it
    if most is None:
        return
    from mlx.utils import tree_flatten

    arrays: Any = tree_flatten(model)
    _wired += sum(array.nbytes for _, array in arrays if isinstance(array, mx.array))
    mx.set_wired_limit(min(_wired + HEADROOM, most))
