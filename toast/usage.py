"""What is wrong with a command line, and what to type instead. Imported when something is.

Knows the declarations; what other programs say for them is in `spellings.py`.
"""

from __future__ import annotations

from toast import spellings
from toast.errors import HelpRequested, UsageError
from toast.help import value
from toast.options import HELP, VERSION, Operand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Command, Group
    from toast.options import Misread

SHOWN = 3  # suggestions


def explained(command: Command, words: list[str], found: Misread) -> UsageError:
    """What to raise for words that cannot be read."""
    flags = [flag for p in (*command.parameters, HELP, VERSION) for flag in p.flags]
    p = found.parameter
    if found.kind == "unknown":
        return UsageError(f"no such option: {found.word}", instead(command, found.word, flags))
    if found.kind == "valued" and p:
        return UsageError(f"{p.long} takes no value, but has {found.word!r}", f"{p.long} alone")
    if found.kind == "bare" and p:
        return UsageError(f"{p.long} needs a value", f"{p.flags[0]} {value(p)}")
    if found.kind == "missing" and p:
        return UsageError(f"{p.metavar} is missing", f"{called(command)}; try: {command.name} --help")
    return UsageError(*extra(command, found.word))


def called(command: Command) -> str:
    """`model alias NAME TARGET`."""
    return " ".join([command.name, *(p.metavar for p in command.parameters if isinstance(p, Operand))])


def extra(command: Command, word: str) -> tuple[str, str]:
    """(what is wrong, what to type) with a word too many."""
    if any(isinstance(p, Operand) for p in command.parameters):
        return f"a word too many: {word!r}", called(command)
    return f"{command.name.split()[-1]} takes no {word!r}", f"try: {command.name} --help"


def instead(command: Command | Group, word: str, flags: list[str]) -> str:
    """What is suggested for an option that there is not."""
    if told := _elsewhere(command.name, word, flags):
        return told
    if near := nearest(word, flags):
        return f"did you mean {' or '.join(near)}?"
    if word.startswith("--"):
        for other in mistyped(word, spellings.known(command.name)):
            if told := _elsewhere(command.name, other, flags):
                return told
    hint = f"try: {command.name} --help"
    return hint if word.startswith("--") else f"{hint}; text that begins with - comes after --"


def _elsewhere(command: str, word: str, flags: list[str]) -> str:
    """What to type for another program's option, where this command has that; "" where it has not."""
    told = spellings.option(command, word)
    if not told.startswith("-"):
        return told
    meant, _, more = told.partition("; ")
    return f"did you mean {meant}?{' ' * bool(more)}{more}" if meant.split()[0] in flags else ""


def nearest(word: str, flags: list[str]) -> list[str]:
    """The flags that are most likely meant: spelled another way, begun, or mistyped; none where none is near."""
    plain = "--" + word.lower().strip("-").replace("_", "-")
    if len(word) == 2 or plain in flags:
        return [flag for flag in (plain, word.swapcase()) if flag in flags][:1]
    long = [flag for flag in flags if flag.startswith("--")]
    if begun := [flag for flag in long if flag.startswith(plain)][:SHOWN]:
        return begun
    return mistyped(plain, long)


def mistyped(word: str, known: list[str]) -> list[str]:
    """Those of the least distance, if that is at most a letter in three; of these, those with the same letters."""
    far = {name: distance(word, name) for name in known}
    least = min(far.values())
    near = [name for name in known if far[name] == least and least <= len(word.strip("-")) // 3]
    same = [name for name in near if sorted(name) == sorted(word)]
    return (same or near)[:SHOWN]


def distance(a: str, b: str) -> int:
    """How many letters to add, drop, replace or swap with their neighbours (optimal string alignment)."""
    before: list[int] = []
    last = [*range(len(b) + 1)]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def choice(group: Group, words: list[str]) -> HelpRequested | UsageError:
    """What to raise where the first word names none of a group's commands: its help, or what is wrong."""
    word = words[0] if words else "--help"
    if word in (*HELP.flags, "help"):
        return HelpRequested("help")
    if word in VERSION.flags:
        return HelpRequested("version")
    one_of = f"one of: {', '.join(group.commands)}"
    if word.startswith("-"):
        return UsageError(f"{group.name} has no option {word} before its command", f"{group.name} COMMAND {word}")
    near = [name for name in spellings.command(word) if name in group.commands]
    near = near or [name for name in group.commands if name.startswith(word)] or mistyped(word, [*group.commands])
    for other in [] if near else mistyped(word, spellings.command_words()):
        near = [name for name in spellings.command(other) if name in group.commands]
    hint = f"did you mean {' or '.join(f'{group.name} {name}' for name in near[:SHOWN])}?" if near else one_of
    return UsageError(f"{group.name} has no command {word!r}", hint)
