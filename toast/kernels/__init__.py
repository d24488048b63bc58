"""Owns the switch between MLX's CPU functions and ours: install() puts ours in their place.

Does not know models, commands or the environment: the variant and the threads are arguments.
"""

MLX = "0.32.4"  # the extension is compiled against this release's C++ types
VERSION = "5"  # raise when a kernel's bits change: caches of results key on variant() + VERSION

# MLX's name -> the same name in the extension; a name that the extension lacks stays MLX's.
OPS = ("quantized_matmul", "gather_qmm", "matmul", "addmm", "softmax")
FAST = ("rms_norm", "layer_norm", "rope", "scaled_dot_product_attention")
NN = ("gelu", "gelu_approx", "gelu_fast_approx", "silu")

# what the extension must have: one built before a name came would fail in the middle of a model
NEEDED = (
    "choose", "set_threads", "map_tensors", "linear", "after_attention", "encoder_layer", "append", "swiglu", "attention_step",
    "DecoderLayers", "int8_scan", "crc32_blocks",
)  # fmt: skip

map_tensors = None  # set by install(): (fd, [(offset, dtype, shape)]) -> arrays that share the page cache
linear = None  # set by install(): a linear layer with bias, activation and residual as one op
after_attention = None  # set by install(): what follows attention in BERT's layer as one op
encoder_layer = None  # set by install(): all of BERT's layer as one op
_variant = "off"
_originals = []  # (owner, name, MLX's own) of all that was replaced


def variant():
    """The kernels in use: "avx512", "avx2", "neon", "generic", or "off" for plain MLX."""
    return _variant


def install_for(call, tell=True):
    """Install what the caller's TOAST_KERNELS and TOAST_THREADS ask for; tell: warn when there are none."""
    threads = call.env.get("TOAST_THREADS", "")
    install(
        call.env.get("TOAST_KERNELS") or "auto", int(threads) if threads.isdigit() else 0, call.warn if tell else None
    )


def install(variant="auto", threads=0, warn=None):
    """Replace MLX's slow CPU functions by ours; on a GPU change nothing; "off" puts MLX's back.

    variant: auto, off, generic, avx2, avx512 or neon. threads: 0 follows the CPU affinity.
    warn(text) is called once when plain MLX has to do. Returns the variant in use.
    """
    global _variant, map_tensors, linear, after_attention, encoder_layer
    import mlx.core as mx

    if mx.default_device() != mx.Device(mx.cpu):
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
    _variant = name
    return name


def install_nn():
    """The same for mlx.nn's and MLX-LM's own modules; call it after a model's file was imported."""
    if _variant == "off":
        return
    import mlx.nn as nn
    from mlx.nn.layers import activations

    from . import _ext, modules

    for module in (nn, activations):
        _replace(module, NN, _ext)
    modules.shorten(_ext)


def supports_ragged_batch(model) -> bool:
    """Whether a decoder's layers take the rows of several texts, of any lengths, in one call."""
    if _variant == "off":
        return False
    from . import modules

    return modules.supports_ragged_batch(model)


def replace(owner, name, function):
    """owner.name = function, until install("off")."""
    _originals.append((owner, name, getattr(owner, name)))
    setattr(owner, name, function)


def _replace(owner, names, ext):
    for name in names:
        if hasattr(ext, name):
            replace(owner, name, getattr(ext, name))


def _restore():
    global _variant, map_tensors, linear, after_attention, encoder_layer
    while _originals:
        setattr(*_originals.pop())
    _variant, map_tensors, linear, after_attention, encoder_layer = "off", None, None, None, None


def _load(mx):
    """The extension and None, or None and the reason why there is none."""
    if mx.__version__ != MLX:
        return None, f"the kernels need mlx {MLX}, this is {mx.__version__}"
    try:
        from . import _ext
    except ImportError as error:
        return None, f"the kernels are not built ({str(error).splitlines()[0]})"
    missing = [name for name in NEEDED if not hasattr(_ext, name)]
    if missing:
        return None, f"the kernels were built by another version, without {missing[0]}: install again"
    return _ext, None
