"""Help: a command's declarations as text for a terminal, and as the `Page` that manual pages are written from.

Owns the parts of a page and their order. What is wrong with a command line is `usage.py`'s; standard library alone.
"""

from __future__ import annotations

import os

from toast.options import HELP, VERSION, Operand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from toast.command import Call, Command, Group
    from toast.options import Parameter

    Row = tuple[str, str]  # a term and what it means

NARROWEST, WIDEST, UNKNOWN = 40, 100, 80  # columns
MARGIN, INDENT = 26, 2  # where explanations begin, and terms

EVERYWHERE = (
    ("TOAST_HOME", "Where models and sessions are kept, else $XDG_CACHE_HOME/toast, else ~/.cache/toast."),
    ("TOAST_PULL", "1: a model that is named and not here is fetched; 0: the default ones are not, either."),
    (
        "HF_HUB_OFFLINE",
        "1: nothing is fetched, no hub is asked. HF_HOME, HF_HUB_CACHE: where the Hugging Face cache is.",
    ),
    ("TOAST_THREADS", "Threads of the CPU kernels, else one for each core that the affinity and the cgroup leave it."),
    ("TOAST_DEBUG", "1: an error shows where it came from."),
)
COLOURS = ("NO_COLOR", "Not empty: no colours, unless --color always.")
DONE = "Done; also when the reader of the output went away."
ERROR = "Any error, also of some records only; wrong usage."
CUT = "With --strict: an input was cut to the model's limit, or an answer at its own."
AGAIN = "Of an option that is given twice the last one counts, but for those that are repeatable."


class Page:
    """All that is to be told of a command.

    groups: (heading, [(term, meaning), ...]); commands: the pages of a group's commands."""

    def __init__(self, command: Command | Group) -> None:
        self.name, self.parameters = command.name, [*command.parameters, HELP, VERSION]
        self.summary, self.paragraphs, self.examples, none = _parts(command.help)
        self.commands = [Page(part) for part in command.commands.values()]
        self.usage = _usage(command)
        self.groups = [*_groups(self.parameters)]
        self.environment = [*_environment(self.parameters)]
        found = [(0, DONE), (1, none), (2, ERROR), (3, CUT)]
        self.statuses = [(str(number), text) for number, text in found if text]


def _parts(doc: str) -> tuple[str, list[str], list[str], str]:
    """(summary, paragraphs, examples, what status 1 means) of a docstring."""
    blocks = [[line.strip() for line in block.split("\n")] for block in doc.strip().split("\n\n")]
    lines = [line for block in blocks for line in block]
    texts = [" ".join(line for line in block if not line.startswith(("$ ", "> "))) for block in blocks]
    none = next((text.removeprefix("Status 1: ") for text in texts if text.startswith("Status 1: ")), "")
    summary, *paragraphs = [text for text in texts if text and not text.startswith("Status 1: ")] or [""]
    return summary, paragraphs, _examples(lines), none


def _examples(lines: Iterable[str]) -> list[str]:
    """Lines of shell; a "> " goes on with the one before."""
    found: list[str] = []
    for line in lines:
        if line.startswith("$ "):
            found.append(line[2:])
        elif line.startswith("> "):
            found[-1] += "\n" + line
    return [example.replace("\n> ", "\n  ") for example in found]


def _usage(command: Command | Group) -> str:
    if command.commands:
        return f"{command.name} COMMAND [OPTION]..."
    words = [command.name, "[OPTION]..."]
    for p in command.parameters:
        if isinstance(p, Operand):
            words.append((p.metavar if p.default is ... else f"[{p.metavar}]") + "..." * p.many)
    return " ".join(words)


def _groups(parameters: Iterable[Parameter]) -> Iterator[tuple[str, list[Row]]]:
    """What is declared, under its headings; options of one group may stand apart."""
    found: dict[str, list[Row]] = {"Arguments": []}
    group = "Options"
    for p in parameters:
        if not isinstance(p, Operand):
            group = p.group or group
        found.setdefault("Arguments" if isinstance(p, Operand) else group, []).append((term(p), meaning(p)))
    common = found.pop("Every command", [])
    yield from ((heading, rows) for heading, rows in (*found.items(), ("Every command", common)) if rows)


