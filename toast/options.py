"""Declarations of options and arguments, and the parser that reads them.

A command declares its parameters as the defaults of its function; help, manual pages and completions are written from
the same. What is wrong with a command line is found here, and explained in `usage.py`.
"""

from __future__ import annotations

from toast.errors import HelpRequested, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Given = dict[str, Any]  # name of a parameter -> the words given for it, True for a flag


class Misread(Exception):
    """A command line that cannot be read. kind: of FAULTS; word: where; parameter: whose value, or which operand."""

    FAULTS = ("unknown", "valued", "bare", "extra", "missing")

    def __init__(self, kind: str, word: str = "", parameter: Parameter | None = None) -> None:
        super().__init__(kind, word)
        self.kind, self.word, self.parameter = kind, word, parameter


class Parameter:
    """One declared parameter; `name` and `type` come from the function that declares it.

    group: the heading under which it and those declared after it stand in the help. without: what holds where it is not
    given and the default does not tell. env: the variable that gives the default. empty: whether a value may be.
    hint: what to type in place of a wrong value."""

    def __init__(
        self, default: Any, *flags: str, help: str = "", metavar: str = "", choices: Sequence[str] = (),
        min: float | None = None, max: float | None = None, env: str = "", group: str = "", without: str = "",
        empty: bool = True, hint: str = "",
    ) -> None:  # fmt: skip
        self.default, self.flags, self.help, self.metavar = default, flags, help, metavar
        self.choices, self.min, self.max, self.env = choices, min, max, env
        self.group, self.without, self.empty, self.hint = group, without, empty, hint
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
        if not (word or self.empty):
            raise UsageError(f"{self.long} is empty", f"{self.long} {self.metavar}")
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
        hint = f"{self.flags[0]} {word[1:]}" if word.startswith("=") and len(self.flags[0]) == 2 else self.hint
        return UsageError(f"{self.long} must be {wanted}, not {word!r}", hint)

    @property
    def long(self) -> str:
        """Its long flag, else its short one."""
        return next((flag for flag in self.flags if flag.startswith("--")), *self.flags[:1])

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
RECORDS = "Records"
NUL = Option(False, "-0", "--null", help="Records end in NUL instead of a line break, in and out.", group=RECORDS)
JSONL = Option(False, "--jsonl", help="Records are JSON objects, one on each line.", group=RECORDS)
FIELD = Option(
    None, "--field", metavar="NAME", help="The field that holds the text, as body or article.body; implies --jsonl.",
    without="text",
    group=RECORDS, empty=False,
)  # fmt: skip
PARQUET = Option(
    False, "--parquet", group=RECORDS,
    help="FILEs are Parquet; --field names the column with the text, article.body one that is called so.",
)  # fmt: skip

EMPTY_OK = Option(
    False, "--empty-ok", group=RECORDS,
    help="No records are no failure: status 0, as of a shard that has none; records without an answer are still 1.",
)  # fmt: skip
SOURCE = Option(
    None, "--source", metavar="NAME", help="What standard input is called in the answer, as a shard is.",
    group=RECORDS, empty=False,
)  # fmt: skip
START = Option(
    None, "--start", metavar="N", min=0, max=1 << 53, help="The number of the first record.", without="0", group=RECORDS
)
ON_ERROR = Option(
    "stop", "--on-error", choices=("skip", "warn", "stop"), group=RECORDS,
    help="A bad record: skip and warn leave it out and say so, skip with status 2 at the end; stop ends with status 2.",
)  # fmt: skip

# of every command, beside its own
HELP = Parameter(False, "-h", "--help", help="Write this help.")
VERSION = Parameter(False, "--version", help="Write the version.")
for _asked, _name in ((HELP, "help"), (VERSION, "version")):
    _asked.name, _asked.type = _name, bool


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


def refuse_unreachable(what: str, threshold: float | None, scores: str = "scores are from 0 to 1") -> None:
    """UsageError for a threshold over 1, where no score is. what: as the message begins; scores: where they are."""
    if threshold is not None and threshold > 1:
        raise UsageError(f"{what} {threshold:g} is over every score", scores)


def declared(function: Callable, common: Sequence[Parameter] = ()) -> list[Parameter]:
    """The parameters that a function declares after its Call, then the common ones."""
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[1 : code.co_argcount]
    own = [p.bind(n, function.__annotations__[n]) for n, p in zip(names, defaults, strict=True)]
    return own + list(common)


def parse(parameters: Sequence[Parameter], words: list[str]) -> Given:
    """What a command line gives, by name. Raises Misread, UsageError for a wrong value, HelpRequested."""
    flags = {flag: p for p in (*parameters, HELP, VERSION) for flag in p.flags}
    given: Given = {}
    loose: list[str] = []
    rest = words[::-1]
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
    return values(parameters, given)


def values(parameters: Sequence[Parameter], given: Given) -> Given:
    """Values by name: of all words of a list, of the last one of anything else; a flag has none."""
    found = {}
    for p in parameters:
        if words := given.get(p.name):
            found[p.name] = words if words is True else [*map(p.convert, words)] if p.many else p.convert(words[-1])
    return found


def _long(flags: dict[str, Parameter], word: str, rest: list[str], *, given: Given) -> None:
    flag, equals, value = word.partition("=")
    parameter = flags.get(flag)
    if parameter is None:
        raise Misread("unknown", flag)
    if parameter.type is not bool:
        _take(parameter, value if equals else None, rest, given=given)
    elif equals:
        raise Misread("valued", value, parameter)
    else:
        _set(parameter, given)


def _short(flags: dict[str, Parameter], word: str, rest: list[str], *, given: Given) -> None:
    if len(word) > 2 and "-" + word.partition("=")[0] in flags:  # -model is no -m odel
        raise Misread("unknown", word.partition("=")[0])
    for i in range(1, len(word)):
        parameter = flags.get("-" + word[i])
        if parameter is None:
            raise Misread("unknown", word if i == 1 else "-" + word[i])
        if parameter.type is not bool:
            return _take(parameter, word[i + 1 :] or None, rest, given=given)
        _set(parameter, given)


def _set(parameter: Parameter, given: Given) -> None:
    if parameter in (HELP, VERSION):
        raise HelpRequested(parameter.name)
    given[parameter.name] = True


def _take(parameter: Parameter, value: str | None, rest: list[str], *, given: Given) -> None:
    if value is None and not rest:
        raise Misread("bare", parameter=parameter)
    given.setdefault(parameter.name, []).append(rest.pop() if value is None else value)


def _operands(operands: list[Parameter], loose: list[str], given: Given) -> None:
    for operand in operands:
        if operand.many:
            words, loose = loose, []
        else:
            words, loose = loose[:1], loose[1:]
        if not words and operand.default is ...:
            raise Misread("missing", parameter=operand)
        if words:
            given[operand.name] = words
    if loose:
        raise Misread("extra", loose[0])


def fill(parameters: list[Parameter], given: Given, env: Mapping[str, str]) -> Given:
    """Every parameter's value: given, else from its environment variable, else its default."""
    values = {}
    for p in parameters:
        default = env.get(p.env) or p.default if p.env else p.default
        values[p.name] = given[p.name] if p.name in given else list(default) if p.many else default
    return values
