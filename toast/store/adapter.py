"""Adapters: folders that hold what a fine-tune changed of a base model, in MLX-LM's and in PEFT's layout.

Owns both layouts, and which base an adapter names. Does not know what a layer does with its change
(`generation/lora.py`). Sources: MLX-LM's tuner/utils.py, PEFT's utils/save_and_load.py and tuners/lora.
"""

from __future__ import annotations

import math
import os

from toast.errors import BadModel, ModelNotFound, UsageError
from toast.store.folder import blame, read_object
from toast.store.resolve import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import mlx.core as mx

    from toast.command import Call

    Config = dict[str, Any]

SETTINGS = "adapter_config.json"
MLX, PEFT = "adapters.safetensors", "adapter_model.safetensors"
# settings of PEFT that change more than low-rank matrices say
FOREIGN = ("layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "use_qalora",
           "lora_bias")  # fmt: skip
CHANGED_BASE = ("pissa", "olora", "corda", "loftq")  # what init_lora_weights begins with where the base is another one


class LowRank:
    """A layer's change: W + scale (a b)^T (LoRA, Hu et al. 2021), with a (in, r), b (r, out); of experts a (E, r, in),
    b (E, out, r). magnitude: length of each row of the sum (DoRA, Liu et al. 2024), None where it stays.
    ties: an embedding is changed as the output layer, too."""

    def __init__(self, parts: dict[str, mx.array], scale: float, *, ties: bool) -> None:
        self.a, self.b, self.magnitude = parts["a"], parts["b"], parts.get("m")
        self.scale, self.ties = scale, ties


class Adapter:
    """The adapter in `path`. base: the name of its base model, None where it has none. Raises BadModel."""

    def __init__(self, path: str) -> None:
        self.path, self.config = path, read_object(path, SETTINGS)
        if not self.config:
            raise BadModel(f"{path}: not an adapter: no {SETTINGS}")
        self.is_peft = "peft_type" in self.config
        if not (self.is_peft or {"lora_parameters", "fine_tune_type"} & self.config.keys()):
            raise BadModel(f"{path}: {SETTINGS} is neither MLX-LM's nor PEFT's")
        base = self.config.get("base_model_name_or_path" if self.is_peft else "model")
        if not isinstance(base, str | None):
            raise BadModel(f"{path}: its base model is {base!r}, not a name")
        self.base = base or None

    def changes(self) -> tuple[dict[str, LowRank], dict[str, mx.array]]:
        """(layer -> its low-rank change, name -> what stands in the place of the base's array)."""
        from toast.store import weights

        with blame(self.path):
            (check_peft if self.is_peft else check_mlx)(self.config)
            tensors = weights.load(self._file())
            return (self._peft if self.is_peft else self._mlx)(tensors)

    def _file(self) -> str:
        name = PEFT if self.is_peft else MLX
        path = os.path.join(self.path, name)
        if os.path.isfile(path):
            return path
        pickled = os.path.join(self.path, "adapter_model.bin")
        hint = "save_pretrained(..., safe_serialization=True) writes it" if os.path.isfile(pickled) else ""
        raise BadModel(f"no {name}", hint)

    def _mlx(self, tensors: dict[str, mx.array]) -> tuple[dict[str, LowRank], dict[str, mx.array]]:
        if self.config.get("fine_tune_type") == "full":
            return {}, tensors
        parts: dict[str, dict[str, mx.array]] = {}
        for name, array in tensors.items():
            layer, _, leaf = name.rpartition(".")
            if leaf not in ("lora_a", "lora_b", "m"):
                raise BadModel(f"{name} is no weight of an adapter")
            parts.setdefault(layer, {})[leaf.removeprefix("lora_")] = array
        settings = self.config["lora_parameters"]
        found = {layer: LowRank(whole(layer, some), settings["scale"], ties=True) for layer, some in parts.items()}
        for layer, change in found.items():
            check_rank(layer, change, settings["rank"])
        return found, {}

    def _peft(self, tensors: dict[str, mx.array]) -> tuple[dict[str, LowRank], dict[str, mx.array]]:
        parts: dict[str, dict[str, mx.array]] = {}
        rest: dict[str, mx.array] = {}
        for name, array in tensors.items():
            words = name.removeprefix("base_model.model.").split(".")
            at = next((i for i, word in enumerate(words) if word.startswith("lora_")), None)
            if at is None:
                rest[".".join(w for w in words if w not in ("base_layer", "modules_to_save", "default"))] = array
                continue
            part = {"lora_magnitude_vector": "m"}.get(words[at], words[at][-1].lower())
            parts.setdefault(".".join(words[:at]), {})[part] = array if part == "m" else array.T
        return {layer: self._scaled(layer, whole(layer, some)) for layer, some in parts.items()}, rest

    def _scaled(self, layer: str, parts: dict[str, mx.array]) -> LowRank:
        config = self.config
        rank = matching(config.get("rank_pattern"), layer, config["r"])
        alpha = matching(config.get("alpha_pattern"), layer, config["lora_alpha"])
        change = LowRank(parts, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank), ties=False)
        check_rank(layer, change, rank)
        return change


