"""Owns the switch between MLX's CPU functions and ours: install() puts ours in their place.

Does not know models or commands. Kernels are installed once in a process: the first Call decides which.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock

from toast.kernels.replaced import replace, restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType
    from typing import Any, Protocol

    from mlx.core import array

    class Caller(Protocol):
        """What install_for() needs of a Call."""

        @property
        def env(self) -> Mapping[str, str]: ...
        @property
        def outcome(self) -> object: ...
        def warn(self, text: str) -> None: ...


MLX = "0.32.4"  # the extension is compiled against this release's C++ types
VERSION = "9"  # raise when a kernel's bits change: caches of results key on variant() + VERSION

# MLX's name -> the same name in the extension; a name that the extension lacks stays MLX's.
OPS = ("quantized_matmul", "gather_qmm", "matmul", "addmm", "softmax", "conv1d", "sigmoid")
FAST = ("rms_norm", "layer_norm", "rope", "scaled_dot_product_attention")
NN = ("gelu", "gelu_approx", "gelu_fast_approx", "silu")

# our file of layers with a state -> those of MLX-LM's that it knows: imported when one of them is
FAMILIES = {
    "mamba": ("granitemoehybrid", "falcon_h1"), "qwen3_next": ("qwen3_next", "qwen3_5"), "lfm2": ("lfm2", "lfm2_moe"),
    "granite": ("granitemoehybrid",), "falcon": ("falcon_h1",),
}  # fmt: skip
# what the extension must have: one built before a name came would fail in the middle of a model
NEEDED = (
    "choose", "set_threads", "map_tensors", "linear", "after_attention", "encoder_layer", "append", "swiglu", "Rope",
    "attention_step", "DecoderLayers", "gated_delta_net", "short_convolution", "mamba2", "RwkvLayers", "int8_scan",
    "int8_near", "crc32_blocks", "tell_of_shrunk_files",
)  # fmt: skip

# set by install()
map_tensors: Callable[..., list[array]] | None = None  # (fd, [(offset, dtype, shape)]) -> arrays sharing the page cache
linear: Callable[..., array] | None = None  # a linear layer with bias, activation and residual as one op
after_attention: Callable[..., array] | None = None  # what follows attention in BERT's layer as one op
encoder_layer: Callable[..., array] | None = None  # all of BERT's layer as one op
DecoderLayers: Any = None  # layers of Llama's kind as one op
Rope: Any = None  # their rotation

_variant = "off"
_decided: tuple[str, int] | None = None  # what the first Call asked for: variant, threads
_told: object = None  # the outcome of the last Call that was warned: once is enough
_lock = allocate_lock()


class KernelsMissing(RuntimeError):
    """TOAST_KERNELS=require, and there are none."""


class KernelsInUse(RuntimeError):
    """A Call asks for other kernels or threads than the process already uses."""


def variant() -> str:
    """The kernels in use: "avx512", "avx2", "neon", "generic", or "off" for plain MLX."""
    return _variant


def install_for(call: Caller, *, tell: bool = True) -> None:
    """Install what the caller's TOAST_KERNELS and TOAST_THREADS ask for; tell: warn once a Call when there are none.

    TOAST_KERNELS: as `variant` of install(), or "require": KernelsMissing where plain MLX would have to do. The first
    Call of a process decides. One that asks for something else later raises KernelsInUse.
    """
    global _decided

    def warn(text: str) -> None:
        global _told
        if required:
            raise KernelsMissing(text)
        if tell and call.outcome is not _told:
            _told = call.outcome
            call.warn(text)

    threads = call.env.get("TOAST_THREADS", "")
    asked = call.env.get("TOAST_KERNELS") or "auto"
    required = asked == "require"
    counts = threads.isascii() and threads.isdecimal() and len(threads) < 5
    wanted = "auto" if required else asked, int(threads) if counts else 0
    with _lock:
        if _decided and not _same(_decided, wanted) and not on_gpu():
            used, asked = ("{} kernels, {} threads".format(*x) for x in (_decided, wanted))
            raise KernelsInUse(f"this process uses {used}: it cannot use {asked}")
        if _decided is None or _variant == "off":  # without kernels, every Call is told why
            install(*wanted, warn)
            _tell_of_shrunk_files()
        _decided = wanted


def _tell_of_shrunk_files() -> None:
    """A mapped file that shrinks ends this process with a line and status 2, on any thread; MLX and Python map, too."""
    if _variant != "off":
        from . import _ext

        _ext.tell_of_shrunk_files()


def _same(decided: tuple[str, int], wanted: tuple[str, int]) -> bool:
    """Whether what a Call wants is in use already: the same, or by its own name what "auto" has found."""
    return wanted[0] in (decided[0], _variant) and wanted[1] == decided[1]


def install(variant: str = "auto", threads: int = 0, warn: Callable[[str], None] | None = None) -> str:
    """Replace MLX's slow CPU functions by ours; on a GPU change nothing; "off" puts MLX's back.

    variant: auto, off, generic, avx2, avx512 or neon. threads: 0 follows the CPU affinity and the
    cgroup's quota. warn(text) is called once when plain MLX has to do. Returns the variant in use.
    """
    global _variant, map_tensors, linear, after_attention, encoder_layer, DecoderLayers, Rope
    import mlx.core as mx

    if on_gpu():
        return _variant
    mx.disable_compile()  # on the CPU it runs a compiler and loads what lies in /tmp
    if variant == "off":
        _restore()
        return _variant
    ext, why = _load(mx)
    name = ext.choose(variant) if ext else None
    if name is None:
        if warn:
            warn(f"plain MLX on the CPU, slower: {why or f'this CPU cannot run {variant} kernels'}")
        return _variant
    ext.set_threads(threads)
    _replace(mx, OPS, ext)
    _replace(mx.fast, FAST, ext)
    if hasattr(ext, "matmul"):
        replace(mx.array, "__matmul__", lambda a, b: ext.matmul(a, b))
    map_tensors, linear = ext.map_tensors, ext.linear
    after_attention, encoder_layer = ext.after_attention, ext.encoder_layer
    DecoderLayers, Rope = ext.DecoderLayers, ext.Rope
    _variant = name
    return name


def install_nn() -> None:
    """The same for mlx.nn's and MLX-LM's own modules; call it after a model's file was imported."""
    if _variant == "off":
        return
    from importlib import import_module

    import mlx.nn as nn
    from mlx.nn.layers import activations

    from . import _ext, hybrid, modules, recurrent

    with _lock:
        for module in (nn, activations):
            _replace(module, NN, _ext)
        modules.fuse(_ext)
        recurrent.fuse(_ext)
        hybrid.fuse(
            _ext,
            [import_module(f"{__name__}.{ours}") for ours, files in FAMILIES.items() if any(map(_is_loaded, files))],
        )
        if _is_loaded("rwkv7"):
            from . import rwkv

            rwkv.fuse(_ext)


