"""What becomes of an answer's text on its way out: stop strings, reasoning, code blocks, the last newline.

Each filter takes pieces of text and gives back what is settled; `finish` gives the rest. Knows no
tokens and no descriptors.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Marks = tuple[str, str]  # begin, end

# how models mark their reasoning: begin, end; the last four are told by MLX-LM's model files
MARKS = [
    ("<think>", "</think>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|think:start|>", "<|think:end|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
]


def _settled(text: str, marks: Sequence[str]) -> int:
    """How much of the text cannot be the beginning of a mark that is still to come."""
    for start in range(max(0, len(text) - max(map(len, marks), default=1) + 1), len(text)):
        if any(mark.startswith(text[start:]) for mark in marks):
            return start
    return len(text)


class Stops:
    """Ends the text before the first of some strings; `hit` tells that it came."""

    def __init__(self, stops: Iterable[str]) -> None:
        self.stops, self.held, self.hit = [s for s in stops if s], "", False

    def add(self, text: str) -> str:
        if self.hit:
            return ""
        text = self.held + text
        found = [at for at in map(text.find, self.stops) if at >= 0]
        if found:
            self.hit, self.held = True, ""
            return text[: min(found)]
        settled = _settled(text, self.stops)
        self.held = text[settled:]
        return text[:settled]

    def finish(self) -> str:
        held, self.held = self.held, ""
        return held


class Reasoning:
    """Takes a model's reasoning, which goes to `on_reasoning`, out of its answer.

    marks: (begin, end), or None for a model that does not reason. inside: the prompt has begun it. once: it comes
    before the answer or not at all. What `on_reasoning` hears ends with a line break.
    """

    def __init__(
        self, marks: Marks | None, on_reasoning: Callable[[str], object], *, inside: bool = False, once: bool = False
    ) -> None:
        self.marks, self.on_reasoning, self.inside, self.once = marks, on_reasoning, inside, once
        self.held, self.blank = "", False  # blank: between the reasoning and the answer
        self.last = ""  # of what was told: the end

    def add(self, text: str) -> str:
        if not self.marks:
            return self._pass(text)
        text, answer = self.held + text, ""
        while True:
            mark, at = self._next(text, self.marks)
            if self.once and not self.inside and (self.blank or self._has_begun(text, self.marks)):
                self.marks, self.held = None, ""
                return answer + self._pass(text)
            if at < 0:
                settled = _settled(text, self.marks)
                self.held = text[settled:]
                return answer + self._pass(text[:settled])
            answer += self._pass(text[:at])
            self._end_line()
            self.inside = mark == self.marks[0]
            self.blank = not self.inside
            text = text[at + len(mark) :]

    def _has_begun(self, text: str, marks: Marks) -> bool:
        """Whether the answer has, since the text begins with no mark."""
        return bool(text) and not any(mark.startswith(text) or text.startswith(mark) for mark in marks)

    def _end_line(self) -> None:
        if self.last and self.last != "\n":
            self.on_reasoning("\n")
        self.last = ""

    def _next(self, text: str, marks: Marks) -> tuple[str, int]:
        """The first mark in the text and where it is; -1 for none."""
        found = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
        return (min(found)[1], min(found)[0]) if found else ("", -1)

    def _pass(self, text: str) -> str:
        if self.inside:
            if text:
                self.on_reasoning(text)
                self.last = text[-1]
            return ""
        if self.blank:
            text = text.lstrip()
            self.blank = not text
        return text

    def finish(self) -> str:
        held, self.held = self.held, ""
        rest = self._pass(held)
        self._end_line()
        return rest


def marks_for(known: Callable[[str], bool]) -> Marks | None:
    """The marks of a model; `known(token)` says whether its vocabulary has a token.

    A mark may be several tokens, of which the first, `<...>` or `[...]`, has to be known."""
    for marks in MARKS:
        first = marks[0].partition(">")
        if known(marks[0]) or known(first[0] + first[1]):
            return marks
    return None


class CodeBlock:
    """Only the inside of the first fenced code block (CommonMark 4.5); `done` when it has closed."""

    def __init__(self) -> None:
        self.line, self.fence, self.done = "", "", False

    def add(self, text: str) -> str:
        out = []
        *whole, self.line = (self.line + text).split("\n")
        for line in whole:
            out.append(self._inside(line, "\n"))
        return "".join(out)

    def finish(self) -> str:
        line, self.line = self.line, ""
        return self._inside(line, "")

    def _inside(self, line: str, end: str) -> str:
        stripped = line.strip()
        if self.done:
            return ""
        if not self.fence:
            if stripped.startswith(("```", "~~~")) and len(line) - len(line.lstrip(" ")) < 4:
                self.fence = stripped[0] * (len(stripped) - len(stripped.lstrip(stripped[0])))
            return ""
        if stripped.startswith(self.fence) and not stripped.strip(self.fence[0]):
            self.done = True
            return ""
        return line + end


class LastNewline:
    """Exactly one newline at the end."""

    def __init__(self) -> None:
        self.held = ""

    def add(self, text: str) -> str:
        text = self.held + text
        kept = text.rstrip("\n")
        self.held = text[len(kept) :]
        return kept

    def finish(self) -> str:
        return "\n"
