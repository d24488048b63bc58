"""Owns what was put in the place of something else, and puts it back. Knows nothing of what it is."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_originals: list[tuple[Any, str, Any]] = []  # (owner, name, what was there)


def replace(owner: Any, name: str, function: Any) -> None:
    """owner.name = function, until restore()."""
    original = getattr(owner, name)
    if original is not function:
        _originals.append((owner, name, original))
        setattr(owner, name, function)


def restore() -> None:
    """Undo every replace(), the last one first."""
    while _originals:
        setattr(*_originals.pop())
