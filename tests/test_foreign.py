"""Other tools' quantisation: their layouts give their numbers, and what is not supported is refused by its name."""

import json
import os

import mlx.core as mx
import numpy as np
import pytest

from toast.errors import BadModel
from toast.store import foreign
from toast.store.config import normalised

N, K, GROUP = 48, 256, 128
RNG = np.random.default_rng(4)


def packed(fields, bits, order=None):
    """Fields (R, C) as int32 words (R, C * bits / 32); order[i]: which of a word's columns its i-th field holds."""
    per = 32 // bits
    rows = fields.reshape(len(fields), -1, per)[..., order or list(range(per))].astype(np.uint64)
    return mx.array((rows << (np.arange(per, dtype=np.uint64) * bits)).sum(-1).astype(np.uint32).view(np.int32))


def made(bits):
    """(codes (N, K), zeros (N, groups), scales (N, groups) float16, the numbers (N, K))."""
    codes, zeros = RNG.integers(0, 1 << bits, (N, K)), RNG.integers(1, 1 << bits, (N, K // GROUP))
    scales = RNG.uniform(0.01, 0.1, zeros.shape).astype(np.float16)
    return codes, zeros, scales, (codes - zeros.repeat(GROUP, 1)) * scales.astype(np.float32).repeat(GROUP, 1)


def numbers(tensors, settings):
    """What MLX makes of the layer `l` of a folder with this quantization_config, and its bits."""
    found, form = foreign.understood(tensors, normalised({"quantization_config": settings}))
    parts = [found[f"l.{name}"] for name in ("weight", "scales", "biases")]
    group = K // parts[1].shape[1]
    return np.array(mx.dequantize(*parts, group_size=group, bits=form["bits"]).astype(mx.float32))


def test_awq():
    codes, zeros, scales, right = made(4)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    tensors = {"l.qweight": packed(codes.T, 4, order), "l.qzeros": packed(zeros.T, 4, order),
               "l.scales": mx.array(scales.T)}  # fmt: skip
    settings = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
    assert np.abs(numbers(tensors, settings) - right).max() < 2e-3


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
def test_gptq(bits, form):
    codes, zeros, scales, right = made(bits)
    stored = zeros - (form == "gptq")
    tensors = {"l.qweight": mx.array(np.array(packed(codes, bits)).T.copy()), "l.qzeros": packed(stored.T, bits),
               "l.scales": mx.array(scales.T), "l.g_idx": mx.array(np.arange(K, dtype=np.int32) // GROUP)}  # fmt: skip
    settings = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "checkpoint_format": form}
    assert np.abs(numbers(tensors, settings) - right).max() < 2e-3 * (1 << bits) / 16
    tensors["l.g_idx"] = tensors["l.g_idx"][::-1]
    with pytest.raises(BadModel, match="gptq.*desc_act"):
        numbers(tensors, settings)


@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors(symmetric):
    codes, zeros, scales, right = made(4)
    if symmetric:
        right = (codes - 8) * scales.astype(np.float32).repeat(GROUP, 1)
    tensors = {"l.weight_packed": packed(codes, 4), "l.weight_scale": mx.array(scales),
               "l.weight_shape": mx.array([N, K])}  # fmt: skip
    if not symmetric:
        tensors["l.weight_zero_point"] = mx.array(np.array(packed(zeros.T, 4)).T.copy())
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP, "symmetric": symmetric}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    assert np.abs(numbers(tensors, settings | {"config_groups": {"g": {"weights": weights}}}) - right).max() < 2e-3


@pytest.mark.parametrize("scales", [(3, 2), (N, 1), (1,), ()], ids=str)
def test_float8(scales):
    values = mx.array(RNG.normal(size=(N, K)))
    codes, scale = mx.to_fp8(values), mx.array(RNG.uniform(0.5, 2, scales), mx.float32)
    name, block = ("weight_scale_inv", [16, 128]) if len(scales) == 2 and scales[1] > 1 else ("weight_scale", None)
    tensors = {"l.weight": codes, f"l.{name}": scale, "n.weight": mx.ones(3)}
    config = normalised({"quantization_config": {"quant_method": "fp8", "weight_block_size": block}})
    found, form = foreign.understood(tensors, config)
    wide = np.kron(np.array(scale), np.ones((16, 128))) if block else np.array(scale)
    right = np.array(mx.from_fp8(codes, mx.float32)) * wide
    assert form is None and set(found) == {"l.weight", "n.weight"}
    assert np.abs(np.array(found["l.weight"].astype(mx.float32)) - right).max() < np.abs(right).max() / 128


@pytest.mark.parametrize(
    "settings, name",
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors", "format": "int-quantized"}, "int-quantized"),
        ({"quant_method": "gptq", "bits": 3}, "gptq"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "awq"),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}, "modelopt.*FP8"),
    ],
)
def test_other_forms_are_refused_by_name(settings, name):
    with pytest.raises(BadModel, match=name):
        foreign.understood({"l.qweight": mx.zeros((4, 4), mx.int32)}, normalised({}, settings))


# ---------------------------------------------------------------- numbers that the makers' own code packed


def oracle(name):
    with open(os.path.join(os.path.dirname(__file__), "oracles", "packed.json"), encoding="utf-8") as file:
        return {key: np.array(value) for key, value in json.load(file)[name].items()}


def of_layer(tensors, settings, width):
    """What MLX makes of the layer `l`."""
    found, form = foreign.understood(tensors, normalised({"quantization_config": settings}))
    parts = [found[f"l.{name}"] for name in ("weight", "scales", "biases")]
    numbers = mx.dequantize(*parts, group_size=width // parts[1].shape[1], bits=form["bits"])
    return np.array(numbers.astype(mx.float32))


@pytest.mark.parametrize("bits", [4, 8])
def test_what_compressed_tensors_packed(bits):
    made = oracle(f"int{bits}")
    scales = np.linspace(0.5, 2, 32, dtype=np.float32).reshape(16, 2)
    tensors = {"l.weight_packed": mx.array(made["packed"].astype(np.int32)), "l.weight_scale": mx.array(scales),
               "l.weight_zero_point": mx.array(made["packed_zeros"].astype(np.int32)),
               "l.weight_shape": mx.array([16, 64])}  # fmt: skip
    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": 32, "symmetric": False}
    settings = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"g": {"weights": weights}},
    }
    right = (made["values"] - made["zeros"].repeat(32, 1)) * scales.repeat(32, 1)
    assert np.abs(of_layer(tensors, settings, 64) - right).max() < 1e-3


@pytest.mark.parametrize("kind, times", [("autobitlinear", 0.25), ("bitlinear", 4.0)])
def test_what_transformers_packed_for_bitnet(kind, times):
    made = oracle("bitnet")
    tensors = {"l.weight": mx.array(made["packed"].astype(np.uint8)), "l.weight_scale": mx.array([0.25]),
               "norm.weight": mx.ones(4)}  # fmt: skip
    settings = {"quant_method": "bitnet", "linear_class": kind}
    assert np.array_equal(of_layer(tensors, settings, 32), made["values"] * times)
    with pytest.raises(BadModel, match="weight_scale"):
        of_layer({"l.weight": tensors["l.weight"]}, settings, 32)
