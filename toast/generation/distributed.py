"""A language model over several processes or machines: `mlx.launch -n 2 toast ...`, divided as MLX-LM divides it.

Every process runs the same command and holds its part of each layer (tensor parallelism, Shoeybi et al. 2019) or some
of the layers (pipeline); the first one writes. MLX says who is who, in MLX_RANK.
"""

from __future__ import annotations

import os

import mlx.core as mx

from toast.errors import BadModel, ToastError
from toast.generation import decoder
from toast.store.config import text_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call


def part(call: Call) -> Call:
    """The Call as one process of several has it: nobody gives it an input, and only the first has a say."""
    call = call.but(no_input=True)
    if call.env.get("MLX_RANK") == "0":
        return call
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return call.but(stdout=nowhere, stderr=nowhere)


def divide(model: Any, config: dict[str, Any], name: str) -> None:
    """Leave of a loaded model what is this process's part; all parts together answer as the whole does.

    name: what a message calls it. Raises BadModel where MLX-LM cannot divide it by so many."""
    group, config = _group(), text_part(config)
    inner: Any = getattr(model, "model", None)
    if not (hasattr(model, "shard") or hasattr(inner, "pipeline")):
        raise BadModel(f"{name}: MLX-LM cannot divide a {config.get('model_type')} model", "toast without mlx.launch")
    for key in ("num_attention_heads", "num_key_value_heads"):
        count = config.get(key)
        if isinstance(count, int) and count % group.size():
            raise BadModel(f"{name} has {count} {key[4:].replace('_', ' ')}, which {group.size()} cannot share evenly")
    if hasattr(model, "shard"):
        model.shard(group)
    else:
        inner.pipeline(group)
    decoder.settle(model)


def _group() -> mx.distributed.Group:
    """All processes of this run, once each has found its neighbours. Raises ToastError where one cannot."""
    try:
        return mx.distributed.init(strict=True)
    except RuntimeError as error:
        hint = "another port: mlx.launch --starting-port N"
        raise ToastError(f"these processes cannot meet: {error}", hint) from None
