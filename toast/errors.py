"""What can go wrong, in the user's words, and the exit statuses.

Knows nothing of streams or processes: `command.py` prints these and ends with them.
"""

from __future__ import annotations

from errno import ENAMETOOLONG, ENOENT


class Exit(int):
    """The statuses of every command; the contract in docs/design.md says when.

    No enum: that module takes longer to import than all of ours together."""

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
    """Help ("help") or the version ("version") was asked for: it goes to standard output, the status is 0."""


class UsageError(ToastError):
    """The command line itself is wrong."""


class BadInput(ToastError):
    """A file or a record cannot be used."""


class BadText(BadInput):
    """Some of the texts that were given together cannot be used: `at`, their places. Whoever knows where they come from
    says so by `of`."""

    def __init__(self, at: list[int], what: str, hint: str = ""):
        """what: as it goes on after what the text is called."""
        super().__init__(f"a record{what}", hint)
        self.at, self.what = at, what

    def of(self, where: str) -> BadInput:
        """The same of one of them."""
        return BadInput(f"{where}{self.what}", self.hint)

    def moved(self, by: int, *, each: int = 1) -> BadText:
        """The same of texts that `by` others stand before; `each`: places of a text."""
        return BadText(sorted({by + i // each for i in self.at}), self.what, self.hint)


class NoFile(BadInput):
    """There is no file of this name."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


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


def no_numbers_of(name: str, at: list[int]) -> BadText:
    """The same of some texts alone, such as those with a token that has no numbers."""
    error = not_numbers(name)
    return BadText(at, f": {error.message}", error.hint)


def os_error(error: OSError, what: str) -> BadInput:
    """`cannot WHAT: reason`, e.g. `cannot open notes.txt: No such file or directory`."""
    message = f"cannot {what}: {error.strerror or error}"
    if error.errno in (ENOENT, ENAMETOOLONG) and isinstance(error.filename, str):
        return NoFile(message, error.filename)
    return BadInput(message)
