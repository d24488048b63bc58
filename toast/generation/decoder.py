"""MLX-LM's architectures without MLX-LM's package: a model folder becomes a callable decoder.

Owns the choice of the architecture file, quantised layers and the caches. Does not know text.
model(ids (B, L), cache=caches) -> logits (B, L, V); the caches are changed in place.
"""

from __future__ import annotations

import sys

import mlx.core as mx

from toast import kernels
from toast.errors import BadModel
from toast.generation import direct
from toast.store import foreign, weights
from toast.store.config import text_part
from toast.store.folder import blame, read_config, read_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

    Config = dict[str, Any]
    Tensors = dict[str, mx.array]

# model_type -> file, where they differ; as in mlx_lm/utils.py
FILES = {
    "mistral": "llama", "llava": "mistral3", "phi-msft": "phixtral", "falcon_mamba": "mamba",
    "joyai_llm_flash": "deepseek_v3", "kimi_k2": "deepseek_v3", "qwen2_5_vl": "qwen2_vl",
    "minimax_m2": "minimax", "iquestcoder": "llama", "xverse": "llama",
    "gemma4_unified": "gemma4", "deepseek_v41_text": "deepseek_v41",
}  # fmt: skip
# what a wrapper calls its language model's tensors -> what the language model does
WRAPPED = (
    ("model.language_model.", "model."), ("model.text_model.", "model."), ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."), ("lm_head.", "lm_head."),
)  # fmt: skip
TEXT_ARGUMENTS = "TextArgs", "TextConfig"  # what files of wrappers call their language model's
METAL_ALONE = {"muse_spark"}


def load(path: str, *, settled: bool = True) -> tuple[Any, Config]:
    """(model, config) of the folder at `path`, MLX-LM's class with its layers: weights mapped and read when first used;
    nothing else is pending, unless it need not be `settled`.

    Raises BadModel when the folder is incomplete or MLX-LM has no such architecture."""
    config = read_config(path)
    architecture(path, config)
    tensors, quantization = _tensors(path, config)
    return _whole(path, config, tensors, quantization=quantization, settled=settled), config


def light(path: str) -> tuple[Any, Config]:
    """The same for those who only call it: without layers where these are of the usual kind (`direct.py`)."""
    config = read_config(path)
    if not direct.may_be(config):
        return load(path)
    tensors, quantization = _tensors(path, config)

    def whole() -> Any:
        return _whole(path, config, tensors, quantization=quantization)

    return direct.model(config, tensors, quantization, whole=whole) or whole(), config


def _tensors(path: str, config: Config) -> tuple[Tensors, Any]:
    """A checkpoint's tensors, and how they are quantised."""
    tensors = weights.load(path)
    with blame(path):
        return foreign.understood(tensors, config)


def _whole(path: str, config: Config, tensors: Tensors, *, quantization: Any, settled: bool = True) -> Any:
    """MLX-LM's model of these tensors."""
    module: Any = architecture(path, config)
    from toast.generation import corrections, fill, windows  # MLX's layers, whose import the architecture's begins

    part = config
    if _file(config) is None:
        part, tensors = text_part(config), _text_tensors(tensors)
    tensors = _wrapped(module, part, tensors)
    try:
        kind = str(part.get("model_type"))
        model = module.Model(_arguments(module, windows.left_to_us(part)))
        tensors = corrections.before(kind, tensors)
        if hasattr(model, "sanitize"):
            tensors = model.sanitize(tensors)
        if not hasattr(model, "lm_head") and text_part(part).get("tie_word_embeddings"):
            tensors = {name: array for name, array in tensors.items() if name != "lm_head.weight"}
        tensors = corrections.within(model, kind) | tensors
        if quantization:
            fill.quantize(model, quantization, tensors)
        model.eval()
        fill.fill(model, tensors)
        corrections.after(model, text_part(part))
        if settled:
            settle(model)
        windows.apply(model, part)
    except BadModel:
        raise
    except Exception as error:  # whatever MLX-LM's classes make of these settings
        raise BadModel(f"{path}: not a whole {part.get('model_type')} model: {error}") from None
    return model


def _arguments(module: Any, config: Config) -> Any:
    """An architecture's ModelArgs; those without a default that may be absent, objects all of them, are None."""
    kind = module.ModelArgs
    if "text_config" in kind.__dataclass_fields__:  # a wrapper's file also reads its language model alone
        text = config.get("text_config") or config
        inside = next((getattr(module, name) for name in TEXT_ARGUMENTS if hasattr(module, name)), None)
        config = {**config, "text_config": {**_absent(inside, text), **text}}
    return kind.from_dict({**_absent(kind, config), **config})


def _absent(kind: Any, config: Config) -> Config:
    """What the arguments of this kind want, and may be told to be without."""
    fields = kind.__dataclass_fields__ if kind else {}
    wanted = {f.name for f in fields.values() if f.default is f.default_factory} - config.keys()
    return dict.fromkeys(name for name in wanted if fields[name].type not in (int, float, str, bool))


