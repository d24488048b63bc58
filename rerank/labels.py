"""Labels: their names, descriptions and thresholds, given as words, as a file's lines or as JSON.

Owns how a label is spelled, so that `-l`, `-L` and the examples of `--learn` mean the same by the same name. Knows
nothing of models.
"""

from __future__ import annotations

import re

from toast import pipes
from toast.errors import UsageError, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from toast.command import Call

LONGEST = 16 << 20  # bytes of a file of labels
# between labels, and after a label of a line: group 1; what has a backslash before it is passed over
COMMA = re.compile(r"\\[\\,]|(,)")
AFTER = re.compile(r"\\[\\:]|(\t|: |:(?=\t|$))")


class Label:
    """A label's name, what it means, and the score that a record needs for it, where it has one of its own."""

    __slots__ = ("name", "about", "threshold")

    def __init__(self, name: str, about: str = "", threshold: float | None = None) -> None:
        self.name, self.threshold = name, threshold
        self.about = about or described(name)


def described(name: str) -> str:
    """A label's name as its description: an identifier such as card_arrival reads better as words."""
    return name.replace("_", " ")


def read(call: Call, inline: str | Sequence[tuple[str, str]] | None, file: str | None) -> list[Label]:
    """The labels of `a,b,c`, or of names and descriptions, else those of the lines of a file, none of neither.

    A line is `label`, `label: description` or `label<TAB>description`, whichever of `: ` and a tab comes first; a
    last field, after a tab, that is a number is the label's threshold. A comma of `-l`, or a colon of a line, that
    has a backslash before it is the label's own, and so is the second of two backslashes. Raises UsageError.
    """
    if inline is not None and file is not None:
        raise UsageError("labels are given twice", "-l or -L, not both")
    found = _of_words(inline) if isinstance(inline, str) else [Label(spelled(n), _plain(a)) for n, a in inline or ()]
    if file is not None:
        found = [_of_line(line) for line in _lines(call, file) if line.strip()]
        if not found:
            raise UsageError(f"{file}: no labels", "a label on each line, or label: description")
    where = f"{file}: " if file is not None else ""
    names = [label.name for label in found]
    for name in names:
        if wrong := fault(name):
            raise UsageError(f"{where}{wrong}")
        if names.count(name) > 1:
            raise UsageError(f"{where}label {name!r} is given twice")
    tell_cases(call, names)
    return found


def spelled(value: Any) -> str:
    """The name of a label that may come from JSON: text without blanks around it, true, 7; else nothing."""
    if isinstance(value, str):
        return pipes.clean(value).strip()
    if isinstance(value, (bool, int, float)):
        return str(value).lower()
    return ""


def fault(name: str) -> str:
    """What is wrong with a name, nothing if it can be written on a line."""
    if not name:
        return "a label is empty"
    return "" if name.isprintable() else f"label {name!r} has a character that cannot be printed"


def tell_cases(call: Call, names: Iterable[str]) -> None:
    """Warn of names that differ in case alone: two labels, but most often one that was meant."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            call.warn(f"labels {other!r} and {name!r} differ in case alone, and are two")


def _of_words(text: str) -> list[Label]:
    ends = [mark.span() for mark in COMMA.finditer(text) if mark[1]]
    starts = [0, *(after for _, after in ends)]
    stops = [*(before for before, _ in ends), len(text)]
    return [Label(_own(text[a:b], ",")) for a, b in zip(starts, stops, strict=True)]


def _of_line(line: str) -> Label:
    before, tab, last = line.rpartition("\t")
    threshold = _number(last) if tab else None
    rest = line if threshold is None else before
    start, stop = next((mark.span() for mark in AFTER.finditer(rest) if mark[1]), (len(rest), len(rest)))
    return Label(_own(rest[:start], ":"), _plain(rest[stop:]), threshold)


def _own(text: str, separator: str) -> str:
    """The name of a label whose own separators and backslashes may have a backslash before them."""
    return spelled(re.sub(rf"\\([\\{separator}])", r"\1", text))


def _plain(about: str) -> str:
    return " ".join(pipes.clean(about).split())


def _number(text: str) -> float | None:
    sign_or_digits = text.strip()
    plain = sign_or_digits.removeprefix("-").replace(".", "", 1)
    return float(sign_or_digits) if plain.isascii() and plain.isdigit() else None


def _lines(call: Call, file: str) -> list[str]:
    if file == "-":
        raise UsageError("-L - would read the records", "-L wants the name of a file")
    try:
        text = pipes.read_text(call, file, LONGEST)
    except OSError as error:
        raise os_error(error, f"read {file}") from None
    if text is None:
        raise UsageError(f"{file} is longer than the {LONGEST} bytes that labels may have")
    return text.removeprefix("\ufeff").splitlines()
