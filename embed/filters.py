"""`--path` and `--where`: which documents of an index a search looks at.

Owns what a glob and a condition mean. Knows nothing of ranking, or of how paths come to be as they are shown.
"""

from __future__ import annotations

import os
import re

from embed import database
from toast import pipes
from toast.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from sqlite3 import Connection
    from typing import Any

    from toast.command import Call

    Shown = Callable[[str], str]  # a stored path as it is shown

MOST = 1000  # globs that braces may make
LISTED = 8  # fields that a message names
CONDITION = re.compile(r"([^=!<>]+)(!=|<=|>=|==|=|<|>)(.*)", re.DOTALL)
BRACES = re.compile(r"\\.|\[[^\]]*\]|[{},]", re.DOTALL)


class Filter:
    """What the command line leaves of an index; `chunks` of each index, then `told` of them all."""

    def __init__(self, call: Call, globs: Sequence[str] = (), where: Sequence[str] = ()) -> None:
        self.globs = Globs(pipes.path_of(call.cwd), globs) if globs else None
        self.conditions = [Condition(text) for text in where]
        self.fields: dict[str, None] = {}  # of all documents, as far as a condition had none
        self.missing = {condition.field for condition in self.conditions}  # fields that no document has
        self.matched = False

    def chunks(self, db: Connection, shown: Shown) -> set[int] | None:
        """The chunks of the documents that pass; None where all do."""
        if not (self.globs or self.conditions):
            return None
        verdicts: dict[str, bool] = {}
        passed: set[int] = set()
        for id, stored, data in database.documents(db):
            path = database.named(stored)
            if self.globs and path not in verdicts:
                verdicts[path] = self.globs.match(shown(path))
            # fields are looked at in any case: one that exists elsewhere is no unknown one
            if self._fields(data) and verdicts.get(path, True):
                passed.add(id)
        self.matched = self.matched or bool(passed)
        return {chunk for chunk, document in database.chunk_documents(db) if document in passed}

    def _fields(self, data: str | None) -> bool:
        if not self.conditions:
            return True
        fields, passed = database.fields(data), True
        for condition in self.conditions:
            found = list(condition.values(fields))
            if found:
                self.missing.discard(condition.field)
            elif len(self.fields) < LISTED:
                self.fields |= dict.fromkeys(fields)
            passed = passed and condition.holds(found)
        return passed

    def told(self) -> str:
        """What to say when nothing can be found for a reason that the command line has; else nothing."""
        if self.missing:
            known = ", ".join(list(self.fields)[:LISTED]) or "no fields"
            return f"--where: no document has a field {min(self.missing)!r} (there are: {known})"
        given = [name for name, some in (("--path", self.globs), ("--where", self.conditions)) if some]
        return "" if self.matched or not given else f"no document matches {' and '.join(given)}"


# ---------------------------------------------------------------- --where


class Condition:
    """FIELD=VALUE, or with !=, <, <=, > or >=."""

    def __init__(self, text: str) -> None:
        parts = CONDITION.fullmatch(pipes.clean(text))
        if not parts:
            raise UsageError("--where wants FIELD=VALUE", "or FIELD!=VALUE, <, <=, >, >=; quote it for the shell")
        self.field, self.sign, self.value = parts[1].strip(), parts[2].replace("==", "="), parts[3]
        self.number = _number(self.value)

    def values(self, data: dict[str, Any]) -> Iterator[Any]:
        """All that a record has under the field: of lists their members; `author.name` is a name, or one inside."""
        if self.field in data:
            return _members(data[self.field])
        found: Iterable[Any] = [data]
        for name in self.field.split("."):
            found = [part[name] for whole in found for part in _members(whole) if type(part) is dict and name in part]
        return (part for whole in found for part in _members(whole))

    def holds(self, values: Iterable[Any]) -> bool:
        """Of one of the values; != of a record that has no such value."""
        if self.sign == "!=":
            return not any(map(self._equal, values))
        return any(map(self._equal if self.sign == "=" else self._ordered, values))

    def _equal(self, value: Any) -> bool:
        if type(value) in (int, float) and self.number is not None:
            return value == self.number
        return type(value) not in (dict, list) and _text(value) == self.value

    def _ordered(self, value: Any) -> bool:
        """Numbers by their size, texts (dates as they are usually written among them) by their characters."""
        if type(value) not in (int, float, str):
            return False
        number = _number(value) if isinstance(value, str) else value
        one: Any = (number, self.number) if None not in (number, self.number) else (value, self.value)
        if type(one[0]) is not str and type(one[1]) is str:
            return False
        less, equal = one[0] < one[1], one[0] == one[1]
        return (equal and "=" in self.sign) or (less if "<" in self.sign else not less and not equal)


