"""Mamba-2 in the layers of Granite 4 and Falcon-H1, between its projections one op.

Knows MLX-LM's modules by their code, as recurrent.py; a batch with padding is MLX-LM's own to do.
"""

from __future__ import annotations

from toast.kernels import hybrid, recurrent
from toast.kernels.modules import _once
from toast.kernels.recurrent import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import mlx.core as mx

    from toast.kernels import _ext

STEPS = 0x0EBCDCC5, (0x65225952, 0xE045F6B9)  # what _conv and _ssm refer to


def mixer(mamba: Any) -> _ext.Mixer | None:
    """Its op, made once; None where the extension has no such form, or MLX-LM's code is another."""
    return _once(mamba, _make_mixer) if type(mamba).__call__ in (_granite, _falcon) else None


def _make_mixer(mamba: Any) -> _ext.Mixer | None:
    known = names(type(mamba)._conv) == STEPS[0] and names(type(mamba)._ssm) in STEPS[1]
    norm = mamba.get("norm")
    if not known or getattr(norm, "norm_before_gate", False):
        return None
    try:
        return hybrid.ext.mamba2(
            sizes=(mamba.num_heads, mamba.n_groups, mamba.head_dim, mamba.ssm_state_size),
            conv=mamba.conv1d.weight, bias=mamba.conv1d.get("bias"), A_log=mamba.A_log, D=mamba.D,
            dt_bias=mamba.dt_bias, limits=tuple(mamba.time_step_limit),
            norm=None if norm is None else (norm.weight, _eps(norm)),
        )  # fmt: skip
    except ValueError:  # a longer convolution, say
        return None


def _eps(norm: Any) -> float:
    return float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon)


def _granite(self: Any, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
    op, projected = mixer(self), self.in_proj(x)
    if op is None or not recurrent.plain(mask, cache) or ("norm" in self and projected.dtype != self.norm.weight.dtype):
        return recurrent._unfused[type(self).__name__](self, x, mask=mask, cache=cache)
    return self.out_proj(recurrent.run(op, [projected], cache))


def _falcon(self: Any, input_states: mx.array, cache: Any = None, mask: mx.array | None = None) -> mx.array:
    return _granite(self, input_states, mask, cache)


MODELS: list[Any] = []
METHODS = [
    ("granitemoehybrid", "GraniteMoeHybridMamba2Mixer", "__call__", 0x6501716A, _granite),
    ("falcon_h1", "FalconH1Mixer", "__call__", 0x35725B5E, _falcon),
]
