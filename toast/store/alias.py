"""Names that the user gave to models: `model alias chat org/name`. Owns the file that keeps them."""

from __future__ import annotations

import os

from toast import json_text
from toast.errors import UsageError
from toast.store.location import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call


def read(call: Call) -> dict[str, str]:
    """name -> what it stands for; none where the file is damaged."""
    try:
        with open(_file(call), encoding="utf-8") as file:
            known = json_text.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in known.items() if isinstance(v, str)} if isinstance(known, dict) else {}


def target(call: Call, name: str) -> str:
    """What a name stands for: itself, unless the user said otherwise. An alias of an alias is not followed on."""
    return name if "/" in name else read(call).get(name, name)


def change(call: Call, name: str, target: str | None) -> None:
    """Let a name stand for a target, or, without one, for nothing any more."""
    from toast import files

    if not name or "/" in name or name.startswith(("-", ".")) or ":" in name:
        raise UsageError(f"{name!r} can be no alias: it has to be a word without / and :")
    known = read(call)
    if target is None:
        known.pop(name, None)
    else:
        known[name] = target
    os.makedirs(home(call), 0o700, exist_ok=True)
    import json

    files.replace(_file(call), [json.dumps(known, ensure_ascii=False, indent=1).encode()], mode=0o600)


def _file(call: Call) -> str:
    return os.path.join(home(call), "aliases.json")