def check_mlx(config: Config) -> None:
    """BadModel for a kind of fine-tune that is not known."""
    kind = config.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora", "full"):
        raise BadModel(f"fine_tune_type {kind!r} is none of lora, dora and full")


def check_peft(config: Config) -> None:
    """BadModel for what is not LoRA or DoRA, or is more."""
    kind = config["peft_type"]
    if kind != "LORA":
        raise BadModel(f"peft_type {kind!r}: of PEFT's adapters only LORA (with DoRA) can be read")
    if others := [name for name in FOREIGN if config.get(name)]:
        raise BadModel(f"an adapter with {others[0]} cannot be read")
    began = str(config.get("init_lora_weights")).lower()
    if began.startswith(CHANGED_BASE):
        raise BadModel(f"init_lora_weights {began!r} changed the base, too", "PEFT converts it to LoRA as it saves")


def matching(patterns: dict[str, float] | None, layer: str, usual: float) -> float:
    """The value of the first pattern that a layer's name ends with, as PEFT looks for it."""
    import re

    try:
        found = [value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", layer)]
    except re.error as error:
        raise BadModel(f"a pattern of its settings is no regular expression: {error}") from None
    return found[0] if found else usual


def whole(layer: str, parts: dict[str, mx.array]) -> dict[str, mx.array]:
    """The parts of a layer's change, once they are known to be two matrices and a vector at most."""
    if not {"a", "b"} <= parts.keys() <= {"a", "b", "m"} or parts["a"].ndim != parts["b"].ndim:
        raise BadModel(f"{layer}: not a pair of low-rank matrices")
    return parts


def check_rank(layer: str, change: LowRank, rank: float) -> None:
    """BadModel where the matrices have another rank than the settings."""
    experts = change.a.ndim == 3
    ranks = (change.a.shape[1], change.b.shape[2]) if experts else (change.a.shape[-1], change.b.shape[0])
    if set(ranks) != {rank}:
        found = " and ".join(map(str, sorted(set(ranks))))
        raise BadModel(f"{layer} has rank {found}, {SETTINGS} says {rank}")


# ---------------------------------------------------------------- from names to folders


def is_adapter(path: str) -> bool:
    """Whether a folder is an adapter: it has the settings of one, and no model's weights beside them."""
    if not os.path.isfile(os.path.join(path, SETTINGS)):
        return False
    return not any(name.startswith("model") and name.endswith(".safetensors") for name in os.listdir(path))


def resolve(call: Call, name: str, *purposes: str, adapter: str | None = None) -> tuple[str, list[str]]:
    """(name of the base model, the adapter's folder if there is one) of a model's name and an adapter's.

    A name may be an adapter's own: its settings then name the base. purposes: as those of `find`."""
    path = find(call, name, *purposes)
    if adapter is not None:
        if is_adapter(path):
            raise UsageError(f"{name} is an adapter, too", "-m BASE --adapter FOLDER takes one")
        return name, [Adapter(_folder(call, adapter)).path]
    if not is_adapter(path):
        return name, []
    base = Adapter(path).base
    if base is None:
        raise BadModel(f"{name} names no base model", f"-m BASE --adapter {name}")
    try:
        found = find(call, base)
    except ModelNotFound as error:
        hint = f"{error.hint.partition(';')[0]}; -m BASE --adapter {name} takes another"
        raise ModelNotFound(f"{name}: its base {base!r} is not here", hint) from None
    if is_adapter(found):
        raise BadModel(f"{name}: its base {base!r} is an adapter, too", f"-m BASE --adapter {name}")
    return base, [path]


def _folder(call: Call, name: str) -> str:
    """The folder of an adapter, or of a repository in the Hugging Face cache."""
    path = call.path(name)
    if os.path.exists(path) and not os.path.isdir(path):
        raise BadModel(f"{name} is no folder of an adapter")
    try:
        return find(call, name)
    except ModelNotFound:
        raise ModelNotFound(f"no adapter {name!r} here", "give its folder") from None


def wording(folder: str, adapter: str = "") -> str:
    """The folder whose tokenizer and chat template count: an adapter that brings its own was trained with them."""
    return adapter if adapter and os.path.isfile(os.path.join(adapter, "tokenizer.json")) else folder
