"""What the encoders are made of: checked tensors, linear layers, norms, attention, activations.

Owns: float or quantised storage, shapes. Does not know: any architecture, nor mlx.nn.
"""

from __future__ import annotations

import math

import mlx.core as mx

from toast import kernels
from toast.errors import BadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]
    Weights = dict[str, mx.array]
    Map = Callable[[mx.array], mx.array]


class Tensors:
    """A checkpoint's tensors under a name prefix, checked for presence and shape as they are taken.

    Float tensors become float32, the type that encoders compute in. Quantised linear layers are
    MLX's: `weight` uint32 with `scales` and `biases`, parameters in config["quantization"].
    """

    def __init__(
        self, tensors: Weights, config: Config, prefix: str = "", *, taken: list[mx.array] | None = None
    ) -> None:
        self.tensors, self.config, self.prefix = tensors, config, prefix
        self.taken = [] if taken is None else taken  # everywhere under the same checkpoint

    def made(self, array: mx.array) -> mx.array:
        """An array that was derived from the checkpoint's: `settle` will compute it."""
        self.taken.append(array)
        return array

    def settle(self) -> None:
        """Compute what was taken, as far as it is not there: a lazy array belongs to the thread that began it."""
        mx.eval(self.taken)

    def at(self, name: str) -> Tensors:
        """The tensors under `prefix + name.`"""
        return Tensors(self.tensors, self.config, f"{self.prefix}{name}.", taken=self.taken)

    def under(self, *names: str) -> Tensors:
        """The same tensors without the first of these prefixes that the checkpoint uses, if any."""
        for name in names:
            if any(key.startswith(f"{self.prefix}{name}.") for key in self.tensors):
                return self.at(name)
        return self

    def either(self, *names: str) -> str:
        """Of the names that writers give a layer, the one that the checkpoint has; else the last."""
        return next((name for name in names if f"{name}.weight" in self), names[-1])

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def take(self, name: str, *shape: Any) -> mx.array:
        """The tensor, which must have this shape; float types as float32."""
        array = self.tensors.get(self.prefix + name)
        if array is None:
            raise BadModel(f"no tensor {self.prefix}{name}")
        if array.shape != shape:
            raise BadModel(f"tensor {self.prefix}{name} has shape {array.shape}, not {shape}")
        # MLX's own loader is lazy, so whole numbers wait for `settle` too
        return self.made(array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array)

    def rows(self, name: str) -> int:
        """Outputs of a linear layer, 0 when there is no such layer."""
        weight = self.tensors.get(f"{self.prefix}{name}.weight")
        return 0 if weight is None else weight.shape[0]

    def linear(self, name: str, outputs: int, inputs: Any, *, bias: bool = True) -> Linear:
        """x (..., inputs) -> (..., outputs)."""
        b = self.take(f"{name}.bias", outputs) if bias else None
        if f"{name}.scales" in self:
            w, *form = self.quantized(name, outputs, inputs)
            return Linear(w, b, form)
        return Linear(self.take(f"{name}.weight", outputs, inputs), b)

    def split_linear(
        self, fused: str, names: list[str], *, outputs: int, inputs: int, bias: bool = True
    ) -> SplitLinear:
        """x -> an (..., outputs) for each name; stored as one tensor `fused` or one for each."""
        if f"{fused}.weight" in self:
            return SplitLinear([self.linear(fused, len(names) * outputs, inputs, bias=bias)], len(names))
        return SplitLinear([self.linear(name, outputs, inputs, bias=bias) for name in names], len(names))

    def embedding(self, name: str, rows: int, dims: Any) -> Map:
        """ids (...) int -> (..., dims). MLX does not check ids, so this does: they come from a
        tokenizer that may not be this model's."""
        if f"{name}.scales" in self:
            w, scales, biases, group, bits = self.quantized(name, rows, dims)
        else:
            w, scales = self.take(f"{name}.weight", rows, dims), None

        def look_up(ids: mx.array) -> mx.array:
            most: Any = mx.max(ids).item()
            if most >= rows:
                raise BadModel(f"a token id of {most}, but only {rows} embeddings")
            if scales is None:
                return w[ids]
            return mx.dequantize(w[ids], scales[ids], biases[ids], group, bits)

        return look_up

    def quantized(self, name: str, outputs: int, inputs: int) -> tuple[mx.array, mx.array, mx.array, int, int]:
        """(weight, scales, biases, group_size, bits) of an affine quantised layer."""
        group, bits = (self.config["quantization"][key] for key in ("group_size", "bits"))
        return (
            self.take(f"{name}.weight", outputs, inputs * bits // 32),
            self.take(f"{name}.scales", outputs, inputs // group),
            self.take(f"{name}.biases", outputs, inputs // group),
            group,
            bits,
        )

    def layer_norm(self, name: str, dims: Any, eps: float, *, bias: bool = True) -> LayerNorm:
        old = f"{name}.gamma" in self  # names of checkpoints that came from TensorFlow
        weight = self.take(f"{name}.gamma" if old else f"{name}.weight", dims)
        b = self.take(f"{name}.beta" if old else f"{name}.bias", dims) if bias else None
        return LayerNorm(weight, b, eps)

    def rms_norm(self, name: str, dims: int, eps: float) -> Map:
        weight = self.take(f"{name}.weight", dims)
        return lambda x: mx.fast.rms_norm(x, weight, eps)


class Linear:
    """x (..., inputs) -> f(x w' + b) + residual (..., outputs), in one op where the kernels can.

    w: (outputs, inputs); form: its (scales, biases, group_size, bits) when it is quantised.
    """

    def __init__(self, w: mx.array, b: mx.array | None = None, form: Any = ()) -> None:
        self.w, self.b, self.form = w, b, form
        self.fusible = not form or form[-1] in (4, 8)

    def one_op(self) -> bool:
        """Whether it can be a part of a larger op: quantised, with a bias."""
        return bool(self.form) and self.fusible and self.b is not None

    def __call__(self, x: mx.array, act: str | None = None, residual: mx.array | None = None) -> mx.array:
        """act: the name of an activation, as config.json has it."""
        ours: str | None = ""
        plain: Map | None = None
        if act:
            ours, plain = ACTIVATIONS[act]
        if kernels.linear and self.fusible and ours is not None:
            more = {"bias": self.b, "residual": residual, "activation": ours}
            return kernels.linear(x, self.w, *self.form, **more)
        y = self.product(x)
        y = plain(y) if plain else y
        return y if residual is None else y + residual

    def product(self, x: mx.array) -> mx.array:
        if not self.form:
            return x @ self.w.T if self.b is None else mx.addmm(self.b, x, self.w.T)
        scales, biases, group, bits = self.form
        y = mx.quantized_matmul(x, self.w, scales, biases, transpose=True, group_size=group, bits=bits)
        return y if self.b is None else y + self.b


class SplitLinear:
    """x -> n results: of as many layers, or of one whose outputs they share."""

    def __init__(self, parts: list[Linear], n: int) -> None:
        self.parts, self.n = parts, n

    def __call__(self, x: mx.array) -> list[mx.array]:
        if len(self.parts) < self.n:
            return list(mx.split(self.parts[0](x), self.n, axis=-1))
        return [part(x) for part in self.parts]


class LayerNorm:
    """x (..., dims) -> the same, of mean 0 and variance 1, times w, plus b (or None)."""

    def __init__(self, w: mx.array, b: mx.array | None, eps: float) -> None:
        self.w, self.b, self.eps = w, b, eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.w, self.b, self.eps)


class PostNorm:
    """A layer with norms after (BERT's): its attention and all else, each one op where the kernels can.

    qkv: x (B, L, D) -> q, k, v (B, L, K); out, up, down: linear layers; norm1, norm2: after attention, after down.
    """

    def __init__(
        self, qkv: SplitLinear, heads: int, *,
        out: Linear, norm1: LayerNorm, up: Linear, act: str, down: Linear, norm2: LayerNorm,
    ) -> None:  # fmt: skip
        self.qkv, self.heads, self.act = qkv, heads, act
        self.out, self.norm1, self.up, self.down, self.norm2 = out, norm1, up, down, norm2
        rest = [out, up, down]
        self.norms = [(norm.w, norm.b, norm.eps) for norm in (norm1, norm2)]
        known = ACTIVATIONS[act][0] is not None and norm1.b is not None and norm2.b is not None
        self.after_is_one = known and all(part.one_op() for part in rest)
        self.is_one = self.after_is_one and len(qkv.parts) == 1 and qkv.parts[0].one_op()
        self.linears = [(part.w, *part.form, part.b) for part in (*qkv.parts, *rest)]

    def __call__(self, x: mx.array, mask: Any) -> mx.array:
        """x (B, L, D) float32, mask an array that broadcasts to (B, heads, L, L) or None -> (B, L, D)."""
        if kernels.encoder_layer and self.is_one:
            return kernels.encoder_layer(x, mask, self.heads, self.linears, self.norms, ACTIVATIONS[self.act][0])
        q, k, v = (heads(y, self.heads) for y in self.qkv(x))
        return self.after(attention(q, k, v, mask=mask), x)

    def after(self, y: mx.array, x: mx.array) -> mx.array:
        """norm2(h + down(act(up(h)))) of h = norm1(x + out(y)), y (B, L, K) from attention."""
        if kernels.after_attention and self.after_is_one:
            return kernels.after_attention(y, x, self.linears[-3:], self.norms, ACTIVATIONS[self.act][0])
        x = self.norm1(self.out(y, residual=x))
        return self.norm2(self.down(self.up(x, self.act), residual=x))


def heads(x: mx.array, n: int) -> mx.array:
    """(B, L, n * d) -> (B, n, L, d)."""
    return x.reshape(*x.shape[:2], n, -1).transpose(0, 2, 1, 3)


def attention(q: mx.array, k: mx.array, v: mx.array, *, mask: Any = None, scale: float | None = None) -> mx.array:
    """softmax(q k^T * scale + mask) v, heads joined: q, k, v (B, n, L, d) -> (B, L, n * d)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)


def length_mask(lengths: mx.array, L: int) -> mx.array | None:
    """True where a key is a token: (B, 1, 1, L), or None when no row is padded."""
    if mx.min(lengths).item() == L:
        return None
    return (mx.arange(L) < lengths[:, None])[:, None, None, :]


def gelu(x: mx.array) -> mx.array:
    """x * Phi(x) by the error function (Hendrycks & Gimpel 2016)."""
    return x * (0.5 * (1 + mx.erf(x * math.sqrt(0.5))))


def gelu_tanh(x: mx.array) -> mx.array:
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def silu(x: mx.array) -> mx.array:
    return x * mx.sigmoid(x)


# name in config.json -> (name in the kernels, the same in MLX's ops)
ACTIVATIONS: dict[str, tuple[str | None, Map]] = {
    "gelu": ("gelu", gelu),
    "gelu_new": ("gelu_approx", gelu_tanh),
    "gelu_pytorch_tanh": ("gelu_approx", gelu_tanh),
    "relu": (None, lambda x: mx.maximum(x, 0)),
    "silu": ("silu", silu),
    "swish": ("silu", silu),
    "tanh": (None, mx.tanh),
}


def known(name: str) -> str:
    """The name of an activation, if it is one that is here."""
    if name not in ACTIVATIONS:
        raise BadModel(f"activation {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return name


def activation(name: str) -> Map:
    """The function that a config names, the kernels' own where they are installed."""
    ours, plain = ACTIVATIONS[known(name)]
    if ours is None or kernels.variant() == "off":
        return plain
    from toast.kernels import _ext

    return getattr(_ext, ours, plain)
