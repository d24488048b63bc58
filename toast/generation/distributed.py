"""A language model over several processes or machines: `mlx.launch -n 2 toast ...`, divided as MLX-LM divides it.

Every process runs the same command and holds its part of each layer (tensor parallelism, Shoeybi et al. 2019) or some
of the layers (pipeline); the first one writes. MLX says who is who, in MLX_RANK.
"""

from __future__ import annotations

import os

import mlx.core as mx

from toast.errors import BadModel, UsageError
from toast.generation import decoder
from toast.generation.engine import LanguageModel
from toast.store.config import text_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call


def part(call: Call) -> Call:
    """The Call as one process of several has it: nobody gives it an input, and only the first has a say."""
    call = call.but(no_input=True)
    if call.env.get("MLX_RANK") == "0":
        return call
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return call.but(stdout=nowhere, stderr=nowhere)


class Divided(LanguageModel):
    """This process's part of a language model; all of them together answer as the whole does."""

    def __init__(self, folder: str, adapter: str = "") -> None:
        if adapter:
            raise UsageError("an adapter is for one process", "model quantize, or toast without mlx.launch")
        super().__init__(folder)
        group = mx.distributed.init(strict=True)
        self._check(folder, group.size())
        if hasattr(self.model, "shard"):
            self.model.shard(group)
        else:
            self.model.model.pipeline(group)
        decoder.settle(self.model)

    def _check(self, folder: str, size: int) -> None:
        """BadModel unless MLX-LM can divide the model by so many."""
        config, name = text_part(self.config), os.path.basename(folder)
        if not (hasattr(self.model, "shard") or hasattr(getattr(self.model, "model", None), "pipeline")):
            raise BadModel(
                f"{name}: MLX-LM cannot divide a {config.get('model_type')} model", "toast without mlx.launch"
            )
        for key in ("num_attention_heads", "num_key_value_heads"):
            count = config.get(key)
            if isinstance(count, int) and count % size:
                raise BadModel(f"{name} has {count} {key[4:].replace('_', ' ')}, which {size} cannot share evenly")
