"""What can go wrong, in the user's words, and the exit statuses.

Knows nothing of streams or processes: `command.py` prints these and ends with them.
"""

from __future__ import annotations


class Exit(int):  # no enum: importing that takes 4 ms
    """The statuses of every command; the contract in docs/design.md says when."""

    OK: Exit
    NONE: Exit  # nothing found: search, rerank --threshold, classify --only
    ERROR: Exit  # any error, "some records failed" and wrong usage included
    CUT: Exit  # only with --strict: an input or an answer was cut short


Exit.OK, Exit.NONE, Exit.ERROR, Exit.CUT = map(Exit, range(4))


class ToastError(Exception):
    """One line for the user: what is wrong and, in `hint`, what to type next."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        text = f"{self.message} ({self.hint})" if self.hint else self.message
        return " ".join(text.split()) or type(self).__name__


class ignoring:  # noqa: N801  contextlib.suppress, whose module loads what takes 2 ms
    """A block that ends in silence where one of these is raised."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self.kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> bool:
        return kind is not None and issubclass(kind, self.kinds)


class HelpRequested(Exception):
    """Help or the version was asked for: the text goes to standard output, the status is 0."""


class UsageError(ToastError):
    """The command line itself is wrong."""


class BadInput(ToastError):
    """A file or a record cannot be used."""


class BadModel(ToastError):
    """A model's files are incomplete, damaged or of the wrong kind."""


class ModelNotFound(ToastError):
    """No model goes by this name, here or where it would be fetched from."""


def told(error: BaseException) -> str:
    """What another library says; "unexpected" is our own word, for what nobody has thought of."""
    return str(error).replace("unexpected", "wrong")


def not_numbers(name: str) -> BadModel:
    """What this model makes of a text is NaN or infinite."""
    return BadModel(f"{name}: its weights are not numbers, or its config.json is wrong", "fetch or convert it again")


def os_error(error: OSError, what: str) -> BadInput:
    """`cannot WHAT: reason`, e.g. `cannot open notes.txt: No such file or directory`."""
    return BadInput(f"cannot {what}: {error.strerror or error}")
