"""`model convert`, `model quantize`: a model in another form, written whole beside its place and then put there.

Owns what is refused, and which way is taken. The forms are the store's business, the tensors' names MLX-LM's.
"""

from __future__ import annotations

import os

from toast import files, store
from toast.errors import BadInput, BadModel, UsageError, os_error
from toast.store import pull
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
        return _to_gguf(call, source, target, kind=kind or "F16")
    if kind:
        raise UsageError(f"--type {kind} is for a .gguf file", f"model convert {name} NAME.gguf --type {kind}")
    if os.path.isfile(source):
        from toast.store.convert import gguf_to_folder

        return _to_folder(call, target, lambda part: gguf_to_folder(source, part))
    from toast.generation import parameters
    from toast.store import shrink

    def make(part: str) -> None:
        tensors, _, _ = parameters.read(_generator(name, source))
        shrink.write(tensors, source, part, wanted=shrink.Wanted())

    _to_folder(call, target, make)


def quantize(call: Call, name: str, target: str, *, wanted: Wanted, text: str) -> None:
    """A model whose matrices have fewer bits; text: a file whose words say which inputs matter."""
    source = store.as_folder(call, name)
    if purpose(source) not in ("generate", "judge"):
        if text or wanted.layers or wanted.mode != "affine" or wanted.bits not in (4, 6, 8):
            raise UsageError(f"{name} {SAID[purpose(source)][0]}: it has 4, 6 or 8 bits, the same for all layers")
        from toast.store.quantize import quantize

        return _to_folder(call, target, lambda part: quantize(source, part, wanted.bits or 8, group=wanted.group))
    from toast.generation import parameters
    from toast.store import shrink

    factors = _factors(call, source, text, wanted=wanted) if text else {}

    def make(part: str) -> None:
        tensors, _, predicate = parameters.read(source)
        shrink.write(tensors, source, part, wanted=wanted, left=predicate, factors=factors)

    _to_folder(call, target, make)


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
    path = os.path.realpath(call.path(target))
    if os.path.lexists(path):
        raise BadInput(f"cannot write {target}: File exists", "give another name, or remove it first")
    if not os.path.isdir(os.path.dirname(path)):
        raise BadInput(f"cannot write {target}: No such file or directory")
    pull.once(call, path, lambda call, part: make(part))
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o777 & ~mask)


def _to_gguf(call: Call, source: str, target: str, *, kind: str) -> None:
    from toast.generation import decoder, parameters
    from toast.store import export, gguf_keys, gguf_writer, vocab_keys
    from toast.store.folder import blame, read_config

    files.check_output(call, target)
    folder = _generator(source, source if os.path.isdir(source) else store.as_folder(call, source))
    with blame(folder):
        tensors, config, _ = parameters.read(folder)
        metadata = gguf_keys.metadata(config) | {
            "general.name": os.path.basename(os.path.normpath(folder)), "general.quantization_version": 2,
            "general.file_type": gguf_writer.KINDS[kind],
        }  # fmt: skip
        ends = sorted(set().union(*decoder.end_tokens(folder, read_config(folder))))
        metadata |= vocab_keys.metadata(folder, config["vocab_size"], ends, arch=metadata["general.architecture"])
        more = gguf_keys.factors(config)
        with files.Draft(os.path.realpath(call.path(target))) as draft:
            export.gguf(draft.fd, tensors, config, metadata=metadata, kind=kind, more=more)
            draft.place()
