"""Patterns of a .gitignore as regular expressions that take no more time than their length and a path's ask for.

Owns what of a hostile file is read, and how its patterns are matched. Knows no folders.
"""

from __future__ import annotations

import re

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

LARGEST = 1 << 18  # bytes of a .gitignore; ten times what long ones have
LONGEST = 4096  # characters of a pattern, as of a path
STAR, ONE, FOLDERS, FIRST = "[^/]*", "[^/]", "(?:/.+)?", "^(?:.+/)?"  # what pathspec makes of *, ?, /**/ and **/


def read(data: bytes) -> tuple[GitIgnoreSpec, bool]:
    """(the patterns of a .gitignore that git would read, whether these are all)."""
    # git matches bytes: as Latin-1 each of them is a character
    lines = data[:LARGEST].decode("latin-1").split("\n")
    found, whole = [], len(data) <= LARGEST
    for line in lines if whole else lines[:-1]:
        if len(line) > LONGEST:
            whole = False
            continue
        if pattern := _pattern(line.rstrip("\r")):
            found.append(pattern)
    return GitIgnoreSpec(found), whole


def _pattern(line: str) -> GitIgnoreSpecPattern | None:
    """A line's; None where git passes over it, since it cannot read it."""
    try:
        pattern = GitIgnoreSpecPattern(line)
    except (GitIgnorePatternError, ValueError):
        return None
    if pattern.regex is not None:
        pattern.regex = re.compile(linear(pattern.regex.pattern), pattern.regex.flags)
    return pattern


def pattern(glob: str) -> re.Pattern[str] | None:
    """The same of one glob: what it is of a path; None where it is none."""
    found = _pattern(glob)
    return found.regex if found else None


def linear(regex: str) -> str:
    """A regular expression of pathspec that does not try the same again.

    What stands between two stars of a name, or between two ** of a path, may be taken where it is first found: what
    follows then has the most to choose from. So each such part is matched once (an atomic group)."""
    first, *rest = _names(regex).split(FOLDERS)
    if not rest:
        return first
    if first.startswith(FIRST):
        first = f"^(?>(?:.+?/)??{first.removeprefix(FIRST)}(?=/))"
    *inner, last = rest
    return first + "".join(f"(?>(?:/.+?)??{part}(?=/))" for part in inner) + FOLDERS + last


def _names(regex: str) -> str:
    """The same, for the stars within a name."""
    first, *rest = regex.split(STAR)
    found = [first]
    for n, part in enumerate(rest):
        within = n + 1 < len(rest) and "/" not in part.replace(ONE, "")
        found.append(f"(?>{STAR}?{part})" if within else STAR + part)
    return "".join(found)
