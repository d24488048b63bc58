"""`model convert`, `model quantize`: a model in another form, written whole beside its place and then put there.

Owns what is refused, and which way is taken. The forms are the store's business, the tensors' names MLX-LM's.
"""

from __future__ import annotations

import os

from toast import files, store
from toast.errors import BadInput, BadModel, UsageError, os_error
from toast.store import catalog, pull
from toast.store.folder import read_config
from toast.task import SAID, purpose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from toast.command import Call
    from toast.store.shrink import Wanted


def convert(call: Call, name: str, target: str, *, kind: str | None) -> None:
    """A model to a GGUF file, or to a folder in MLX's layout."""
    source = store.find(call, name)
    if target.endswith(".gguf"):
        return _to_gguf(call, name, target, kind=kind or "F16")
    if kind:
        raise UsageError(f"--type {kind} is for a .gguf file", f"model convert {name} NAME.gguf --type {kind}")
    if os.path.isfile(source):
        from toast.store.convert import gguf_to_folder

        return _to_folder(call, target, lambda part: gguf_to_folder(source, part))
    from toast.generation import parameters
    from toast.store import shrink

    def make(part: str) -> None:
        tensors, _, _ = parameters.read(_generator(name, source))
        shrink.write(tensors, source, part, wanted=shrink.Wanted(), name=name)

    _to_folder(call, target, make)


def quantize(call: Call, name: str, target: str, *, wanted: Wanted, text: str) -> None:
    """A model whose matrices have fewer bits; text: a file whose words say which inputs matter."""
    if target.endswith(".gguf"):
        raise UsageError("model quantize writes folders", f"model convert {name} {target} --type Q4_0")
    source = store.as_folder(call, name)
    if purpose(source) not in ("generate", "judge"):
        if "quantization" in read_config(source):
            raise BadModel(f"{name} is quantised already", _instead(name, target))
        if text or wanted.layers or wanted.mode != "affine" or wanted.bits not in (4, 6, 8):
            raise UsageError(f"{name} {SAID[purpose(source)][0]}: it has 4, 6 or 8 bits, the same for all layers")
        from toast.store.quantize import quantize

        return _to_folder(call, target, lambda part: quantize(source, part, wanted.bits or 8, group=wanted.group))
    from toast.generation import parameters
    from toast.store import shrink

    factors = _factors(call, source, text, wanted=wanted) if text else {}

    def make(part: str) -> None:
        tensors, _, predicate = parameters.read(source)
        shrink.write(tensors, source, part, wanted=wanted, left=predicate, factors=factors, name=name)

    _to_folder(call, target, make)


def _instead(name: str, target: str) -> str:
    """What to quantise in the place of a model whose weights are codes."""
    floats = catalog.canonical(name).partition("@")[0] + "@f32"
    return f"model quantize {floats} {target}" if floats in catalog.VARIANTS else "give the model that it was made from"


def _factors(call: Call, source: str, text: str, *, wanted: Wanted) -> dict:
    from toast.generation import awareness

    try:
        data = files.read(call.path(text))
    except OSError as error:
        raise os_error(error, f"open {text}") from None
    return awareness.factors(call, source, data.decode("utf-8", "replace"), wanted=wanted)


def _generator(name: str, folder: str) -> str:
    """The folder of a language model; BadModel for another kind."""
    found = purpose(folder)
    if found not in ("generate", "judge"):
        raise BadModel(f"{name} {SAID[found][0]}, which has no other form here")
    return folder


def _to_folder(call: Call, target: str, make: Callable[[str], None]) -> None:
    path = _new(call, target)
    pull.once(call, path, lambda call, part: make(part))
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o777 & ~mask)


def _new(call: Call, target: str) -> str:
    """The path of what is to be written; BadInput where something is there: it might be the source."""
    path = os.path.realpath(call.path(target))
    if os.path.lexists(path):
        raise BadInput(f"cannot write {target}: File exists", "give another name")
    if not os.path.isdir(os.path.dirname(path)):
        raise BadInput(f"cannot write {target}: No such file or directory")
    return path


def _to_gguf(call: Call, name: str, target: str, *, kind: str) -> None:
    from toast.generation import decoder, parameters
    from toast.store import export, gguf_keys, gguf_writer, vocab_keys
    from toast.store.folder import blame

    path = _new(call, target)
    files.check_output(call, target)
    folder = _generator(name, store.as_folder(call, name))
    with blame(folder):
        tensors, config, _ = parameters.read(folder)
        metadata = gguf_keys.metadata(config) | {
            "general.name": os.path.basename(os.path.normpath(folder)), "general.quantization_version": 2,
            "general.file_type": gguf_writer.KINDS[kind],
        }  # fmt: skip
        ends = sorted(set().union(*decoder.end_tokens(folder, read_config(folder))))
        metadata |= vocab_keys.metadata(folder, config["vocab_size"], ends, arch=metadata["general.architecture"])
        more = gguf_keys.factors(config)
        with files.Draft(path) as draft:
            export.gguf(draft.fd, tensors, config, metadata=metadata, kind=kind, more=more)
            os.fsync(draft.fd)
            draft.add()  # something may have come there meanwhile