def _is_loaded(file: str) -> bool:
    return f"mlx_lm.models.{file}" in sys.modules


def supports_ragged_batch(model: Any) -> bool:
    """Whether a decoder's layers take the rows of several texts, of any lengths, in one call."""
    if _variant == "off":
        return False
    from . import modules

    return modules.supports_ragged_batch(model)


def ragged(texts: list[Any], lengths: list[int], wanted: array) -> Any:
    """One layer's cache of a batch of texts, for models that take one (`modules.Ragged`)."""
    from . import modules

    return modules.Ragged(texts, lengths, wanted)


def fused_layers(model: Any) -> tuple[int, int]:
    """How many of a decoder's layers run as fused ops, and how many it has."""
    if _variant == "off":
        return 0, len(getattr(model, "layers", []))
    if hasattr(type(model), "fused_layers"):
        return model.fused_layers()
    from . import hybrid, modules, rwkv

    parts = hybrid.fused_layers(model) or rwkv.fused_layers(model) or modules.fused_blocks(model)
    return sum(part is not None for part in parts), len(parts)


def _replace(owner: Any, names: Iterable[str], ext: ModuleType) -> None:
    for name in names:
        if hasattr(ext, name):
            replace(owner, name, getattr(ext, name))


def _restore() -> None:
    global _variant, _decided, map_tensors, linear, after_attention, encoder_layer, DecoderLayers, Rope
    restore()
    _variant, _decided = "off", None
    map_tensors = linear = after_attention = encoder_layer = DecoderLayers = Rope = None


def on_gpu() -> bool:
    """Whether MLX computes on one: by Metal or CUDA, without any of ours."""
    import mlx.core as mx

    return mx.default_device() != mx.Device(mx.cpu)


def _load(mx: ModuleType) -> tuple[Any, str | None]:
    """The extension and None, or None and the reason why there is none."""
    if mx.__version__ != MLX:
        return None, f"the kernels need mlx {MLX}, this is {mx.__version__}"
    try:
        from . import _ext
    except ImportError as error:
        return None, f"the kernels are not built: install a C++ compiler and toast again ({str(error).splitlines()[0]})"
    missing = [name for name in NEEDED if not hasattr(_ext, name)]
    if missing:
        return None, f"the kernels were built by another version, without {missing[0]}: install again"
    return _ext, None
