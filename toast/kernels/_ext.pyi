# What src/*_op.cpp give to Python, for type checkers. Arrays on the CPU; ValueError where shapes or dtypes do not fit.
from collections.abc import Sequence
from typing import Any

from mlx.core import Dtype, array

Quantised = tuple[array, array, array, int, int]  # weight, scales, biases, group size, bits
Weights = tuple[array, array | None, array | None, int, int]  # the same, or floats without scales and sizes

def choose(variant: str) -> str | None: ...
def set_threads(n: int) -> None: ...
def threads() -> int: ...
def parallel_sum(n: int) -> int: ...
def tell_of_shrunk_files() -> None: ...
def map_tensors(fd: int, tensors: Sequence[tuple[int, Dtype, Sequence[int]]]) -> list[array]: ...

# as MLX's of the same names
def quantized_matmul(*args: Any, **more: Any) -> array: ...
def gather_qmm(*args: Any, **more: Any) -> array: ...
def matmul(*args: Any, **more: Any) -> array: ...
def addmm(*args: Any, **more: Any) -> array: ...
def softmax(*args: Any, **more: Any) -> array: ...
def rms_norm(*args: Any, **more: Any) -> array: ...
def layer_norm(*args: Any, **more: Any) -> array: ...
def rope(*args: Any, **more: Any) -> array: ...
def scaled_dot_product_attention(*args: Any, **more: Any) -> array: ...
def gelu(x: array) -> array: ...
def gelu_approx(x: array) -> array: ...
def silu(x: array) -> array: ...
def sigmoid(x: array, *, stream: Any = None) -> array: ...
def add(x: array, y: array) -> array: ...

# several ops as one
def swiglu(gate: array, x: array) -> array: ...
def linear(
    x: array,
    w: array,
    scales: array | None = None,
    biases: array | None = None,
    group_size: int = 64,
    bits: int = 4,
    *,
    bias: array | None = None,
    residual: array | None = None,
    activation: str = "",
) -> array: ...
def after_attention(
    y: array, x: array, linears: Sequence[tuple[Any, ...]], norms: Sequence[tuple[Any, ...]], activation: str
) -> array: ...
def encoder_layer(
    x: array,
    mask: array | None,
    heads: int,
    linears: Sequence[tuple[Any, ...]],
    norms: Sequence[tuple[Any, ...]],
    activation: str,
) -> array: ...
def append(buffer: array, rows: array, start: int) -> tuple[array, array]: ...
def attention_step(
    *,
    q: array,
    k: array,
    v: array,
    keys: array,
    values: array,
    rope: Rope,
    offset: int,
    scale: float,
    causal: bool,
) -> tuple[array, array, array]: ...

class Rope:
    def __init__(
        self, *, dims: int, traditional: bool, base: float | None, scale: float, freqs: array | None
    ) -> None: ...

class DecoderLayers:
    mixtures: int
    kv_heads: int
    head_dims: int
    kv_dtype: Dtype
    def __init__(
        self,
        *,
        linears: Sequence[Quantised],
        norms: Sequence[tuple[array, float] | None],
        rope: Rope | None = None,
        heads: int = 0,
        kv_heads: int = 0,
        scale: float = 0,
        updates: Sequence[tuple[array, array, float] | None] = (),
        biases: Sequence[array | None] = (),
        activation: str = "silu",
        experts: tuple[Weights, int, str, bool, Sequence[Weights]] | None = None,
        gated: bool = False,
        mixer: Mixer | None = None,
        residual: float = 1,
    ) -> None: ...
    @staticmethod
    def stack(parts: Sequence[DecoderLayers]) -> DecoderLayers: ...
    def takes(self, x: array) -> bool: ...
    def __call__(
        self,
        x: array,
        keys: Sequence[array | None],
        values: Sequence[array | None],
        offset: int,
        *,
        causal: bool = True,
        places: Sequence[int] = (),
    ) -> tuple[array, list[array], list[array]]: ...
    def write(
        self, x: array, keys: Sequence[array], values: Sequence[array], lengths: Sequence[tuple[int, int]]
    ) -> tuple[array, array]: ...

# search and files
def int8_scan(codes: bytes, scales: bytes, query: bytes) -> bytes: ...
def int8_near(codes: bytes, groups: bytes, start: int, stop: int, threshold: float) -> bytes: ...
def crc32_blocks(fd: int, size: int, block: int) -> bytes: ...
def crc32(data: bytes, start: int = 0) -> int: ...

# layers with a state
def conv1d(*args: Any, **more: Any) -> array: ...
def gated_delta(*, q: array, k: array, v: array, g: array, beta: array, state: array | None) -> tuple[array, array]: ...
def state_space(
    *,
    x: array,
    B: array,
    C: array,
    dt: array,
    A_log: array,
    D: array,
    dt_bias: array,
    limits: tuple[float, float],
    state: array | None,
) -> tuple[array, array]: ...
def wkv7(*, r: array, w: array, k: array, v: array, a: array, b: array, state: array | None) -> tuple[array, array]: ...

class RwkvLayers:
    def __init__(
        self,
        *,
        linears: Sequence[tuple[array, array | None, array | None, int, int, array | None]],
        numbers: Sequence[array],
        norms: Sequence[tuple[array, array, float]],
        heads: int,
    ) -> None: ...
    @staticmethod
    def stack(parts: Sequence[RwkvLayers]) -> RwkvLayers: ...
    def takes(self, x: array) -> bool: ...
    def __call__(self, x: array, states: Sequence[array | None]) -> tuple[array, list[array]]: ...

class Mixer:
    def __call__(
        self, projected: Sequence[array], before: array | None, state: array | None
    ) -> tuple[array, array, array]: ...

def gated_delta_net(
    *,
    heads: tuple[int, int, int, int],
    parts: Sequence[tuple[int, int, int, int]],
    conv: array,
    A_log: array,
    dt_bias: array,
    norm: array,
    eps: float,
) -> Mixer: ...
def short_convolution(conv: array) -> Mixer: ...
def mamba2(
    *,
    sizes: tuple[int, int, int, int],
    conv: array,
    bias: array | None,
    A_log: array,
    D: array,
    dt_bias: array,
    limits: tuple[float, float],
    norm: tuple[array, float] | None,
) -> Mixer: ...