def term(p: Parameter) -> str:
    """`-m, --model MODEL`, `    --mode hybrid|vector`, `FILE...`."""
    if isinstance(p, Operand):
        return p.metavar + "..." * p.many
    flags = ", ".join(p.flags)
    return (flags if len(p.flags[0]) == 2 else "    " + flags) + " " * bool(value(p)) + value(p)


def value(p: Parameter) -> str:
    """What stands for the value: `FILE`, `hybrid|vector`; nothing for a flag."""
    return "" if p.type is bool else p.metavar or "|".join(p.choices)


def meaning(p: Parameter) -> str:
    """The explanation, and in brackets range, default, variable, and whether it may be repeated."""
    default = "" if p.type is bool or p.default in (None, [], "", ...) else str(p.default)
    notes = [p.range, f"default: {default or p.without}" if default or p.without else "", f"${p.env}" if p.env else ""]
    if p.many and not isinstance(p, Operand):
        notes.append("repeatable")
    told = ", ".join(note for note in notes if note)
    return f"{p.help} [{told}]".lstrip() if told else p.help


def _environment(parameters: Iterable[Parameter]) -> Iterator[Row]:
    for p in parameters:
        if name := p.env or p.without[1:].partition(",")[0] * p.without.startswith("$"):
            yield name, f"What {p.long} is without being given."
        if p.name == "color":
            yield COLOURS
    yield from EVERYWHERE


# ---------------------------------------------------------------- a terminal


def version(call: Call) -> str:
    """`embed (toast 0.1.0)`."""
    from toast import __version__

    return f"{call.name} (toast {__version__})\n"


def text(call: Call, command: Command | Group) -> str:
    """The help of a command, as wide as the terminal."""
    return "\n".join(lines(Page(command), width(call))) + "\n"


def width(call: Call) -> int:
    """Columns: of $COLUMNS, of the terminal, else 80; lines of over 100 are hard to read."""
    columns = call.env.get("COLUMNS", "")
    try:
        found = int(columns) if columns.isdecimal() else os.get_terminal_size(call.stdout).columns
    except (OSError, ValueError):
        found = 0
    return min(max(found or UNKNOWN, NARROWEST), WIDEST)


def lines(page: Page, width: int) -> Iterator[str]:
    """The lines of a page, none wider than that unless one of its words or examples is."""
    yield from _wrapped(f"Usage: {page.usage}", width, indent=0, rest=7)
    for paragraph in (page.summary, *page.paragraphs):
        yield ""
        yield from _wrapped(paragraph, width)
    if page.examples:
        shown = (" " * INDENT + line for example in page.examples for line in example.split("\n"))
        yield from ("", "Examples:", *shown)
    if page.commands:
        rows = [(part.name.split()[-1], part.summary) for part in page.commands]
        yield from ("", "Commands:", *_table(rows, width, margin(rows, width)))
    wide = margin((row for _, rows in page.groups for row in rows), width)
    for heading, rows in page.groups:
        yield from ("", f"{heading}:", *_table(rows, width, wide))
    for heading, rows in (("Environment", page.environment), ("Exit status", page.statuses)):
        yield from ("", f"{heading}:", *_table(rows, width, margin(rows, width)))
    yield from ("", *_wrapped(AGAIN, width))


def margin(rows: Iterable[Row], width: int) -> int:
    """Where explanations begin; in a narrow terminal they stand below their terms."""
    longest = max((len(term) for term, _ in rows), default=0) + INDENT + 2
    return min(longest, MARGIN) if width >= 72 else INDENT + 8


def _table(rows: Iterable[Row], width: int, margin: int) -> Iterator[str]:
    """Terms on the left; what does not fit beside its term is below it."""
    for term, meaning in rows:
        head = " " * INDENT + term
        told = list(_wrapped(meaning, width, indent=margin, rest=margin))
        if len(head) + 2 <= margin and told:
            yield head + told.pop(0)[len(head) :]
        else:
            yield head
        yield from told


def _wrapped(text: str, width: int, *, indent: int = 0, rest: int = 0) -> Iterator[str]:
    """A paragraph in lines, the first one indented by `indent`, the others by `rest`."""
    line = " " * indent
    for word in text.split():
        if line.strip() and len(line) + 1 + len(word) > width:
            yield line
            line = " " * rest
        line += " " * bool(line.strip()) + word
    if line.strip():
        yield line
