"""The shared store: where it is (`home`), and from a model's name to its files (`find`, `folder`)."""

from toast.store.location import home
from toast.store.resolve import find, folder, is_probe

__all__ = ["find", "folder", "home", "is_probe"]
