"""Declarations of options and arguments, and the small parser that reads them.

A command declares its parameters as the defaults of its function; `parse` reads a well-formed
command line from them without importing Typer. Whatever it does not take as well-formed it leaves
to `usage.py`, where Typer reads the same declarations and says what is wrong.
"""


class Parameter:
    """One declared parameter; `name` and `type` come from the function that declares it."""

    def __init__(self, default, *flags, help="", metavar=None, choices=(), min=None, max=None, env=None):
        self.default, self.flags, self.help, self.metavar = default, flags, help, metavar
        self.choices, self.min, self.max, self.env = choices, min, max, env
        self.name, self.type, self.many = "", str, False

    def bind(self, name: str, annotation) -> "Parameter":
        """A copy that knows its name and its type: `int`, `int | None`, `list[str]`."""
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound.name = name
        bound.many = getattr(annotation, "__origin__", None) is list
        bound.type = annotation.__args__[0] if hasattr(annotation, "__args__") else annotation
        return bound

    def convert(self, word: str):
        """The value of one word; ValueError when it is none."""
        value = self.type(word)
        if self.choices and value not in self.choices:
            raise ValueError(word)
        if (self.min is not None and not value >= self.min) or (
            self.max is not None and not value <= self.max
        ):
            raise ValueError(word)
        return value


class Option(Parameter):
    """`model: str = Option("minilm", "-m", "--model", help=...)`; a bool is a flag."""


class Argument(Parameter):
    """`files: list[str] = Argument([], metavar="FILE")`; a default of `...` makes it required."""


# shared by the commands that read records
NUL = Option(False, "-0", "--null", help="Records end in NUL instead of a line break, in and out.")
JSONL = Option(False, "--jsonl", help="Records are JSON objects, one on each line.")
FIELD = Option(None, "--field", metavar="NAME", help="The field that holds the text (text); implies --jsonl.")


def read(function, common=()) -> list[Parameter]:
    """The parameters that a function declares after its Call, then the common ones."""
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[1 : code.co_argcount]
    own = [p.bind(n, function.__annotations__[n]) for n, p in zip(names, defaults, strict=True)]
    return own + list(common)


def parse(parameters: list[Parameter], words: list[str]) -> dict | None:
    """What a well-formed command line gives, by name; None when Typer must look at it."""
    flags = {flag: p for p in parameters for flag in p.flags}
    given, loose, rest = {}, [], list(reversed(words))
    try:
        while rest:
            word = rest.pop()
            if word == "--":
                loose += reversed(rest)
                break
            if len(word) < 2 or word[0] != "-":
                loose.append(word)
            elif word.startswith("--"):
                _long(flags, word, rest, given)
            else:
                _short(flags, word, rest, given)
        _arguments([p for p in parameters if isinstance(p, Argument)], loose, given)
        return {p.name: _value(p, given[p.name]) for p in parameters if p.name in given}
    except (LookupError, ValueError):
        return None


def _value(parameter, words):
    """All words of a list, the last one of anything else; a flag has none."""
    if words is True:
        return True
    return [parameter.convert(w) for w in words] if parameter.many else parameter.convert(words[-1])


def _long(flags, word, rest, given):
    flag, equals, value = word.partition("=")
    parameter = flags[flag]
    if parameter.type is bool:
        if equals:
            raise ValueError(word)
        given[parameter.name] = True
    else:
        given.setdefault(parameter.name, []).append(value if equals else rest.pop())


def _short(flags, word, rest, given):
    for i in range(1, len(word)):
        parameter = flags["-" + word[i]]
        if parameter.type is bool:
            given[parameter.name] = True
        else:
            given.setdefault(parameter.name, []).append(word[i + 1 :] or rest.pop())
            return


def _arguments(arguments, loose, given):
    for argument in arguments:
        if argument.many:
            words, loose = loose, []
        else:
            words, loose = loose[:1], loose[1:]
        if not words and argument.default is ...:
            raise LookupError(argument.name)
        if words:
            given[argument.name] = words
    if loose:
        raise LookupError(loose[0])


def fill(parameters: list[Parameter], given: dict, env) -> dict:
    """Every parameter's value: given, else from its environment variable, else its default."""
    values = {}
    for p in parameters:
        default = env.get(p.env) or p.default if p.env else p.default
        default = list(default) if p.many else default
        values[p.name] = given.get(p.name, default)
    return values
