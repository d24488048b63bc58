"""Text to chunks: pieces within the embedder's limit, cut where the text itself has joints.

Knows headings, definitions, paragraphs, lines and sentences; nothing of files, models or tables.
A chunk is `(start_line, end_line, text)`: lines count from 1, and the text is a slice of the whole.
"""

import re

COUNTED = 512  # slices whose tokens are counted together
SMALL = 1 / 4  # of the limit: a section shorter than this may share its chunk with the next

FENCE = re.compile(r" {0,3}(```|~~~)")
HEADING = re.compile(r" {0,3}#{1,6} ")
UNDERLINE = re.compile(r"([=\-`:.'\"~^_*+#])\1{2,}\s*$")
# a line at the margin that begins with a word, a decorator or an attribute
DEFINITION = re.compile(r"[A-Za-z_@#]")
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")
MARKDOWN = {"md", "markdown", "mdx", "mkd", "qmd"}
RST = {"rst", "rest"}
CODE = set(
    "py pyi js jsx ts tsx c h cc cpp cxx hpp hh rs go java kt swift rb php pl lua sh bash zsh cs scala"
    " ml hs ex exs erl clj el lisp r jl m mm sql zig nim d dart vue css scss cmake gradle".split()
)


class Slice:
    """text[start:end], which begins on `line` and takes `tokens`; `joint`: 2 begins a section, 1 a paragraph."""

    __slots__ = ("start", "end", "line", "tokens", "joint")

    def __init__(self, start, end, line, joint=0):
        self.start, self.end, self.line, self.joint, self.tokens = start, end, line, joint, 0


def chunk(text: str, count, limit: int, mode: str = "auto", suffix: str = ""):
    """The chunks of a file's text.

    count: list of strings -> list of their numbers of tokens; limit: of a chunk; mode: auto,
    paragraphs or lines; suffix: the file's, without the dot, which tells what its sections are.
    """
    slices = fit(text, lines(text, joints(text, mode, suffix)), count, limit)
    if mode == "auto":
        return pack(text, slices, limit, limit * SMALL)
    return pack(text, slices, limit, 0, split_at=1)


def record(text: str, count, limit: int):
    """The chunks of a record: one, or equal parts when it is over the limit. All are on line 1."""
    parts = fit(text, sentences(text, Slice(0, len(text), 1)), count, limit)
    total = sum(part.tokens for part in parts)
    if total > limit:
        pieces = -(-total // limit)
        limit = min(limit, total // pieces + max(part.tokens for part in parts) // 2)
    return ((1, 1, piece) for _, _, piece in pack(text, parts, limit, 0, split_at=3))


# ---------------------------------------------------------------- where a text has joints


def joints(text: str, mode: str, suffix: str):
    """For each line, what begins there: 2 a section, 1 a paragraph, 0 nothing."""
    if mode == "lines":
        return lambda rows: [1] * len(rows)
    if mode == "paragraphs":
        return paragraphs
    suffix = suffix.lower()
    if suffix in MARKDOWN:
        return markdown
    return restructured if suffix in RST else code if suffix in CODE else paragraphs


def paragraphs(rows):
    blank, found = True, []
    for row in rows:
        found.append(int(blank and not row.isspace()))
        blank = row.isspace()
    return found


def markdown(rows):
    found, fence = paragraphs(rows), None
    for i, row in enumerate(rows):
        mark = FENCE.match(row)
        if mark and fence in (None, mark[1]):
            fence = None if fence else mark[1]
        elif fence:
            found[i] = 0
        elif HEADING.match(row):
            found[i] = 2
    return found


def restructured(rows):
    found = paragraphs(rows)
    for i in range(1, len(rows)):
        title = rows[i - 1].rstrip()
        if title and found[i - 1] and UNDERLINE.match(rows[i]) and len(rows[i].rstrip()) >= len(title):
            found[i - 1] = 2
    return found


def code(rows):
    """A definition begins after a blank line, at the margin."""
    return [2 * joint if joint and DEFINITION.match(row) else joint for joint, row in zip(paragraphs(rows), rows)]


# ---------------------------------------------------------------- slices


def lines(text, find_joints):
    """A slice for each line, its break included."""
    rows = text.splitlines(keepends=True) if "\r" not in text else re.findall(r"[^\n]*\n|[^\n]+", text)
    rows = rows if len(rows) == text.count("\n") + (not text.endswith("\n")) else re.findall(r"[^\n]*\n|[^\n]+", text)
    at, slices = 0, []
    for i, (row, joint) in enumerate(zip(rows, find_joints(rows)), 1):
        slices.append(Slice(at, at + len(row), i, joint))
        at += len(row)
    return slices


def fit(text, slices, count, limit):
    """The slices with their tokens counted, and cut smaller where one is over the limit."""
    fitted = []
    for start in range(0, len(slices), COUNTED):
        small = []
        for s in slices[start : start + COUNTED]:
            small += [s] if s.end - s.start <= 8 * limit else cut(text, s, 8 * limit)
        for s, tokens in zip(small, count([text[s.start : s.end] for s in small])):
            s.tokens = tokens
            if tokens <= limit:
                fitted.append(s)
            else:
                parts = cut(text, s, max(1, (s.end - s.start) // 2))
                fitted += fit(text, parts, count, limit) if len(parts) > 1 else parts
    return fitted


def cut(text, s, size):
    """A slice in pieces of at most `size` characters: at sentences, else at spaces, else anywhere."""
    pieces, at = [], s.start
    for part in sentences(text, s):
        while part.end - at > size:
            if part.start > at:
                end = part.start
            else:
                space = text.rfind(" ", at + 1, at + size)
                end = space + 1 if space > at else at + size
            pieces.append(Slice(at, end, s.line, 0 if pieces else s.joint))
            at = end
    pieces.append(Slice(at, s.end, s.line, 0 if pieces else s.joint))
    return pieces


def sentences(text, s):
    ends = [m.end() for m in SENTENCE.finditer(text, s.start, s.end) if m.end() < s.end] + [s.end]
    return [Slice(a, b, s.line) for a, b in zip([s.start, *ends], ends)]


def pack(text, slices, limit, small, split_at=2):
    """Neighbouring slices joined to chunks of at most `limit` tokens.

    A chunk ends where a joint of at least `split_at` follows, if it has more than `small` tokens;
    one that is full ends at its last joint, if that leaves it more than half full.
    """
    held, tokens = [], 0
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


def last_joint(held, following, limit):
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


def emit(text, held):
    """The chunk of these slices without the blank lines around it; nothing when all is blank."""
    while held and not text[held[0].start : held[0].end].strip():
        held = held[1:]
    if held:
        body = text[held[0].start : held[-1].end].rstrip()
        yield held[0].line, held[0].line + body.count("\n"), body
