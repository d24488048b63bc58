"""Text to chunks: pieces within the embedder's limit, cut where the text itself has joints.

Knows headings, definitions, paragraphs, lines and sentences; nothing of files, models or tables.
A chunk is `(start_line, end_line, text)`: lines count from 1, and the text is a slice of the whole.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import chain, islice, tee

from embed.logs import entries, is_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Chunk = tuple[int, int, str]  # first line, last line, text
    Count = Callable[[list[str]], list[int]]  # texts -> their numbers of tokens
    Joints = Callable[
        [Iterable[str]], Iterator[int]
    ]  # rows -> what begins at each: 2 a section, 1 a paragraph, 0 nothing

COUNTED = 512  # slices whose tokens are counted together
SMALL = 1 / 4  # of the limit: a section shorter than this may share its chunk with the next

ROW = re.compile(r"[^\n]*\n|[^\n]+")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
HEADING = re.compile(r" {0,3}#{1,6} ")
SETEXT = re.compile(r" {0,3}(=+|-{2,})\s*$")
UNDERLINE = re.compile(r"([=\-`:.'\"~^_*+#])\1{2,}\s*$")
# a line at the margin that begins with a word, a decorator or an attribute
DEFINITION = re.compile(r"[A-Za-z_@#]")
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")
# what has times in its lines, and is none
NO_LOGS = {"csv", "tsv", "yaml", "yml", "toml", "srt", "vtt", "sbv", "ass", "ssa", "lrc"}
MARKDOWN = {"md", "markdown", "mdx", "mkd", "qmd"}
RST = {"rst", "rest"}
CODE = {
    "py", "pyi", "js", "jsx", "ts", "tsx", "c", "h", "cc", "cpp", "cxx", "hpp", "hh", "rs", "go", "java", "kt",
    "swift", "rb", "php", "pl", "lua", "sh", "bash", "zsh", "cs", "scala", "ml", "hs", "ex", "exs", "erl", "clj",
    "el", "lisp", "r", "jl", "m", "mm", "sql", "zig", "nim", "d", "dart", "vue", "css", "scss", "cmake", "gradle",
}  # fmt: skip


class Slice:
    """text[start:end], which begins on `line` and takes `tokens`; `joint`: 2 begins a section, 1 a paragraph."""

    __slots__ = ("start", "end", "line", "tokens", "joint")

    def __init__(self, start: int, end: int, line: int, *, joint: int = 0) -> None:
        self.start, self.end, self.line, self.joint, self.tokens = start, end, line, joint, 0


def chunk(
    text: str, count: Count, limit: int, *, mode: str = "auto", suffix: str = "", known: dict[int, int] | None = None
) -> Iterator[Chunk]:
    """The chunks of a file's text.

    count: list of strings -> list of their numbers of tokens; limit: of a chunk; mode: auto,
    paragraphs or lines; suffix: the file's, without the dot, which tells what its sections are; known: line from 0
    -> its joint, where whoever read the file knows them.
    """
    find = joints(mode, suffix)
    if known is not None and mode != "lines":
        find = partial(at_lines, known)
    elif mode == "auto" and may_be_log(suffix) and is_log(text):
        mode, find = "lines", entries
    slices = fit(text, lines(text, find), count=count, limit=limit)
    if mode == "auto":
        return pack(text, slices, limit, small=limit * SMALL)
    return pack(text, slices, limit, split_at=1)


def record(text: str, count: Count, limit: int) -> Iterator[Chunk]:
    """The chunks of a record: one, or equal parts when it is over the limit. All are on line 1."""
    parts = list(fit(text, sentences(text, Slice(0, len(text), 1)), count=count, limit=limit))
    total = sum(part.tokens for part in parts)
    if total > limit:
        pieces = -(-total // limit)
        limit = min(limit, total // pieces + max(part.tokens for part in parts) // 2)
    return ((1, 1, piece) for _, _, piece in pack(text, parts, limit, split_at=3))


# ---------------------------------------------------------------- where a text has joints


def joints(mode: str, suffix: str) -> Joints:
    """What finds the joints of a text of this kind."""
    if mode == "lines":
        return lambda rows: (1 for _ in rows)
    if mode == "paragraphs":
        return paragraphs
    suffix = suffix.lower()
    if suffix in MARKDOWN:
        return markdown
    return restructured if suffix in RST else code if suffix in CODE else paragraphs


def at_lines(known: dict[int, int], rows: Iterable[str]) -> Iterator[int]:
    return (known.get(i, 0) for i, _ in enumerate(rows))


def may_be_log(suffix: str) -> bool:
    return joints("auto", suffix) is paragraphs and suffix.lower() not in NO_LOGS


def paragraphs(rows: Iterable[str]) -> Iterator[int]:
    blank = True
    for row in rows:
        yield int(blank and not row.isspace())
        blank = row.isspace()


def markdown(rows: Iterable[str]) -> Iterator[int]:
    fence = None
    for joint, row, below, _ in ahead(rows):
        mark = FENCE.match(row)
        if fence:
            joint = 0
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = None
        elif mark:
            fence = mark[1]
        elif HEADING.match(row) or joint and SETEXT.match(below):
            joint = 2
        yield joint


def restructured(rows: Iterable[str]) -> Iterator[int]:
    for joint, row, below, last in ahead(rows):
        title = row.rstrip()
        under = UNDERLINE.match(below) and len(below.rstrip()) >= len(title)
        over = UNDERLINE.match(row) and title == last.rstrip()
        yield 2 if joint and (under or over) else joint


def code(rows: Iterable[str]) -> Iterator[int]:
    """A definition begins after a blank line, at the margin."""
    for joint, row, _, _ in ahead(rows):
        yield 2 if joint and DEFINITION.match(row) else joint


def ahead(rows: Iterable[str]) -> Iterator[tuple[int, str, str, str]]:
    """(its paragraph joint, a row, the two below it) of each row; "" beyond the last."""
    first, rows, second, third = tee(rows, 4)
    below, last = chain(islice(second, 1, None), [""]), chain(islice(third, 2, None), ["", ""])
    return zip(paragraphs(first), rows, below, last, strict=False)


# ---------------------------------------------------------------- slices


def lines(text: str, find_joints: Joints) -> Iterator[Slice]:
    """A slice for each line, its break included; blank lines that follow each other share one."""
    kept, rows = tee(match[0] for match in ROW.finditer(text))
    blank: Slice | None = None
    at = 0
    for i, (row, joint) in enumerate(zip(kept, find_joints(rows), strict=True), 1):
        at += len(row)
        if not row.isspace():
            if blank:
                yield blank
            blank = None
            yield Slice(at - len(row), at, i, joint=joint)
        elif blank:
            blank.end = at
        else:
            blank = Slice(at - len(row), at, i, joint=joint)
    if blank:
        yield blank


def fit(text: str, slices: Iterable[Slice], *, count: Count, limit: int) -> Iterator[Slice]:
    """The slices with their tokens counted, and cut smaller where one is over the limit."""
    slices = iter(slices)
    while some := list(islice(slices, COUNTED)):
        small: list[Slice] = []
        for s in some:
            small += [s] if s.end - s.start <= 8 * limit else cut(text, s, 8 * limit)
        for s, tokens in zip(small, count([text[s.start : s.end] for s in small]), strict=True):
            s.tokens = tokens
            parts = [s] if tokens <= limit else cut(text, s, max(1, (s.end - s.start) // 2))
            if len(parts) > 1:
                yield from fit(text, parts, count=count, limit=limit)
            else:
                yield from parts


def cut(text: str, s: Slice, size: int) -> list[Slice]:
    """A slice in pieces of at most `size` characters: at sentences, else at spaces, else anywhere."""
    pieces: list[Slice] = []
    at = s.start
    for part in sentences(text, s):
        while part.end - at > size:
            if part.start > at:
                end = part.start
            else:
                space = text.rfind(" ", at + 1, at + size)
                end = space + 1 if space > at else at + size
            pieces.append(Slice(at, end, s.line, joint=0 if pieces else s.joint))
            at = end
    pieces.append(Slice(at, s.end, s.line, joint=0 if pieces else s.joint))
    return pieces


def sentences(text: str, s: Slice) -> Iterator[Slice]:
    start = s.start
    for match in SENTENCE.finditer(text, s.start, s.end):
        if match.end() < s.end:
            yield Slice(start, match.end(), s.line)
            start = match.end()
    yield Slice(start, s.end, s.line)


def pack(text: str, slices: Iterable[Slice], limit: int, *, small: float = 0, split_at: int = 2) -> Iterator[Chunk]:
    """Neighbouring slices joined to chunks of at most `limit` tokens.

    A chunk ends where a joint of at least `split_at` follows, if it has more than `small` tokens;
    one that is full ends at its last joint, if that leaves it more than half full.
    """
    held: list[Slice] = []
    tokens = 0
    for s in slices:
        if held and s.joint >= split_at and tokens > small:
            yield from emit(text, held)
            held, tokens = [], 0
        elif held and tokens + s.tokens > limit:
            end = last_joint(held, s, limit)
            yield from emit(text, held[:end])
            held = held[end:]
            tokens = sum(h.tokens for h in held)
        held.append(s)
        tokens += s.tokens
    yield from emit(text, held)


def last_joint(held: list[Slice], following: Slice, limit: int) -> int:
    """How many of the held slices to emit now."""
    if following.joint:
        return len(held)
    tokens = sum(s.tokens for s in held)
    for i in range(len(held) - 1, 0, -1):
        tokens -= held[i].tokens
        if tokens < limit / 2:
            break
        if held[i].joint and tokens + following.tokens <= limit:
            return i
    return len(held)


def emit(text: str, held: list[Slice]) -> Iterator[Chunk]:
    """The chunk of these slices without the blank lines around it; nothing when all is blank."""
    first = next((s for s in held if text[s.start : s.end].strip()), None)
    if first:
        body = text[first.start : held[-1].end].rstrip()
        yield first.line, first.line + body.count("\n"), body
