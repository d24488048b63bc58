"""What a reader sees of a hit: colours, the words that matched, links, and of a line what a terminal has room for.

Knows lines and what a query looks for in them; nothing of hits or of scoring.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left, bisect_right

from embed.words import spaced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from embed.lines import Aim
    from toast.command import Call

LEAST_ROOM, MARGIN = 40, 8  # characters of a line that are shown on any terminal, and before its best sentence
NOTED = 0.2  # of the weight of a query's rarest word: a word with less is not marked
PATH, LINE, MATCH, BOLD, RESET = "\x1b[35m", "\x1b[32m", "\x1b[1;31m", "\x1b[1m", "\x1b[0m"
LINK, END_LINK = "\x1b]8;;", "\x1b\\"  # https://gist.github.com/egmontkob/eb114294efbcd5adb1944c9f3cb5feda (OSC 8)
WORD = "[^\\W_](?:[^\\W_]|[\u0300-\u036f\u0591-\u05c7\u064b-\u0670\u0900-\u0dff])*"  # with its marks
PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/")  # of a URI's path


class Paint:
    """when: `--color`: auto colours on a terminal, unless NO_COLOR or TERM=dumb; links are a terminal's alone."""

    def __init__(self, call: Call, when: str = "never") -> None:
        self.call, self.terminal = call, os.isatty(call.stdout)
        wanted = self.terminal and not call.env.get("NO_COLOR") and call.env.get("TERM") != "dumb"
        self.color = when == "always" or when == "auto" and wanted
        self.width = os.get_terminal_size(call.stdout).columns - 2 if self.terminal else 0  # "\u2026" at both ends

    def shown(self, text: str) -> str:
        """Text as it is, on a terminal without what would steer it: colours are ours."""
        if not self.terminal:
            return text
        from toast.terminal import visible

        return visible(text)

    def label(self, label: str, path: str) -> str:
        """What stands before a line; a link to the file at `path`, if there is one here."""
        label = self.shown(label)
        if not self.color:
            return label
        painted = f"{PATH}{label}{RESET}"
        if not self.terminal or path == "-" or not os.path.exists(self.call.path(path)):
            return painted
        return f"{LINK}{uri(self.call.path(path))}{END_LINK}{painted}{LINK}{END_LINK}"

    def number(self, number: int) -> str:
        return f"{LINE}{number}{RESET}" if self.color else str(number)

    def matched(self, text: str, aim: Aim) -> str:
        """A line with the words that matched in colour."""
        text = self.shown(text)
        return _marked(text, list(_words(text, aim)), MATCH) if self.color else text

    def line(self, text: str, aim: Aim, before: int) -> str:
        """The same, where no word matched with the best sentence in bold; on a terminal as much of the line around that
        sentence as there is room for. before: columns that are taken."""
        text = self.shown(text)
        if not (self.terminal or self.color):
            return text
        from embed.chunk import SENTENCE

        ends = [m.end() for m in SENTENCE.finditer(text)] + [len(text)]
        spans = list(zip([0, *ends], ends, strict=False))
        start, end = spans[aim.best([text[a:b] for a, b in spans])]
        left, right = self._part(text, start, before)
        cut = text[left:right]
        if self.color:
            best = (max(start, left) - left, min(end, right) - left)
            matches = list(_words(cut, aim))
            cut = _marked(cut, matches, MATCH) if matches else _marked(cut, [best], BOLD)
        return ("\u2026" if left else "") + cut + ("\u2026" if right < len(text) else "")

    def _part(self, text: str, start: int, before: int) -> tuple[int, int]:
        """From where to where a line is shown, so that what is at `start` is seen."""
        if not self.terminal:
            return 0, len(text)
        from toast.terminal import columns

        room, at = max(self.width - before, LEAST_ROOM), columns(text)
        left = bisect_left(at, max(0, min(at[start] - MARGIN, at[-1] - room)))
        return left, bisect_right(at, at[left] + room) - 1


def _words(text: str, aim: Aim) -> Iterator[tuple[int, int]]:
    """Where the words of a query are in a line: from, to."""
    least = NOTED * max(aim.weights.values(), default=0.0)
    noted = {stem for stem, weight in aim.weights.items() if weight >= least}
    spans: list[tuple[int, int]] = []
    for match in re.finditer(WORD, text) if noted else ():
        pairs = spaced(match[0]) != match[0]
        spans += [(i, i + 2) for i in range(match.start(), match.end() - 1)] if pairs else [match.span()]
    for span, stems in zip(spans, aim.extractor.stems([text[a:b] for a, b in spans]), strict=True):
        if stems & noted:
            yield span


def _marked(text: str, places: list[tuple[int, int]], code: str) -> str:
    """The text with these places in a colour; those that meet are one."""
    joined: list[tuple[int, int]] = []
    for start, end in places:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    for start, end in reversed(joined):
        text = text[:start] + code + text[start:end] + RESET + text[end:]
    return text


def uri(path: str) -> str:
    """The address of a file on this machine (RFC 8089)."""
    quoted = "".join(chr(byte) if byte in PLAIN else f"%{byte:02X}" for byte in os.fsencode(os.path.abspath(path)))
    return f"file://{os.uname().nodename}{quoted}"
