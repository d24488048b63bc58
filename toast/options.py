"""Declarations of options and arguments, and the small parser that reads them.

A command declares its parameters as the defaults of its function; `parse` reads a well-formed
command line from them without importing Typer. Whatever it does not take as well-formed it leaves
to `usage.py`, where Typer reads the same declarations and says what is wrong. Values are converted
here for both.
"""

from __future__ import annotations

from toast.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Given = dict[str, Any]  # name of a parameter -> the words given for it, True for a flag


class Parameter:
    """One declared parameter; `name` and `type` come from the function that declares it."""

    def __init__(
        self, default: Any, *flags: str, help: str = "", metavar: str | None = None, choices: Sequence[str] = (),
        min: float | None = None, max: float | None = None, env: str | None = None,
    ) -> None:  # fmt: skip
        self.default, self.flags, self.help, self.metavar = default, flags, help, metavar
        self.choices, self.min, self.max, self.env = choices, min, max, env
        self.name, self.many = "", False
        self.type: Any = str

    def bind(self, name: str, annotation: Any) -> Parameter:
        """A copy that knows its name and its type: `int`, `int | None`, `list[str]`."""
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound.name = name
        bound.many = getattr(annotation, "__origin__", None) is list
        bound.type = annotation.__args__[0] if hasattr(annotation, "__args__") else annotation
        return bound

    def convert(self, word: str) -> Any:
        """The value of one word; UsageError when it is none."""
        try:
            value = self.type(word)
        except ValueError:
            raise self._refused(word, "a whole number" if self.type is int else "a number") from None
        if self.choices and value not in self.choices:
            raise self._refused(word, ", ".join(self.choices[:-1]) + f" or {self.choices[-1]}")
        low, high = (self.min is None or value >= self.min), (self.max is None or value <= self.max)
        if not (low and high):  # nan is neither
            raise self._refused(word, self.range)
        if value != value or self.min is not None and value == float("inf"):
            raise self._refused(word, "a finite number")
        return value

    def _refused(self, word: str, wanted: str) -> UsageError:
        flag = next((flag for flag in self.flags if flag.startswith("--")), *self.flags[:1])
        return UsageError(f"{flag} must be {wanted}, not {word!r}")

    @property
    def range(self) -> str:
        """`at least 1`, `from 0 to 1`; nothing where any number will do."""
        if self.min is None:
            return ""
        return f"at least {self.min}" if self.max is None else f"from {self.min} to {self.max}"


class Operand(Parameter):
    """A word without a flag."""


def Option(default: Any, *flags: str, **facts: Any) -> Any:
    """`model: str = Option("minilm", "-m", "--model", help=...)`; a bool is a flag.

    Any: the declared type is that of the value which the function gets."""
    return Parameter(default, *flags, **facts)


def Argument(default: Any, **facts: Any) -> Any:
    """`files: list[str] = Argument([], metavar="FILE")`; a default of `...` makes it required."""
    return Operand(default, **facts)


def whole(text: str) -> int | None:
    """The whole number that a text is, in up to 18 ASCII digits; None for anything else.

    str.isdigit takes what int does not (`\u00b2`), str.isdecimal other scripts, and int refuses very many digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


# shared by the commands that read records
NUL = Option(False, "-0", "--null", help="Records end in NUL instead of a line break, in and out.")
JSONL = Option(False, "--jsonl", help="Records are JSON objects, one on each line.")
FIELD = Option(None, "--field", metavar="NAME", help="The field that holds the text (text); implies --jsonl.")
PARQUET = Option(False, "--parquet", help="FILEs are Parquet, --field names the column with the text.")

EMPTY_OK = Option(
    False,
    "--empty-ok",
    help="No records are no failure: status 0, as of a shard that has none; records without an answer are still 1.",
)
SOURCE = Option(None, "--source", metavar="NAME", help="What standard input is called in the answer, as a shard is.")
START = Option(None, "--start", metavar="N", min=0, max=1 << 53, help="The number of the first record.")

ON_ERROR = Option(
    "stop",
    "--on-error",
    choices=("skip", "warn", "stop"),
    help="What a bad record costs: itself and, at the end, status 2; itself alone; or all.",
)


def refuse_with(flag: str, others: Mapping[str, object]) -> None:
    """UsageError when any of the others (flag -> value) is given beside a flag with which it says nothing."""
    for other, value in others.items():
        if not (value is None or value is False or value == []):  # 0 is a value
            raise UsageError(f"{flag} and {other} exclude each other")


def need_with(needed: str, others: Mapping[str, object], *, there: bool) -> None:
    """UsageError when any of the others (flag -> value) is given without what it needs to do anything."""
    for other, value in others.items():
        if not (there or value is None or value is False):
            raise UsageError(f"{other} needs {needed}")


def declared(function: Callable, common: Sequence[Parameter] = ()) -> list[Parameter]:
    """The parameters that a function declares after its Call, then the common ones."""
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[1 : code.co_argcount]
    own = [p.bind(n, function.__annotations__[n]) for n, p in zip(names, defaults, strict=True)]
    return own + list(common)


def parse(parameters: list[Parameter], words: list[str]) -> Given | None:
    """What a well-formed command line gives, by name; None when Typer must look at it.

    Raises UsageError when all that is wrong is a value."""
    flags = {flag: p for p in parameters for flag in p.flags}
    given: Given = {}
    loose: list[str] = []
    rest = words[::-1]
    try:
        while rest:
            word = rest.pop()
            if word == "--":
                loose += reversed(rest)
                break
            if len(word) < 2 or word[0] != "-":
                loose.append(word)
            elif word.startswith("--"):
                _long(flags, word, rest, given=given)
            else:
                _short(flags, word, rest, given=given)
        _operands([p for p in parameters if isinstance(p, Operand)], loose, given)
    except (LookupError, ValueError):
        return None
    return values(parameters, given)


def values(parameters: list[Parameter], given: Given) -> Given:
    """Values by name: of all words of a list, of the last one of anything else; a flag has none."""
    found = {}
    for p in parameters:
        if words := given.get(p.name):
            found[p.name] = words if words is True else [*map(p.convert, words)] if p.many else p.convert(words[-1])
    return found


def _long(flags: dict[str, Parameter], word: str, rest: list[str], *, given: Given) -> None:
    flag, equals, value = word.partition("=")
    parameter = flags[flag]
    if parameter.type is bool:
        if equals:
            raise ValueError(word)
        given[parameter.name] = True
    else:
        given.setdefault(parameter.name, []).append(value if equals else rest.pop())


def _short(flags: dict[str, Parameter], word: str, rest: list[str], *, given: Given) -> None:
    for i in range(1, len(word)):
        parameter = flags["-" + word[i]]
        if parameter.type is bool:
            given[parameter.name] = True
        else:
            given.setdefault(parameter.name, []).append(word[i + 1 :] or rest.pop())
            return


def _operands(operands: list[Parameter], loose: list[str], given: Given) -> None:
    for operand in operands:
        if operand.many:
            words, loose = loose, []
        else:
            words, loose = loose[:1], loose[1:]
        if not words and operand.default is ...:
            raise LookupError(operand.name)
        if words:
            given[operand.name] = words
    if loose:
        raise LookupError(loose[0])


def fill(parameters: list[Parameter], given: Given, env: Mapping[str, str]) -> Given:
    """Every parameter's value: given, else from its environment variable, else its default."""
    values = {}
    for p in parameters:
        default = env.get(p.env) or p.default if p.env else p.default
        values[p.name] = given[p.name] if p.name in given else list(default) if p.many else default
    return values
