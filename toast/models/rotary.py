"""Rotary positions (Su et al. 2021): x (B, n, L, d) -> the same, rotated by what a configuration says.

Owns the frequencies of each kind of scaling. Does not know: attention, any architecture.
"""

from __future__ import annotations

from math import exp, log, pi

import mlx.core as mx

from toast.errors import BadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]
    Map = Callable[[mx.array], mx.array]


def rotary(config: Config, dims: int, base: float | None = None) -> Map:
    """The rotation of the first `dims` of a head's numbers. base: instead of the configuration's rope_theta."""
    base = float(config["rope_theta"] if base is None else base)
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return plain(dims, base)
    if kind not in SCALED:
        known = ", ".join(["default", *SCALED])
        raise BadModel(f"rope_scaling {kind!r} of {config.get('model_type')} is not one of {known}")
    return with_periods(dims, SCALED[kind](periods(dims, base), scaling))


def plain(dims: int, base: float, *, interleaved: bool = False) -> Map:
    """Unscaled. interleaved: neighbours are pairs, not the halves' numbers."""
    return lambda x: mx.fast.rope(x, dims, traditional=interleaved, base=base, scale=1.0, offset=0)


def periods(dims: int, base: float) -> list[float]:
    """Positions in a radian, for each pair of numbers."""
    return [base ** (2 * i / dims) for i in range(dims // 2)]


def with_periods(dims: int, found: list[float], *, interleaved: bool = False) -> Map:
    """The rotation with these periods."""
    freqs = mx.array(found, mx.float32)
    mx.eval(freqs)
    return lambda x: mx.fast.rope(x, dims, traditional=interleaved, base=None, scale=1.0, offset=0, freqs=freqs)


def _linear(found: list[float], scaling: Config) -> list[float]:
    return [period * scaling["factor"] for period in found]


def _ntk(found: list[float], scaling: Config) -> list[float]:
    """Fixed NTK scaling, or mixed where there is a `mixed_b` (https://kexue.fm/archives/9706)."""
    n, factor, mixed = len(found), scaling["factor"], scaling.get("mixed_b")
    if mixed is None:
        return [p * factor ** (i / n) * factor ** (1 / n) for i, p in enumerate(found)]
    a = log(factor) / n**mixed
    return [p * exp(a * (i + 1) ** mixed) for i, p in enumerate(found)]


def _llama3(found: list[float], scaling: Config) -> list[float]:
    """Llama 3.1: long waves are stretched, short ones stay, those between are mixed."""
    factor, original = scaling["factor"], scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]

    def stretched(period: float) -> float:
        share = (original / (2 * pi * period) - low) / (high - low)
        share = min(max(share, 0.0), 1.0)
        return 1 / ((1 - share) / (factor * period) + share / period)

    return [stretched(period) for period in found]


SCALED: dict[str, Callable[[list[float], Config], list[float]]] = {"linear": _linear, "ntk": _ntk, "llama3": _llama3}