def _members(value: Any) -> Iterator[Any]:
    if type(value) is not list:
        yield value
        return
    for member in value:
        yield from _members(member)


def _text(value: Any) -> str:
    if type(value) is bool or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _number(text: str) -> float | None:
    """The finite number that a text is."""
    try:
        value = float(text) if "_" not in text else float("nan")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


# ---------------------------------------------------------------- --path


class Globs:
    """Globs as those of .gitignore and of `rg -g`: a name at any depth, or with a slash a path from here; what is
    below a folder that is meant is meant, too. The last one that matches decides, and `!` turns one around."""

    def __init__(self, here: str, globs: Sequence[str], *, option: str = "--path") -> None:
        self.here, self.option = here, option
        self.patterns = [made for glob in globs for made in self._patterns(glob)]
        self.others = option == "--path" and all(
            not meant for meant, *_ in self.patterns
        )  # whether what no glob speaks of is taken

    def match(self, path: str, *, folder: bool = False) -> bool:
        """Whether a path, as it is shown, is taken."""
        end = "/" * folder
        local, absolute = self._local(path).lstrip("/") + end, os.path.isabs(path) and path[1:] + end
        for meant, below, near, far in reversed(self.patterns):
            found = near.match(local) and not (below and local.startswith("../"))
            if found or absolute and far.match(absolute):
                return meant
        return self.others

    def _patterns(self, glob: str) -> Iterator[tuple[bool, bool, re.Pattern[str], re.Pattern[str]]]:
        """(whether it takes, whether it is of paths below here alone, what it is of paths from here, what it is of
        absolute ones beside that), for each choice in braces."""
        meant = not glob.startswith("!")
        for one in braces(glob if meant else glob[1:], self.option):
            if not one:
                raise UsageError(f"{self.option} wants a GLOB", "docs, '*.md', '!*.txt'")
            if "/" not in one.rstrip("/") and one.strip("./"):
                near, far, below = one, one, False
            else:
                below = not one.startswith(("/", ".."))
                local = self._local(one) + "/" * (one.endswith("/") and len(one) > 1)
                near, far = (local, local) if os.path.isabs(local) else (f"/{local}", f"**/{local}")
                if local.rstrip("/") in (".", "/"):
                    near = far = "**"
                elif one.startswith("."):  # from here: not of what is elsewhere
                    far = near
            yield meant, below, self._compiled(near), self._compiled(far)

    def _local(self, path: str) -> str:
        """The path from here, where it is below here."""
        path = os.path.normpath(path)
        return path[len(self.here) :].lstrip("/") or "." if (path + "/").startswith(self.here + "/") else path

    def _compiled(self, glob: str) -> re.Pattern[str]:
        from embed import ignores  # imports pathspec

        found = ignores.pattern("\\" * glob.startswith(("#", "!")) + glob)
        if found is None:
            raise UsageError(f"{self.option} {glob}: not a GLOB", "*, ?, [a-z], {a,b}, **")
        return found


def braces(glob: str, option: str = "--path") -> list[str]:
    """A glob with {a,b} as several without; braces that are not closed are characters. option: that it was given to."""
    depth, first = 0, -1
    cuts: list[int] = []
    for mark in BRACES.finditer(glob):
        if mark[0] == "{":
            depth += 1
            first = mark.start() if depth == 1 else first
            cuts = [first] if depth == 1 else cuts
        elif depth == 1 and mark[0] == ",":
            cuts.append(mark.start())
        elif depth and mark[0] == "}":
            depth -= 1
            if not depth:
                cuts.append(mark.start())
                return _expanded(glob, cuts, option)
    return [glob]


def _expanded(glob: str, cuts: list[int], option: str) -> list[str]:
    """cuts: where the outermost brace opens, its commas, and where it closes."""
    head, tails = glob[: cuts[0]], braces(glob[cuts[-1] + 1 :], option)
    inner = [part for a, b in zip(cuts, cuts[1:], strict=False) for part in braces(glob[a + 1 : b], option)]
    if len(inner) * len(tails) > MOST:
        raise UsageError(f"{option} {glob[:40]}: braces make over {MOST} globs")
    return [head + part + tail for part in inner for tail in tails]
