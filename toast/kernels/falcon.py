"""Falcon-H1's layers as one op: Mamba-2 beside attention.

Knows MLX-LM's modules by their code, as recurrent.py.
"""

from __future__ import annotations

from toast.kernels import hybrid, mamba
from toast.kernels.hybrid import Family, _norms
from toast.kernels.known import plain_matrices
from toast.kernels.modules import _make_rope, _once
from toast.kernels.recurrent import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.kernels import _ext

# what __call__ refers to, of a layer, its attention and its feed-forward block
KNOWN = [0x2E6D9BED, 0xFB7B000E, 0x30B938A7]


def _make_layer(layer: Any) -> _ext.DecoderLayers | None:
    mixer, attention, mlp = layer.mamba, layer.self_attn, layer.feed_forward
    if [names(type(part).__call__) for part in (layer, attention, mlp)] != KNOWN:
        return None
    op, rope = mamba.mixer(mixer), _once(attention.rope, _make_rope)
    linears = [mixer.in_proj, mixer.out_proj, attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    matrices = plain_matrices([*linears, mlp.gate_proj, mlp.up_proj, mlp.down_proj])
    if op is None or rope is None or matrices is None:
        return None
    return hybrid.ext.DecoderLayers(
        mixer=op, rope=rope, linears=matrices,
        norms=_norms([layer.input_layernorm, layer.pre_ff_layernorm], 4),
        heads=attention.num_heads, kv_heads=attention.num_kv_heads, scale=attention.scale,
    )  # fmt: skip


METHODS: list[Any] = []
MODELS = [("falcon_h1", "FalconH1Model", 0xC87E2608, Family(_make_layer, norm="final_layernorm"))]
