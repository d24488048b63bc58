"""A GGUF file's metadata as config.json, in the names that transformers uses.

Owns what all architectures share; what only one has is `particulars.py`'s.
"""

from __future__ import annotations

from math import pi

from toast.errors import BadModel
from toast.store.config import MEANT_NULLS
from toast.store.metadata import COMMON, EXPERTS, Metadata, model_type
from toast.store.particulars import PARTICULARS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.store.gguf import Gguf

    Config = dict[str, Any]


def config(file: Gguf) -> Config:
    """config.json without what is said of quantisation."""
    meta, kind = Metadata(file), model_type(file)
    found = _common(meta) | {"model_type": kind}
    if scaling := _rope_scaling(meta, found):
        found["rope_scaling"] = scaling
    if experts := meta("expert_count"):
        found |= meta.named(EXPERTS) | {"num_local_experts": experts, "n_routed_experts": experts,
                                        "decoder_sparse_step": 1, "mlp_only_layers": []}  # fmt: skip
    if kind in PARTICULARS:
        found |= PARTICULARS[kind](meta, found)
    return {name: value for name, value in found.items() if value is not None or name in MEANT_NULLS}


def _common(meta: Metadata) -> Config:
    found = dict.fromkeys(COMMON) | meta.named(COMMON)
    eps = meta("attention.layer_norm_epsilon")
    defaults = {
        "num_key_value_heads": found["num_attention_heads"],
        "rope_theta": 10000.0,
        "rms_norm_eps": eps,
        "intermediate_size": meta.one("expert_feed_forward_length"),
    }
    found |= {name: value for name, value in defaults.items() if not found[name]}
    if not found["head_dim"] and found["num_attention_heads"]:
        found["head_dim"] = meta("rope.dimension_count") if meta.arch in WHOLE_HEADS else None
        found["head_dim"] = found["head_dim"] or found["hidden_size"] // found["num_attention_heads"]
    if missing := [COMMON[name] for name, value in found.items() if value is None]:
        raise KeyError(f"{meta.arch}.{missing[0]}")
    ends = {"tie_word_embeddings": not meta.has("output.weight"),
            "vocab_size": meta.file.tensors["token_embd.weight"].shape[0]}  # fmt: skip
    biased = meta.has("blk.0.attn_q.bias") or meta.has("blk.0.attn_qkv.bias")
    return found | ends | {"attention_bias": biased, "mlp_bias": meta.has("blk.0.ffn_down.bias")}


WHOLE_HEADS = "llama", "granite", "granitemoe", "smollm3", "mistral3"  # all of whose heads are turned


# ---------------------------------------------------------------- positions


def _rope_scaling(meta: Metadata, config: Config) -> Config | None:
    original = meta("rope.scaling.original_context_length", config["max_position_embeddings"])
    if meta.has("rope_freqs.weight") and meta.arch != "gemma4":
        return _llama3_scaling(meta.factors("rope_freqs.weight"), config)
    if meta.has("rope_factors_long.weight"):
        long, short = (meta.factors(f"rope_factors_{n}.weight") for n in ("long", "short"))
        return {"type": "longrope", "long_factor": long, "short_factor": short,
                "original_max_position_embeddings": original}  # fmt: skip
    kind = meta("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise BadModel(f"rope scaling {kind!r} is not supported")
    scaling = {"type": kind, "rope_type": kind, "factor": meta("rope.scaling.factor")}
    if kind == "yarn":
        beta = {name: meta(f"rope.scaling.yarn_{name}") for name in ("beta_fast", "beta_slow")}
        scaling |= {"original_max_position_embeddings": original} | {n: x for n, x in beta.items() if x is not None}
        if attention := meta("rope.scaling.yarn_attn_factor"):
            scaling["attention_factor"] = attention
    return scaling


def _llama3_scaling(factors: list[float], config: Config) -> Config:
    """Llama 3's parameters (or 4's, which has no way between) back from the divisors of each frequency that GGUF keeps
    of them."""
    dims, base = config["head_dim"], config["rope_theta"]
    wavelengths = [2 * pi * base ** (2 * i / dims) for i in range(dims // 2)]
    for high in (4.0, 1.0):
        for original in (8192, *(1 << n for n in range(5, 21))):
            scaling = {"rope_type": "llama3", "factor": max(factors), "low_freq_factor": 1.0,
                       "high_freq_factor": high, "original_max_position_embeddings": original}  # fmt: skip
            if all(abs(divisor(w, scaling) - f) <= 1e-3 * f for w, f in zip(wavelengths, factors, strict=True)):
                return scaling
    raise ValueError("rope frequencies other than Llama 3's")


def divisor(wavelength: float, scaling: Config) -> float:
    """What Llama 3 divides the frequency of this wavelength by."""
    low, high, original = (
        scaling[name] for name in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    if wavelength < original / high:
        return 1.0
    if wavelength > original / low:
        return scaling["factor"]
    smooth = (original / wavelength - low) / (high - low) if high > low else 1.0
    return 1 / ((1 - smooth) / scaling["factor"] + smooth)
