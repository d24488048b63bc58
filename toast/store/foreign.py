"""Weights that other tools quantised, put into MLX's form where that holds the same numbers; else refused by name.

Owns their layouts: AutoAWQ's, GPTQ's, compressed-tensors' packed integers, float8 with scales. Knows no architecture.
What is converted is computed when it is first used, and is private memory.
"""

from __future__ import annotations

import mlx.core as mx

from toast.errors import BadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]
    Tensors = dict[str, mx.array]
    Affine = tuple[mx.array, mx.array, mx.array]  # MLX's weight, scales, biases

AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]  # where in a word AutoAWQ puts the values of 8 columns
GROUPS = 128, 64, 32  # sizes of groups that MLX knows
INSTEAD = "take an MLX, GGUF or 16-bit copy of the model"


def understood(tensors: Tensors, config: Config) -> tuple[Tensors, Config | None]:
    """(tensors, settings of MLX's quantisation or None) by a normalised configuration.

    Raises BadModel, which names the method, where the form is none that MLX holds."""
    settings = config.get("quantization_config")
    if settings is None and config.get("model_type") == "bitnet":  # its own layers, whoever wrote them
        settings = {"quant_method": "bitnet", "linear_class": "autobitlinear"}
    if settings is None:
        return tensors, config.get("quantization")
    name, make = _method(settings)
    if make is None:
        raise BadModel(f"its weights are quantised with {name}, which is not supported", INSTEAD)
    try:
        return make(tensors, settings)
    except (KeyError, ValueError, TypeError) as error:
        raise BadModel(f"its weights are quantised with {name}, in a form that is not supported: {error}", INSTEAD)  # noqa: B904


def _method(settings: Config) -> tuple[str, Callable[[Tensors, Config], tuple[Tensors, Config | None]] | None]:
    """(what the method is called, what reads it)."""
    method = str(settings.get("quant_method") or _producer(settings))
    form = (
        settings.get("format") or settings.get("quant_algo") or (settings.get("quantization") or {}).get("quant_algo")
    )
    name = f"{method} ({form})" if form else method
    if method == "compressed-tensors":
        packed = {"pack-quantized": _packed, "float-quantized": _float8, "naive-quantized": _float8}
        return name, packed.get(str(form))
    return name, {"awq": _awq, "gptq": _gptq, "fp8": _float8, "fbgemm_fp8": _float8, "bitnet": _bitnet}.get(method)


def _producer(settings: Config) -> str:
    """ModelOpt's own file names its writer, not its method."""
    producer = settings.get("producer")
    return str((producer or {}).get("name", "?")) if isinstance(producer, dict) else "an unnamed method"


# ---------------------------------------------------------------- packed integers


def _affine(tensors: Tensors, parts: dict[str, str], read: Callable[..., Affine]) -> Tensors:
    """The tensors with every group of PREFIX + `parts`, the first of them the weight, as what read(**parts) gives."""
    found: Tensors = {}
    name = next(iter(parts.values()))
    ends = tuple("." + part for part in parts.values())
    for key, array in tensors.items():
        prefix = key.removesuffix("." + name)
        if prefix != key:
            given = {part: tensors.get(f"{prefix}.{suffix}") for part, suffix in parts.items()}
            for part, made in zip(("weight", "scales", "biases"), read(**given), strict=True):
                found[f"{prefix}.{part}"] = made
        elif not key.endswith(ends):
            found[key] = array
    if not any(key.endswith(".scales") for key in found):
        raise ValueError(f"there is no {name}")
    return found


