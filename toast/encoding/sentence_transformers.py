"""From token states to one vector, as the model's own sentence-transformers files say.

Owns: modules.json, pooling, dense layers, prompts. Does not know: architectures, token ids.
"""

from __future__ import annotations

from math import isfinite

import mlx.core as mx

from toast.encoding.tokens import limits
from toast.errors import BadModel, no_numbers_of, not_numbers
from toast.models import layers, static
from toast.store.folder import blame, modules, read_config, read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Step = Callable[[mx.array, mx.array, int], mx.array]  # (states or vectors, lengths, skip) -> the same or vectors

# Order of concatenation when several are on.
POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
WIDTHS = "hidden_size", "dim", "d_model", "n_embd"  # as each architecture calls it
STATIC = "static", "model2vec"
PROMPT_NAMES = {"query": ["query"], "document": ["document", "passage", "corpus"]}


class SentenceTransformer:
    """Settings of an embedding model folder; without modules.json: mean pooling, no normalisation.

    folder: where config.json and the tokenizer are; max_length: tokens, special ones included;
    prompts: name -> text put before the record; lower: lower-case the text first;
    normalize: the model ends with vectors of length 1; dims: of the vector, if the files say.
    """

    def __init__(self, path: str) -> None:
        with blame(path):
            self.read(path)

    def read(self, path: str) -> None:
        """Take the settings of the folder's files."""
        self.folder, self.max_length, self.lower = limits(path)
        self.normalize, self.include_prompt = False, True
        self.steps: list[Step] = []
        self.dims = 0
        self.modes = 1  # of pooling, side by side
        for kind, folder in modules(path):
            self.add(kind, folder)
        if not self.steps:
            self.steps = [pooling(["mean"])]
        config = read_config(self.folder)
        self.normalize |= bool(config.get("normalize"))  # model2vec's, which needs no module for it
        if not self.dims:
            self.dims = width(self.folder, config) * self.modes
        saved = read_json(path, "config_sentence_transformers.json") or {}
        self.prompts: dict[str, str] = {k: v for k, v in (saved.get("prompts") or {}).items() if v}
        self.default_prompt: str | None = saved.get("default_prompt_name")
        if not all(isinstance(text, str) for text in (*self.prompts.values(), self.default_prompt or "")):
            raise BadModel("its prompts are no texts")

    def add(self, kind: str, folder: str) -> None:
        """Append the step that a module of modules.json stands for."""
        if kind == "Pooling":
            config = read_config(folder)
            modes = config.get("pooling_mode") or [m for k, m in POOLING.items() if config.get(k)]
            modes = [modes] if isinstance(modes, str) else modes or ["mean"]
            self.steps.append(pooling(modes))
            self.modes = len(modes)
            self.include_prompt = config.get("include_prompt", True)
        elif kind == "Normalize":
            self.normalize = True
        elif kind == "Dense" and self.steps:
            step, self.dims = dense(folder)
            self.then(step)
        elif kind == "LayerNorm":
            self.then(layer_norm(folder))
        elif kind in ("Dense", "MultiVectorMask"):
            raise BadModel(f"{folder}: a late-interaction model has no single vector", "rerank -m")
        elif kind not in ("Transformer", "StaticEmbedding", "Dropout"):
            raise BadModel(f"{folder}: module {kind} of modules.json is not supported")

    def then(self, step: Callable[[mx.array], mx.array]) -> None:
        """Apply `step` to the vectors made so far."""
        if self.normalize:
            self.steps.append(lambda x, *_: normalize(x))
            self.normalize = False
        self.steps.append(lambda x, *_: step(x))

    def prompt(self, kind: str | None = None) -> str:
        """Text put before a record: for `query`, `document` or by default; "" if none."""
        names = PROMPT_NAMES.get(kind or "", [kind or self.default_prompt or ""])
        return next((self.prompts[name] for name in names if name in self.prompts), "")

    def pool(self, hidden: mx.array, lengths: mx.array, skip: int = 0) -> mx.array:
        """Token states (B, L, D), lengths (B,) -> vectors (B, dims), not normalised.

        skip: tokens of the prompt, left out of the pooling when the model says so.
        """
        x = hidden
        for step in self.steps:
            x = step(x, lengths, 0 if self.include_prompt else skip)
        return x


