"""JSON read by the standard library's scanner in C, without its package, which takes 4 ms to import. Knows no
files.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

scanner: Any = None
try:
    from _json import make_scanner as scanner
except ImportError:  # another Python than CPython
    pass

BLANKS = " \t\n\r"


class _Usual:
    """What json.JSONDecoder asks of the scanner."""

    strict, object_hook, object_pairs_hook, memo = True, None, None, None
    parse_float, parse_int = float, int
    parse_constant = {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__


_scan: Any = scanner and scanner(_Usual)


def loads(text: str | bytes) -> Any:
    """As json.loads, which tells what is wrong where something is."""
    try:
        found = text if isinstance(text, str) else text.decode()
        value, end = _scan(found, len(found) - len(found.lstrip(BLANKS)))
        if not found[end:].strip(BLANKS):
            return value
    except Exception:  # what it is, json says
        pass
    import json

    return json.loads(text)
