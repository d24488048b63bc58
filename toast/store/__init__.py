"""The shared store: where it is (`home`), and from a model's name to its files (`find`, `as_folder`)."""

from toast.store.location import home
from toast.store.resolve import as_folder, find, is_probe

__all__ = ["as_folder", "find", "home", "is_probe"]