def _fields(words: mx.array, bits: int, order: list[int] | None = None) -> mx.array:
    """Unsigned fields of int32 words (R, C) -> (R, C * 32 / bits), lowest first or in the order given."""
    shifts = mx.array(order or list(range(32 // bits)), mx.uint32) * bits
    fields = (words.view(mx.uint32)[..., None] >> shifts) & ((1 << bits) - 1)
    return fields.reshape(words.shape[0], -1)


def _words(fields: mx.array, bits: int) -> mx.array:
    """Unsigned fields (R, C) -> MLX's uint32 words (R, C * bits / 32)."""
    per = 32 // bits
    parts = fields.astype(mx.uint32).reshape(fields.shape[0], -1, per) << (mx.arange(per, dtype=mx.uint32) * bits)
    return parts.sum(-1).astype(mx.uint32)


def _settings(tensors: Tensors, bits: int) -> tuple[Tensors, Config]:
    """MLX's; group sizes are told by the shapes of each layer."""
    if bits not in (2, 4, 8):
        raise ValueError(f"{bits} bits")
    return tensors, {"group_size": 32, "bits": bits, "mode": "affine"}


def _regrouped(weight: mx.array, scales: mx.array, zeros: mx.array, *, bits: int) -> Affine:
    """weight uint32 (N, ..), scales and zeros (N, groups), of groups of a multiple of a size that MLX has."""
    width = weight.shape[1] * 32 // bits
    size = width // scales.shape[1]
    group = next((g for g in GROUPS if size % g == 0), 0)
    if not group or size * scales.shape[1] != width:
        raise ValueError(f"groups of {size}")
    biases = -(zeros.astype(mx.float32) * scales.astype(mx.float32)).astype(scales.dtype)
    return weight, mx.repeat(scales, size // group, axis=1), mx.repeat(biases, size // group, axis=1)


def _awq(tensors: Tensors, settings: Config) -> tuple[Tensors, Config]:
    bits = settings.get("bits", settings.get("w_bit", 4))
    if bits != 4 or str(settings.get("version", "gemm")).lower() != "gemm":
        raise ValueError(f"{bits} bits, {settings.get('version')}")

    def read(*, qweight: mx.array, scales: mx.array, qzeros: Any) -> Affine:
        weight = _words(_fields(qweight, 4, AWQ_ORDER).T, 4)
        zeros = mx.full(scales.shape, 8) if qzeros is None else _fields(qzeros, 4, AWQ_ORDER)
        return _regrouped(weight, scales.T, zeros.T, bits=4)

    parts = {"qweight": "qweight", "scales": "scales", "qzeros": "qzeros"}
    return _settings(_affine(tensors, parts, read), 4)


def _gptq(tensors: Tensors, settings: Config) -> tuple[Tensors, Config]:
    bits = settings["bits"]
    least = 0 if settings.get("checkpoint_format") == "gptq_v2" else 1  # the first version stores zeros less one

    def read(*, qweight: mx.array, scales: mx.array, qzeros: mx.array, g_idx: Any) -> Affine:
        size = qweight.shape[0] * 32 // bits // scales.shape[0]
        if g_idx is not None and not mx.array_equal(g_idx, mx.arange(g_idx.size) // size).item():
            raise ValueError("columns in another order (desc_act)")
        weight = mx.contiguous(qweight.view(mx.uint32).T)  # its words hold inputs, as MLX's do
        zeros = _fields(qzeros, bits) + least
        return _regrouped(weight, scales.T, zeros.T, bits=bits)

    parts = {"qweight": "qweight", "scales": "scales", "qzeros": "qzeros", "g_idx": "g_idx"}
    _settings({}, bits)
    return _settings(_affine(tensors, parts, read), bits)


def _packed(tensors: Tensors, settings: Config) -> tuple[Tensors, Config]:
    groups = [group["weights"] for group in settings["config_groups"].values()]
    bits = groups[0]["num_bits"]
    if any(group["num_bits"] != bits or group.get("type", "int") != "int" for group in groups):
        raise ValueError("several kinds of weights")
    if any(group.get("actorder") in ("group", True) for group in groups):
        raise ValueError("columns in another order (actorder)")

    def read(*, packed: mx.array, scale: mx.array, zero: Any, **_: Any) -> Affine:
        zeros = mx.full(scale.shape, 1 << (bits - 1)) if zero is None else _fields(zero.T, bits).T[: scale.shape[0]]
        return _regrouped(packed.view(mx.uint32), scale, zeros, bits=bits)

    parts = {"packed": "weight_packed", "scale": "weight_scale", "zero": "weight_zero_point", "shape": "weight_shape",
             "order": "weight_g_idx"}  # fmt: skip
    return _settings(_affine(tensors, parts, read), bits)


def _bitnet(tensors: Tensors, settings: Config) -> tuple[Tensors, Config]:
    """-1, 0 and 1 in two bits, the rows of a quarter in each place of a byte, times one scale or over it."""
    times = settings.get("linear_class") == "autobitlinear"

    def read(*, weight: mx.array, scale: mx.array) -> Affine:
        if scale is None:
            raise ValueError("there is no weight_scale")
        rows = mx.concatenate([(weight >> (2 * place)) & 3 for place in range(4)])
        one = scale.reshape(-1)[:1].astype(mx.float32)
        scales = mx.broadcast_to(one if times else 1 / one, (rows.shape[0], 1)).astype(scale.dtype)
        return _regrouped(_words(rows, 2), scales, mx.ones(scales.shape), bits=2)

    floats = {key: array for key, array in tensors.items() if array.dtype != mx.uint8 and not key.endswith("_scale")}
    packed = {key: array for key, array in tensors.items() if key not in floats}
    return _settings(floats | _affine(packed, {"weight": "weight", "scale": "weight_scale"}, read), 2)


# ---------------------------------------------------------------- float8


def _float8(tensors: Tensors, settings: Config) -> tuple[Tensors, None]:
    """E4M3 weights (N, K) times scales: one, one for each row, or one for each block -> bfloat16."""
    found: Tensors = {}
    for key, array in tensors.items():
        if key.endswith((".weight_scale", ".weight_scale_inv", ".input_scale", ".activation_scale")):
            continue
        scale = tensors.get(f"{key}_scale_inv", tensors.get(f"{key}_scale"))
        found[key] = array if scale is None else _scaled(array, scale, settings.get("weight_block_size"))
    if len(found) == len(tensors):
        raise ValueError("there are no scales")
    return found, None


def _scaled(weight: mx.array, scale: mx.array, block: Any) -> mx.array:
    values = mx.from_fp8(weight, mx.float32)
    factors = scale.astype(mx.float32)
    if factors.size > 1 and factors.ndim == 2 and factors.shape[1] > 1:
        rows, columns = block or (128, 128)
        factors = mx.repeat(mx.repeat(factors, rows, axis=0), columns, axis=1)
        factors = factors[: weight.shape[0], : weight.shape[1]]
    elif factors.size > 1:
        factors = factors.reshape(-1, 1)
    return (values * factors).astype(mx.bfloat16)
