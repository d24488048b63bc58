"""What a chunk stands under: the path of its file, and the headings of the sections that it is in.

Both are words by which a chunk is found, beside those of its text. All of it follows from the path and from the
chunks of the file up to this one, so that an index is brought to a newer version from what is in it. Knows chunks by
their text; nothing of tables or ranking.
"""

from __future__ import annotations

from embed.chunk import FENCE, HEADING, MARKDOWN, RST, SETEXT, UNDERLINE
from embed.formats import suffix_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Heading = tuple[int, str]  # level from 1, title
    Found = tuple[bool, int, str]  # whether the text begins with it, level, title

LONGEST = 200  # characters of a heading


class Context:
    """Asked for each chunk of a document, in their order. number: of a record, which has no context: its input's name
    says as much of all others."""

    def __init__(self, path: str, number: int | None = None) -> None:
        path = path.encode("utf-8", "replace").decode()  # bytes that are none are no words
        self.path = "" if number is not None or path == "-" else path
        suffix = suffix_of(path.removesuffix(".gz"))
        self.find = None if number is not None else _markdown if suffix in MARKDOWN else _rst if suffix in RST else None
        self.open: list[Heading] = []
        self.state: list[str] = []  # of the file so far: a fence that is open; underlines, by their level

    def of(self, text: str) -> str:
        """The path, and the headings that the next chunk is under or has."""
        if self.find is None:
            return self.path
        titles = [title for _, title in self.open]
        for begins, level, title in self.find(text.split("\n"), self.state):
            self.open = [heading for heading in self.open if heading[0] < level]
            if begins:  # nothing here is of the section before
                titles = [title for _, title in self.open]
            self.open.append((level, title[:LONGEST]))
            titles.append(self.open[-1][1])
        return "\n".join([self.path, *titles])


def _markdown(rows: Sequence[str], fence: list[str]) -> Iterator[Found]:
    """Headings outside of code; fence: the marks of the code that is open."""
    below = [*rows[1:], ""]
    for i, (row, under) in enumerate(zip(rows, below, strict=True)):
        mark = FENCE.match(row)
        if fence:
            if mark and mark[1].startswith(fence[0]) and not mark[2].strip():
                fence.clear()
        elif mark:
            fence.append(mark[1])
        elif HEADING.match(row):
            marks = row.split(None, 1)
            yield i == 0, len(marks[0]), marks[-1].strip("# \t") if len(marks) > 1 else ""
        elif row.strip() and not SETEXT.match(row) and (line := SETEXT.match(under)):
            yield i == 0, 1 if line[1][0] == "=" else 2, row.strip()


def _rst(rows: Sequence[str], seen: list[str]) -> Iterator[Found]:
    """Titles by their underlines, whose order of appearance gives the levels (docutils); seen: those so far."""
    above = ["", *rows[:-1]]
    below = [*rows[1:], ""]
    for i, (over, row, under) in enumerate(zip(above, rows, below, strict=True)):
        title, line = row.strip(), UNDERLINE.match(under)
        if not (title and line and len(under.rstrip()) >= len(row.rstrip()) and not UNDERLINE.match(row)):
            continue
        double = over.rstrip() == under.rstrip()
        kind = line[1] * (1 + double)
        if kind not in seen:
            seen.append(kind)
        yield i == double, seen.index(kind) + 1, title