def _text_tensors(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    """A wrapper's language model, as if it were alone."""
    found = {}
    for prefix, name in WRAPPED:
        for key, array in tensors.items():
            if key.startswith(prefix):
                found[name + key.removeprefix(prefix)] = array
    return found


def _wrapped(module: Any, config: Config, tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    """A language model alone, for a file that knows it as a wrapper's part."""
    kind = str(config.get("model_type"))
    if kind == "gemma3n_text":
        return {name.replace("model.", "model.language_model.", 1): array for name, array in tensors.items()}
    if kind == "llama4_text" and _file(config) == "llama4":
        return {f"language_model.{name}": array for name, array in tensors.items()}
    if kind == "mistral3" and not any(name.endswith("lm_head.weight") for name in tensors):
        config["text_config"]["tie_word_embeddings"] = True
    return tensors


def settle(model: Any) -> None:
    """Compute what a model's arrays still wait for: a lazy array belongs to the thread that began it."""
    mx.eval([array for module in model.modules() for array in _arrays(list(module.values()))])


def _arrays(node: Any) -> Iterator[mx.array]:
    """The arrays in a module's own lists and dicts; other modules have their turn."""
    if isinstance(node, mx.array):
        yield node
    elif type(node) in (dict, list, tuple):
        for child in node.values() if type(node) is dict else node:
            yield from _arrays(child)


def architecture(path: str, config: Config) -> ModuleType:
    """The module of MLX-LM that implements config["model_type"], or of a wrapper that it lacks the language model."""
    from importlib import import_module

    name = _file(config) or _file(text_part(config))
    module: Any = None
    try:
        module = name and import_module(f"mlx_lm.models.{name}")
    except (ImportError, SystemExit):  # it needs a package of its own
        raise BadModel(f"{path}: MLX-LM's {name} needs a package that is not here") from None
    if name in METAL_ALONE and not mx.metal.is_available():
        raise BadModel(f"{path}: MLX-LM's {name} has kernels for Metal alone")
    if not hasattr(module, "ModelArgs"):
        raise BadModel(f"{path}: model type {str(config.get('model_type'))!r} is not one that MLX-LM has")
    kernels.install_nn()
    return module


def _file(config: Config) -> str | None:
    """The name of the file in mlx_lm/models that implements a configuration's model type, spelt either way."""
    kind = str(config.get("model_type"))
    if (kind, *(config.get("architectures") or [])[:1]) == ("bailing_hybrid", "BailingMoeV3ForCausalLM"):
        return "bailing_moe_v3"
    if kind == "llama4_text" and config.get("num_local_experts", 0) > 1:  # the file of that name has no experts
        return "llama4"
    from importlib.util import find_spec

    parent = _parent()
    for name in (FILES.get(kind, kind), kind.replace("-", "_"), kind.replace("_", "-"), kind.removesuffix("_text")):
        fits = name.replace("-", "_").isidentifier()
        if fits and find_spec(f"mlx_lm.models.{name}", parent.__name__):
            return name
    return None


def _parent() -> ModuleType:
    """mlx_lm, or an empty module in its place: its own __init__ imports transformers (0.6 s)."""
    if "mlx_lm" not in sys.modules:
        from importlib.util import find_spec
        from types import ModuleType

        spec = find_spec("mlx_lm")
        parent = sys.modules["mlx_lm"] = ModuleType("mlx_lm")
        places: Any = spec and spec.submodule_search_locations
        parent.__path__, parent.__spec__ = places, spec
    return sys.modules["mlx_lm"]


def caches(model: Any) -> list[Any]:
    """New caches, one for each layer, of the kinds that the model asks for."""
    if hasattr(model, "make_cache"):
        return model.make_cache()
    _parent()
    from mlx_lm.models import cache

    return [cache.KVCache() for _ in model.layers]


def end_tokens(path: str, config: Config) -> list[set[int]]:
    """The tokens that end a text: by generation_config.json, by config.json, by its part on text."""
    found = []
    for source in (read_object(path, "generation_config.json"), config, config.get("text_config") or {}):
        ends = source.get("eos_token_id")
        ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
        if not all(isinstance(end, int) for end in ends):
            raise BadModel(f"{path}: eos_token_id is {ends!r}, not numbers of tokens")
        found.append(set(ends))
    return found


def end_names(path: str) -> set[str]:
    """The same by the tokenizer's files: its eos_token, as text."""
    sources = [read_object(path, name) for name in ("tokenizer_config.json", "special_tokens_map.json")]
    tokens = [source.get("eos_token") for source in sources]
    names = [token.get("content") if isinstance(token, dict) else token for token in tokens]
    return {name for name in names if isinstance(name, str)}


def context(path: str, config: Config) -> int:
    """Tokens that the model can see at once."""
    with blame(path):
        found = text_part(config).get("max_position_embeddings") or 1 << 30
    if not isinstance(found, int):
        raise BadModel(f"{path}: max_position_embeddings is {found!r}, not a number")
    return found


def sampling(path: str) -> Config:
    """A Sampler's settings by generation_config.json, where it asks for sampling; else none."""
    config = read_object(path, "generation_config.json")
    if not config.get("do_sample"):
        return {}
    names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
             "repetition_penalty": "repeat_penalty"}  # fmt: skip
    found = {ours: config[theirs] for theirs, ours in names.items() if config.get(theirs) is not None}
    if wrong := [name for name, value in found.items() if not isinstance(value, (int, float))]:
        raise BadModel(f"{path}: {wrong[0]} in generation_config.json is {found[wrong[0]]!r}, not a number")
    return {"temperature": 1.0} | found
