"""Local models as Unix filters; and, for a program that holds a model, toast.load("minilm").encode(texts)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.api import Model

__version__ = "0.1.0"


def load(name: str) -> Model:
    """The model of that name, as the commands' -m takes it: from the catalog, a folder, a file, the Hugging Face cache.

    Raises toast.errors.ToastError."""
    from importlib import import_module  # the package knows none of its files

    found: Model = import_module("toast.api").Model(name)
    return found
