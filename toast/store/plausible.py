"""Numbers of a configuration that no model has: they would give NaN, or take all memory before a weight is missed.

Knows settings by how their names end; nothing of architectures.
"""

from __future__ import annotations

from toast.errors import BadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST = (1 << 31) - 1  # of a size: MLX's shapes have 32 bits
LAYERS = 10_000  # each is made before a weight is missed
EPSILONS = ("eps", "epsilon")  # how their names end
BASES = ("rope_theta", "rope_base", "freq_base", "rope_base_freq", "local_base_freq")  # of rotary positions
COUNTS = {  # no model has fewer than none of these; of others -1 may say that there is no limit
    "hidden_size", "intermediate_size", "vocab_size", "embedding_size", "type_vocab_size", "num_hidden_layers",
    "n_layers", "num_attention_heads", "n_heads", "num_key_value_heads", "head_dim", "dim", "hidden_dim",
    "max_position_embeddings", "in_features", "out_features",
}  # fmt: skip
SIZES = ("size", "dim", "layers", "heads", "experts", "embeddings", "features", "token_id", *COUNTS)


def check(config: dict[str, Any]) -> None:
    """BadModel for a size, an epsilon or a frequency that would give no numbers, or take all memory."""
    for name, value in config.items():
        if isinstance(value, dict) and not name.endswith(EPSILONS):
            check(value)
        elif name.endswith(BASES) and isinstance(value, list) and len(value) == config.get("num_hidden_layers"):
            for base in value:
                check({name: base or 1})  # 0: a layer without rotary positions
        elif value is not None and not _plausible(name, value):
            raise BadModel(f"{name} is {str(value)[:40]} in its config.json")


def _plausible(name: str, value: Any) -> bool:
    if name in ("sliding_window", "vocab_size"):
        return isinstance(value, int) and 0 <= value <= LARGEST
    if not isinstance(value, (int, float)):
        counted = name.startswith("num_") or name in COUNTS
        return not (name.endswith((*EPSILONS, *BASES)) or (counted and isinstance(value, str)))
    if value != value:
        return False
    if name.endswith(EPSILONS):
        return 0 <= value < 1
    if name.endswith(BASES):
        return 0 < value < float("inf")
    if name.endswith(SIZES):
        return (0 if name in COUNTS else -1) <= value <= (LAYERS if name.endswith("layers") else LARGEST)
    return True