def width(folder: str, config: dict[str, Any]) -> int:
    """Numbers of a token's state."""
    if config.get("model_type") in STATIC:
        return static.width(folder)
    return next((config[name] for name in WIDTHS if name in config), None) or config["hidden_size"]


def normalize(x: mx.array) -> mx.array:
    """Rows of Euclidean length 1; zero rows stay zero, those of infinite length become NaN."""
    length = mx.linalg.norm(x, axis=-1, keepdims=True)
    return x / mx.where(length < mx.inf, mx.maximum(length, 1e-12), mx.nan)


def finite(name: str, x: mx.array) -> mx.array:
    """The same array, computed; BadModel, which names the model, where no row (of texts) is all numbers, BadText where
    some are not."""
    if not isfinite(float(mx.sum(x))):
        numbers: Any = mx.all(mx.isfinite(x), axis=-1).tolist() if x.ndim == 2 else [False]
        if any(numbers):
            if all(numbers):  # the sum alone is too large
                return x
            raise no_numbers_of(name, [i for i, good in enumerate(numbers) if not good])
        raise not_numbers(name)
    return x


def pooling(modes: list[str]) -> Step:
    """Token states (B, L, D) -> (B, len(modes) * D)."""
    for mode in modes:
        if mode not in POOLING.values():
            raise BadModel(f"pooling {mode!r} is not one of {', '.join(POOLING.values())}")

    def run(hidden: mx.array, lengths: mx.array, skip: int) -> mx.array:
        return mx.concatenate([pool(mode, hidden, lengths, skip=skip) for mode in modes], axis=-1)

    return run


def pool(mode: str, hidden: mx.array, lengths: mx.array, *, skip: int) -> mx.array:
    """Tokens skip..length of each row as one vector (B, D)."""
    B, L, D = hidden.shape
    if mode == "cls":
        return hidden[:, min(skip, L - 1)]
    if mode == "lasttoken":
        return hidden[mx.arange(B), mx.maximum(lengths - 1, 0)] * (lengths > 0)[:, None]
    at = mx.arange(L)
    inside = ((at >= skip) & (at < lengths[:, None]))[..., None]
    if mode == "max":
        return mx.max(mx.where(inside, hidden, -mx.inf), axis=1)
    weights = inside * (at + 1)[:, None] if mode == "weightedmean" else inside
    count = mx.maximum(mx.sum(weights, axis=1).astype(hidden.dtype), 1e-9)
    total = mx.sum(mx.where(inside, hidden * weights, 0), axis=1)
    return total / (mx.sqrt(count) if mode == "mean_sqrt_len_tokens" else count)


def dense(folder: str) -> tuple[Callable[[mx.array], mx.array], int]:
    """A Dense module: (its function (..., inputs) -> (..., outputs), outputs)."""
    from toast.store import weights

    config = read_config(folder)
    inputs, outputs = config["in_features"], config["out_features"]
    w = layers.Tensors(weights.load(folder), config)
    linear = w.linear("linear", outputs, inputs, bias=config.get("bias", True))
    act = activation(folder, config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    added = bool(config.get("use_residual"))
    own = added and inputs != outputs
    residual = w.linear("residual", outputs, inputs, bias=False) if own else lambda x: x
    w.settle()
    if not added:
        return lambda x: act(linear(x)), outputs
    return lambda x: act(linear(x)) + residual(x), outputs


def activation(folder: str, name: str) -> Callable[[mx.array], mx.array]:
    """A function for the PyTorch class that a config names."""
    known: dict[str, Callable[[mx.array], mx.array]] = {"Identity": lambda x: x, "Sigmoid": mx.sigmoid}
    known |= {kind: layers.activation(kind.lower()) for kind in ("Tanh", "ReLU", "GELU", "SiLU")}
    short = str(name).rpartition(".")[2]
    if short not in known:
        raise BadModel(f"{folder}: activation {name!r} is not one of {', '.join(known)}")
    return known[short]


def layer_norm(folder: str) -> Callable[[mx.array], mx.array]:
    from toast.store import weights

    config = read_config(folder)
    w = layers.Tensors(weights.load(folder), config)
    norm = w.layer_norm("norm", config["dimension"], 1e-5)
    w.settle()
    return norm
